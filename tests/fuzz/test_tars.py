"""Tars with anything in them: an accepted tar is the same to every reader."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from datetime import datetime

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from lamella.layers.errors import InvalidContent, UnsafeLayer
from lamella.layers.tar.reader import Archive
from support import tars
from support.engines import need

pytestmark = pytest.mark.slow

NAMES = st.sampled_from([b"opt", b"opt/env", b"opt/env/lib", b"opt/env/lib/a.py", b"f", b"opt/" + b"n" * 90])
JUNK = st.sampled_from(
    [
        b"\0",
        b" ",
        b"/",
        b".",
        b"0",
        b"7",
        b"8",
        b"x",
        b"\x80",
        b"\xff",
        b"\n",
        b"-1",
        b"\0x",
        b"..",
        b"./",
        b"0 1",
        b"root",
        b"\0" * 8,
    ]
)
FIELDS = [
    0,
    1,
    5,
    99,
    100,
    107,
    108,
    115,
    116,
    123,
    124,
    130,
    135,
    136,
    147,
    156,
    157,
    256,
    257,
    263,
    265,
    297,
    329,
    337,
    345,
    499,
    500,
    511,
]
RECORDS = st.dictionaries(
    st.sampled_from(
        [b"path", b"linkpath", b"size", b"mtime", b"uid", b"gid", b"uname", b"atime", b"comment", b"hdrcharset"]
    ),
    st.one_of(
        NAMES,
        st.sampled_from(
            [b"0", b"3", b"600", b"1.5", b"-1", b"", b"+3", b"3 ", b"0x3", b"1e3", b"a\nb", b"\xff", b"UTF-8"]
        ),
    ),
    max_size=3,
)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """A tar of a few entries, with bytes of its headers changed and their checksums made right again."""
    blocks = []
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.integers(0, 2)) == 0 and (records := draw(RECORDS)):
            blocks.append(tars.pax(records))
        name = draw(NAMES)
        blocks.append(
            draw(
                st.sampled_from(
                    [
                        tars.folder(name + b"/"),
                        tars.file(name, b"x" * draw(st.sampled_from([0, 3, 600]))),
                        tars.symlink(name, b"target"),
                        tars.hardlink(name, b"f"),
                    ]
                )
            )
        )
    tar = bytearray(b"".join(blocks) + tars.END)
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        start = draw(st.integers(0, len(tar) // 512 - 1)) * 512
        at = start + draw(st.sampled_from(FIELDS))
        # GNU tar's listing pads its columns with spaces: names must not begin with one.
        junk = draw(JUNK).lstrip(b" ") if at % 512 in (0, 345) else draw(JUNK)
        tar[at : at + len(junk)] = junk
    del tar[len(tar) - len(tar) % 512 :]
    for start in range(0, len(tar) - 511, 512):
        block = tar[start : start + 512]
        if block[257:262] == b"ustar":
            tar[start + 148 : start + 156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
    return bytes(tar)


KINDS = {"-": "file", "d": "folder", "l": "symlink", "h": "hardlink"}


@given(archives())
def test_an_accepted_tar_has_the_same_entries_for_gnu_tar_and_tarfile(tar: bytes) -> None:
    try:
        ours = [(entry.path, entry.kind, entry.size, entry.mtime) for entry in Archive(io.BytesIO(tar))]
    except (InvalidContent, UnsafeLayer):
        return
    event("accepted")
    assert [each[:3] for each in ours] == by_tarfile(tar)
    assert ours == by_gnu_tar(tar)


def by_tarfile(tar: bytes) -> list[tuple[bytes, str, int]]:
    kinds = {
        tarfile.REGTYPE: "file",
        tarfile.AREGTYPE: "file",
        tarfile.DIRTYPE: "folder",
        tarfile.SYMTYPE: "symlink",
        tarfile.LNKTYPE: "hardlink",
    }
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return [(normal(os.fsencode(each.name)), kinds[each.type], each.size) for each in archive]


def by_gnu_tar(tar: bytes) -> list[tuple[bytes, str, int, int]]:
    command = [
        need("tar"),
        "--list",
        "--verbose",
        "--full-time",
        "--numeric-owner",
        "--utc",
        "--quoting-style=escape",
        "--absolute-names",
    ]
    done = subprocess.run(command, input=tar, capture_output=True, check=False, env={"LC_ALL": "C.UTF-8"})
    assert (done.returncode, done.stderr) == (0, b"")
    found = []
    for line in done.stdout.splitlines():
        listed = re.fullmatch(rb"(\S+) +\S+ +(\d+) (\S+) (\S+) +(.*)", line)
        assert listed, line
        mode, size, day, time, name = listed.groups()
        kind = KINDS[mode[:1].decode()]
        name = name.split(b" -> ")[0] if kind == "symlink" else name.split(b" link to ")[0]
        # Escapes as in C, such as \n and \303\274.
        name = name.decode("unicode_escape", "surrogateescape").encode("latin-1") if b"\\" in name else name
        moment = datetime.fromisoformat(f"{day.decode()}T{time.decode().partition('.')[0]}+00:00")
        found.append((normal(name), kind, int(size) if kind == "file" else 0, int(moment.timestamp())))
    return found


def normal(name: bytes) -> bytes:
    name = name.rstrip(b"/")
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    return b"" if name == b"." else name
