"""Compress a layer's tar in frames of one size, with both digests, in bounded memory.

Frames are independent, so that several processors can compress one layer, and its bytes are the same
on any number of them. libzstd compresses a whole frame in place: a stream would copy all input into a
window of its own, and search it with a match finder that takes a third longer.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

from lamella.layers.oci.documents import LAYER_GZIP, LAYER_ZSTD, Digest
from lamella.layers.tar import headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from zstandard import ZstdCompressor

Compression = Literal["zstd", "gzip"]

LEVEL = {"zstd": 3, "gzip": 6}
MEDIA_TYPE = {"zstd": LAYER_ZSTD, "gzip": LAYER_GZIP}
FRAME = 4 << 20
"""Bytes of tar in each zstd frame. Part of the layer format. Half as many make layers 1 % larger; twice as
many gain 0.5 % and double the memory of each thread."""
_PENDING = 16
"""Maximum number of a layer's compressed frames that wait for an earlier one."""


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """Compressed tar of a layer."""

    digest: Digest
    size: int
    """Bytes of the blob."""
    diff_id: Digest
    unpacked: int
    """Bytes of the files in it."""


def compression_name(compression: Compression) -> str:
    """Name of the compression in a layer key, with its level, since another level gives other bytes."""
    return f"{compression}:{LEVEL[compression]}"


class Compressors:
    """Buffers and contexts of zstd that serve frame after frame: the system takes long to provide new memory for each."""

    def __init__(self) -> None:
        self._frames: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._contexts: queue.SimpleQueue[ZstdCompressor] = queue.SimpleQueue()

    def frame(self) -> bytearray:
        """Return a buffer of a frame, with any content."""
        try:
            return self._frames.get_nowait()
        except queue.Empty:
            return bytearray(FRAME)

    def give_back(self, frame: bytearray) -> None:
        """Take a buffer that is not in use any more."""
        self._frames.put(frame)

    def compressed(self, frame: memoryview) -> bytes:
        """Return a zstd frame with its content's size, which readers need to decompress it at once, and without a checksum."""
        try:
            context = self._contexts.get_nowait()
        except queue.Empty:
            context = _context()
        compressed: bytes = context.compress(frame)
        self._contexts.put(context)
        return compressed


def _context() -> ZstdCompressor:
    import zstandard

    # threads=0: with 1 or more, libzstd cuts the input into jobs, which gives other bytes.
    return zstandard.ZstdCompressor(
        level=LEVEL["zstd"], threads=0, write_checksum=False, write_content_size=True, write_dict_id=False
    )


class Processors:
    """Processors of a build. A layer occupies one; the frames of a large layer use those that are idle."""

    def __init__(self, count: int) -> None:
        self._idle = threading.Semaphore(count)
        self._pool = ThreadPoolExecutor(count, "lamella-compress")
        self.compressors = Compressors()

    def close(self) -> None:
        """End the threads. Idempotent."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Occupy one processor, once one is idle."""
        with self._idle:
            yield

    def offer(self, work: Callable[[], bytes]) -> Future[bytes] | None:
        """Start `work` on an idle processor; None if all are occupied."""
        if not self._idle.acquire(blocking=False):
            return None
        future = self._pool.submit(work)
        future.add_done_callback(lambda _: self._idle.release())
        return future


class BlobWriter:
    """Compresses a tar's bytes to `out`, the frames of large ones on idle `processors`."""

    def __init__(self, out: BinaryIO, compression: Compression, processors: Processors | None = None) -> None:
        self._out = out
        # zlib's own gzip header has no name, and the time 0.
        self._gzip = zlib.compressobj(LEVEL["gzip"], zlib.DEFLATED, 31) if compression == "gzip" else None
        self._processors = processors
        self._pending: deque[Future[bytes]] = deque()
        self._tar = hashlib.sha256()
        self._blob = hashlib.sha256()
        self._compressors = processors.compressors if processors else Compressors()
        self._frame = self._compressors.frame()
        # Writing to a slice of the array itself would copy the bytes twice.
        self._view = memoryview(self._frame)
        self._end = 0
        self._size = 0
        self._unpacked = 0

    def write(self, data: bytes) -> None:
        """Write headers, padding or content."""
        view = memoryview(data)
        while len(view) >= FRAME - self._end:
            room = FRAME - self._end
            self._view[self._end :] = view[:room]
            self._advance(room)
            view = view[room:]
        self._view[self._end : self._end + len(view)] = view
        self._end += len(view)

    def write_file(self, chunks: Iterable[bytes], size: int) -> None:
        """Write a file's bytes, and fill its last block."""
        for chunk in chunks:
            self.write(chunk)
        self.write(headers.padding(size))
        self._unpacked += size

    def copy_file(
        self, read_into: Callable[[Sequence[memoryview | bytearray]], int], size: int, *, hashes: bool = True
    ) -> str | None:
        """Write the `size` bytes of a file, fill its last block, and return their sha256; empty without `hashes`.

        None if the file is shorter or longer. `read_into` reads its next bytes into buffers, here the
        frame itself: no byte is copied in between.
        """
        seen = hashlib.sha256() if hashes else None
        left, beyond = size, bytearray(1)
        while True:
            part = self._view[self._end : self._end + left]
            read = read_into([part, beyond] if len(part) == left else [part])
            if read > left or (left and not read):
                return None
            if seen:
                seen.update(part[:read])
            self._advance(read)
            left -= read
            if not left:
                break
        self.write(headers.padding(size))
        self._unpacked += size
        return seen.hexdigest() if seen else ""

    def finish(self) -> LayerBlob:
        """Write the end of the tar and of the blob. The caller closes `out`."""
        self.write(headers.END)
        self._compress(self._view[: self._end])
        while self._pending:
            self._put(self._pending.popleft().result())
        if self._gzip:
            self._put(self._gzip.flush())
        self._compressors.give_back(self._frame)
        tar, blob = Digest("sha256", self._tar.hexdigest()), Digest("sha256", self._blob.hexdigest())
        return LayerBlob(blob, self._size, tar, self._unpacked)

    def _advance(self, size: int) -> None:
        self._end += size
        if self._end == FRAME:
            self._compress(self._view)
            self._end = 0

    def _compress(self, frame: memoryview) -> None:
        self._tar.update(frame)
        if self._gzip:
            self._put(self._gzip.compress(frame))
            return
        if not frame:
            return
        self._pending.append(self._offered(frame) or _done(self._compressors.compressed(frame)))
        while self._pending and (self._pending[0].done() or len(self._pending) > _PENDING):
            self._put(self._pending.popleft().result())

    def _offered(self, frame: memoryview) -> Future[bytes] | None:
        """Start to compress the current buffer on an idle processor, and go on with another; None if all are occupied."""
        compressors, buffer = self._compressors, self._frame

        def work() -> bytes:
            compressed = compressors.compressed(frame)
            compressors.give_back(buffer)
            return compressed

        compressed = self._processors.offer(work) if self._processors else None
        if compressed:
            self._frame = compressors.frame()
            self._view = memoryview(self._frame)
        return compressed

    def _put(self, data: bytes) -> None:
        self._blob.update(data)
        self._size += len(data)
        self._out.write(data)


def _done(result: bytes) -> Future[bytes]:
    future: Future[bytes] = Future()
    future.set_result(result)
    return future
