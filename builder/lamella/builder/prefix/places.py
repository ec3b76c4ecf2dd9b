"""The environment's folders on this disk, under each of their names."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.files.small_file import read_text
from lamella.builder.prefix.linked_folders import linked_folders
from lamella.builder.prefix.locate import SHARED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lamella.builder.prefix.interpreter import Prefix

_ACTIVATE = re.compile(r"""^[ \t]*(?:export )?VIRTUAL_ENV=(?:\$\(cygpath )?(['"]?)(/[^'"\n]*?)\1\)?$""", re.MULTILINE)


class Place(NamedTuple):
    """A folder of this disk, with its place in the environment."""

    source: str
    """Absolute path, in one of its spellings."""
    path: str
    """Path relative to the prefix; empty for the prefix itself."""

    def holds(self, source: str) -> bool:
        """Whether `source` is this folder or below it."""
        return source == self.source or source.startswith(self.source + "/")


def places(prefix: Prefix) -> tuple[Place, ...]:
    """Every folder with files of the environment, the most specific first."""
    found = [Place(spelling, "") for spelling in _own(prefix)]
    for each in linked_folders(prefix.path, prefix.python.short):
        found.append(Place(each.source, each.path))
        if each.on_disk:
            found.append(Place(os.path.join(prefix.path, each.on_disk), each.path))
    if prefix.kind == "venv":
        found += [Place(spelling, f"lib/python{prefix.python.short}") for spelling in _spellings(prefix.python.stdlib)]
        found += [
            Place(spelling, f"include/python{prefix.python.short}") for spelling in _spellings(prefix.python.include)
        ]
        found += [Place(spelling, "") for spelling in _base(prefix)]
    return tuple(sorted(set(found), key=lambda place: (-len(place.source), place)))


def prefixes(prefix: Prefix) -> tuple[bytes, ...]:
    """Every spelling of the prefixes that the environment's files may hold, the longest first, without shared ones."""
    found = {os.fsencode(spelling) for spelling in (*_own(prefix), *_base(prefix)) if spelling not in SHARED}
    return tuple(sorted(found, key=lambda prefix: (-len(prefix), prefix)))


def in_environment(source: str, places: Sequence[Place]) -> Iterator[str]:
    """Possible places of `source` (absolute, normal) in the environment, relative to the prefix."""
    for place in places:
        if place.holds(source):
            rest = source[len(place.source) + 1 :]
            yield f"{place.path}/{rest}" if place.path and rest else place.path or rest


def _own(prefix: Prefix) -> Iterable[str]:
    return dict.fromkeys((*_spellings(prefix.path), *_activation(prefix.path)))


def _base(prefix: Prefix) -> Iterable[str]:
    """Prefix of the base interpreter, unless it is shared."""
    named = [prefix.python.base_prefix]
    home = prefix.configuration.get("home", "")
    # uv links its interpreters by minor version; the configuration names the link, Python the target.
    if home and os.path.realpath(os.path.dirname(home)) == os.path.realpath(prefix.python.base_prefix):
        named.append(os.path.dirname(home))
    spelled = dict.fromkeys(spelling for name in named for spelling in _spellings(name))
    return [] if SHARED & set(spelled) else spelled


def _spellings(folder: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((os.path.normpath(folder), os.path.realpath(folder))))


def _activation(prefix: str) -> Iterable[str]:
    """Prefix in the venv's `activate`: another name of the same folder, or its former place."""
    made = made_at(prefix)
    return (made,) if made and (not os.path.exists(made) or os.path.realpath(made) == os.path.realpath(prefix)) else ()


def made_at(prefix: str) -> str:
    """Path at which the venv at `prefix` was made, from its `activate`; empty if unknown."""
    try:
        assignment = _ACTIVATE.search(read_text(os.path.join(prefix, "bin", "activate"), 1 << 16))
    except OSError:
        return ""
    return os.path.normpath(assignment[2]) if assignment else ""
