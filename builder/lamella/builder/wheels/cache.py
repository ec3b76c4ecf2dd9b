"""The wheels that were built of local projects: a project that did not change is not built again.

Folders of `$LAMELLA_CACHE/wheels`: `<key>/`, with the wheel and, for each prefix, what an install of it would leave there.
Each appears by rename, whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.cache_folder import cannot_write
from lamella.builder.files.scratch import scratch_folder
from lamella.builder.wheels import build
from lamella.layers.hardening.permissions import make_folders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lamella.builder.errors import CacheError
    from lamella.builder.files.read import FileContent

    Read = Callable[[Mapping[str, os.stat_result]], Mapping[str, FileContent]]

FORMAT = 2
"""Of the keys' meaning: raise it with any change of how a wheel is built or unpacked."""

_UNUSED = 30 * 86400
"""Seconds after which a wheel that no scan asked for is dropped, by the next that builds one."""
_VARIABLES = re.compile(
    r"CC|CXX|(?:C|CPP|CXX|LD|RUST|ARCH)FLAGS|(?:CMAKE|SKBUILD|MESON|MATURIN|CARGO|SETUPTOOLS|HATCH|PDM|POETRY)_\w+"
    r"|\w*PRETEND_VERSION\w*"
)
"""What else decides what a backend builds. A secret among them is only hashed."""
# Of git's own folder, what says a version: the commit, tags, and which files are tracked. Objects have these names.
_SAYS_VERSION = re.compile(r"HEAD|config|index|packed-refs|shallow|refs(?:/.*)?")


class BuiltWheel(NamedTuple):
    """A project's wheel."""

    wheel: str
    """Its path."""
    new: bool
    """Whether it was built now."""


def built(project: str, python: str, tag: str, read: Read, cache_path: str) -> BuiltWheel:
    """The wheel of `project` for the interpreter `python`, whose `tag` says what wheels it takes.

    `read` gives the digests of files. Raises `BuilderError` if the build fails, `CacheError` if the cache can't be written.
    """
    cache = os.path.realpath(cache_path)
    folder = os.path.join(cache, "wheels")
    place = os.path.join(folder, _key(project, tag, cache, read))
    if found := _wheel_in(place):
        with contextlib.suppress(OSError):
            os.utime(place)
        return BuiltWheel(found, False)
    # Not in the cache: compilers' flags name the folder, and can't hold every name that a user's folder may have.
    with (
        scratch_folder() as scratch,
        _partial(folder) as empty,
    ):
        path = build.wheel(project, python, scratch, cache)
        _drop_unused(folder)
        try:
            shutil.copy(path, empty)
        except OSError as error:
            raise _error(folder, error) from None
        _keep(empty, place)
    return BuiltWheel(_wheel_in(place), True)


def installed(wheel: str, prefix: str, short: str, unpack: Callable[[str], object]) -> str:
    """The folder with what an install of `wheel` would leave at `prefix`, for Python `short`; `unpack` fills an empty one."""
    name = hashlib.sha256(json.dumps([prefix, short]).encode()).hexdigest()[:16]
    place = os.path.join(os.path.dirname(wheel), name)
    if not os.path.isdir(place):
        with _partial(os.path.dirname(os.path.dirname(wheel))) as empty:
            try:
                unpack(empty)
            except OSError as error:
                raise _error(os.path.dirname(os.path.dirname(wheel)), error) from None
            _keep(empty, place)
    return place


@contextlib.contextmanager
def _partial(folder: str) -> Iterator[str]:
    """An empty folder below `folder`, gone afterwards unless it was moved."""
    try:
        make_folders(folder)
        empty = tempfile.mkdtemp(prefix="partial-", dir=folder)
    except OSError as error:
        raise _error(folder, error) from None
    try:
        yield empty
    finally:
        shutil.rmtree(empty, ignore_errors=True)


def _keep(folder: str, place: str) -> None:
    """Moves `folder` to `place`, unless another process has put the same there meanwhile."""
    try:
        os.chmod(folder, 0o755)
        os.rename(folder, place)
    except OSError as error:
        if not os.path.isdir(place):
            raise _error(place, error) from None


def _error(folder: str, error: OSError) -> CacheError:
    return cannot_write(folder, "the cache of wheels", error)


def _wheel_in(place: str) -> str:
    try:
        return next((os.path.join(place, name) for name in sorted(os.listdir(place)) if name.endswith(".whl")), "")
    except OSError:
        return ""


def _key(project: str, tag: str, cache: str, read: Read) -> str:
    parts: list[tuple[str, str, str]] = []
    files: dict[str, os.stat_result] = {}
    for path in _parts(project, cache):
        inner = os.path.relpath(path, project)
        if os.path.islink(path):
            parts.append((inner, "link", os.readlink(path)))
            real = os.path.realpath(path)
            if real.startswith(os.path.realpath(project) + os.sep):
                continue
            # What it leads to is in no other part of the project.
            for each in _parts(real, cache) if os.path.isdir(real) else [real]:
                if os.path.isfile(each):
                    files[os.path.realpath(each)] = os.stat(each)
                    parts.append((inner, "leads to", os.path.realpath(each)))
        else:
            files[path] = os.lstat(path)
            parts.append((inner, "program" if files[path].st_mode & 0o100 else "file", path))
    digests = read(files)
    content = [(*part, digests[source].digest if source in digests else source) for *part, source in sorted(parts)]
    variables = {name: os.environ[name] for name in sorted(os.environ) if _VARIABLES.fullmatch(name)}
    recipe = [FORMAT, tag, build.EPOCH, variables, content]
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _parts(project: str, without: str) -> Iterator[str]:
    """Every file and link that a build of `project` would see."""
    skip = build.skips(project, (without,))
    git = os.path.join(project, ".git")
    pending = [project]
    while pending:
        with os.scandir(pending.pop()) as found:
            paths = sorted(item.path for item in found)
        for path in paths:
            if path.startswith(git + os.sep) and not _SAYS_VERSION.fullmatch(os.path.relpath(path, git)):
                continue
            if skip(path):
                continue
            if os.path.isdir(path) and not os.path.islink(path):
                pending.append(path)
            else:
                yield path


def _drop_unused(folder: str) -> None:
    before = time.time() - _UNUSED
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            if os.stat(path).st_mtime < before:
                shutil.rmtree(path, ignore_errors=True)
