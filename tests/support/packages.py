"""Environments as values over files of a test's own, without an installer or a scan."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import stat
import sys
from typing import TYPE_CHECKING

from lamella.builder.environment import Environment, File, Interpreter, Package
from lamella.layers.oci.documents import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lamella.builder.environment import Holds, Origin

SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def interpreter(executable: str = sys.executable, *, compiles: bool = True) -> Interpreter:
    """The interpreter that runs the tests; modules ship as source unless it `compiles`."""
    return Interpreter(
        executable=executable,
        version=".".join(map(str, sys.version_info[:3])),
        implementation="cpython",
        cache_tag=sys.implementation.cache_tag or "",
        magic=importlib.util.MAGIC_NUMBER.hex(),
        base_prefix=sys.base_prefix,
        stdlib=SITE.rpartition("/")[0],
        purelib=SITE,
        compiler=executable if compiles else "",
    )


def file(path: Path, name: str, *, holds: Holds = "") -> File:
    """The file or symlink at `path`, which the environment has as `name`."""
    seen = os.lstat(path)
    if stat.S_ISLNK(seen.st_mode):
        return File(name, str(path), 0o777, 0, "", os.readlink(path))
    content = path.read_bytes()
    mode = 0o755 if seen.st_mode & stat.S_IXUSR else 0o644
    digest = hashlib.sha256(content).hexdigest()
    return File(name, str(path), mode, len(content), digest, None, holds, seen.st_mtime_ns, seen.st_ctime_ns)


def package(
    prefix: Path,
    name: str,
    files: Mapping[str, str | bytes],
    *,
    version: str = "1.0",
    origin: Origin = "pypi",
    records: str = "",
    order: Sequence[str] = (),
) -> Package:
    """Writes `files` below `prefix` and gives them as a package; `->` begins a symlink's target, `name*` is executable.

    A file that holds the prefix is marked, as by the scan.
    """
    found = []
    for key in order or files:
        content = files[key]
        inside = key.rstrip("*")
        path = prefix / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        if data.startswith(b"->"):
            path.symlink_to(os.fsdecode(data[2:]))
            found.append(file(path, inside))
            continue
        path.write_bytes(data)
        path.chmod(0o755 if key.endswith("*") else 0o644)
        holds: Holds = "" if os.fsencode(prefix) not in data else "binary" if b"\0" in data else "text"
        found.append(file(path, inside, holds=holds))
    return Package(origin, name, version, tuple(sorted(found, key=lambda each: each.path)), records=records)


def environment(prefix: Path, *packages: Package, compiles: bool = False) -> Environment:
    """An environment at `prefix` for the interpreter that runs the tests.

    It ships no byte code unless it `compiles`: each push would start a process.
    """
    return Environment(
        str(prefix),
        (os.fsencode(prefix),),
        interpreter(compiles=compiles),
        Platform("linux", "amd64"),
        tuple(sorted(packages, key=lambda each: (each.name, each.origin))),
    )
