"""An environment's files on this disk against those of its mount. Nothing here asks the scan: the disk is walked.

Allowed differences are canonical forms in docs/reference/layer-format.md and exclusions in docs/reference/findings.md; each rule
below is one of theirs.
"""

from __future__ import annotations

import base64
import csv
import functools
import hashlib
import os
import re
import stat
import subprocess
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.engines import need

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

IMAGE_PREFIX = b"/opt/env"
LEFT_OUT = [
    r"(.*/)?__pycache__/.*",
    r"\.lock|CACHEDIR\.TAG|\.gitignore|lib64",
    r"bin/([Aa]ctivate.*|deactivate.*|pydoc\.bat)",
    r".*/EXTERNALLY-MANAGED",
    r"lib/python[\d.]+/(test|idlelib/idle_test|lib2to3/tests|unittest/test|distutils/tests|sqlite3/test|ctypes/test|tkinter/test)/.*",
    r"lib/python[\d.]+/config-.*/libpython.*",
    r".*/(INSTALLER|REQUESTED|uv_cache\.json|uv_build\.json|direct_url\.json)",
    r"conda-meta/(history|pixi.*|\.conda-lock)|pkgs/.*|envs/.*",
]
"""Files on the disk and never in a mount."""
ADDED = [
    r".*/__pycache__/[^/]+\.pyc",
    r"\.lamella/.*",
    r"lib/system/.*",
    r"bin/(python|python3|python3\.\d+|pip|pip3|pip3\.\d+)",
    r"lib/python[\d.]+/dist-packages",
    r"conda-meta/history",
]
"""Files in a mount and not on the disk."""
_REWRITTEN = r"pyvenv\.cfg|conda-meta/.*\.json|.*\.dist-info/RECORD"
_IMPORT = re.compile(rb"^\s*from ([\w.]+) import (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Disk:
    """An environment on this disk."""

    roots: Sequence[tuple[str, str]]
    """Folder, and where in the environment its files belong; of two files for one path, the first counts."""
    prefixes: Sequence[str]
    """Paths that are rewritten to the image prefix, the longest first."""
    left_out: Sequence[str] = ()
    """More patterns of files that are left out of this one."""
    elsewhere: str = ""
    """A prefix that others share: files added from it are the same there."""
    conda: bool = False
    skipped: Sequence[str] = field(default=())
    """Folders below the roots that another root has, or that are not part of the environment."""


def differences(disk: Disk, mounted: Path) -> Iterator[str]:
    """Files that differ in the mount, and files in the mount only."""
    source = dict(_walk(disk))
    found = {path: str(mounted / path) for path, _ in _walk(Disk([(str(mounted), "")], []))}
    left_out = re.compile("|".join([*LEFT_OUT, *disk.left_out]))
    added = re.compile("|".join(ADDED))
    points = dict(_entry_points(source))
    for path, at in sorted(source.items()):
        here = path in found
        if left_out.fullmatch(path) or (path.endswith(".pyc") and path[:-1] in source):
            # What a conda package has of pip's metadata, conda-build put there.
            if here and not added.fullmatch(path) and not (disk.conda and path.endswith("/INSTALLER")):
                yield f"{path} is there, and should be left out"
        elif not here:
            if not _is_second(path, source):
                yield f"{path} is missing"
        elif said := _different(path, at, found[path], disk, points):
            yield f"{path} {said}"
    for path, at in sorted(found.items()):
        if path in source or added.fullmatch(path) or "lib/system/" in _target(at):
            continue
        twin = os.path.join(disk.elsewhere, path) if disk.elsewhere else ""
        if not (twin and os.path.isfile(twin) and not _different(path, twin, at, disk, points)):
            yield f"{path} came from nowhere"


def _walk(disk: Disk) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for root, under in disk.roots:
        if os.path.isfile(root):
            seen.add(under)
            yield under, root
            continue
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if os.path.join(folder, name) not in disk.skipped]
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in (*names, *links):
                at = os.path.join(folder, name)
                path = os.path.normpath(os.path.join(under, os.path.relpath(at, root)))
                if path not in seen:
                    seen.add(path)
                    yield path, at


def _target(path: str) -> str:
    return os.readlink(path) if os.path.islink(path) else ""


def _is_second(path: str, source: Mapping[str, str]) -> bool:
    """Whether it is metadata of a project that has newer metadata beside it: only metadata in use ships."""
    match = re.match(r"(.*/)([^/]+)\.egg-info(/|$)", path)
    name = match and re.sub(r"[-_.]+", "-", match[2].partition("-")[0]).lower()
    others = {re.match(r".*?([^/]+?)-[^/]*\.dist-info/METADATA", other) for other in source} if match else ()
    return name in {re.sub(r"[-_.]+", "-", other[1]).lower() for other in others if other}


def _entry_points(source: Mapping[str, str]) -> Iterator[tuple[str, tuple[bytes, bytes]]]:
    """Name to module and function, as the metadata on the disk says."""
    for path, at in source.items():
        if path.endswith("-info/entry_points.txt"):
            for name, module, function in re.findall(rb"(?m)^\s*([^\s=\[]+)\s*=\s*([\w.]+)\s*:\s*(\w+)", _bytes(at)):
                yield os.fsdecode(name), (module, function)


def _different(path: str, source: str, mounted: str, disk: Disk, points: Mapping[str, tuple[bytes, bytes]]) -> str:
    """How the mounted file differs from what should have become of the one on disk; empty for not at all."""
    if os.path.islink(source) and os.path.isdir(source):
        return "" if os.path.isdir(mounted) else "is not a directory"
    if not os.path.exists(mounted):
        return "is a link to nothing"
    wanted = 0o755 if os.stat(source).st_mode & stat.S_IXUSR else 0o644
    mode = os.stat(mounted).st_mode & 0o777
    if mode != wanted and not (path.startswith("bin/") and mode == 0o755):
        return f"has mode {mode:o}, and {wanted:o} is meant"
    if path.endswith("/RECORD"):
        return _wrong_record(mounted)
    if re.fullmatch(_REWRITTEN, path):
        return ""
    before, after = _bytes(source), _bytes(mounted)
    if before == after or _shipped(before, disk) == after:
        return ""
    if path.startswith("bin/") and before[:2] == b"#!":
        return _different_script(before, after, points.get(os.path.basename(path)))
    if before[:4] == b"\x7fELF" and (path.startswith(("bin/python", "lib/libpython")) or "/lib-dynload/" in path):
        return "" if _code(before) == _code(after) else "is another program"
    return f"has other bytes: {len(before)} on the disk, {len(after)} in the mount"


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _shipped(data: bytes, disk: Disk) -> bytes:
    """`data` with the image prefix where the environment's own is."""
    for prefix in map(os.fsencode, disk.prefixes):
        if b"\0" not in data:
            data = re.sub(re.escape(prefix) + rb"(?![\w.+-])", IMAGE_PREFIX, data)
        elif disk.conda:
            string = re.compile(re.escape(prefix) + rb"(?![\w.+-])[^\0]*")
            data = string.sub(functools.partial(_padded, prefix), data)
    return data


def _padded(prefix: bytes, found: re.Match[bytes]) -> bytes:
    string = found[0]
    return string.replace(prefix, IMAGE_PREFIX).ljust(len(string), b"\0")


def _different_script(before: bytes, after: bytes, point: tuple[bytes, bytes] | None) -> str:
    """An installer's program for an entry point has one text; any other keeps all but its first line."""
    first, _, rest = after.partition(b"\n")
    if first.split()[0] != b"#!" + IMAGE_PREFIX + b"/bin/python":
        return f"begins with {first!r}"
    # conda keeps the entry points of its packages to itself: only the program that it wrote says them.
    meant = [point] if point else _IMPORT.findall(before)
    if rest != before.partition(b"\n")[2] and _IMPORT.findall(after) != meant:
        return "is another script"
    return ""


def _wrong_record(mounted: str) -> str:
    """A RECORD names the mounted files, with their hashes."""
    site = os.path.dirname(os.path.dirname(mounted))
    with open(mounted, encoding="utf-8", newline="") as rows:
        for name, digest, _ in csv.reader(rows):
            path = os.path.join(site, name)
            if not os.path.exists(path):
                return f"names {name}, which is not there"
            actual = base64.urlsafe_b64encode(hashlib.sha256(_bytes(path)).digest()).decode().rstrip("=")
            if digest and digest != f"sha256={actual}":
                return f"has another hash of {name}"
    return ""


def _code(data: bytes) -> bytes:
    """What an ELF file does, without where it looks for its libraries."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "elf")
        with open(path, "wb") as file:
            file.write(data)
        sections = [f"--only-section={name}" for name in (".text", ".rodata", ".data", ".init_array")]
        subprocess.run([need("objcopy"), "-O", "binary", *sections, path, f"{path}.code"], check=True)
        return _bytes(f"{path}.code")


def roots_of_base(facts: Mapping[str, str]) -> list[tuple[str, str]]:
    """The interpreter's own folders and files, which stand in the environment on a node. `facts` are sysconfig's paths."""
    short = facts["short"]
    base = facts["base"]
    roots = [(facts["stdlib"], f"lib/python{short}"), (facts["include"], f"include/python{short}")]
    names = sorted(os.listdir(f"{base}/lib"))
    roots += [
        (f"{base}/lib/{name}", f"lib/{name}")
        for name in names
        if name.startswith((f"libpython{short}.so", "libpython3.so"))
    ]
    beside = ("tcl", "tk", "itcl", "thread")
    if base != "/usr":
        roots += [(f"{base}/lib/{name}", f"lib/{name}") for name in names if name.startswith(beside)]
    return [(root, path) for root, path in roots if os.path.exists(root)]
