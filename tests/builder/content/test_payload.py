from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import subprocess
import sys
import zipapp
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.builder.content.entry import read_entry
from lamella.builder.content.package import entries
from lamella.builder.content.payload import Payload
from lamella.builder.scanning.prefix_findings import unrewritten
from lamella.layers.relocation.rewrite import rewrite
from support.packages import environment, package

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PREFIXES = ("p", "a-prefix-of-forty-characters-or-so", "x" * 120)
SOURCE = "import pkgutil\nprint(pkgutil.get_data('data', 'note.txt').decode())\n"


def zipapp_of(first: bytes, *, data: bytes = b"found", comment: bytes = b"", zip64: bool = False) -> bytes:
    """An archive behind `first`, as `python -m zipapp`, shiv and pex write it: offsets count from the file's start."""
    out = io.BytesIO()
    out.write(first)
    with zipfile.ZipFile(out, "a") as archive:
        for name, content in (("__main__.py", SOURCE.encode()), ("data/__init__.py", b""), ("data/note.txt", data)):
            with archive.open(zipfile.ZipInfo(name, (1980, 1, 2, 0, 0, 0)), "w", force_zip64=zip64) as member:
                member.write(content)
        archive.comment = comment
    return out.getvalue()


def shipped(prefix: Path, files: Mapping[str, str | bytes], image_prefix: str = "/opt/env") -> dict[str, bytes]:
    """Content by path of a package of `files`, for an image at `image_prefix`."""
    thing = package(prefix, "thing", files)
    made = {}
    for entry in entries(environment(prefix, thing), thing, image_prefix):
        content = b"".join(read_entry(entry))
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.size, entry.digest)
        made[entry.path.removeprefix(f"{image_prefix[1:]}/")] = content
    return made


def output(tmp_path: Path, content: bytes, command: str = sys.executable) -> str:
    """Standard output of a script of `content`, run by `command`."""
    path = tmp_path / "script"
    path.write_bytes(content)
    path.chmod(0o755)
    return subprocess.run([command, path], check=True, capture_output=True, text=True, cwd=tmp_path).stdout.strip()


@pytest.mark.parametrize(
    "make",
    [
        lambda python: zipapp_of(b"#!%s\n" % python),
        lambda python: zipapp_of(b"#!%s -sE\n" % python, comment=b"a comment" * 99),
        lambda python: zipapp_of(b"#!%s\n" % python, zip64=True),
        lambda python: zipapp_of(b"#!/bin/sh\n'''exec' \"%s\" \"$0\" \"$@\"\n' '''\n" % python),
        lambda python: zipapp_of(
            b"#!%s\n" % python, data=b"found" + random.Random(1).randbytes(5 << 20).hex().encode()
        ),
        lambda python: b"#!%s\n" % python + zipapp_of(b""),
    ],
    ids=["zipapp", "with a comment", "zip64", "trampoline", "over 4 MiB", "offsets from the archive's start"],
)
@pytest.mark.slow
def test_a_script_with_a_zip_archive_runs_at_any_prefix(tmp_path: Path, make: Callable[[bytes], bytes]) -> None:
    for image in ("/e", "/srv/" + "longer/" * 12 + "env"):
        made = set()
        for name in PREFIXES:
            prefix = tmp_path / name / image[1:4]
            made.add(shipped(prefix, {"bin/app*": make(os.fsencode(prefix / "bin/python3"))}, image)["bin/app"])
        (ships,) = made
        assert f"{image}/bin/python".encode() in ships
        assert output(tmp_path, ships).startswith("found")
        with zipfile.ZipFile(io.BytesIO(ships)) as archive:
            assert archive.testzip() is None


def test_an_archive_that_python_itself_made_runs(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/__main__.py").write_text("print('found')\n")
    zipapp.create_archive(tmp_path / "source", tmp_path / "app", f"{tmp_path}/env/bin/python", compressed=True)
    content = (tmp_path / "app").read_bytes()
    assert output(tmp_path, shipped(tmp_path / "env", {"bin/app*": content})["bin/app"]) == "found"


@pytest.mark.parametrize("target", ["/e", "/srv/" + "longer/" * 12 + "env"])
def test_a_node_moves_a_script_with_a_zip_archive(tmp_path: Path, target: str) -> None:
    prefix = tmp_path / "env"
    content = zipapp_of(f"#!{prefix}/bin/python\n# {prefix}/share\n".encode())
    ships = shipped(prefix, {"bin/app*": content})
    (listed,) = json.loads(ships[".lamella/relocate/pypi-thing.json"])["files"]
    assert listed == {"kind": "text", "path": "bin/app", "payload": "zip"}
    moved = rewrite(ships["bin/app"], listed, b"/opt/env", target.encode())
    assert f"# {target}/share\n".encode() in moved
    assert output(tmp_path, moved) == "found"
    assert rewrite(moved, listed, target.encode(), b"/opt/env") == ships["bin/app"]


EXTRACTING = b"""#!/bin/sh
PREFIX="%s"
URL=file://%s/share
tail -c +%d "$0" | tr 'A-Za-z\\0' 'N-ZA-Mn-za-m.'
exit
"""


def extracting(prefix: Path) -> bytes:
    """A script that finds its data by the number of bytes before it, as makeself's do."""
    where = os.fsencode(prefix)
    text = EXTRACTING % (where, where, len(EXTRACTING) + 2 * len(where))
    return EXTRACTING % (where, where, len(text) + 1) + b"sbhaq\0\1\2"


def test_a_script_finds_its_data_by_the_number_of_bytes_before_it(tmp_path: Path) -> None:
    prefix = tmp_path / "a-prefix-that-is-long-enough"
    content = extracting(prefix)
    assert output(tmp_path, content, "/bin/sh") == "found.\x01\x02"
    for path in ("bin/installer*", "share/installer"):
        ships = shipped(prefix, {path: content})
        made = ships[path.rstrip("*")]
        assert len(made) == len(content)
        assert os.fsencode(prefix) not in made
        assert output(tmp_path, made, "/bin/sh") == "found.\x01\x02"
        assert os.path.normpath(made.split(b'"')[1]) == b"/opt/env"
        (listed,) = json.loads(ships[".lamella/relocate/pypi-thing.json"])["files"]
        moved = rewrite(made, listed, b"/opt/env", b"/srv/an/environment")
        assert output(tmp_path, moved, "/bin/sh") == "found.\x01\x02"
        assert os.path.normpath(moved.split(b'"')[1]) == b"/srv/an/environment"


def test_a_first_line_before_other_data_keeps_its_length(tmp_path: Path) -> None:
    content = b"#!%s/bin/python -E\nimport sys\n__END__\0\1\2" % os.fsencode(tmp_path)
    made = shipped(tmp_path, {"bin/app*": content})["bin/app"]
    assert len(made) == len(content)
    assert os.path.normpath(made[2:].split(b" ")[0]) == b"/opt/env/bin/python"
    assert made.endswith(b" -E\nimport sys\n__END__\0\1\2")


def test_a_script_without_room_for_the_image_prefix_ships_as_it_is_with_a_finding(tmp_path: Path) -> None:
    image = "/opt/" + "long" * 99
    content = extracting(tmp_path) + bytes(4096)
    named = b"#!/usr/bin/python3\n__END__\0" + bytes(4096)
    thing = package(tmp_path, "thing", {"bin/installer*": content, "bin/named*": named})
    env = environment(tmp_path, thing)
    made = {entry.path.rpartition("/")[2]: b"".join(read_entry(entry)) for entry in entries(env, thing, image)}
    assert made == {"installer": content, "named": named}
    first, second = unrewritten([thing], str(tmp_path), env.prefixes, image)
    assert first.message.startswith(f"bin/installer holds the prefix in {len(os.fsencode(tmp_path))} bytes, and needs ")
    assert second.message.startswith("bin/named names its Python in 16 bytes, and needs ")
    assert second.message.endswith(f"; it ships as it is; shorten the image prefix ({image})")


def test_the_prefix_inside_an_archive_is_a_finding(tmp_path: Path) -> None:
    files = {
        "bin/reads*": zipapp_of(b"#!%s/bin/python\n" % os.fsencode(tmp_path), data=b"\n%s\n" % os.fsencode(tmp_path)),
        "bin/fine*": zipapp_of(b"#!%s/bin/python\n" % os.fsencode(tmp_path)),
    }
    thing = package(tmp_path, "thing", files)
    (found,) = unrewritten([thing], str(tmp_path), environment(tmp_path).prefixes, "/opt/env")
    assert found.message.startswith(f"bin/reads: cannot find its data on nodes: {tmp_path} is compiled in")


@given(
    st.binary(min_size=40, max_size=60),
    st.lists(
        st.tuples(st.integers(10, 30), st.binary(min_size=1, max_size=8)), max_size=3, unique_by=lambda f: f[0] // 9
    ),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_the_sizes_of_reads_do_not_show(content: bytes, fields: list[tuple[int, bytes]], cuts: list[int]) -> None:
    fields = [field for at, field in enumerate(sorted(fields)) if not at or sorted(fields)[at - 1][0] + 8 <= field[0]]
    payload = Payload("zip", 10, b"text", tuple(fields))
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    chunks = [content[start:end] for start, end in itertools.pairwise(edges)]
    assert b"".join(payload.shipped(chunks)) == b"".join(payload.shipped([content]))


@pytest.mark.parametrize(
    "end", [b"PK\5\6", b"PK\5\6" + bytes(18), b"PK\1\2" + bytes(90) + b"PK\5\6" + b"\xff" * 16 + bytes(2)]
)
def test_data_that_only_looks_like_an_archive_keeps_its_place(tmp_path: Path, end: bytes) -> None:
    content = b"#!%s/bin/python\n\0data" % os.fsencode(tmp_path) + end
    made = shipped(tmp_path, {"bin/app*": content})["bin/app"]
    assert (len(made), made[-len(end) :]) == (len(content), end)
