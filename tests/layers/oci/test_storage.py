"""What every storage holds to, shown for each; and what stands between them and the engine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.layers.errors import InvalidContent, NotFound
from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import LAYER_TAR, Descriptor, Digest
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import Storage, VerifiedReader, fetch_document
from lamella.layers.registry.repository import Registry
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage
from support.distribution import distribution
from support.published import AMD64, ARM64, Blob, blob, push_environment, push_image
from support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamella.layers.oci.storage import Reader


@pytest.fixture(scope="module")
def debians() -> Iterator[str]:
    with distribution() as host:
        yield host


@pytest.fixture(params=["layout", pytest.param("distribution", marks=pytest.mark.engine), "simulator"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "layout":
        yield OciLayout(str(tmp_path / "layout"), create=True)
    elif request.param == "distribution":
        # A repository of its own for each test.
        name = f"{request.node.originalname}/{abs(hash(request.node.name))}"
        registry = Registry(request.getfixturevalue("debians"), name)
        yield registry
        registry.close()
    else:
        with RegistrySimulator().serving() as simulator:
            registry = Registry(simulator.host, "team/envs")
            yield registry
            registry.close()


def read(storage: Storage, descriptor: Descriptor, size: int = 1000) -> bytes:
    with storage.fetch(descriptor) as stream:
        return b"".join(iter(lambda: stream.read(size), b""))


def test_a_missing_tag_is_reported_with_the_first_tags_that_people_made(storage: Storage) -> None:
    for number in range(12):
        push_image(storage, [b"content"], f"v{number:02}")
    for tag in (f"sha256-{'0' * 64}", f"sha256-{'0' * 64}.sig"):
        push_image(storage, [b"content"], tag)
    with pytest.raises(NotFound, match=r": no tag 'nope'.*; it has v00, v01, .*, v09 and 2 more$"):
        storage.resolve("nope")


@pytest.mark.parametrize("content", [b"", b"content", b"x" * 3_000_001])
def test_pushed_content_is_fetched(storage: Storage, content: bytes) -> None:
    thing = blob(content).pushed(storage)
    assert storage.exists(thing.descriptor)
    assert read(storage, thing.descriptor, 100_000) == content


def test_pushing_again_changes_nothing(storage: Storage) -> None:
    first = push_environment(storage, "v1", [AMD64, ARM64])
    again = push_environment(storage, "v1", [AMD64, ARM64])
    assert storage.resolve("v1") == first.descriptor == again.descriptor
    assert storage.tags() == ["v1"]


def test_a_manifest_is_found_by_tag_and_by_digest(storage: Storage) -> None:
    manifest = push_image(storage, [b"content"], "v1")
    assert storage.exists(manifest.descriptor)
    for name in ("v1", str(manifest.descriptor.digest)):
        descriptor = storage.resolve(name)
        assert descriptor == manifest.descriptor
        assert fetch_document(storage, descriptor) == manifest.content


def test_missing_content_is_absent_and_not_found(storage: Storage) -> None:
    push_image(storage, [b"content"], "v1")
    other = blob(b"other")
    assert not storage.exists(other.descriptor)
    with pytest.raises(NotFound):
        read(storage, other.descriptor)
    with pytest.raises(NotFound, match=r": no tag 'v2'.*; it has v1"):
        storage.resolve("v2")
    with pytest.raises(NotFound):
        storage.resolve(str(other.descriptor.digest))


def test_other_content_than_the_descriptors_is_refused(storage: Storage) -> None:
    push_image(storage, [b"one"])
    thing = Blob(blob(b"content").descriptor, b"CONTENT")
    with pytest.raises(InvalidContent, match="has other content"):
        thing.pushed(storage)
    assert not storage.exists(thing.descriptor)


def test_a_descriptor_with_another_size_is_refused(storage: Storage) -> None:
    thing = blob(b"content").pushed(storage)
    for size in (6, 8):
        wrong = Descriptor(LAYER_TAR, thing.descriptor.digest, size)
        with pytest.raises(
            InvalidContent, match=f"({'is longer than its' if size < 7 else 'before its'}|should have) {size}"
        ):
            read(storage, wrong)


def test_many_threads_push_and_fetch_at_once(storage: Storage) -> None:
    things = [blob(b"%d" % number * 1000) for number in range(50)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda thing: thing.pushed(storage), things))
        contents = list(threads.map(lambda thing: read(storage, thing.descriptor), things))
    assert contents == [thing.content for thing in things]


def test_two_pushers_of_one_tag_leave_it_naming_one_of_them_whole(storage: Storage) -> None:
    with ThreadPoolExecutor(2) as threads:
        made = list(threads.map(lambda content: push_environment(storage, "v1", packages=[content]), [b"a", b"b"]))
    descriptor = storage.resolve("v1")
    assert descriptor in [thing.descriptor for thing in made]
    assert len(fetch_document(storage, descriptor)) == descriptor.size


# What stands between


class _Dripping:
    """Gives its content in pieces of given sizes."""

    def __init__(self, content: bytes, piece: int) -> None:
        self._stream = BytesIO(content)
        self._piece = piece

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(self._piece if size < 0 else min(self._piece, size))


@given(st.binary(max_size=200), st.integers(1, 50), st.integers(1, 50))
def test_a_verified_reader_gives_what_the_digest_names(content: bytes, piece: int, size: int) -> None:
    reader = VerifiedReader(_Dripping(content, piece), Descriptor.of(LAYER_TAR, content))
    assert b"".join(iter(lambda: reader.read(size), b"")) == content


@given(st.binary(min_size=1, max_size=200), st.integers(0, 199), st.integers(1, 50))
def test_a_verified_reader_never_hands_out_the_end_of_wrong_content(content: bytes, place: int, size: int) -> None:
    place %= len(content)
    wrong = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    for bad in (wrong, content[:-1], content + b"x"):
        reader = VerifiedReader(BytesIO(bad), Descriptor.of(LAYER_TAR, content))
        handed_out: list[bytes] = []
        with pytest.raises(InvalidContent):
            handed_out.extend(iter(partial(reader.read, size), b""))
        assert len(b"".join(handed_out)) < len(content)


def test_a_digest_of_sha512_is_verified_as_such() -> None:
    import hashlib

    digest = Digest("sha512", hashlib.sha512(b"content").hexdigest())
    assert VerifiedReader(BytesIO(b"content"), Descriptor(LAYER_TAR, digest, 7)).read() == b"content"


def test_a_document_of_a_gigabyte_is_not_asked_for() -> None:
    class Untouched:
        @contextmanager
        def fetch(self, descriptor: Descriptor) -> Iterator[Reader]:
            raise AssertionError(descriptor)
            yield

    huge = Descriptor(LAYER_TAR, Digest.of(b""), 1 << 30)
    with pytest.raises(InvalidContent, match=r"is a document of 1\.1 GB: at most 4\.2 MB"):
        fetch_document(Untouched(), huge)


def test_a_reference_opens_the_storage_that_it_names(tmp_path: Path) -> None:
    assert isinstance(open_storage(Reference.parse(f"oci:{tmp_path}/layout:v1"), Trust(), create=True), OciLayout)
    registry = open_storage(Reference.parse("localhost:1/team/envs:v1"), Trust())
    assert isinstance(registry, Registry)
    registry.close()
