"""Reading an entry yields the scanned bytes, or an error before the last of them."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from lamella.builder.content.entry import CHUNK, Entry, Rewritten, read_entry, read_rewritten
from lamella.builder.environment import File
from lamella.builder.errors import EnvironmentChanged
from lamella.layers.relocation.rewrite import rewrite

if TYPE_CHECKING:
    from pathlib import Path


def scanned(path: Path, content: bytes) -> File:
    """A file as the scan saw it."""
    path.write_bytes(content)
    return File(path.name, str(path), 0o644, len(content), hashlib.sha256(content).hexdigest())


def received(entry: Entry) -> bytes:
    """Everything that `read` gives before it fails, as it has to."""
    chunks: list[bytes] = []
    with pytest.raises(EnvironmentChanged, match="changed while it was being packed"):
        chunks.extend(read_entry(entry))
    return b"".join(chunks)


@pytest.mark.parametrize("size", [1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_file_of_the_same_size_and_other_bytes_never_ships_whole(tmp_path: Path, size: int) -> None:
    """A packer that counts bytes would finish an entry of the announced size before it sees the error."""
    file = scanned(tmp_path / "data", bytes(size))
    (tmp_path / "data").write_bytes(b"\1" * size)
    assert len(received(Entry("opt/env/data", 0o644, size, file.digest, file))) < size


@pytest.mark.parametrize("now", [0, 99, 101, 3 * CHUNK])
def test_a_file_of_another_size_never_ships_with_the_announced_one(tmp_path: Path, now: int) -> None:
    file = scanned(tmp_path / "data", bytes(100))
    (tmp_path / "data").write_bytes(bytes(now))
    assert len(received(Entry("opt/env/data", 0o644, 100, file.digest, file))) < 100


@pytest.mark.parametrize("digest_of", [b"x = '/opt/env'\n", b"x = '/opt/new'\n"])
def test_a_rewritten_file_ships_whole_only_if_its_result_is_the_announced_one(tmp_path: Path, digest_of: bytes) -> None:
    result = b"x = '/opt/env'\n"
    file = scanned(tmp_path / "data.py", b"x = '/srv/env'\n")
    rewritten = Rewritten(file, prefixes=(b"/srv/env",), image_prefix="/opt/env", holds="text")
    entry = Entry("opt/env/data.py", 0o644, len(result), hashlib.sha256(digest_of).hexdigest(), rewritten)
    if digest_of == result:
        assert b"".join(read_entry(entry)) == result
    else:
        assert len(received(entry)) < len(result)


@pytest.mark.parametrize("prefix", ["/srv/env", "/srv/my env", f"/srv/{'x' * 130}"])
@pytest.mark.parametrize("first", ["#!/opt/env/bin/python3.11\n", "#!/opt/env/bin/python3.11 -E -s\n", "# text\n"])
def test_what_an_export_wrote_for_its_prefix_is_read_as_it_was_shipped(tmp_path: Path, prefix: str, first: str) -> None:
    """As CPython's lib/python3.11/config-*/python-config.py, a text outside bin with a first line for Python."""
    shipped = f"{first}prefix = '/opt/env'\n".encode()
    exported = rewrite(shipped, {"kind": "text"}, b"/opt/env", prefix.encode())
    file = scanned(tmp_path / "python-config.py", exported)
    again = Rewritten(file, prefixes=(prefix.encode(),), image_prefix="/opt/env", holds="text")
    assert b"".join(read_rewritten(again)) == shipped


@pytest.mark.parametrize("target", ["/srv/its env", f"/srv/{'y' * 130}"])
def test_a_trampoline_stays_for_a_prefix_that_no_first_line_can_name(tmp_path: Path, target: str) -> None:
    content = b"#!/bin/sh\n'''exec' \"/srv/my env/bin/python3.11\" \"$0\" \"$@\"\n' '''\n"
    file = scanned(tmp_path / "tool.py", content)
    again = Rewritten(file, prefixes=(b"/srv/my env",), image_prefix=target, holds="text")
    assert b"".join(read_rewritten(again)) == content.replace(b"/srv/my env", target.encode())


def test_a_trampoline_for_another_python_stays(tmp_path: Path) -> None:
    content = b"#!/bin/sh\n'''exec' \"/srv/other env/bin/python\" \"$0\" \"$@\"\n' '''\nprefix = '/srv/env'\n"
    file = scanned(tmp_path / "tool.py", content)
    again = Rewritten(file, prefixes=(b"/srv/env",), image_prefix="/opt/env", holds="text")
    assert b"".join(read_rewritten(again)) == content.replace(b"/srv/env", b"/opt/env")


def test_a_file_that_is_gone_is_reported_as_changed(tmp_path: Path) -> None:
    file = scanned(tmp_path / "data", b"content")
    os.unlink(file.source)
    assert received(Entry("opt/env/data", 0o644, file.size, file.digest, file)) == b""
