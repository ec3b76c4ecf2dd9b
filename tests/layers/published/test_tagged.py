"""Tags of environments, and of everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import Unreachable
from lamella.layers.layout import OciLayout
from lamella.layers.published.tagged import tags
from lamella.layers.registry.repository import Registry
from support.published import push_environment, push_image, push_index
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


def test_tags_of_a_registry_that_is_down_are_an_error() -> None:
    with RegistrySimulator().serving() as simulator:
        host = simulator.host
    with pytest.raises(Unreachable):
        tags(f"{host}/team/envs")
