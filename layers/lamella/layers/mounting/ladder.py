"""The ladder: every way to make one environment out of layers' folders, the best that works here first.

A rung is probed by trying it, never by reading a version number: a container, a kernel's configuration or a security
module can take away what a version promises.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lamella.layers import logs
from lamella.layers.errors import MountError
from lamella.layers.mounting import overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamella.layers.mounting.kernel import Kernel
    from lamella.layers.mounting.overlay import Upper

Method = Literal["overlay", "options", "hardlinks", "reflinks", "copies"]

MOUNTS: tuple[Method, ...] = ("overlay", "options")
"""Rungs that are mounts: nothing is written, and a privilege or a user namespace is needed."""
TREES: tuple[Method, ...] = ("hardlinks", "reflinks", "copies")
"""Rungs that write a folder: anybody may, anywhere on the store's file system (copies: everywhere)."""
METHODS: tuple[Method, ...] = (*MOUNTS, *TREES)


@dataclass(frozen=True, slots=True)
class Rung:
    """One way that was looked at."""

    method: Method
    why_not: str = ""
    """Empty for the rung that was taken."""


def _skip_none(_: Method, __: tuple[Rung, ...]) -> str:
    """Try every method."""
    return ""


def assemble(
    kernel: Kernel,
    lowers: Sequence[str],
    target: str,
    methods: Sequence[Method],
    *,
    upper: Upper | None = None,
    source: str = overlay.SOURCE,
    before: Callable[[Method, tuple[Rung, ...]], str] = _skip_none,
) -> tuple[Rung, ...]:
    """Assemble `lowers` (lowest first) at `target`, an empty folder, by the first of `methods` that works.

    Return the rungs that were tried, the chosen one last. `before` gets each method with the rungs tried so far, and
    returns a reason to skip the method, or an empty string; for `upper` and `source` see `attempt`. Raises `MountError`
    with every rung's reason if none works; then `target` is empty.
    """
    rungs: tuple[Rung, ...] = ()
    for method in methods:
        why_not = before(method, rungs) or attempt(kernel, method, lowers, target, upper, source=source)
        rungs = (*rungs, Rung(method, why_not))
        outcome = why_not or "used"
        logs.record("lamella.layers.mounting", f"method {method}: {outcome}", method=method, outcome=outcome)
        if not why_not:
            return rungs
    raise MountError(explanation(target, rungs))


def attempt(
    kernel: Kernel,
    method: Method,
    lowers: Sequence[str],
    target: str,
    upper: Upper | None = None,
    *,
    source: str = overlay.SOURCE,
) -> str:
    """Try one rung: empty if the environment is at `target` now and can run, else why not, with nothing left there.

    Without an `upper` a mount is read-only. With one, a tree is never of hardlinks, so that who writes to it can't
    write into the store. `source`: what an overlay is to be known by.
    """
    if method == "hardlinks" and upper:
        return "changes of the environment would be written into the store"
    try:
        if method in ("hardlinks", "reflinks", "copies"):
            from lamella.layers.mounting import link_tree

            link_tree.lay(lowers, target, method)
        elif is_bound(lowers, upper):
            overlay.bind(kernel, lowers[0], target)
        elif method == "overlay":
            overlay.by_descriptors(kernel, lowers, target, upper, source)
        else:
            overlay.by_options(kernel, lowers, target, upper, source)
    except PermissionError:
        return "only root may mount where others see it: lamella run needs no privilege"
    except OSError as error:
        return error.strerror or str(error)
    except MountError as error:
        empty(target)
        return str(error)
    if why_not := obstacle(target):
        if method in TREES:
            empty(target)
        else:
            kernel.umount(target)
    return why_not


def obstacle(folder: str) -> str:
    """Why the programs of the environment in `folder` can't run; empty if they can. An environment that only shows is not there.

    A mount inherits noexec from the file system of a bound folder or a tree; an overlay does not. The interpreter's right
    is read back as well, since a file system can impose modes.
    """
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return f"programs can't run there: the file system of {folder} is mounted noexec"
    for path in (f"{folder}/bin/python3", f"{folder}/bin/python"):
        if os.path.isfile(path) and not os.access(path, os.X_OK):
            return f"programs can't run there: {path} is not executable"
    return ""


def is_bound(lowers: Sequence[str], upper: Upper | None) -> bool:
    """Whether a mount of these is one of the folder itself: the kernel makes no overlay of a single one."""
    return len(lowers) == 1 and not upper


def explanation(target: str, rungs: Sequence[Rung]) -> str:
    """One sentence with the reason of every rung."""
    reasons = "; ".join(f"{rung.method}: {rung.why_not}" for rung in rungs)
    return f"the environment can't be put at {target} ({reasons})"


def empty(folder: str) -> None:
    """Remove the content of `folder`, which stays. No error if it does not exist."""
    import shutil

    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
