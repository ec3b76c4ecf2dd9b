"""Lay out wheels in a prefix for the target, as an installer on the target would. Nothing of them runs.

A record beside the prefix lists which wheel each file is of: a wheel that did not change is not touched. Files are moved
into the prefix only after they are listed, so that an interrupted installation is mended by the next.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.cache_folder import cannot_write
from lamella.builder.errors import BuilderError
from lamella.builder.files import disk_names
from lamella.builder.files.small_file import read_json
from lamella.builder.installed.distributions import normalised
from lamella.builder.resolving.target_tags import short_version
from lamella.builder.wheels.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lamella.layers.progress.display import Progress

TASK = "unpacking wheels"
FORMAT = 1
"""Of the record and of what `unpack` writes: raise it with any change, and every wheel is installed anew."""
_THREADS = 4
_ADVICE = "remove it from the cache and push again; report it to the index's operator if that does not help"


@dataclass(frozen=True, slots=True)
class Laid:
    """Files of one wheel in the prefix."""

    wheel: str
    """Path and size of the wheel; empty while its files are being moved."""
    files: tuple[str, ...]
    """Paths relative to the prefix."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel to install."""

    path: str
    extra: tuple[tuple[str, bytes], ...] = ()
    """Further files of its metadata folder: name and content, such as direct_url.json."""

    @property
    def name(self) -> str:
        """Normalised name of its distribution."""
        return normalised(os.path.basename(self.path).partition("-")[0])

    @property
    def identity(self) -> str:
        """What changes if the wheel does: a cache names its folders by content."""
        return json.dumps([self.path, os.stat(self.path).st_size, [[name, str(text)] for name, text in self.extra]])


def install_wheels(paths: Iterable[str | Wheel], prefix: str, python: str, progress: Progress) -> tuple[str, ...]:
    """Make `prefix` hold exactly the wheels at `paths`, beside its interpreter of version `python`.

    Returns the names of the wheels that were installed or removed. Idempotent. Raises `BuilderError` for a damaged
    wheel and for files that the disk cannot hold beside each other, before the prefix is touched, and `CacheError` if
    the prefix cannot be written.
    """
    listed = [each if isinstance(each, Wheel) else Wheel(each) for each in paths]
    wanted = {each.name: each for each in listed}
    if len(wanted) != len(listed):
        twice = sorted({each.name for each in listed if listed.count(each) > 1 or wanted[each.name] is not each})
        raise BuilderError(f"two wheels of {', '.join(twice)}; this is a fault of the resolution, report it")
    record = f"{prefix.rstrip('/')}.wheels.json"
    try:
        there = _read(record, python)
        identities = {name: wheel.identity for name, wheel in wanted.items()}
        fresh = {
            name: each for name, each in wanted.items() if not _is_whole(prefix, there.get(name), identities[name])
        }
        stale = {name: laid for name, laid in there.items() if name in fresh or name not in wanted}
        if not fresh and not stale:
            return ()
        with _staging(prefix) as staging:
            new = _unpacked(fresh, staging, prefix, python, progress)
            kept = {name: laid for name, laid in there.items() if name not in stale}
            # Of wheels that share a path, the last by name has it, whatever was there before: they are placed together.
            again = _sharing({path for laid in stale.values() for path in laid.files}.union(*new.values()), kept)
            new |= _unpacked({name: wanted[name] for name in again}, staging, prefix, python, progress)
            stale |= {name: kept.pop(name) for name in again}
            every = {**{name: laid.files for name, laid in kept.items()}, **new}
            _check_folders(every)
            if disk_names.merges_names(staging):
                _check_spelling(every)
            _replace(prefix, record, python, staging=staging, kept=kept, stale=stale, new=new)
            done = {name: Laid(identities[name], files) for name, files in new.items()}
            _write(record, python, kept | done)
    except OSError as error:
        raise cannot_write(prefix, "the environment of the target", error) from None
    return tuple(sorted(fresh.keys() | stale.keys()))


def _sharing(paths: set[str], kept: Mapping[str, Laid]) -> list[str]:
    """Names of the wheels in `kept` that have one of `paths`, or share one with such a wheel, and so on."""
    found: list[str] = []
    left = dict(kept)
    while more := [name for name, laid in left.items() if not paths.isdisjoint(laid.files)]:
        paths = paths.union(*(left.pop(name).files for name in more))
        found += more
    return sorted(found)


def _check_folders(files: Mapping[str, Iterable[str]]) -> None:
    """Raise `BuilderError` if one wheel has a file at the place of another one's folder: no prefix can hold both."""
    owners = {path: name for name, paths in files.items() for path in paths}
    folders: dict[str, str] = {}
    for path, name in owners.items():
        folder = os.path.dirname(path)
        while folder and folder not in folders:
            folders[folder] = name
            folder = os.path.dirname(folder)
    for path in sorted(owners.keys() & folders.keys()):
        raise BuilderError(
            f"{path}: a file in {owners[path]} and a folder in {folders[path]}; uninstall one of the two"
        )


def _check_spelling(files: Mapping[str, Iterable[str]]) -> None:
    """Raise `BuilderError` if two paths differ in case alone: the disk would hold one of the two."""
    owners = {path: name for name, paths in files.items() for path in paths}
    for path, other in disk_names.indistinct(sorted(owners)).items():
        raise BuilderError(disk_names.refusal(f"wheel of {owners[path]}", path, other))


def _unpacked(
    wheels: Mapping[str, Wheel], staging: str, prefix: str, python: str, progress: Progress
) -> dict[str, tuple[str, ...]]:
    progress.begin(TASK, len(wheels), "wheels")

    def one(name: str) -> tuple[str, ...]:
        folder = os.path.join(staging, name)
        os.mkdir(folder)
        files = unpack(wheels[name].path, folder, short=short_version(python), prefix=prefix, advice=_ADVICE)
        for filename, content in wheels[name].extra:
            (records,) = [path for path in files if path.endswith(".dist-info/RECORD") and path.count("/") == 4]
            path = os.path.join(os.path.dirname(records), filename)
            with open(os.path.join(folder, path), "wb") as stream:
                stream.write(content)
            with open(os.path.join(folder, records), "a", encoding="utf-8") as stream:
                stream.write(f"{os.path.basename(os.path.dirname(records))}/{filename},,\n")
            files = (*files, path)
        progress.advance(TASK, 1)
        return files

    # Inflating and hashing release the interpreter's lock.
    with ThreadPoolExecutor(_THREADS) as pool:
        found = dict(zip(wheels, pool.map(one, wheels), strict=True))
    progress.end(TASK)
    return found


def _replace(
    prefix: str,
    record: str,
    python: str,
    *,
    staging: str,
    kept: Mapping[str, Laid],
    stale: Mapping[str, Laid],
    new: Mapping[str, tuple[str, ...]],
) -> None:
    pending = {name: Laid("", (*stale[name].files, *new.get(name, ()))) for name in stale}
    pending |= {name: Laid("", files) for name, files in new.items() if name not in stale}
    _write(record, python, {**kept, **pending})
    others = {path for laid in kept.values() for path in laid.files}
    gone = {path for laid in stale.values() for path in laid.files} - others
    for path in sorted(gone):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(prefix, path))
    _drop_empty(prefix, gone)
    for name in sorted(new):
        _move(os.path.join(staging, name), prefix)


def _move(folder: str, place: str) -> None:
    """Move the files below `folder` to `place`: a folder that is not there yet at once, with all that it has."""
    with os.scandir(folder) as listed:
        entries = list(listed)
    for entry in entries:
        other = os.path.join(place, entry.name)
        if entry.is_dir(follow_symlinks=False) and os.path.lexists(other):
            _move(entry.path, other)
        else:
            os.replace(entry.path, other)


def _drop_empty(prefix: str, paths: Iterable[str]) -> None:
    folders = {os.path.dirname(path) for path in paths}
    folders |= {parent for folder in folders for parent in _parents(folder)}
    for folder in sorted(folders - {""}, key=len, reverse=True):
        place = os.path.join(prefix, folder)
        with contextlib.suppress(OSError):
            # Byte code of modules that are gone.
            if os.listdir(place) == ["__pycache__"]:
                shutil.rmtree(os.path.join(place, "__pycache__"), ignore_errors=True)
            os.rmdir(place)


@functools.cache
def _parents(folder: str) -> tuple[str, ...]:
    parent = os.path.dirname(folder)
    return (parent, *_parents(parent)) if parent else ()


def _is_whole(prefix: str, laid: Laid | None, identity: str) -> bool:
    if laid is None or laid.wheel != identity:
        return False
    return all(os.path.lexists(os.path.join(prefix, path)) for path in laid.files if path.endswith("/RECORD"))


@contextlib.contextmanager
def _staging(prefix: str) -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix=f"{os.path.basename(prefix)}.partial-", dir=os.path.dirname(prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read(record: str, python: str) -> dict[str, Laid]:
    try:
        value = read_json(record)
        found = {name: Laid(each["wheel"], tuple(each["files"])) for name, each in value["wheels"].items()}
        same = [value["format"], value["python"]] == [FORMAT, short_version(python)]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BuilderError(f"{record}: damaged; remove the folder {os.path.dirname(record)} and push again") from None
    return found if same else {name: Laid("", laid.files) for name, laid in found.items()}


def _write(record: str, python: str, wheels: Mapping[str, Laid]) -> None:
    content = {
        "format": FORMAT,
        "python": short_version(python),
        "wheels": {name: {"wheel": laid.wheel, "files": laid.files} for name, laid in sorted(wheels.items())},
    }
    descriptor, path = tempfile.mkstemp(prefix=".wheels-", dir=os.path.dirname(record))
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(content, stream)
        os.replace(path, record)
    except BaseException:
        os.unlink(path)
        raise
