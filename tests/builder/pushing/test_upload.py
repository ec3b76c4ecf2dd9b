"""Uploads run beside the build, and stop it early if they fail."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import CacheError
from lamella.builder.layer.cache import BuiltLayer, LayerCache
from lamella.builder.pushing.upload import Uploads
from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import LAYER_ZSTD, Digest
from lamella.layers.progress.display import Silent

if TYPE_CHECKING:
    from pathlib import Path

MANY = 2_000
"""More layers than any environment has: long before the last of them, the first upload has failed."""


def test_a_build_learns_of_a_failed_upload_before_its_last_layer(tmp_path: Path) -> None:
    uploads = Uploads(OciLayout(str(tmp_path / "layout"), create=True), (), Silent())
    cache = LayerCache(str(tmp_path / "cache"))

    def build() -> None:
        for number in range(MANY):
            # In no cache, so that its upload fails.
            digest = Digest.of(b"%d" % number)
            uploads.layer(BuiltLayer(digest, 1, digest, 1, LAYER_ZSTD), cache)

    with contextlib.closing(uploads), pytest.raises(CacheError, match="removed from the cache during the push"):
        build()


def test_a_blob_that_is_there_is_not_uploaded(tmp_path: Path) -> None:
    digest = Digest.of(b"there")
    uploads = Uploads(OciLayout(str(tmp_path / "layout"), create=True), [str(digest)], Silent())
    uploads.layer(BuiltLayer(digest, 1, digest, 1, LAYER_ZSTD), LayerCache(str(tmp_path / "cache")))
    uploads.wait()
    uploads.close()
    assert (uploads.count, uploads.moved) == (0, 0)
