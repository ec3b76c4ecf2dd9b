"""Tags of environments, and of everything else."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import InvalidReference, Unreachable
from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import INDEX, Descriptor, Index
from lamella.layers.published.tagged import tagged_environments, tags
from lamella.layers.registry.repository import Registry
from support.published import AMD64, ARM64, Blob, push_environment, push_image, push_index
from support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamella.layers.oci.storage import Storage


@pytest.fixture
def simulator() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as running:
        yield running


def fill(storage: Storage) -> None:
    """Two environments, an image, an index of that image, and tags made of digests."""
    push_environment(storage, "v2")
    push_environment(storage, "v1", packages=[b"other"])
    image = push_image(storage, [b"content"], "image")
    push_index(storage, [image.descriptor], "many")
    push_image(storage, [b"content"], f"sha256-{'0' * 64}.sig")
    push_index(storage, [image.descriptor], f"sha256-{'0' * 64}")


@pytest.mark.parametrize("kind", ["registry", "layout"])
def test_only_environments_are_listed_unless_everything_is_asked_for(
    kind: str, simulator: RegistrySimulator, tmp_path: Path
) -> None:
    reference = f"{simulator.host}/team/envs" if kind == "registry" else f"oci:{tmp_path}/layout"
    storage = (
        Registry(simulator.host, "team/envs")
        if kind == "registry"
        else OciLayout(str(tmp_path / "layout"), create=True)
    )
    fill(storage)
    storage.close()
    assert tags(reference) == ["v1", "v2"]
    derived = [f"sha256-{'0' * 64}", f"sha256-{'0' * 64}.sig"]
    assert tags(reference, everything=True) == ["image", "many", *derived, "v1", "v2"]


def test_an_environment_whose_index_is_lost_is_listed(simulator: RegistrySimulator) -> None:
    registry = Registry(simulator.host, "team/envs")
    fill(registry)
    registry.close()
    del simulator.manifests["team/envs"][simulator.tags["team/envs"]["v1"]]
    assert tags(f"{simulator.host}/team/envs") == ["v1", "v2"]


@pytest.mark.slow
def test_tags_of_a_registry_that_is_down_are_an_error() -> None:
    with RegistrySimulator().serving() as simulator:
        host = simulator.host
    with pytest.raises(Unreachable):
        tags(f"{host}/team/envs")


def test_each_environment_has_its_digest_date_and_platforms(simulator: RegistrySimulator, tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    made = push_environment(layout, "v1", platforms=(AMD64, ARM64))
    path = tmp_path / "layout/blobs/sha256" / made.descriptor.digest.hex
    os.utime(path, (86400, 86400))
    (found,) = tagged_environments(f"oci:{tmp_path}/layout")
    assert (found.tag, found.digest, found.created) == ("v1", made.descriptor.digest, "1970-01-02T00:00:00Z")
    assert found.platforms == ("linux/amd64", "linux/arm64")
    registry = Registry(simulator.host, "team/envs")
    push_environment(registry, "v1", platforms=(AMD64, ARM64))
    registry.close()
    (same,) = tagged_environments(f"{simulator.host}/team/envs")
    assert (same.digest, same.created, same.platforms) == (found.digest, "", found.platforms), (
        "no registry shows a date"
    )


@pytest.mark.parametrize(
    ("created", "shown"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("1980-01-01T00:00:00Z", ""),
        ("\x1b[2J", ""),
    ],
)
def test_the_pusher_s_date_is_shown_unless_it_is_every_push_s(
    simulator: RegistrySimulator, created: str, shown: str
) -> None:
    registry = Registry(simulator.host, "team/envs")
    index = Index.parse(push_environment(registry).content)
    dated = replace(index, annotations={"org.opencontainers.image.created": created}).to_json()
    Blob(Descriptor.of(INDEX, dated), dated).pushed(registry, "v1")
    registry.close()
    assert [each.created for each in tagged_environments(f"{simulator.host}/team/envs")] == [shown]


def test_one_request_is_sent_for_each_tag(simulator: RegistrySimulator) -> None:
    registry = Registry(simulator.host, "team/envs")
    fill(registry)
    registry.close()
    simulator.requests.clear()
    assert [each.tag for each in tagged_environments(f"{simulator.host}/team/envs")] == ["v1", "v2"]
    asked = [each.path.rpartition("/")[2] for each in simulator.asked("GET .*/manifests/")]
    assert sorted(asked) == ["image", "many", "v1", "v2"]


@pytest.mark.parametrize("name", ["oci:images:v1", "localhost:5000/team/envs:v1", f"oci:images@sha256:{'0' * 64}"])
def test_tags_of_one_environment_are_refused_with_the_command_for_its_repository(name: str) -> None:
    place = "oci:images" if name.startswith("oci:") else "localhost:5000/team/envs"
    for everything in (False, True):
        with pytest.raises(
            InvalidReference, match=f"names one environment; list all of them with lamella tags {place}$"
        ):
            tags(name, everything=everything)
