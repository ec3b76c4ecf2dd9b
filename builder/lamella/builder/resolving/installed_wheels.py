"""Pack an installed pure distribution as the wheel that it came from, for another platform.

A distribution from a repository, or published as source alone, has no wheel on an index. If its own wheel had the tag
`none-any`, the installed files are right everywhere: byte code, scripts of entry points and installers' notes are left out,
and a layer made of the result is the one that a push of the environment itself makes.

Sources: PyPA specifications, "Binary distribution format" and "Recording installed projects".
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import zipfile
from typing import TYPE_CHECKING

from lamella.builder.content.metadata import DIRECT_URL, DROPPED, RECORD
from lamella.builder.content.scripts import entry_points
from lamella.builder.errors import BuilderError
from lamella.builder.files.small_file import read_small
from lamella.builder.installed.record import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.builder.resolving.model import InstalledDistribution

_OLDEST = (1980, 1, 1, 0, 0, 0)
_SHEBANG = re.compile(rb"#!.*python[^\n]*\n", re.IGNORECASE)
_HEADERS = re.compile(r"include/(?:site/python3\.\d+t?/)?[^/]+/|Include/[^/]+/", re.IGNORECASE)
_SCRIPTS = ("bin/", "Scripts/")
_LAUNCHERS = (".exe", "-script.py", ".exe.manifest")


def packed(distribution: InstalledDistribution, folder: str) -> str:
    """Write the wheel of an installed pure `distribution` below `folder`, in a folder of its content; return its path.

    Raises `BuilderError` if its file list or one of its files cannot be read.
    """
    stem = os.path.basename(distribution.folder).removesuffix(".dist-info")
    archived = io.BytesIO()
    try:
        rows = []
        with zipfile.ZipFile(archived, "w") as archive:
            for name, content, mode in sorted(_members(distribution, stem)):
                _write(archive, name, content, mode)
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                rows.append((name, f"sha256={digest}", str(len(content))))
            record = f"{stem}.dist-info/{RECORD}"
            _write(archive, record, _csv([*rows, (record, "", "")]), 0o644)
        return _placed(archived.getvalue(), folder, f"{stem}-py3-none-any.whl")
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise BuilderError(
            f"{distribution.name} {distribution.version}: its installed files cannot be read: {reason}; reinstall it"
        ) from None


def _placed(content: bytes, folder: str, name: str) -> str:
    own = os.path.join(folder, hashlib.sha256(content).hexdigest()[:16])
    path = os.path.join(own, name)
    if not os.path.exists(path):
        os.makedirs(own, exist_ok=True)
        with open(f"{path}.partial", "wb") as file:
            file.write(content)
        os.replace(f"{path}.partial", path)
    return path


def _write(archive: zipfile.ZipFile, name: str, content: bytes, mode: int) -> None:
    entry = zipfile.ZipInfo(name, _OLDEST)
    entry.external_attr = (0o100000 | mode) << 16
    archive.writestr(entry, content)


def _csv(rows: list[tuple[str, str, str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _members(distribution: InstalledDistribution, stem: str) -> Iterator[tuple[str, bytes, int]]:
    """Files of the wheel: name, content, mode."""
    info = f"{stem}.dist-info"
    root = os.path.dirname(distribution.folder)
    # Paths relative to site-packages; those of scripts and data lead out of it.
    files = recorded(distribution.folder, "", ()) or {}
    points = _points(distribution.folder)
    for listed in files:
        path = listed.lstrip("/")
        source = os.path.join(root, *path.split("/"))
        base = path.rpartition("/")[2]
        is_own = path.startswith(f"{info}/")
        dropped = is_own and (base in DROPPED or base == RECORD or (base == DIRECT_URL and distribution.local))
        # A module without its source, which no installer makes, lies outside of this folder.
        if dropped or "__pycache__" in path.split("/") or not os.path.isfile(source):
            continue
        name = _name(path, stem, points)
        if not name:
            continue
        content = read_small(source)
        if "/scripts/" in name:
            content = _SHEBANG.sub(b"#!python\n", content, count=1) if _SHEBANG.match(content) else content
        yield name, content, 0o755 if os.stat(source).st_mode & 0o100 or "/scripts/" in name else 0o644


def _points(folder: str) -> frozenset[str]:
    try:
        return frozenset(entry_points(read_small(os.path.join(folder, "entry_points.txt"))))
    except OSError:
        return frozenset()


def _name(path: str, stem: str, points: frozenset[str]) -> str:
    """Name in the wheel of the file at `path` relative to site-packages; empty for a script that an installer writes."""
    if not path.startswith("../"):
        return path
    outer = re.sub(r"^(\.\./)+", "", path)
    if outer.startswith(_SCRIPTS):
        name = outer.partition("/")[2]
        plain = next((name.removesuffix(end) for end in _LAUNCHERS if name.endswith(end)), name)
        return "" if name in points or plain in points else f"{stem}.data/scripts/{name}"
    if match := _HEADERS.match(outer):
        return f"{stem}.data/headers/{outer[match.end() :]}"
    return f"{stem}.data/data/{outer}"
