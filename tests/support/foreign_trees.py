"""Environments as installers leave them on macOS and Windows: real folders, with headers of programs that do not run here."""

from __future__ import annotations

import json
import struct
import sys
import zipfile
from configparser import ConfigParser
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Kind = Literal["macos", "windows"]
VERSION = ".".join(map(str, sys.version_info[:3]))
SHORT = ".".join(map(str, sys.version_info[:2]))
PROGRAMS = {
    "macos": b"\xcf\xfa\xed\xfe" + struct.pack("<I", 0x0100000C) + bytes(56),
    "windows": b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", 0x8664) + bytes(64),
}
"""The first bytes of an interpreter for arm64 on macOS, and for amd64 on Windows."""


def venv(folder: Path, kind: Kind, version: str = VERSION) -> Path:
    """A virtual environment, as venv makes it there."""
    python = folder / ("bin/python" if kind == "macos" else "Scripts/python.exe")
    python.parent.mkdir(parents=True)
    python.write_bytes(PROGRAMS[kind])
    python.chmod(0o755)
    _make_site(folder, kind, version)
    home = "/opt/homebrew/opt/python/bin" if kind == "macos" else r"C:\Python"
    (folder / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\nversion = {version}\n")
    return folder


def _make_site(folder: Path, kind: Kind, version: str = VERSION) -> None:
    library = f"lib/python{'.'.join(version.split('.')[:2])}" if kind == "macos" else "Lib"
    (folder / library / "site-packages").mkdir(parents=True)


def site_of(folder: Path, kind: Kind) -> Path:
    """Its folder of packages."""
    (site,) = folder.glob("lib/python3.*/site-packages" if kind == "macos" else "Lib/site-packages")
    return site


def install(folder: Path, kind: Kind, *wheels: Path, requested: Sequence[str] = ()) -> None:
    """Lay out wheels as pip does there: records, scripts with this prefix's interpreter, `.exe` launchers on Windows."""
    site = site_of(folder, kind)
    for path in wheels:
        name, version = path.name.split("-")[:2]
        info = f"{name}-{version}.dist-info"
        rows = []
        with zipfile.ZipFile(path) as archive:
            for each in archive.namelist():
                if each.endswith("/RECORD"):
                    rows += [row for row in archive.read(each).decode().splitlines() if "/RECORD," not in row]
                else:
                    archive.extract(each, site)
        (site / info / "INSTALLER").write_text("pip\n")
        notes = ["INSTALLER", *(["REQUESTED"] if name in requested else [])]
        if name in requested:
            (site / info / "REQUESTED").write_text("")
        rows += [f"{info}/{each},," for each in notes]
        rows += [f"{script},," for script in _scripts(folder, kind, site / info / "entry_points.txt")]
        (site / info / "RECORD").write_text("\n".join([*rows, f"{info}/RECORD,,"]) + "\n")


def _scripts(folder: Path, kind: Kind, points: Path) -> list[str]:
    if not points.exists():
        return []
    parser = ConfigParser()
    parser.read(points)
    written = []
    for name, point in parser["console_scripts"].items() if parser.has_section("console_scripts") else ():
        module, _, function = point.partition(":")
        if kind == "windows":
            (folder / "Scripts" / f"{name}.exe").write_bytes(PROGRAMS[kind])
            written.append(f"../../Scripts/{name}.exe")
        else:
            text = f"#!{folder}/bin/python\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
            (folder / "bin" / name).write_text(text)
            written.append(f"../../../bin/{name}")
    return written


def conda(folder: Path, kind: Kind) -> Path:
    """A conda environment there, with its interpreter's record."""
    subdir = "osx-arm64" if kind == "macos" else "win-64"
    python = folder / ("bin/python" if kind == "macos" else "python.exe")
    python.parent.mkdir(parents=True)
    python.write_bytes(PROGRAMS[kind])
    _make_site(folder, kind)
    record(folder, "python", VERSION, subdir, files=["bin/python" if kind == "macos" else "python.exe"])
    (folder / "conda-meta" / "history").write_text("# update specs: ['python', 'tool >=1']\n")
    return folder


def record(folder: Path, name: str, version: str, subdir: str, *, files: Sequence[str] = (), build: str = "0") -> None:
    """A record of conda's for one package."""
    stem = f"{name}-{version}-{build}"
    value = {
        "name": name,
        "version": version,
        "build": build,
        "build_number": 0,
        "subdir": subdir,
        "url": f"https://user:secret@conda.example.com/t/tk-secret/main/{subdir}/{stem}.conda",
        "files": list(files),
        "depends": [],
    }
    (folder / "conda-meta").mkdir(exist_ok=True)
    (folder / "conda-meta" / f"{stem}.json").write_text(json.dumps(value))
