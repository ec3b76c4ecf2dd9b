"""Images of `lamella compare` on a base image that its user gives, and a registry that is given."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import TYPE_CHECKING

import pytest

import lamella.comparison
from integration.test_compare import base_images, compared, left, prefix, small_debian
from lamella.builder import scan
from lamella.comparison import CompareOptions
from lamella.layers import Silent
from lamella.layers.oci.documents import CONFIG, MANIFEST, Descriptor, ImageConfig, Manifest, Platform
from lamella.layers.registry.repository import Registry
from support.engines import need, need_root
from support.published import Blob, blob

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.comparison import Comparison

pytestmark = [pytest.mark.slow, pytest.mark.engine]
__all__ = ["base_images", "prefix"]

GZIP, ZSTD = "tar+gzip", "tar+zstd"
MAGIC = {b"\x1f\x8b": GZIP, b"\x28\xb5": ZSTD}


@pytest.fixture(scope="module")
def small_image(shared: Path, registry: str) -> str:
    """An image of Debian's Python and a shell, which takes seconds to make and to move."""
    storage = Registry(registry, "small", mirrors=False)
    layer = blob(small_debian(shared).read_bytes()).pushed(storage).descriptor
    # podman builds nothing upon an image without history.
    config = ImageConfig(Platform.here(), (layer.digest,), history=({"created_by": "mmdebstrap"},)).to_json()
    described = Blob(Descriptor.of(CONFIG, config), config).pushed(storage).descriptor
    manifest = Manifest(described, (layer,)).to_json()
    Blob(Descriptor.of(MANIFEST, manifest), manifest).pushed(storage, "1")
    return f"{registry}/small:1"


def layers(storage: Path, repository: str) -> list[str]:
    """The compressions of an image's layers in a registry's storage, which are those that its manifest names."""
    folder = storage / "docker/registry/v2"

    def blob(digest: str) -> bytes:
        algorithm, _, encoded = digest.partition(":")
        return (folder / "blobs" / algorithm / encoded[:2] / encoded / "data").read_bytes()

    (link,) = (folder / "repositories" / repository / "_manifests/tags").glob("*/current/link")
    found = json.loads(blob(link.read_text()))["layers"]
    kinds = [MAGIC[blob(layer["digest"])[:2]] for layer in found]
    assert [layer["mediaType"] for layer in found] == [f"application/vnd.oci.image.layer.v1.{kind}" for kind in kinds]
    return kinds


@pytest.mark.root
def test_podman_pushes_zstd_on_a_given_base_image_also_beside_docker(
    prefix: Path, small_image: str, tmp_path: Path
) -> None:
    need_root()
    need("podman")
    pushed: list[list[str]] = []

    def look(_: Comparison) -> None:
        pushed.extend(
            layers(storage, "podman-uv-zstd") for storage in (tmp_path / "scratch").glob("*/session/registry")
        )

    options = CompareOptions(
        workflows=("podman-uv-zstd",),
        stories=("new",),
        base_image=small_image,
        scratch=str(tmp_path / "scratch"),
    )
    found = lamella.comparison.compare(
        scan(str(prefix)), options, progress=Silent(), note=lambda _line: None, partial=look
    )
    assert [run.failed for run in found.runs] == [None]
    assert (found.workflows[0].title, found.workflows[0].compression) == ("Podman, uv, zstd", "zstd")
    # The base image is there before, as it is.
    assert pushed == [[GZIP, ZSTD, ZSTD]]


def test_a_given_registry_keeps_the_pushed_environment_and_images_are_left_out(
    prefix: Path, registry: str, tmp_path: Path
) -> None:
    flags = ["--workflow=lamella", "--workflow=docker-copy", "--story=new", f"--registry={registry}/team"]
    document = compared(prefix, tmp_path, *flags)
    assert [(run["workflow"], run["failed"], run["registry_bytes"]) for run in document["runs"]] == [
        ("lamella", None, 0)
    ]
    assert document["runs"][0]["uploaded"] > 2_000_000
    assert document["registry"] == {"program": f"{registry}/team", "given": True}
    assert document["workflows"][1]["missing"] == (
        "not with --registry: the base image is in the registry that a comparison starts; omit --registry"
    )
    with urllib.request.urlopen(f"http://{registry}/v2/_catalog") as answer:
        repositories = json.load(answer)["repositories"]
    assert [each for each in repositories if re.fullmatch("team/compare-[0-9a-f]{16}/lamella", each)]
    assert left(tmp_path) == []
