"""Documents that the store remembers by digest."""

from __future__ import annotations

import os
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import InvalidContent
from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import CONFIG, INDEX, MANIFEST, Descriptor
from lamella.layers.pulling.pull import pull
from lamella.layers.store.document_cache import Remembered
from lamella.layers.store.store import Store
from support.published import push_environment

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.layers.oci.storage import Storage


def no_storage() -> Storage:
    raise AssertionError("the storage was opened")


def remembered(store: Path) -> list[str]:
    return [name for _, _, names in os.walk(store / "documents") for name in names]


@pytest.mark.parametrize("content", [b"hello", b"{}", b"[]", b"\xff", b'{"manifests": 5}'])
def test_invalid_index_is_reported_alike_each_time_and_not_remembered(tmp_path: Path, content: bytes) -> None:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    descriptor = Descriptor.of(INDEX, content)
    layout.push(descriptor, partial(BytesIO, content), tag="v1")
    store = Store(str(tmp_path / "store"))
    messages = []
    for _ in range(2):
        with pytest.raises(InvalidContent) as error:
            pull(f"oci:{tmp_path}/layout@{descriptor.digest}", store=store)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert remembered(tmp_path / "store") == []


@pytest.mark.parametrize("media_type", [INDEX, MANIFEST, CONFIG])
def test_no_document_is_remembered_that_does_not_parse(tmp_path: Path, media_type: str) -> None:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    descriptor = Descriptor.of(media_type, b"{}")
    layout.push(descriptor, partial(BytesIO, b"{}"))
    source = Remembered(Store(str(tmp_path / "store")), lambda: layout)
    with pytest.raises(InvalidContent), source.fetch(descriptor):
        pass
    assert remembered(tmp_path / "store") == []


def test_a_document_of_another_kind_left_in_the_store_is_asked_for_again(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    index = push_environment(layout)
    store = Store(str(tmp_path / "store"))
    source = Remembered(store, lambda: layout)
    with source.fetch(index.descriptor) as stream:
        assert stream.read() == index.content
    without_request = Remembered(store, no_storage)
    assert without_request.resolve(str(index.descriptor.digest)) == Descriptor.of(INDEX, index.content)
    hello = Descriptor.of(INDEX, b"hello")
    folder = tmp_path / "store/documents/sha256"
    (folder / hello.digest.hex).write_bytes(b"hello")
    with pytest.raises(AssertionError, match="the storage was opened"):
        without_request.resolve(str(hello.digest))
