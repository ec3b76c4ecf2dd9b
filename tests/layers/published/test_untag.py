"""A tag is taken away, and what it named stays unless it is to go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.layers import copy, tags
from lamella.layers.errors import InvalidReference, LayersError, NotFound, Unsupported
from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import Digest
from lamella.layers.published.untag import untag
from lamella.layers.registry.repository import Registry
from support.distribution import distribution
from support.published import publish, push_environment
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPOSITORY = "team/envs"


@pytest.fixture
def simulator() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as running:
        yield running


@pytest.fixture
def place(simulator: RegistrySimulator) -> str:
    """A repository in which the tags v1 and latest name one environment, and v2 another."""
    registry = Registry(simulator.host, REPOSITORY)
    push_environment(registry, "v1")
    push_environment(registry, "latest")
    push_environment(registry, "v2", packages=[b"other"])
    registry.close()
    return f"{simulator.host}/{REPOSITORY}"


def test_the_tag_goes_and_the_manifest_stays(simulator: RegistrySimulator, place: str) -> None:
    digest = simulator.tags[REPOSITORY]["v1"]
    assert untag(f"{place}:v1").reference == f"{place}:v1@{digest}"
    assert tags(place) == ["latest", "v2"]
    assert digest in simulator.manifests[REPOSITORY]


def test_a_registry_that_deletes_by_digest_alone_loses_the_tag_and_keeps_the_manifest(
    simulator: RegistrySimulator, place: str
) -> None:
    simulator.deletes_tags = False
    before = dict(simulator.manifests[REPOSITORY])
    untag(f"{place}:v1")
    assert set(simulator.tags[REPOSITORY]) == {"latest", "v2"}
    assert simulator.manifests[REPOSITORY] == before, "the manifest that stood in for it is gone, too"


def test_a_registry_without_a_route_for_tags_loses_the_tag_alone(simulator: RegistrySimulator, place: str) -> None:
    simulator.faults.append(Fault("^DELETE .*/manifests/v1", status=404))
    before = dict(simulator.manifests[REPOSITORY])
    untag(f"{place}:v1")
    assert set(simulator.tags[REPOSITORY]) == {"latest", "v2"}
    assert simulator.manifests[REPOSITORY] == before


def test_a_registry_that_deletes_nothing_is_reported_and_keeps_the_tag(
    simulator: RegistrySimulator, place: str
) -> None:
    simulator.deletes_manifests = simulator.deletes_tags = False
    before = dict(simulator.tags[REPOSITORY])
    for manifest in (False, True):
        with pytest.raises(
            Unsupported, match=r"does not delete tags or manifests .* \(405 \(UNSUPPORTED.*DELETE_ENABLED"
        ):
            untag(f"{place}:v2", manifest=manifest)
    assert simulator.tags[REPOSITORY] == before


def test_a_dry_run_removes_nothing(simulator: RegistrySimulator, place: str) -> None:
    before = dict(simulator.tags[REPOSITORY])
    assert untag(f"{place}:v1", dry_run=True).reference.startswith(f"{place}:v1@sha256:")
    assert simulator.tags[REPOSITORY] == before
    assert simulator.asked("^DELETE") == []


def test_the_manifest_goes_on_request_unless_other_tags_name_it(simulator: RegistrySimulator, place: str) -> None:
    digest = simulator.tags[REPOSITORY]["v1"]
    with pytest.raises(LayersError, match=f"^{place}:v1: nothing deleted, since latest would go as well; leave out"):
        untag(f"{place}:v1", manifest=True)
    assert tags(place) == ["latest", "v1", "v2"]
    assert untag(f"{place}:v1", manifest=True, other_tags=True).others == ("latest",)
    assert tags(place) == ["v2"]
    assert digest not in simulator.manifests[REPOSITORY]


def test_a_digest_that_the_tag_no_longer_names_protects_it(place: str) -> None:
    with pytest.raises(LayersError, match="nothing removed, since the tag names sha256:"):
        untag(f"{place}:v1@{Digest.of(b'other')}")
    assert "v1" in tags(place)


def test_latest_is_not_removed_unless_it_is_written(place: str) -> None:
    with pytest.raises(InvalidReference, match=f"{place}: names no tag; write {place}:TAG"):
        untag(place)
    with pytest.raises(InvalidReference, match="names no tag"):
        untag(f"{place}@{Digest.of(b'other')}")
    untag(f"{place}:latest")
    assert tags(place) == ["v1", "v2"]


def test_a_missing_tag_is_reported_with_the_others(place: str) -> None:
    with pytest.raises(NotFound, match="no tag 'v9'; it has latest, v1, v2"):
        untag(f"{place}:v9")


def test_a_registry_that_keeps_the_tag_all_the_same_is_reported(simulator: RegistrySimulator, place: str) -> None:
    simulator.faults.append(Fault("^DELETE", status=202))
    with pytest.raises(LayersError, match="accepted the removal and still has the tag"):
        untag(f"{place}:v1")


def test_the_right_to_delete_is_asked_for(simulator: RegistrySimulator, place: str) -> None:
    simulator.auth = "bearer"
    untag(f"{place}:v1")
    assert "v1" not in simulator.tags[REPOSITORY]


@pytest.mark.engine
def test_docker_registry_loses_the_tag_alone(tmp_path: Path) -> None:
    source = publish(tmp_path / "layout", [{"a": "1"}])
    with distribution() as host:
        for tag in ("v1", "v2"):
            copy(source, f"{host}/{REPOSITORY}:{tag}")
        removed = untag(f"{host}/{REPOSITORY}:v1")
        assert tags(f"{host}/{REPOSITORY}") == ["v2"]
        with pytest.raises(NotFound):
            untag(f"{host}/{REPOSITORY}:v1")
        assert removed.reference.partition("@")[2] == source.partition("@")[2]


def test_a_layout_loses_the_tag_and_keeps_its_blobs(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    made = push_environment(layout, "v1")
    push_environment(layout, "v2")
    blobs = set((tmp_path / "layout/blobs/sha256").iterdir())
    untag(f"oci:{tmp_path}/layout:v1")
    assert layout.tags() == ["v2"]
    assert layout.resolve(str(made.descriptor.digest)) == layout.resolve("v2")
    untag(f"oci:{tmp_path}/layout:v2", manifest=True)
    assert layout.tags() == []
    assert set((tmp_path / "layout/blobs/sha256").iterdir()) == blobs
