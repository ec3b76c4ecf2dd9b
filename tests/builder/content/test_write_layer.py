from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lamella.builder.content.bytecode import Compiler, modules
from lamella.builder.content.entry import Entry
from lamella.builder.content.package import entries
from lamella.builder.content.write_layer import write_layer
from lamella.builder.errors import CannotBuild, EnvironmentChanged
from lamella.layers.tar import headers
from lamella.layers.tar.reader import Archive
from support import tars
from support.engines import need
from support.packages import SITE, environment, interpreter, package

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lamella.builder.content.blob import Compression, LayerBlob

LONG = "a-folder-with-a-long-name/" * 12 + "x" * 120


def entry(path: str, content: bytes, mode: int = 0o644) -> Entry:
    return Entry(path, mode, len(content), hashlib.sha256(content).hexdigest(), content)


def packed(
    some: Sequence[Entry], compression: Compression = "zstd", *, settled: bool = False
) -> tuple[LayerBlob, bytes]:
    out = io.BytesIO()
    return write_layer(some, (), None, out, compression, settled=settled), out.getvalue()


def tar_of(blob: bytes) -> bytes:
    if blob[:2] == b"\x1f\x8b":
        return gzip.decompress(blob)
    return zstandard.ZstdDecompressor().stream_reader(blob).read()


TWO = (
    entry("opt/env/bin/tool", b"#!/opt/env/bin/python\n", 0o755),
    entry("opt/env/lib/x.txt", b"some text\n"),
    Entry("opt/env/lib/y.txt", 0o777, 0, "", b"", "x.txt"),
)


@pytest.mark.parametrize(
    ("compression", "digest"),
    [
        ("zstd", "23ce4ead12ba63a5e2ce1b0a5330a51df26945d41a09c7cd8893846fb123e766"),
        ("gzip", ""),
    ],
)
def test_the_format_is_golden(compression: Compression, digest: str) -> None:
    """These digests change only together with `key.FORMAT`. gzip's depend on the machine's zlib as well."""
    made, blob = packed(TWO, compression)
    assert made.diff_id.hex == "b25a7bd0dccee557ce1f5b6356bc9e1ae66fc9522ce0efcc9f6fa82c7a97c064"
    assert made.digest.hex == hashlib.sha256(blob).hexdigest()
    assert not digest or made.digest.hex == digest
    assert (made.size, made.unpacked) == (len(blob), 32)
    assert hashlib.sha256(tar_of(blob)).hexdigest() == made.diff_id.hex


def test_every_field_that_tells_machines_apart_is_fixed() -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of(packed(TWO)[1]))) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [
        "opt", "opt/env", "opt/env/bin", "opt/env/bin/tool", "opt/env/lib", "opt/env/lib/x.txt", "opt/env/lib/y.txt"
    ]  # fmt: skip
    assert {(member.uid, member.gid, member.uname, member.gname, member.mtime) for member in members} == {
        (0, 0, "", "", 315619200)
    }
    assert {member.mode for member in members if member.isdir()} == {0o755}
    assert not any(member.pax_headers for member in members)


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "PST8PDT", "<-12>12", "<+14>-14"])
def test_pythons_zip_tools_can_repack_a_layer_in_every_time_zone(tmp_path: Path, zone: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of(packed(TWO)[1]))) as tar:
        tars.extract(tar, tmp_path / "layer")
    program = (
        "import shutil, zipapp\n"
        "shutil.make_archive('made', 'zip', 'layer')\n"
        "zipapp.create_archive('layer/opt/env', 'made.pyz', main='x:main')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, env={"TZ": zone})
    assert {"opt/env/bin/tool", "opt/env/lib/x.txt"} <= set(zipfile.ZipFile(tmp_path / "made.zip").namelist())
    assert "lib/x.txt" in zipfile.ZipFile(tmp_path / "made.pyz").namelist()


@given(
    st.permutations(
        TWO + tuple(entry(f"opt/env/lib/{name}", b"x") for name in ("a", "a-b", "a.py", "A", "é", "a0")[1:])
    )
)
def test_the_order_of_entries_does_not_show(some: list[Entry]) -> None:
    assert packed(some)[0] == packed(sorted(some, key=lambda one: one.path))[0]


@given(
    st.dictionaries(
        st.lists(st.sampled_from(["a", "b", "lib", "é", "x" * 90, "y" * 150, "z" * 255]), min_size=1, max_size=6).map(
            "/".join
        ),
        st.binary(max_size=1500),
        max_size=8,
    )
)
@pytest.mark.slow
def test_our_own_and_pythons_tar_readers_find_the_packed_files(files: dict[str, bytes]) -> None:
    files = {f"{path}/f": content for path, content in files.items()}
    _, blob = packed([entry(path, content) for path, content in files.items()])
    tar = tar_of(blob)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        read = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        assert {name: stream.read() if stream else None for name, stream in read.items()} == files
    ours = {}
    reader = Archive(io.BytesIO(tar))
    for found in reader:
        if found.kind == "file":
            ours[found.path.decode()] = b"".join(map(bytes, reader.content()))
    assert ours == files


def test_names_and_sizes_that_ustar_cannot_hold_have_pax_records(tmp_path: Path) -> None:
    some = [entry(LONG, b"deep"), Entry("link", 0o777, 0, "", b"", LONG)]
    (tmp_path / "tar").write_bytes(tar_of(packed(some)[1]))
    subprocess.run([need("tar"), "-xf", tmp_path / "tar", "-C", tmp_path], check=True)
    assert (tmp_path / "link").read_bytes() == b"deep"
    huge = headers.file_header(b"huge", 0o644, 9 << 30)
    assert next(iter(Archive(io.BytesIO(huge)))).size == 9 << 30


def test_a_path_longer_than_any_system_takes_is_refused() -> None:
    with pytest.raises(CannotBuild, match="at most 4095"):
        packed([entry("x/" * 2100 + "x", b"")])


@pytest.mark.slow
def test_how_a_file_is_read_does_not_show(tmp_path: Path) -> None:
    content = random.Random(2).randbytes(3 << 20) + bytes(5 << 20)
    one = package(tmp_path, "big", {"lib/big": content, "lib/small": "x"})
    streamed = entries(environment(tmp_path, one), one, "/opt/env")
    whole = [entry("opt/env/lib/big", content), entry("opt/env/lib/small", b"x")]
    for compression in ("zstd", "gzip"):
        assert packed(streamed, compression)[0] == packed(whole, compression)[0]


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("now", [b"other content", b"short", b"much longer content"])
def test_a_file_that_changed_after_the_scan_makes_no_layer(tmp_path: Path, now: bytes, settled: bool) -> None:
    one = package(tmp_path, "thing", {"lib/data": b"first content"})
    made = entries(environment(tmp_path, one), one, "/opt/env")
    data = tmp_path / "lib/data"
    scanned = data.stat()
    while data.stat().st_ctime_ns == scanned.st_ctime_ns:
        data.write_bytes(now)
        os.utime(data, ns=(scanned.st_mtime_ns, scanned.st_mtime_ns))
    with pytest.raises(EnvironmentChanged, match="lib/data: changed while it was being packed"):
        packed(made, settled=settled)
    data.unlink()
    with pytest.raises(EnvironmentChanged):
        packed(made, settled=settled)


def test_another_environments_link_to_a_file_does_not_count_as_a_change(tmp_path: Path) -> None:
    """It changes the times of the inode, and the hash then shows that no byte did."""
    one = package(tmp_path, "thing", {"lib/data": b"content"})
    made = entries(environment(tmp_path, one), one, "/opt/env")
    alone = packed(made, settled=True)
    os.link(tmp_path / "lib/data", tmp_path / "linked")
    assert packed(made, settled=True) == alone


def test_only_a_settled_file_is_known_by_its_times(tmp_path: Path) -> None:
    """A change shortly before the scan may have left a later one the same times."""
    one = package(tmp_path, "thing", {"lib/data": b"content"})
    (made,) = entries(environment(tmp_path, one), one, "/opt/env")
    other = [replace(made, digest=hashlib.sha256(b"another").hexdigest())]
    assert packed(other, settled=True) == packed([made])
    with pytest.raises(EnvironmentChanged):
        packed(other)


def test_byte_code_stands_where_its_path_sorts(tmp_path: Path) -> None:
    files = {f"{SITE}/pkg/{name}.py": "a = 1" for name in ("Zed", "__init__", "a")} | {f"{SITE}/pkg/bad.py": "def"}
    one = package(tmp_path, "thing", files)
    made = entries(environment(tmp_path, one), one, "/opt/env")
    out = io.BytesIO()
    with closing(Compiler(interpreter())) as compiler:
        write_layer(made, modules(made, interpreter(), "/opt/env"), compiler, out, "zstd")
    with tarfile.open(fileobj=io.BytesIO(tar_of(out.getvalue()))) as tar:
        names = [f"{member.name}/" if member.isdir() else member.name for member in tar]
    assert names == sorted(names)
    assert [name.rpartition("/")[2].partition(".")[0] for name in names if name.endswith(".pyc")] == [
        "Zed",
        "__init__",
        "a",
    ]


def test_one_process_compiles_for_layer_after_layer(tmp_path: Path) -> None:
    """Starting Python takes longer than compiling most packages."""
    starts = tmp_path / "starts"
    counting = tmp_path / "python"
    counting.write_text(f'#!/bin/sh\necho start >> {starts}\nexec {sys.executable} "$@"\n')
    counting.chmod(0o755)
    by = replace(interpreter(), compiler=str(counting))
    with closing(Compiler(by)) as compiler:
        for name in ("one", "two", "three"):
            one = package(tmp_path / name, name, {f"{SITE}/{name}/__init__.py": "a = 1", f"{SITE}/{name}/z.txt": "z"})
            made = entries(environment(tmp_path / name, one), one, "/opt/env")
            write_layer(made, modules(made, by, "/opt/env"), compiler, io.BytesIO(), "zstd")
    assert starts.read_text() == "start\n"


@pytest.mark.slow
def test_memory_does_not_grow_with_a_files_size(tmp_path: Path) -> None:
    huge = tmp_path / "lib" / "huge"
    huge.parent.mkdir()
    with open(huge, "wb") as stream:
        stream.truncate(256 << 20)
    digest = hashlib.sha256()
    for _ in range(256):
        digest.update(bytes(1 << 20))
    from lamella.builder.environment import File

    file = File("lib/huge", str(huge), 0o644, 256 << 20, digest.hexdigest())
    tracemalloc.start()
    try:
        made = write_layer([Entry("lib/huge", 0o644, file.size, file.digest, file)], (), None, io.BytesIO(), "zstd")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made.unpacked == 256 << 20
    assert peak < 16 << 20
