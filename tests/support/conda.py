"""Real conda environments, made by rattler from a channel of packages that is made on the spot."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from typing import TYPE_CHECKING, Any

import zstandard

from support.engines import missing, need
from support.installed import base_python, is_debians, venv_python
from support.once import once

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_MAKE = """
import asyncio, os, pathlib, sys
import rattler, rattler.index
channel, prefix, cache = map(pathlib.Path, sys.argv[1:4])
subdir = sys.argv[4]
async def make():
    await rattler.index.index_fs(channel)
    records = await rattler.solve([rattler.Channel(channel.as_uri())], sys.argv[5:], platforms=[subdir, "noarch"],
        virtual_packages=rattler.VirtualPackage.detect())
    await rattler.install(records, prefix, cache_dir=cache, show_progress=False, platform=rattler.Subdir(subdir),
        execute_link_scripts=subdir == str(rattler.Subdir.current()))
asyncio.run(make())
os._exit(0)
"""
_FROM_LOCK = """
import asyncio, os, pathlib, sys
import rattler
lock, prefix, cache = map(pathlib.Path, sys.argv[1:4])
((_, environment),) = rattler.LockFile.from_path(lock).environments()
((subdir, records),) = environment.conda_repodata_records().items()
assert all(record.url and record.sha256 for record in records)
asyncio.run(rattler.install(records, prefix, cache_dir=cache, show_progress=False, platform=rattler.Subdir(subdir),
    execute_link_scripts=False))
os._exit(0)
"""
PLACEHOLDER = "/placeholder" + "_placehold" * 24 + "_pl"
SHORT = ".".join(map(str, sys.version_info[:2]))
VERSION = ".".join(map(str, sys.version_info[:3]))


def conda_package(
    channel: Path,
    name: str,
    files: Mapping[str, str | bytes],
    *,
    version: str = "1.0",
    build: str = "0",
    subdir: str = "linux-64",
    depends: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
    noarch: str = "",
    entry_points: Sequence[str] = (),
    executables: Sequence[str] = (),
) -> Path:
    """Writes one `.conda` file to `channel`: a stored zip of metadata and two tar archives.

    Source: conda's CEP "conda v2 package format". Files that hold `PLACEHOLDER` are marked for replacement.
    """
    content = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
    paths = [_path(path, data) for path, data in sorted(content.items())]
    paths += [_path(path, b"", "softlink") for path in sorted(links or {})]
    index: dict[str, Any] = {"name": name, "version": version, "build": build, "build_number": 0}
    index |= {"depends": list(depends), "arch": "x86_64", "platform": "linux", "subdir": subdir}
    if noarch:
        index |= {"noarch": noarch, "subdir": "noarch", "arch": None, "platform": None}
    info: dict[str, str | bytes] = {
        "info/index.json": json.dumps(index),
        "info/paths.json": json.dumps({"paths_version": 1, "paths": paths}),
        "info/files": "".join(f"{each['_path']}\n" for each in paths),
    }
    if noarch:
        link = {"noarch": {"type": noarch, "entry_points": list(entry_points)}, "package_metadata_version": 1}
        info["info/link.json"] = json.dumps(link)
    stem = f"{name}-{version}-{build}"
    folder = channel / str(index["subdir"])
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{stem}.conda", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
        archive.writestr(f"pkg-{stem}.tar.zst", _tar(content, links or {}, executables))
        archive.writestr(f"info-{stem}.tar.zst", _tar(info, {}, ()))
    return folder / f"{stem}.conda"


def for_machine(data: bytes, subdir: str) -> bytes:
    """`data`, which an ELF file of `subdir`'s machine would begin with, if it is an ELF file. Nothing runs it then."""
    machine = {"linux-64": b"", "linux-aarch64": b"\xb7\0"}[subdir]
    if not machine or data[:4] != b"\x7fELF":
        return data
    # Independent of its position: patchelf refuses others with segments that are not aligned to arm64's pages of 64 KiB.
    return data[:16] + b"\x03\0" + machine + data[20:]


def python_package(channel: Path, subdir: str = "linux-64", *, small: bool = False, whole: bool = False) -> None:
    """The tests' own interpreter as conda's `python`, relocatable as conda's is, with the modules of `venv_python()`.

    `small` leaves most of them out: enough to scan and to compile, and not to run pip. `whole` leaves none out.
    """
    files: dict[str, str | bytes] = {}
    prefix = os.path.dirname(os.path.dirname(base_python()))
    stdlib = sysconfig.get_path("stdlib")
    modules = stdlib if whole or small else os.path.join(os.path.dirname(venv_python()), "../lib", f"python{SHORT}")
    for path in _small_library() if small else _library(modules):
        within = os.path.relpath(path, stdlib if small else modules)
        # The file that was installed: the copy has lost the prefix.
        data = _relocatable(os.path.join(stdlib, within), prefix, "$ORIGIN/../..")
        if within in ("sysconfig.py", "sysconfig/__init__.py"):
            data = _without_debian(data)
        files[f"lib/python{SHORT}/{within}"] = data
    executable = f"bin/python{SHORT}"
    files[executable] = _relocatable(base_python(), prefix, "$ORIGIN/../lib")
    library = os.path.join(prefix, "lib", f"libpython{SHORT}.so.1.0")
    if os.path.exists(library):
        files[f"lib/libpython{SHORT}.so.1.0"] = _relocatable(library, prefix, "$ORIGIN")
    header = f"include/python{SHORT}/patchlevel.h"
    with open(os.path.join(sysconfig.get_path("include"), "patchlevel.h"), encoding="utf-8") as lines:
        files[header] = lines.read()
    files = {path: for_machine(data, subdir) if isinstance(data, bytes) else data for path, data in files.items()}
    links = {"bin/python": f"python{SHORT}", "bin/python3": f"python{SHORT}", "lib/python3.1": f"python{SHORT}"}
    if is_debians():
        # Its executable has Debian's site module frozen in it, which reads this folder.
        links[f"lib/python{SHORT}/dist-packages"] = "site-packages"
    conda_package(channel, "python", files, version=VERSION, links=links, executables=[executable], subdir=subdir)


def python_of_the_run(channel: Path, shared: Path, *, whole: bool = False) -> None:
    """Add `python_package` to `channel`. It takes seconds to make, and is made once a run."""
    made = shared / ("whole-conda-python" if whole else "conda-python") / "linux-64"
    with once(made) as mine:
        if mine:
            python_package(made.parent, whole=whole)
    (channel / made.name).mkdir(parents=True, exist_ok=True)
    for package in made.iterdir():
        os.link(package, channel / made.name / package.name)


def conda_environment(prefix: Path, channel: Path, specs: Sequence[str], subdir: str = "linux-64") -> Path:
    """Solves `specs` from `channel` and installs them at `prefix`; link scripts run where it is this machine's."""
    if importlib.util.find_spec("rattler") is None:
        missing("py-rattler is not here: install the project with its test extra")
    # In a process of its own that ends without clean-up: rattler's threads may crash an interpreter that shuts down.
    command = [sys.executable, "-c", _MAKE, str(channel), str(prefix), str(channel.parent / "cache"), subdir, *specs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return prefix


def environment_of_lock(lock: Path, prefix: Path) -> Path:
    """Installs what the pixi.lock at `lock` names, from its URLs alone, at `prefix`."""
    # An empty cache: every file is downloaded, and its hash is checked.
    command = [sys.executable, "-c", _FROM_LOCK, str(lock), str(prefix), f"{prefix}.cache"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return prefix


def _library(stdlib: str) -> Iterator[str]:
    """Files of the standard library, except tests, modules that need a screen, and Debian's refusal of pip."""
    left_out = {"__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages"}
    left_out |= {"test", "tests", "tkinter", "turtledemo"}
    for folder, folders, names in os.walk(stdlib):
        folders[:] = [name for name in folders if name not in left_out and not name.startswith("config-")]
        yield from (os.path.join(folder, name) for name in names if name != "EXTERNALLY-MANAGED")


def _without_debian(source: bytes) -> bytes:
    """Let installers put packages in site-packages, as in conda's Python, if this sysconfig is Debian's."""
    own = source.replace(b"dist-packages", b"site-packages").replace(b"base}/local", b"base}")
    return own.replace(b"/python3/site-packages", b"/python{py_version_short}/site-packages")


def _small_library() -> list[str]:
    """The files of the standard library that an interpreter imports to start, to describe itself and to compile."""
    program = (
        "import hashlib, importlib.util, json, marshal, os, site, struct, sys, sysconfig, types, zipfile\n"
        "sysconfig.get_config_vars()\n"
        "print(*(each.__file__ for each in sys.modules.values() if getattr(each, '__file__', None)), sep='\\n')"
    )
    command = [base_python(), "-I", "-c", program]
    files = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    # Not those of dist-packages, which Debian's Python imports at its start.
    library = sysconfig.get_path("stdlib") + os.sep
    return sorted({os.path.normpath(each) for each in files if os.path.normpath(each).startswith(library)})


def _path(path: str, data: bytes, kind: str = "hardlink") -> dict[str, object]:
    found: dict[str, object] = {"_path": path, "path_type": kind, "size_in_bytes": len(data)}
    found["sha256"] = hashlib.sha256(data).hexdigest()
    if PLACEHOLDER.encode() in data:
        found |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "binary" if b"\0" in data else "text"}
    return found


def _tar(files: Mapping[str, str | bytes], links: Mapping[str, str], executables: Sequence[str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, data in sorted(files.items()):
            content = data.encode() if isinstance(data, str) else data
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o755 if path in executables else 0o644
            archive.addfile(member, io.BytesIO(content))
        for path, target in sorted(links.items()):
            member = tarfile.TarInfo(path)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return zstandard.ZstdCompressor(level=1).compress(out.getvalue())


def _relocatable(path: str, prefix: str, to_library: str) -> bytes:
    """The bytes of a file of the interpreter, with the placeholder where its prefix is."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:4] == b"\x7fELF" and prefix.encode() in data:
        rpath = f"{PLACEHOLDER}/lib:{to_library}"
        with tempfile.NamedTemporaryFile() as copy:
            copy.write(data)
            copy.flush()
            if strip := shutil.which("strip"):
                # An interpreter from source has 20 MB of debugging information, which every scan and push would read.
                subprocess.run([strip, "--strip-debug", copy.name], check=True)
            subprocess.run([need("patchelf"), "--force-rpath", "--set-rpath", rpath, copy.name], check=True)
            with open(copy.name, "rb") as file:
                return file.read()
    if b"\0" in data:
        return data
    return data.replace(prefix.encode(), PLACEHOLDER.encode()) if prefix not in {"/usr", "/usr/local"} else data
