"""Bundles: the layers of many small packages as one, for engines that accept about 100 layers.

Package names alone decide which packages share a bundle, so that a changed package rebuilds one small
bundle, and two environments that differ in other packages share it.
"""

from __future__ import annotations

import hashlib
import heapq
from typing import TYPE_CHECKING, BinaryIO

from lamella.builder.errors import CacheError
from lamella.layers.errors import LayersError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lamella.builder.content.blob import Compression, LayerBlob, Processors
    from lamella.layers.oci.storage import Reader
    from lamella.layers.tar.reader import Archive
    from lamella.layers.tar.reader import Entry as TarEntry

_CHUNK = 1 << 20


def partition(sizes: Sequence[tuple[str, int]], most: int) -> tuple[list[str], list[list[str]]]:
    """Split packages into layers of their own and bundles, at most `most` in all; `sizes` are (name, bytes).

    The largest get their own. One layer in six is a bundle: fewer bundles would be larger, and a change
    would move more bytes.
    """
    if len(sizes) <= most:
        return sorted(name for name, _ in sizes), []
    buckets = max(1, most // 6)
    ranked = [name for name, _ in sorted(sizes, key=lambda item: (-item[1], item[0]))]
    alone = ranked[: most - buckets]
    bundles: dict[int, list[str]] = {}
    for name in sorted(ranked[most - buckets :]):
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % buckets
        bundles.setdefault(number, []).append(name)
    return sorted(alone), [bundles[number] for number in sorted(bundles)]


def merge(
    members: Iterable[tuple[Reader, str]],
    out: BinaryIO,
    compression: Compression,
    *,
    scratch: str,
    processors: Processors | None = None,
) -> LayerBlob:
    """Write one layer with the content of the layers `members` (blob, media type), sorted by path.

    Shared folders are written once. Each member is unpacked to a file in `scratch` first: sixty open
    decompressors would take 150 MB.
    """
    # Also the module of `partition`, which every push calls.
    import tempfile

    from lamella.builder.content.blob import BlobWriter
    from lamella.layers.tar.decompress import decompressed

    blob = BlobWriter(out, compression, processors)
    archives = []
    try:
        for stream, media_type in members:
            plain = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed below, with all the others
            archives.append(plain)
            tar = decompressed(stream, media_type)
            while chunk := tar.read(_CHUNK):
                plain.write(chunk)
            plain.seek(0)
        last = b""
        for name, archive, entry in heapq.merge(*map(_named, archives), key=lambda item: item[0]):
            if name == last:
                if entry.kind == "folder":
                    continue
                raise CacheError(f"{name.decode('utf-8', 'replace')}: in two packages; one layer cannot hold both")
            last = name
            blob.write(archive.raw)
            if entry.kind == "file":
                blob.write_file((bytes(piece) for piece in archive.content()), entry.size)
    except LayersError as error:
        raise CacheError(f"a layer in the cache is damaged: {error}; push again to rebuild it") from error
    finally:
        for plain in archives:
            plain.close()
    return blob.finish()


def _named(stream: Reader) -> Iterator[tuple[bytes, Archive, TarEntry]]:
    from lamella.layers.tar.reader import Archive

    archive = Archive(stream)
    for entry in archive:
        yield entry.path + b"/" if entry.kind == "folder" else entry.path, archive, entry
