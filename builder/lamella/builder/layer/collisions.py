"""Find paths at which the layers of an environment would collide when a node merges them into one tree."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.content.header_places import VENV_HEADERS, canonical_place
from lamella.builder.errors import CannotBuild
from lamella.layers.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lamella.builder.environment import File, Package

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Collision:
    """A path that two layers have in different ways."""

    path: str
    """Path of a file or link, relative to the prefix."""
    owner: str
    """Package of the file or link at `path`."""
    other: str
    """Package with other content there, or with files below."""
    below: str = ""
    """A path of `other` below `path`; empty for two files at one path."""

    def __str__(self) -> str:
        if self.below:
            return (
                f"{self.path}: a file or link of {self.owner}, but {self.other} has {self.below}; uninstall one of "
                "the two, or replace the link by the folder"
            )
        return f"{self.path}: in {self.owner} and in {self.other}, with different content; uninstall one of the two"


def collisions(packages: Iterable[Package]) -> list[Collision]:
    """Find each path at which a layer has a file or link, and another one other content or a folder.

    No node can have both: which of the two it gets would depend on how it merges layers.
    """
    packages = tuple(packages)
    if is_disjoint(packages):
        return []
    shipped = [(package, _paths(package)) for package in packages]
    owners: dict[str, Package] = {}
    folders: dict[str, Package] = {}
    for package, paths in shipped:
        owners.update(dict.fromkeys(paths, package))
        for folder in {path.rpartition("/")[0] for path in paths}:
            above = folder
            while above and above not in folders:
                folders[above] = package
                above = above.rpartition("/")[0]
    # An environment has 66,000 paths: look for those that are there twice only if there are fewer names than files.
    twice = len(owners) < sum(len(paths) for _, paths in shipped)
    found = list(_differing(shipped)) if twice else []
    found += [
        Collision(path, _name(owners[path]), _name(folders[path]), _first_below(path, folders[path]))
        for path in owners.keys() & folders.keys()
    ]
    return sorted(found, key=lambda each: (each.path, each.below))


def is_disjoint(packages: Sequence[Package]) -> bool:
    """Whether no path occurs twice, as nearly always. On 44,000 files in a fifth of the time of naming the owners."""
    paths = [path for package in packages for path in _paths(package)]
    places = set(paths)
    folders = {path.rpartition("/")[0] for path in paths}
    above = folders
    while above := {folder.rpartition("/")[0] for folder in above} - folders:
        folders |= above
    return len(places) == len(paths) and places.isdisjoint(folders)


def have_same_places(before: Sequence[Package], after: Sequence[Package]) -> bool:
    """Whether both have the same paths and link targets, package by package. Unedited packages are the same objects."""
    return len(before) == len(after) and all(
        old is new
        or [(file.path, file.target) for file in old.files] == [(file.path, file.target) for file in new.files]
        for old, new in zip(before, after, strict=True)
    )


def _paths(package: Package) -> list[str]:
    """Paths at which the files of `package` ship."""
    paths = [file.path for file in package.files]
    # A package's files are sorted by path.
    first = bisect_left(paths, VENV_HEADERS)
    if not any(path.startswith(VENV_HEADERS) for path in paths[first : first + 1]):
        return paths
    return [canonical_place(file)[0] for file in package.files]


def _differing(shipped: Iterable[tuple[Package, Sequence[str]]]) -> Iterator[Collision]:
    seen: dict[str, tuple[Package, File]] = {}
    for package, paths in shipped:
        for path, file in zip(paths, package.files, strict=True):
            owner, other = seen.setdefault(path, (package, file))
            if (other.digest, canonical_place(other)[1]) != (file.digest, canonical_place(file)[1]):
                yield Collision(path, _name(owner), _name(package))


def _first_below(folder: str, package: Package) -> str:
    return min(path for path in _paths(package) if path.startswith(f"{folder}/"))


def _name(package: Package) -> str:
    return f"{package.name} {package.version}".rstrip()


def check_collisions(packages: Iterable[Package]) -> None:
    """Raise `CannotBuild` if layers of `packages` collide."""
    found = collisions(packages)
    if found:
        more = f" (and {counted(len(found) - _SHOWN, 'more path')} like these)" if len(found) > _SHOWN else ""
        raise CannotBuild("; ".join(map(str, found[:_SHOWN])) + more)
