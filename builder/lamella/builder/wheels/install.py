"""Local projects as their wheels would install them, in place of their files on this disk."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lamella.builder.environment import LeftOut
from lamella.builder.errors import BuilderError
from lamella.builder.files.small_file import read_toml
from lamella.builder.installed.distributions import distributions
from lamella.builder.local.project_files import too_broad
from lamella.builder.prefix.places import Place
from lamella.builder.prefix.walk import walk
from lamella.builder.wheels import cache
from lamella.builder.wheels.unpack import unpack
from lamella.layers.published.findings import Finding
from lamella.layers.settings.homes import expanded

if TYPE_CHECKING:
    from lamella.builder.installed.distributions import Distribution
    from lamella.builder.installed.inventory import Inventory
    from lamella.builder.local.code_roots import LocalCode
    from lamella.builder.prefix.interpreter import InterpreterFacts, Prefix
    from lamella.builder.prefix.walk import FoundFile
    from lamella.builder.wheels.cache import Read
    from lamella.layers.progress.display import Progress

_TASK = "building wheels"
_SOURCES = frozenset({"src", "lib", "python"})


def with_wheels(
    seen: Inventory, prefix: Prefix, *, local: LocalCode, read: Read, progress: Progress, cache_path: str
) -> Inventory:
    """`seen` with the wheel of each local project in place of its files, unpacked in the cache of wheels.

    `read` gives the digests of files. `BuilderError` for a project of which no wheel can be built.
    """
    found: dict[str, list[Distribution]] = {}
    findings = []
    for each in seen.pip:
        if each.origin == "local" or each.editable:
            root = project(each)
            if root:
                found.setdefault(root, []).append(each)
            else:
                message = f"{each.name} has no project that a wheel can be built of: it ships as it is on this disk"
                findings.append(Finding("note", "wheels", each.name, message))
    seen = seen._replace(findings=[*seen.findings, *findings])
    included = _included(local)
    progress.begin(_TASK, len(found), "wheels")
    tag = f"{prefix.python.cache_tag} {prefix.python.platform}"
    for root, those in sorted(found.items()):
        kept = {path for each in those if not each.records for path in _beside(each, seen, root, included)}
        if any(each.records or set(each.files or ()) - kept for each in those):
            path = cache.built(root, _builder(prefix.python), tag, read, cache_path).wheel
            if prefix.is_foreign and not path.endswith("-any.whl"):
                raise BuilderError(
                    f"{root} is compiled, which makes {os.path.basename(path)}, and the environment is for "
                    f"{prefix.python.platform}: install its wheel for that machine there, or push from one of that kind"
                )
            fill = functools.partial(unpack, path, short=prefix.python.short, prefix=prefix.path)
            unpacked = cache.installed(path, prefix.path, prefix.python.short, fill)
            seen = _replaced(seen, those, kept, unpacked=unpacked, short=prefix.python.short, prefix=prefix.path)
        progress.advance(_TASK, 1)
    progress.end(_TASK)
    return seen


def _builder(facts: InterpreterFacts) -> str:
    """The Python that builds: the environment's own, or one of its version here if that is another machine's."""
    if not facts.compiler:
        raise BuilderError(
            f"no Python {facts.short} is here to build wheels for {facts.platform}: install python{facts.short}, or "
            "leave local code out with --no-local"
        )
    return facts.compiler


def project(distribution: Distribution) -> str | None:
    """The folder of the project that `distribution` comes from, or None if none can be built."""
    url = distribution.source
    if not url.startswith("file://"):
        return None
    path = url.removeprefix("file://")
    path = path if os.path.exists(path) else unquote(path)
    if os.path.isfile(path):
        path = os.path.dirname(path)
    while os.path.isdir(path) and not too_broad(path):
        if _can_be_built(path, installed=bool(distribution.records)):
            return path
        # An import root or a package's folder: the project is further up.
        if os.path.basename(path) not in _SOURCES and not os.path.exists(os.path.join(path, "__init__.py")):
            return None
        path = os.path.dirname(path)
    return None


def _can_be_built(folder: str, *, installed: bool) -> bool:
    if os.path.isfile(os.path.join(folder, "setup.py")):
        return True
    try:
        table = read_toml(os.path.join(folder, "pyproject.toml"))
        # Without a build system it may be settings of tools alone; an installed project was built once.
        return installed or "build-system" in table
    except OSError:
        return False
    except ValueError:
        return True  # the backend reports the fault


def _included(local: LocalCode) -> tuple[str, ...]:
    base = os.path.abspath(local.folder or os.curdir)
    return tuple(os.path.normpath(os.path.join(base, expanded(path))) for path in local.include)


def _beside(distribution: Distribution, seen: Inventory, root: str, included: tuple[str, ...]) -> list[str]:
    """Paths of what ships with a project's code and is not of the project: files that were asked for, PYTHONPATH's."""
    places = [Place(path, "") for path in included]
    paths = [path for path in distribution.files or () if path in seen.entries]
    return [
        path
        for path in paths
        if not Place(root, "").holds(seen.entries[path].source)
        or any(place.holds(seen.entries[path].source) for place in places)
    ]


def _replaced(
    seen: Inventory, those: list[Distribution], kept: set[str], *, unpacked: str, short: str, prefix: str
) -> Inventory:
    """`seen` with the files in the folder `unpacked` in place of `those`, except the paths in `kept`."""
    site = f"lib/python{short}/site-packages"
    (made,) = distributions(os.path.join(unpacked, site), site, ())
    # The wheel's own file stands before one beside it, and before none of the interpreter's.
    new = {entry.path: entry for entry in walk(unpacked).entries if entry.path not in seen.python}
    old = {path for each in those for path in each.files or ()} - kept
    folders = tuple(f"{each.records}/" for each in those if each.records)
    dropped = [entry for path, entry in seen.entries.items() if path in old or (folders and path.startswith(folders))]
    entries = {path: entry for path, entry in seen.entries.items() if path not in {each.path for each in dropped}}
    shipped = replace(
        made,
        origin="local",
        files=dict.fromkeys((*new, *kept), ""),
        source=those[0].source,
        direct=True,  # its secrets are looked for, as a wheel's from an index are not
    )
    return seen._replace(
        entries=entries | new,
        places=(Place(unpacked, ""), *seen.places),
        pip=[*(each for each in seen.pip if each not in those), shipped],
        left_out=[*seen.left_out, *_left_out(dropped, new, made.name, prefix)],
    )


def _left_out(dropped: list[FoundFile], new: dict[str, FoundFile], name: str, prefix: str) -> list[LeftOut]:
    reason = f"the wheel of {name} ships in its place"
    left_out = []
    for entry in dropped:
        if not Place(prefix, "").holds(entry.source):
            left_out.append(LeftOut(entry.source, reason))
        elif entry.path not in new:
            left_out.append(LeftOut(entry.path, reason))
    return left_out
