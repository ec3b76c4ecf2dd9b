"""The single file reads and writes zstd on a Python that it has no compiled module for, by Python's own zstd."""

from __future__ import annotations

import io
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import zstandard

from lamella.layers import Unsupported
from lamella.layers.tar.decompress import MAX_WINDOW
from node_part.part import STAND_INS
from support.engines import missing

CONTENT = b"".join(number.to_bytes(4, "big") for number in range(100_000))


@pytest.fixture(scope="module")
def standard_library(tmp_path_factory: pytest.TempPathFactory) -> types.ModuleType:
    """Python's own zstd; before 3.14, its backport."""
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd
    folder = tmp_path_factory.mktemp("backport")
    uv = Path(sys.executable).with_name("uv")
    install = [str(uv), "pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", str(folder)]
    done = subprocess.run([*install, "backports-zstd"], check=False, capture_output=True, text=True)
    if done.returncode:
        missing(f"backports-zstd cannot be installed: {done.stderr.strip()}")
    sys.path.insert(0, str(folder))
    try:
        from backports import zstd  # type: ignore[import-not-found,unused-ignore] # installed above

        found: types.ModuleType = zstd
    finally:
        sys.path.remove(str(folder))
    return found


@pytest.fixture
def stand_in(standard_library: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    package = types.ModuleType("compression")
    package.zstd = standard_library  # type: ignore[attr-defined] # the submodule
    monkeypatch.setitem(sys.modules, "compression", package)
    monkeypatch.setitem(sys.modules, "compression.zstd", standard_library)
    return loaded()


def loaded() -> Any:
    """The stand-in, in a folder without compiled modules."""

    class Loader:
        def get_data(self, path: str) -> bytes:
            raise FileNotFoundError(path)

    module = types.ModuleType("zstandard")
    vars(module).update(__loader__=Loader(), __file__="/archive/zstandard/__init__.py")
    exec((STAND_INS / "zstandard.py").read_text(), vars(module))
    return module


def read_all(reader: Any, size: int) -> bytes:
    pieces = iter(lambda: reader.read(size), b"")
    found = list(pieces)
    assert max(map(len, found), default=0) <= size
    return b"".join(found)


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_stream_is_read_in_pieces_of_bounded_size(stand_in: Any, size: int) -> None:
    content = CONTENT if size > 1 else CONTENT[:5000]
    blob = zstandard.ZstdCompressor().compress(content)
    reader = stand_in.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(io.BytesIO(blob), read_size=100)

    assert read_all(reader, size) == content


def test_frames_that_follow_one_another_are_one_stream(stand_in: Any) -> None:
    blob = b"".join(zstandard.ZstdCompressor().compress(part) for part in (b"one", b"", CONTENT))
    for read_size in (1, 1 << 17):
        reader = stand_in.ZstdDecompressor().stream_reader(io.BytesIO(blob), read_size=read_size)
        assert read_all(reader, 1 << 17) == b"one" + CONTENT


def test_bytes_behind_the_last_frame_are_an_error(stand_in: Any) -> None:
    blob = zstandard.ZstdCompressor().compress(b"content") + b"more"
    reader = stand_in.ZstdDecompressor().stream_reader(io.BytesIO(blob), read_across_frames=True)

    with pytest.raises(stand_in.ZstdError):
        read_all(reader, 100)


def test_frame_with_a_larger_window_than_allowed_is_refused_as_by_zstandard(stand_in: Any) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    blob = compressor.compress(CONTENT) + compressor.flush()
    reader = stand_in.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(io.BytesIO(blob))

    with pytest.raises(stand_in.ZstdError, match="too much memory"):
        reader.read(1)


def test_frames_that_it_writes_are_read_by_zstandard(stand_in: Any) -> None:
    file = io.BytesIO()
    with stand_in.ZstdCompressor(level=1).stream_writer(file, closefd=False) as writer:
        assert writer.write(CONTENT) == len(CONTENT)
    parameters = stand_in.ZstdCompressionParameters.from_level(3, threads=2, window_log=21, job_size=1 << 20)
    compressor = stand_in.ZstdCompressor(compression_params=parameters).compressobj()
    blob = compressor.compress(CONTENT) + compressor.flush()

    for written in (file.getvalue(), blob):
        assert zstandard.ZstdDecompressor().decompressobj().decompress(written) == CONTENT


def test_python_without_any_zstd_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression", None)

    with pytest.raises(Unsupported, match=r"no zstd for .*; use CPython 3\.10 or newer"):
        loaded()
