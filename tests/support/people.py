"""Other users than the one who runs the tests."""

from __future__ import annotations

import ctypes
import encodings.ascii  # noqa: F401 # a child without privileges may be unable to load it
import functools
import grp  # noqa: F401 # the same
import importlib
import os
import pickle
import pkgutil
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import lamella.builder
import lamella.layers
from support.engines import need_root
from support.processes import forked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

NOBODY = 65534
_PR_SET_DUMPABLE = 4


@contextmanager
def folder_of(uid: int) -> Iterator[Path]:
    """A folder that belongs to `uid`, where that user can reach it: pytest's own are closed to others."""
    if uid != os.geteuid():
        need_root()
    folder = Path(tempfile.mkdtemp(prefix="lamella-test-"))
    os.chown(folder, uid, uid)
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def give(folder: Path, uid: int) -> None:
    """Makes `uid` the owner of all that is in `folder`."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, uid, uid, follow_symlinks=False)


def as_user(uid: int, do: Callable[[], T]) -> T:
    """What `do` gives, or raises, in a child that is `uid`, without any privilege; imports must be done by then."""
    need_root()
    return in_child(lambda: become(uid), do)


@functools.cache
def import_everything() -> None:
    """Import every module of Lamella, for a child that can't read this folder."""
    for package in (lamella.layers, lamella.builder):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def in_child(prepare: Callable[[], None], do: Callable[[], T]) -> T:
    """Return what `do` returns, or raise what it raises, in a child process after `prepare`."""
    import_everything()
    reader, writer = os.pipe()
    sys.stdout.flush()

    def report() -> None:
        os.close(reader)
        try:
            prepare()
            outcome: tuple[bool, object] = (True, do())
        except BaseException as error:  # the parent raises it
            outcome = (False, error)
        os.write(writer, pickle.dumps(outcome))

    with forked(report) as child:
        os.close(writer)
        with open(reader, "rb") as answer:
            good, value = pickle.loads(answer.read())
        os.waitpid(child, 0)
    if good:
        return value  # type: ignore[no-any-return]
    raise value


@contextmanager
def while_user(uid: int, do: Callable[[], object]) -> Iterator[int]:
    """A child that is `uid`, has done `do`, and keeps what it opened until the block ends. Gives its process number."""
    need_root()
    reader, writer = os.pipe()

    def stay() -> None:
        become(uid)
        kept = do()
        os.write(writer, b"x")
        signal.pause()
        del kept

    with forked(stay) as child, open(reader, "rb") as ready:
        os.close(writer)
        if not ready.read(1):
            raise RuntimeError("the child failed")
        yield child


def become(uid: int) -> None:
    """Make this process one of `uid`, without any privilege."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    # Else /proc/self is root's, as it is of any process that changed its user and executed nothing since.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
