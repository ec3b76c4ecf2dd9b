"""The package zstandard inside a zip archive: its compiled module for this Python, or Python's own zstd.

A shared library can't be loaded from an archive. It is copied to a file without a name (memfd), which no other user
can reach and which ends with the process; no folder is needed, and nothing on disk is trusted.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType


def _compiled() -> ModuleType | None:
    """Load the compiled module for this Python, machine and C library, or return None without one."""
    name = f"backend_c.{sys.implementation.cache_tag}-{os.uname().machine}.so"
    try:
        content = __loader__.get_data(os.path.join(os.path.dirname(__file__), name))  # type: ignore[name-defined] # zipimport's
    except OSError:
        return None
    try:
        return _from_memory(content)
    except (OSError, ImportError):
        # No memfd or no /proc, or another C library: then the file has a name for a moment.
        try:
            return _from_disk(content)
        except (OSError, ImportError):
            return None


def _from_memory(content: bytes) -> ModuleType:
    descriptor = os.memfd_create("zstandard")
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        return _extension(f"/proc/self/fd/{descriptor}")


def _from_disk(content: bytes) -> ModuleType:
    from tempfile import TemporaryDirectory

    # A new folder with a random name, open to this user alone.
    with TemporaryDirectory(prefix="lamella-") as folder:
        path = os.path.join(folder, "backend_c.so")
        with open(path, "xb") as file:
            file.write(content)
        return _extension(path)


def _extension(path: str) -> ModuleType:
    spec = ModuleSpec("zstandard.backend_c", ExtensionFileLoader("zstandard.backend_c", path), origin=path)
    module = module_from_spec(spec)
    assert spec.loader
    spec.loader.exec_module(module)
    return module


class _Decompressor:
    """`zstandard.ZstdDecompressor`, as far as Lamella uses it, by compression.zstd."""

    def __init__(self, max_window_size: int = 0) -> None:
        log = _zstd.DecompressionParameter.window_log_max
        self._options = {log: max_window_size.bit_length() - 1} if max_window_size else None

    def stream_reader(self, source: IO[bytes], read_size: int = 1 << 17, **_across_frames: bool) -> _Reader:
        return _Reader(source, read_size, self._options)


class _Reader:
    """Frames that follow one another, as one stream."""

    def __init__(self, source: IO[bytes], read_size: int, options: dict[int, int] | None) -> None:
        self._source, self._read_size, self._options = source, read_size, options
        self._frame = _zstd.ZstdDecompressor(options=options)
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, and none only at the end."""
        while size and not self._ended:
            compressed = b""
            if self._frame.eof:
                compressed = self._frame.unused_data
                self._frame = _zstd.ZstdDecompressor(options=self._options)
            if not compressed and self._frame.needs_input:
                compressed = self._source.read(self._read_size)
                self._ended = not compressed
            if not self._ended and (piece := self._frame.decompress(compressed, size)):
                return bytes(piece)
        return b""


class _Parameters:
    """`zstandard.ZstdCompressionParameters`."""

    def __init__(self, options: dict[int, int]) -> None:
        self.options = options

    @classmethod
    def from_level(cls, level: int, *, threads: int, window_log: int, job_size: int) -> _Parameters:
        names = _zstd.CompressionParameter
        return cls(
            {
                names.compression_level: level,
                names.nb_workers: threads,
                names.window_log: window_log,
                names.job_size: job_size,
            }
        )


class _Compressor:
    """`zstandard.ZstdCompressor`."""

    def __init__(self, level: int = 3, compression_params: _Parameters | None = None) -> None:
        level_alone = {_zstd.CompressionParameter.compression_level: level}
        self._options = compression_params.options if compression_params else level_alone

    def compressobj(self) -> Any:
        return _zstd.ZstdCompressor(options=self._options)

    def stream_writer(self, file: IO[bytes], *, closefd: bool) -> _Writer:
        assert not closefd
        return _Writer(file, self.compressobj())


class _Writer:
    def __init__(self, file: IO[bytes], compressor: Any) -> None:
        self._file, self._compressor = file, compressor

    def __enter__(self) -> _Writer:  # noqa: PYI034 # Self is newer than Python 3.10
        return self

    def __exit__(self, kind: object, *_rest: object) -> None:
        if kind is None:
            self._file.write(self._compressor.flush())

    def write(self, data: bytes) -> int:
        self._file.write(self._compressor.compress(data))
        return len(data)


_found = _compiled()
if _found:
    globals().update((name, value) for name, value in vars(_found).items() if not name.startswith("_"))
else:
    try:
        from compression import zstd as _zstd
    except ImportError:
        from lamella.layers import Unsupported

        _here = f"{sys.implementation.cache_tag} on {os.uname().machine}"
        raise Unsupported(
            f"no zstd for {_here}; use CPython 3.10 or newer with glibc on x86_64 or aarch64, or install Lamella"
        ) from None
    ZstdError = _zstd.ZstdError
    ZstdDecompressor = _Decompressor
    ZstdCompressionParameters = _Parameters
    ZstdCompressor = _Compressor
