from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from lamella.builder.content.blob import BlobWriter, LayerBlob
from lamella.builder.errors import CacheError
from lamella.builder.layer.cache import BuiltLayer, LayerCache, Learned
from lamella.layers.oci.documents import LAYER_ZSTD, Digest
from support.engines import need_root
from support.processes import started

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "ab" * 32


def writing(content: bytes) -> Callable[[BinaryIO], LayerBlob]:
    def write(out: BinaryIO) -> LayerBlob:
        blob = BlobWriter(out, "zstd")
        blob.write_file([content], len(content))
        return blob.finish()

    return write


def learned(place: str, key: str = "") -> BuiltLayer:
    return BuiltLayer(Digest.of(b"x"), 1, Digest.of(b"y"), 2, LAYER_ZSTD, Learned(place, key))


def files(path: Path) -> list[str]:
    return sorted(os.path.relpath(entry, path) for entry in path.rglob("*") if entry.is_file())


def test_an_added_layer_is_found_by_its_key_in_another_process(tmp_path: Path) -> None:
    built = LayerCache(str(tmp_path)).add(KEY, LAYER_ZSTD, writing(b"content"))
    again = LayerCache(str(tmp_path))
    assert again.find(KEY) == built
    path = again.blob_path(built)
    assert path
    with open(path, "rb") as stream:
        assert Digest.of(stream.read()) == built.digest
    assert again.find("cd" * 32) is None


def test_a_learned_layer_has_no_blob(tmp_path: Path) -> None:
    cache = LayerCache(str(tmp_path))
    built = learned("registry/team/envs")
    cache.learn(KEY, built)
    assert cache.find(KEY, "registry/team/envs") == built
    assert cache.blob_path(built) is None


def test_a_learned_layer_is_found_with_its_source_and_only_for_its_place(tmp_path: Path) -> None:
    cache = LayerCache(str(tmp_path))
    cache.learn(KEY, learned("registry/team/envs", "fingerprint"))
    found = cache.find(KEY, "registry/team/envs")
    assert found
    assert found.learned == Learned("registry/team/envs", "fingerprint")
    assert cache.find(KEY) is None
    assert cache.find(KEY, "registry/other/envs") is None


def test_a_layer_built_here_is_preferred_to_a_learned_one(tmp_path: Path) -> None:
    cache = LayerCache(str(tmp_path))
    built = cache.add(KEY, LAYER_ZSTD, writing(b"content"))
    cache.learn(KEY, learned("registry/team/envs"))
    found = cache.find(KEY, "registry/team/envs")
    assert found == built
    assert found.learned is None


def test_a_record_of_an_earlier_version_counts_as_absent(tmp_path: Path) -> None:
    """It does not say whether the layer was built here."""
    cache = LayerCache(str(tmp_path))
    cache.add(KEY, LAYER_ZSTD, writing(b"content"))
    (record,) = (tmp_path / "layers/keys").rglob("*.json")
    value = json.loads(record.read_text())
    del value["source"]
    record.write_text(json.dumps(value))
    assert cache.find(KEY) is None


def test_a_layer_that_could_not_be_built_leaves_nothing(tmp_path: Path) -> None:
    def fail(out: BinaryIO) -> LayerBlob:
        out.write(b"half a layer")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        LayerCache(str(tmp_path)).add(KEY, LAYER_ZSTD, fail)
    assert files(tmp_path) == []


@pytest.mark.root
def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    need_root()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(CacheError, match=r"no space left for the layer cache; free some, or set LAMELLA_CACHE"):
            LayerCache(str(tmp_path)).add(KEY, LAYER_ZSTD, writing(os.urandom(4 << 20)))
        assert files(tmp_path) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_cache_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "layers").write_text("")
    cache = LayerCache(str(tmp_path))
    with pytest.raises(CacheError, match=r"cannot be read: Not a directory; set LAMELLA_CACHE"):
        cache.find(KEY)
    with pytest.raises(CacheError, match="cannot be written"):
        cache.add(KEY, LAYER_ZSTD, writing(b"x"))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"digest": "x"}', '{"digest": 1, "size": "a"}'])
def test_a_damaged_record_is_as_good_as_none(tmp_path: Path, damage: str) -> None:
    cache = LayerCache(str(tmp_path))
    cache.add(KEY, LAYER_ZSTD, writing(b"content"))
    (record,) = (tmp_path / "layers/keys").rglob("*.json")
    record.write_text(damage)
    assert cache.find(KEY) is None


def test_a_blob_of_another_size_is_not_there(tmp_path: Path) -> None:
    cache = LayerCache(str(tmp_path))
    built = cache.add(KEY, LAYER_ZSTD, writing(b"content"))
    path = cache.blob_path(built)
    assert path
    with open(path, "ab") as stream:
        stream.write(b"more")
    assert cache.blob_path(built) is None


_WRITE = """
import os, sys, signal
from lamella.builder.layer.cache import LayerCache
def write(out):
    out.write(b"half a layer"); out.flush()
    print("ready", flush=True)
    signal.pause()
LayerCache(sys.argv[1]).add("ef" * 32, "x", write)
"""


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITE, str(tmp_path)]
    old = time.time() - 3600
    with (
        started(command, stdout=subprocess.PIPE) as killed,
        started(command, stdout=subprocess.PIPE) as living,
    ):
        for process in (killed, living):
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        killed.kill()
        killed.wait()
        partial = tmp_path / "layers" / "partial"
        for path in partial.iterdir():
            os.utime(path, (old, old))
        assert len(list(partial.iterdir())) == 2
        LayerCache(str(tmp_path)).add(KEY, LAYER_ZSTD, writing(b"content"))
        assert len(list(partial.iterdir())) == 1


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAMELLA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert LayerCache().path == f"{tmp_path}/xdg/lamella/layers"
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "own"))
    assert LayerCache().path == f"{tmp_path}/own/layers"


def test_a_partial_file_that_a_sweep_takes_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a laptop that slept between the two calls."""
    made = tempfile.mkstemp
    taken: list[str] = []

    def swept(**options: Any) -> tuple[int, str]:
        descriptor, path = made(**options)
        if not taken:
            taken.append(path)
            os.unlink(path)
        return descriptor, path

    monkeypatch.setattr(tempfile, "mkstemp", swept)
    cache = LayerCache(str(tmp_path))
    cache.keep_note("name", b"content")
    assert cache.note("name") == b"content"
    assert taken
