"""Make packages of the files that a walk found, by the content of each."""

from __future__ import annotations

import stat
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING

from lamella.builder.environment import File

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lamella.builder.environment import Holds, Package, RunPath
    from lamella.builder.files.read import FileContent
    from lamella.builder.prefix.walk import FoundFile

# The constructor of a NamedTuple is a Python function: this takes half its time.
_new_file: Callable[[tuple[object, ...]], File] = partial(tuple.__new__, File)


def files_of(entries: Iterable[FoundFile], contents: Mapping[str, FileContent]) -> tuple[File, ...]:
    """Files of a package, by path. `contents` has the content of each regular file by source."""
    return tuple([_file(entry, contents) for entry in sorted(entries, key=itemgetter(0))])


def _file(entry: FoundFile, contents: Mapping[str, FileContent]) -> File:
    if entry[3] is not None:
        return file_of(entry, "", "")
    digest, holds, _ = contents[entry[1]]
    return file_of(entry, digest, holds)


def file_of(entry: FoundFile, digest: str, holds: Holds) -> File:
    """Return the file of `entry` with this content; a link has none."""
    path, source, seen, target = entry
    if target is not None:
        return File(path, source, 0o777, 0, "", target, "", seen.st_mtime_ns, seen.st_ctime_ns)
    mode = 0o755 if seen.st_mode & stat.S_IXUSR else 0o644
    return _new_file((path, source, mode, seen.st_size, digest, None, holds, seen.st_mtime_ns, seen.st_ctime_ns, None))


def with_run_paths(package: Package, run_paths: Mapping[str, RunPath]) -> Package:
    """Return `package` with the run paths to set in its files, by path."""
    if not run_paths or run_paths.keys().isdisjoint([file.path for file in package.files]):
        return package
    return replace(package, files=tuple(file._replace(run_path=run_paths.get(file.path)) for file in package.files))
