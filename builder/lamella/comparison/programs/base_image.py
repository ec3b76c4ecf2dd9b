"""The base image of every Docker workflow: given, or made of Debian's packages with the environment's Python.

It lies in the registry, in the builder and on each node before a story begins, so that no workflow is charged for it.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tarfile
from typing import TYPE_CHECKING

from lamella.comparison.programs.engines import engine_program
from lamella.comparison.programs.registry import registry
from lamella.layers.settings.homes import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.comparison.programs.commands import Commands

NAME = "base:1"
HOW = "sudo apt install mmdebstrap, or give an image with --base-image"
_SHARED = ("/usr", "/")
_LOCAL = "/usr/local"


def missing(given: str | None) -> str | None:
    """Return what this machine lacks to make a base image, and how to get it."""
    if given or shutil.which("mmdebstrap"):
        return None
    return f"mmdebstrap: not installed; {HOW}"


def prepare(commands: Commands, scratch: str, given: str | None, base_prefix: str | None) -> str:
    """Put the base image into a registry's storage, once for all runs, and return that folder.

    `base_prefix`: of the Python that the environment needs outside, or None.
    """
    storage = os.path.join(scratch, "base-registry")
    with (
        registry(commands, storage) as host,
        _temporary(os.path.join(scratch, "base-engine")) as folder,
        engine_program().engine(commands, folder) as run,
    ):
        if given:
            run("pull", "--quiet", given)
            run("tag", given, f"{host}/{NAME}")
        else:
            run("import", _root_files(commands, scratch, base_prefix), f"{host}/{NAME}")
        run("push", "--quiet", f"{host}/{NAME}")
    return storage


def _root_files(commands: Commands, scratch: str, base_prefix: str | None) -> str:
    """Return a tar of Debian with its Python, and with the environment's interpreter if it needs another one."""
    suite = _suite()
    kept = os.path.join(cache_folder() or scratch, "lamella", "comparison", f"{suite}.tar")
    if not os.path.exists(kept):
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        partial = f"{kept}.{os.getpid()}.tar"
        # In a mount namespace of its own: an interruption ends its mounts with it, and a bind of /sys that is unmounted takes
        # nothing of the machine's away. Its root is cleared with the scratch folder.
        temporary = os.path.join(scratch, "mmdebstrap")
        os.makedirs(temporary, exist_ok=True)
        try:
            packages = "python3,python3-venv,python3-pip,ca-certificates"
            command = ["unshare", "--mount", "--propagation", "private", "mmdebstrap", "--variant=minbase"]
            commands.run([*command, f"--include={packages}", suite, partial], env={"TMPDIR": temporary})
            os.replace(partial, kept)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)
    if base_prefix is None or base_prefix in _SHARED:
        return kept
    whole = os.path.join(scratch, "base.tar")
    shutil.copyfile(kept, whole)
    with tarfile.open(whole, "a") as tar:
        for path in _interpreter(base_prefix):
            tar.add(path, path.lstrip("/"), filter=_without_packages)
    return whole


def _interpreter(base_prefix: str) -> list[str]:
    """Return the paths of a Python: its whole prefix, or its own files alone in one that other programs share."""
    if base_prefix != _LOCAL:
        return [base_prefix]
    return sorted(
        path
        for pattern in ("bin/python3*", "lib/python3.*", "lib/libpython3*")
        for path in glob.glob(f"{_LOCAL}/{pattern}")
    )


def _without_packages(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out packages that the environment does not hold."""
    return None if "/site-packages/" in member.name or "/dist-packages/" in member.name else member


def _suite() -> str:
    with contextlib.suppress(OSError), open("/etc/os-release", encoding="utf-8") as file:
        for line in file:
            if line.startswith("VERSION_CODENAME="):
                return line.partition("=")[2].strip().strip('"')
    return "stable"


@contextlib.contextmanager
def _temporary(folder: str) -> Iterator[str]:
    os.makedirs(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
