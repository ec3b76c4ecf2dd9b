"""The environments that a reference names, and which of them a platform gets."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import InvalidContent, LayersError, NotFound
from lamella.layers.layout import OciLayout
from lamella.layers.oci.annotations import DRIVERS, GLIBC, IMAGE, PACKAGE, PREFIX
from lamella.layers.oci.documents import INDEX, LAYER_TAR, MANIFEST, Descriptor, Digest, Index, Manifest, Platform
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.published import environment as published
from lamella.layers.settings.trust import Trust
from support.published import AMD64, ARM64, Blob, blob, image, push_environment, push_image, push_index

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from lamella.layers.oci.storage import Reader


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


def test_missing_platform_is_reported_with_the_existing_platforms(layout: OciLayout) -> None:
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


def test_an_image_without_its_index_is_named_with_the_copy_that_takes_all(layout: OciLayout) -> None:
    manifest = push_image(layout, [b"content"], "v1")
    with pytest.raises(
        InvalidContent,
        match=r"an image for linux/amd64 without an index of packages; .* lamella copy SOURCE .*; else push .* lamella push",
    ):
        published.read_index(layout, V1, Trust())
    environment = Index.parse(push_environment(layout, "whole").content)
    layout.push(
        packed := replace(environment.manifests[1], annotations={}, platform=None),
        lambda: BytesIO(fetch_document(layout, packed)),
        tag="v1",
    )
    with pytest.raises(InvalidContent, match="the package manifest of an environment, without its index; if a tool"):
        published.read_index(layout, V1, Trust())
    artifact = replace(Manifest.parse(manifest.content), artifact_type="application/vnd.example.\x1b").to_json()
    Blob(Descriptor.of(MANIFEST, artifact), artifact).pushed(layout, "v1")
    with pytest.raises(
        InvalidContent, match=r"an artifact of type application/vnd\.example\.\\x1b, not an environment"
    ):
        published.read_index(layout, V1, Trust())
    index = Index((manifest.descriptor,)).to_json()
    Blob(Descriptor.of(INDEX, index), index).pushed(layout, "v1")
    with pytest.raises(
        InvalidContent, match=r"an index of 1 image without package manifests; .* lamella copy SOURCE .*; else push"
    ):
        published.read_index(layout, V1, Trust())


def test_missing_tag_is_reported(layout: OciLayout) -> None:
    push_environment(layout, "v2")
    with pytest.raises(NotFound, match=r": no tag 'v1'.*; it has v2"):
        published.read_index(layout, V1, Trust())


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "opt/env",
        "/opt/../../etc",
        "/",
        "/opt//env",
        "/opt/./env",
        "/opt/env\x1b[2J",
        "/opt/my env",
        "/opt/env:/bin",
        "/opt" * 33,
        "/" + "x" * 256,
        "/" + "/".join(["x" * 200] * 6),
    ],
)
def test_an_image_prefix_that_leads_elsewhere_is_refused(layout: OciLayout, prefix: str) -> None:
    push_environment(layout, prefix=prefix)
    with pytest.raises(InvalidContent, match="not an image prefix; use an absolute path such as /opt/env"):
        published.read_index(layout, V1, Trust())


def test_invalid_package_manifest_is_refused(layout: OciLayout) -> None:
    thing = blob(b"content").pushed(layout)
    entry = Descriptor(LAYER_TAR, thing.descriptor.digest, thing.descriptor.size, {IMAGE: "sha256:0"})
    index = Index((entry,)).to_json()
    Blob(Descriptor.of(INDEX, index), index).pushed(layout, "v1")
    with pytest.raises(InvalidContent, match="marked as a package manifest, but its media type is"):
        published.read_index(layout, V1, Trust())


def test_an_index_that_names_an_index_as_its_environment_is_refused_unread(layout: OciLayout) -> None:
    # An index that contains itself would do so. Its digest can't be known: another one stands for it.
    itself = Descriptor(INDEX, Digest.of(b"itself"), 6, {IMAGE: "sha256:0"})
    index = Index((itself,)).to_json()
    Blob(Descriptor.of(INDEX, index), index).pushed(layout, "v1")
    with pytest.raises(
        InvalidContent, match=r"marked as a package manifest, but its media type is application/vnd\.oci\.image\.index"
    ):
        published.read_index(layout, V1, Trust())


def test_a_parsed_document_does_not_stand_for_one_that_was_not_verified(layout: OciLayout, tmp_path: Path) -> None:
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


class Counting:
    """A storage that counts how often each document is fetched."""

    def __init__(self, storage: OciLayout) -> None:
        self._storage = storage
        self.fetched: Counter[Digest] = Counter()

    def resolve(self, name: str) -> Descriptor:
        return self._storage.resolve(name)

    def tags(self) -> list[str]:
        return self._storage.tags()

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...] | None:
        return self._storage.referrers(digest)

    def fetch(self, descriptor: Descriptor) -> AbstractContextManager[Reader]:
        self.fetched[descriptor.digest] += 1
        return self._storage.fetch(descriptor)


def test_of_many_platforms_only_the_documents_of_one_are_fetched(layout: OciLayout) -> None:
    push_environment(layout, platforms=[AMD64, ARM64, Platform("linux", "s390x")])
    counting = Counting(layout)
    found = published.read_index(counting, V1, Trust(), ARM64)
    assert [environment.platform for environment in found.environments] == [ARM64]
    assert list(counting.fetched.values()) == [1, 1, 1]  # index, package manifest, its config
    with pytest.raises(LayersError, match="use --platform with one of linux/amd64, linux/arm64, linux/s390x"):
        published.for_platform(published.read_index(layout, V1, Trust(), AMD64), ARM64)


def test_a_platform_of_no_environment_costs_the_index_alone(layout: OciLayout) -> None:
    push_environment(layout, platforms=[AMD64, ARM64])
    counting = Counting(layout)
    found = published.read_index(counting, V1, Trust(), Platform("linux", "riscv64"))
    assert not found.environments
    assert sum(counting.fetched.values()) == 1


def test_an_environment_for_another_platform_than_the_index_says_is_refused(layout: OciLayout) -> None:
    _, runnable = (made.pushed(layout) for made in image([]))
    _config, manifest = (made.pushed(layout) for made in image([], annotations={PREFIX: "/opt/env"}))
    described = replace(manifest.descriptor, annotations={IMAGE: str(runnable.descriptor.digest)})
    push_index(layout, [replace(runnable.descriptor, platform=ARM64), described], "v1")
    with pytest.raises(InvalidContent, match="contradict each other"):
        published.read_index(layout, V1, Trust(), ARM64)


def marked(layout: OciLayout, count: int, image_of: Callable[[int], str], layers: int = 1) -> None:
    """Push an index that lists one package manifest `count` times, each time as that of an image."""
    layer = blob(b"content").pushed(layout)
    config, manifest = image([layer.descriptor] * layers, annotations={PREFIX: "/opt/env"})
    config.pushed(layout)
    manifest.pushed(layout)
    entries = [replace(manifest.descriptor, annotations={IMAGE: image_of(number)}) for number in range(count)]
    push_index(layout, entries, "v1")


def test_a_package_manifest_that_is_listed_twice_is_refused(layout: OciLayout) -> None:
    marked(layout, 2, lambda _: "sha256:0")
    with pytest.raises(InvalidContent, match=r"lists the package manifest sha256:.* twice"):
        published.read_index(layout, V1, Trust())


def test_a_package_manifest_of_many_environments_is_fetched_once(layout: OciLayout) -> None:
    marked(layout, published.MAX_ENVIRONMENTS, lambda number: f"sha256:{number}")
    counting = Counting(layout)
    published.read_index(counting, V1, Trust())
    assert set(counting.fetched.values()) == {1}


def test_more_environments_than_there_are_platforms_are_refused_unread(layout: OciLayout) -> None:
    marked(layout, published.MAX_ENVIRONMENTS + 1, lambda number: f"sha256:{number}")
    counting = Counting(layout)
    with pytest.raises(InvalidContent, match="has 65 environments; at most 64 are read"):
        published.read_index(counting, V1, Trust())
    assert sum(counting.fetched.values()) == 1


def test_the_layers_of_all_environments_together_are_bounded(layout: OciLayout) -> None:
    marked(layout, 3, lambda number: f"sha256:{number}", layers=published.MAX_LAYERS // 3 + 1)
    with pytest.raises(InvalidContent, match="has more than 20,000 layers; refused"):
        published.read_index(layout, V1, Trust())


@pytest.mark.parametrize(
    ("need", "text", "problem"),
    [
        (GLIBC, "9" * 5000, "not a version of glibc"),
        (GLIBC, "2.x", "not a version of glibc"),
        (DRIVERS, "a " * 300, "not a list of up to 256 libraries"),
        (DRIVERS, "../etc/passwd", "not a list of up to 256 libraries"),
    ],
)
def test_a_need_that_no_machine_can_be_checked_for_is_refused(
    layout: OciLayout, need: str, text: str, problem: str
) -> None:
    _config, manifest = (made.pushed(layout) for made in image([], annotations={PREFIX: "/opt/env", need: text}))
    push_index(layout, [replace(manifest.descriptor, annotations={IMAGE: "sha256:0"})], "v1")
    with pytest.raises(InvalidContent, match=problem):
        published.read_index(layout, V1, Trust())


def test_package_manifests_of_one_environment_that_disagree_are_refused(layout: OciLayout) -> None:
    parts(layout, "/opt/env", "/opt/other")
    with pytest.raises(InvalidContent, match="its package manifests contradict each other"):
        published.read_index(layout, V1, Trust())
