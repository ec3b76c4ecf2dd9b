"""Bundles: many small packages' layers as one, for engines that take about 100.

Which packages share a bundle follows from their names alone, so that a package that changes rebuilds the one small bundle
that it is in, and two environments that differ elsewhere share it.
"""

from __future__ import annotations

import hashlib
import heapq
import tempfile
from typing import TYPE_CHECKING, BinaryIO

from lamella.builder.content.pack import Blob
from lamella.builder.errors import CacheError
from lamella.layers.errors import LayersError
from lamella.layers.tar.decompress import decompressed
from lamella.layers.tar.reader import Archive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lamella.builder.content.pack import Compression, Packed
    from lamella.layers.oci.storage import Reader
    from lamella.layers.tar.reader import Entry as TarEntry

_CHUNK = 1 << 20


def partition(sizes: Sequence[tuple[str, int]], most: int) -> tuple[list[str], list[list[str]]]:
    """Names with a layer of their own, and names by bundle, at most `most` in all; `sizes` are (name, bytes).

    The largest get their own. One layer in six is a bundle: fewer would each be larger, and a change would move more.
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


def merge(members: Iterable[tuple[Reader, str]], out: BinaryIO, compression: Compression, *, scratch: str) -> Packed:
    """Writes the layer that holds what the layers `members` (blob, media type) hold, in the order of paths.

    Folders that several have are there once. Each member is unpacked to a file in `scratch` first: sixty open
    decompressors would take 150 MB.
    """
    blob = Blob(out, compression)
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
                raise CacheError(f"{name.decode('utf-8', 'replace')} is in two packages: one layer can't hold both")
            last = name
            blob.write(archive.raw)
            if entry.kind == "file":
                blob.write_file((bytes(piece) for piece in archive.content()), entry.size)
    except LayersError as error:
        raise CacheError(f"a layer in the cache is damaged: {error}; push again, and it is built anew") from error
    finally:
        for plain in archives:
            plain.close()
    return blob.finish()


def _named(stream: Reader) -> Iterator[tuple[bytes, Archive, TarEntry]]:
    archive = Archive(stream)
    for entry in archive:
        yield entry.path + b"/" if entry.kind == "folder" else entry.path, archive, entry
