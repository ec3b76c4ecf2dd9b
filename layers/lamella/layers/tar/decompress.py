"""A layer's blob as the bytes of its tar: zstd, gzip or neither, in pieces of bounded size.

Memory stays bounded whatever the blob claims: a piece is never larger than asked for, and a zstd frame with a larger
window than `MAX_WINDOW` is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.layers import text
from lamella.layers.errors import InvalidContent, UnsafeLayer
from lamella.layers.oci.annotations import UNPACKED
from lamella.layers.oci.documents import DOCKER_LAYER_GZIP, LAYER_GZIP, LAYER_TAR, LAYER_ZSTD, Descriptor, Digest
from lamella.layers.oci.values import bounded_decimal

if TYPE_CHECKING:
    import zstandard

    from lamella.layers.oci.storage import Reader

MAX_WINDOW = 32 << 20
"""Bytes of history that one zstd stream may need: what level 20 writes; our own layers need 2 MiB."""

LAYER_TYPES = frozenset({LAYER_ZSTD, LAYER_GZIP, DOCKER_LAYER_GZIP, LAYER_TAR})
"""Media types that `decompressed` reads."""

_PIECE = 1 << 17
_FREE_EXPANSION = 64 << 20
_EXPANSION = 200


def decompressed(stream: Reader, media_type: str) -> Reader:
    """Return the tar in a layer of `media_type`; raise `InvalidContent` for any other type."""
    if media_type == LAYER_ZSTD:
        return _Zstd(stream)
    if media_type in (LAYER_GZIP, DOCKER_LAYER_GZIP):
        return _Gzip(stream)
    if media_type == LAYER_TAR:
        return stream
    raise InvalidContent(f"media type {media_type[:100]!r} is not an OCI layer (tar, tar+gzip or tar+zstd)")


def expansion_limit(blob: Descriptor) -> int:
    """Return the bytes that a layer's tar may have.

    A publisher announces what a layer unpacks to, and a pull has compared that with the disk's room; headers may double it
    for tiny files. Without an announcement: what no honest archive reaches.
    """
    content = bounded_decimal(blob.annotations.get(UNPACKED)) or 0
    return max(2 * content, _EXPANSION * blob.size) + _FREE_EXPANSION


class _Zstd:
    """Frames follow one another as RFC 8878 says; anything else behind the first is an error."""

    def __init__(self, stream: Reader) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._reader: zstandard.ZstdDecompressionReader = decompressor.stream_reader(
            stream,  # type: ignore[arg-type] # wants IO[bytes], uses read() only
            read_size=_PIECE,
            read_across_frames=True,
        )

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._reader.read(size)
        except self._error as error:
            if "too much memory" in str(error):
                raise UnsafeLayer(f"its zstd stream needs a window of more than {MAX_WINDOW >> 20} MiB") from None
            raise InvalidContent(f"its zstd stream is damaged: {error}") from None


class _Gzip:
    """One member and nothing behind it: readers disagree on whether a second one counts."""

    def __init__(self, stream: Reader) -> None:
        import zlib

        self._stream = stream
        self._error = zlib.error
        self._inflate = zlib.decompressobj(wbits=31)
        self._ended = False

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            size = _PIECE
        while not self._inflate.eof:
            source = self._inflate.unconsumed_tail or self._stream.read(_PIECE)
            try:
                piece = self._inflate.decompress(source, size)
            except self._error as error:
                raise InvalidContent(f"its gzip stream is damaged: {error}") from None
            if piece:
                return piece
            if not source:
                raise InvalidContent("its gzip stream ends too early: it was cut short")
        if not self._ended:
            if self._inflate.unused_data or self._stream.read(1):
                raise UnsafeLayer("bytes follow the end of its gzip stream: readers disagree on what they mean")
            self._ended = True
        return b""


class DiffReader:
    """Reads a tar as what `diff_id` names, and refuses to expand beyond `limit` bytes.

    `check` is called at the end: only then is the content known to be right.
    """

    def __init__(self, stream: Reader, diff_id: Digest, limit: int) -> None:
        import hashlib

        self._stream = stream
        self._diff_id = diff_id
        self._limit = limit
        self._hash = hashlib.new(diff_id.algorithm)
        self._count = 0

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""
        piece = self._stream.read(size)
        self._hash.update(piece)
        self._count += len(piece)
        if self._count > self._limit:
            raise UnsafeLayer(f"expands to more than {text.size(self._limit)}, refused as a decompression bomb")
        return piece

    def check(self) -> None:
        """Raises `InvalidContent` unless everything was read and is what the diff_id names."""
        if self._stream.read(1):
            raise InvalidContent("bytes follow the end of its tar")
        if self._hash.hexdigest() != self._diff_id.hex:
            raise InvalidContent(
                f"it unpacks to {self._diff_id.algorithm}:{self._hash.hexdigest()}, and its image says {self._diff_id}: "
                "the image's config does not belong to its layers"
            )
