"""An environment as it is on this disk: every file in one package, or left out with the reason."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from lamella.builder import links, ownership, runtime
from lamella.builder.distributions import distributions
from lamella.builder.environment import Environment, File, Interpreter, Package
from lamella.builder.hashes import Hashes
from lamella.builder.interpreter import ask
from lamella.builder.libraries import libraries
from lamella.builder.places import places, prefixes
from lamella.builder.prefix import locate
from lamella.builder.venv import venv_skip
from lamella.builder.walk import Tree, walk
from lamella.layers.oci import Platform
from lamella.layers.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lamella.builder.contents import Content
    from lamella.builder.interpreter import Facts
    from lamella.builder.prefix import Located
    from lamella.builder.walk import Entry
    from lamella.layers.progress import Progress


def scan(prefix: str | None = None, *, progress: Progress | None = None, cache: str | None = None) -> Environment:
    """The environment at `prefix`; without one, the active one, the one of this folder, or that of `python` on PATH.

    `cache` is the file of known hashes, by default `hashes.default_path()`. `NotAnEnvironment` where there is none;
    `EnvironmentChanged` where something writes to it meanwhile; `CannotBuild` for files that can't be read.
    """
    located = locate(prefix)
    with contextlib.closing(Hashes(cache)) as hashes:
        return _scan(located, ask(located.executable, hashes), hashes, progress or Silent())


def _scan(located: Located, facts: Facts, hashes: Hashes, progress: Progress) -> Environment:
    found_places, found_prefixes = places(located, facts), prefixes(located, facts)
    stdlib = f"lib/python{facts.short}"
    site = f"{stdlib}/site-packages"
    own, base = _trees(located, facts)
    left_out = [*own.left_out, *base.left_out]
    # The environment's own file stands before one of its base interpreter at the same path, but for `python` itself.
    python = runtime.executables(located.prefix, facts) if located.kind == "venv" else []
    borrowed = {entry.path for entry in base.entries} - {entry.path for entry in own.entries}
    borrowed |= {entry.path for entry in python}
    merged = {entry.path: entry for entry in (*base.entries, *own.entries, *python)}
    resolved = links.resolve(merged.values(), found_places, left_out)
    left_out += resolved.left_out
    entries = {entry.path: entry for entry in resolved.entries}

    def read(files: Mapping[str, os.stat_result]) -> dict[str, Content]:
        return hashes.contents(files, found_prefixes, progress)

    contents = read({entry.source: entry.seen for entry in resolved.entries if entry.target is None})
    digests = {path: contents[entry.source].digest for path, entry in entries.items() if entry.target is None}
    python = [
        entry
        for path, entry in entries.items()
        if path in borrowed or (located.kind == "plain" and runtime.owns(path, facts))
    ]
    interpreter = {entry.path for entry in python}
    others = {path: entry for path, entry in entries.items() if path not in interpreter}
    spelled = [place.source for place in found_places if not place.path]
    found = distributions(os.path.join(located.prefix, site), site, spelled)
    owned = ownership.own(found, others, digests, frozenset(item.path for item in left_out))
    left_out += owned.left_out
    system = libraries(located.prefix, entries, contents, found_places, read)
    contents |= system.contents

    packages = [
        Package("pypi", each.name, each.version, _files(files, contents), source=each.source, records=each.folder)
        for each, files in owned.owned
    ]
    packages.append(Package("python", "python", facts.version, _files(python, contents)))
    if system.entries:
        packages.append(Package("system", "system-libraries", "", _files(system.entries, contents)))
    if owned.unowned:
        packages.append(Package("unowned", "unowned", "", _files(owned.unowned, contents)))
    return Environment(
        prefix=located.prefix,
        prefixes=found_prefixes,
        interpreter=Interpreter(
            executable=located.executable,
            version=facts.version,
            implementation=facts.implementation,
            cache_tag=facts.cache_tag,
            magic=facts.magic,
            base_prefix=facts.base_prefix,
            stdlib=stdlib,
            purelib=site,
        ),
        platform=Platform.here(),
        packages=tuple(sorted(packages, key=lambda each: (each.name, each.origin))),
        left_out=tuple(sorted(left_out, key=lambda each: each.path)),
        findings=(*resolved.findings, *owned.findings, *system.findings),
        needs=system.needs,
    )


def _trees(located: Located, facts: Facts) -> tuple[Tree, Tree]:
    """The environment's own files, and those that it borrows."""
    if located.kind == "venv":
        return walk(located.prefix, skip=venv_skip(located.prefix)), runtime.borrowed(facts)
    return walk(located.prefix, skip=runtime.stdlib_skip(f"lib/python{facts.short}", sites=False)), Tree([], [])


def _files(entries: Iterable[Entry], contents: Mapping[str, Content]) -> tuple[File, ...]:
    return tuple(sorted((_file(entry, contents) for entry in entries), key=lambda file: file.path))


def _file(entry: Entry, contents: Mapping[str, Content]) -> File:
    path, source, seen, target = entry
    if target is not None:
        return File(path, source, 0o777, 0, "", target, "", seen.st_mtime_ns, seen.st_ctime_ns)
    content = contents[source]
    mode = 0o755 if seen.st_mode & stat.S_IXUSR else 0o644
    return File(
        path, source, mode, seen.st_size, content.digest, None, content.holds, seen.st_mtime_ns, seen.st_ctime_ns
    )
