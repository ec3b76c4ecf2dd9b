"""The environments that a reference names, and which of them a platform gets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import InvalidContent, LayersError, NotFound
from lamella.layers.layout import OciLayout
from lamella.layers.oci.annotations import IMAGE, PACKAGE, PREFIX
from lamella.layers.oci.documents import INDEX, LAYER_TAR, Descriptor, Digest, Index, Platform
from lamella.layers.oci.reference import Reference
from lamella.layers.published import environment as published
from lamella.layers.trust import Trust
from support.published import AMD64, ARM64, Blob, blob, image, push_environment, push_image, push_index

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def layout(tmp_path: Path) -> OciLayout:
    return OciLayout(str(tmp_path / "layout"), create=True)


V1 = Reference(folder="layout", tag="v1")


def test_each_platform_has_its_environment(layout: OciLayout) -> None:
    index = push_environment(layout, platforms=[AMD64, ARM64])
    found = published.read_index(layout, V1, Trust())
    assert found.reference == V1.at(index.descriptor.digest)
    assert [environment.platform for environment in found.environments] == [AMD64, ARM64]
    environment = published.for_platform(found, ARM64)
    assert environment.prefix == "/opt/env"
    assert environment.python == "3.12.4"
    assert environment.glibc == "2.28"
    assert [layer.descriptor.annotations[PACKAGE] for layer in environment.layers] == ["one", "two"]
    assert [layer.diff_id for layer in environment.layers] == list(environment.config.diff_ids)
    assert environment.image
    assert environment.image.platform == ARM64


def test_a_digest_goes_before_a_tag(layout: OciLayout) -> None:
    first = push_environment(layout, packages=[b"first"])
    push_environment(layout, packages=[b"second"])
    pinned = V1.at(first.descriptor.digest)
    assert published.read_index(layout, pinned, Trust()).descriptor == first.descriptor
    assert published.read_index(layout, V1, Trust()).descriptor != first.descriptor


def test_a_platform_that_is_not_there_is_told_with_those_that_are(layout: OciLayout) -> None:
    push_environment(layout, platforms=[AMD64, ARM64])
    found = published.read_index(layout, V1, Trust())
    with pytest.raises(
        LayersError, match="no environment for linux/s390x; use --platform with one of linux/amd64, linux/arm64"
    ):
        published.for_platform(found, Platform("linux", "s390x"))


def test_an_environment_without_a_variant_serves_any(layout: OciLayout) -> None:
    push_environment(layout, platforms=[ARM64])
    assert (
        published.for_platform(published.read_index(layout, V1, Trust()), Platform("linux", "arm64", "v8")).platform
        == ARM64
    )


def test_an_image_of_somebody_else_is_told(layout: OciLayout) -> None:
    manifest = push_image(layout, [b"content"], "v1")
    with pytest.raises(InvalidContent, match=r"not pushed by lamella, its media type is application/vnd\.oci"):
        published.read_index(layout, V1, Trust())
    index = Index((manifest.descriptor,)).to_json()
    Blob(Descriptor.of(INDEX, index), index).pushed(layout, "v1")
    with pytest.raises(InvalidContent, match="an image without packages; push the environment with lamella push"):
        published.read_index(layout, V1, Trust())


def test_a_tag_that_is_not_there_is_told(layout: OciLayout) -> None:
    push_environment(layout, "v2")
    with pytest.raises(NotFound, match=r": no tag 'v1'.*; it has v2"):
        published.read_index(layout, V1, Trust())


@pytest.mark.parametrize("prefix", ["", "opt/env", "/opt/../../etc", "/", "/opt//env", "/opt/./env", "/opt/env\0x"])
def test_an_image_prefix_that_leads_elsewhere_is_refused(layout: OciLayout, prefix: str) -> None:
    push_environment(layout, prefix=prefix)
    with pytest.raises(InvalidContent, match=r"image prefix .* is not an absolute path"):
        published.read_index(layout, V1, Trust())


def test_a_package_manifest_that_is_none_is_refused(layout: OciLayout) -> None:
    thing = blob(b"content").pushed(layout)
    entry = Descriptor(LAYER_TAR, thing.descriptor.digest, thing.descriptor.size, {IMAGE: "sha256:0"})
    index = Index((entry,)).to_json()
    Blob(Descriptor.of(INDEX, index), index).pushed(layout, "v1")
    with pytest.raises(InvalidContent, match="marked as a package manifest, but its media type is"):
        published.read_index(layout, V1, Trust())


def test_an_index_that_calls_an_index_its_environment_is_refused_before_that_is_asked_for(layout: OciLayout) -> None:
    # As one that contains itself would; its own digest nobody can know, so that of nothing stands for it.
    itself = Descriptor(INDEX, Digest.of(b"itself"), 6, {IMAGE: "sha256:0"})
    index = Index((itself,)).to_json()
    Blob(Descriptor.of(INDEX, index), index).pushed(layout, "v1")
    with pytest.raises(
        InvalidContent, match=r"marked as a package manifest, but its media type is application/vnd\.oci\.image\.index"
    ):
        published.read_index(layout, V1, Trust())


def test_what_was_parsed_once_is_not_taken_for_what_was_not_verified(layout: OciLayout, tmp_path: Path) -> None:
    push_environment(layout)
    found = published.read_index(layout, V1, Trust()).environments[0]
    path = tmp_path / "layout/blobs/sha256" / found.descriptor.digest.hex
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"one", b"eno"))
    with pytest.raises(InvalidContent, match="has other content"):
        published.read_index(layout, V1, Trust())


def parts(layout: OciLayout, *prefixes: str) -> None:
    """Pushes an environment of several package manifests, each with one layer and an image prefix."""
    _, runnable = (made.pushed(layout) for made in image([]))
    entries = [replace(runnable.descriptor, platform=AMD64)]
    for number, prefix in enumerate(prefixes):
        layer = blob(b"%d" % number).pushed(layout)
        config, manifest = image([layer.descriptor], annotations={PREFIX: prefix})
        config.pushed(layout)
        entries.append(
            replace(manifest.pushed(layout).descriptor, annotations={IMAGE: str(runnable.descriptor.digest)})
        )
    push_index(layout, entries, "v1")


def test_the_layers_of_several_package_manifests_are_one_environment_s(layout: OciLayout) -> None:
    parts(layout, "/opt/env", "/opt/env", "/opt/env")
    (found,) = published.read_index(layout, V1, Trust()).environments
    assert [layer.diff_id for layer in found.layers] == [Digest.of(b"%d" % number) for number in range(3)]
    assert found.config.diff_ids == tuple(layer.diff_id for layer in found.layers)
    assert found.manifest.layers == tuple(layer.descriptor for layer in found.layers)
    assert len(found.documents) == 6


def test_package_manifests_of_one_environment_that_disagree_are_refused(layout: OciLayout) -> None:
    parts(layout, "/opt/env", "/opt/other")
    with pytest.raises(InvalidContent, match="its package manifests contradict each other"):
        published.read_index(layout, V1, Trust())
