"""An environment as it is on this disk: every file in one package, or left out with the reason."""

from __future__ import annotations

import contextlib
import gc
import os
import stat
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.environment import Environment, File, Interpreter, LeftOut, Package
from lamella.builder.files.hash_cache import Hashes
from lamella.builder.installed.conda import conda_owned
from lamella.builder.installed.conda_virtual import unchecked
from lamella.builder.installed.distributions import normalised
from lamella.builder.installed.requirements import unmet
from lamella.builder.local.roots import Local
from lamella.builder.local.working_directory import within_limit
from lamella.builder.prefix.interpreter import ask, recorded_platform
from lamella.builder.prefix.locate import locate
from lamella.builder.prefix.places import prefixes
from lamella.builder.scanning.collect import collect
from lamella.builder.scanning.exclusions import SYSTEM_LIBRARIES, UNREAD, unread, without
from lamella.builder.scanning.findings import (
    cramped,
    made_for,
    outside,
    secrets,
    uncompiled,
    unloadable,
    unnamable,
    unowned,
    unrewritten,
    without_secrets,
)
from lamella.builder.scanning.ownership import Ownership, own
from lamella.builder.scanning.system_libraries import libraries
from lamella.layers.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lamella.builder.files.read import Content
    from lamella.builder.prefix.interpreter import Facts
    from lamella.builder.prefix.locate import Located
    from lamella.builder.prefix.walk import Entry
    from lamella.layers.oci.documents import Platform
    from lamella.layers.progress import Progress


_SYSTEM = ("/usr/", "/etc/")


def scan(
    prefix: str | None = None,
    *,
    local: str | None = None,
    working_directory: bool = False,
    include: Sequence[str] = (),
    ignore: Sequence[str] = (),
    allow_large: bool = False,
    system_libraries: bool = True,
    wheels: bool = False,
    image_prefix: str = "/opt/env",
    platform: Platform | None = None,
    progress: Progress | None = None,
    cache: str | None = None,
) -> Environment:
    """The environment at `prefix`; without one, the active one, the one of this folder, or that of `python` on PATH.

    `local` is a folder whose code ships, too, as one local package with the files and folders `include`; without one, and
    with `working_directory`, that directory is, if it is a project's. More than `working.LIMIT` bytes of local code ship only
    where it is `allow_large`. Packages named in `ignore` are left out. `cache` is the file of known hashes, by default
    `hashes.sqlite` in `cache_folder()`. With `wheels`, local projects are built as wheels, which ship in their place; they are kept in
    `$LAMELLA_CACHE/wheels`. Files that can't be rewritten for the `image_prefix` are findings. `platform` is the interpreter's
    unless it is named, with a variant for example; for another machine's, local projects are always built as wheels.

    `NotAnEnvironment` where there is none; `EnvironmentChanged` where something writes to it meanwhile; `CannotBuild` for
    what can't be read, and for local code that is too much; `BuilderError` for a wheel that can't be built.
    """
    located = locate(prefix)
    wanted = _Wanted(
        Local(local or (os.curdir if working_directory else ""), tuple(include), allow_large, asked=local is not None),
        frozenset(map(normalised, ignore)),
        system_libraries,
        wheels,
        image_prefix,
        platform,
    )
    with contextlib.closing(Hashes(cache)) as hashes, _no_collection():
        return _scan(located, ask(located.executable, hashes), wanted, hashes, progress or Silent())


class _Wanted(NamedTuple):
    """What of the environment its user wants."""

    local: Local
    ignore: frozenset[str]
    """Normalised names."""
    system_libraries: bool
    wheels: bool
    image_prefix: str
    platform: Platform | None
    """None for the interpreter's."""


def _scan(located: Located, facts: Facts, wanted: _Wanted, hashes: Hashes, progress: Progress) -> Environment:
    platform = recorded_platform(located.prefix, facts, wanted.platform)
    seen, searched = collect(located, facts, wanted.local), prefixes(located, facts)

    def read(files: Mapping[str, os.stat_result]) -> dict[str, Content]:
        return hashes.contents(files, searched, progress)

    # What compiles here is for here: a local project of another machine's environment is what its wheel is.
    is_foreign = facts.compiler != located.executable
    if wanted.wheels or is_foreign:
        from lamella.builder.wheels.install import with_wheels

        seen = with_wheels(seen, located, facts, local=wanted.local, read=read, progress=progress)
    within_limit(seen.entries, seen.pip, wanted.local)
    entries = seen.entries
    unneeded = unread([*seen.conda, *seen.pip], entries, wanted.ignore)
    contents = {entries[path].source: UNREAD for path in unneeded}
    contents |= read(
        {entry.source: entry.seen for path, entry in entries.items() if entry.target is None and path not in unneeded}
    )

    def digest(path: str) -> str:
        entry = entries.get(path)
        return contents[entry.source].digest if entry and entry.target is None else ""

    by_pip, replaced = conda_owned(seen.conda, seen.pip, digest)
    # Metadata that conda packages bring: their names and requirements count, though the files are the conda package's.
    installed = {each.records for each in by_pip}
    brought = [each for each in seen.pip if each.records not in installed]
    python: Sequence[Entry] = [entry for path, entry in entries.items() if path in seen.python]
    others = {path: entry for path, entry in entries.items() if path not in seen.python}
    owned = own([*by_pip, *seen.conda], others, contents, _covered(seen.left_out))
    site = f"lib/python{facts.short}/site-packages"
    chosen = without(owned, python, wanted.ignore)
    owned, python = _without_secrets(chosen.owned), chosen.python
    left_out = {*seen.left_out, *owned.left_out}
    still = [each for each in brought if chosen.paths.isdisjoint((each.records, f"{each.records}/METADATA"))]
    gone = [*chosen.dropped, *(each for each in brought if each not in still)]
    local = [entry for each, files in owned.owned if each.editable or each.origin == "local" for entry in files]
    findings = [
        *(each for each in (*seen.findings, *replaced) if normalised(each.subject) not in wanted.ignore),
        *(*owned.findings, *secrets(left_out), *outside([*local, *owned.unowned], seen.places)),
        *unowned(owned.unowned, site),
        *(*uncompiled(facts), *made_for(located, facts)),
        *(unloadable(local, contents, platform) if is_foreign else ()),
        *unmet([each for each, _ in owned.owned] + still, facts, located.executable, hashes, left_out=gone),
    ]
    names = {entry.path: each.name for each, files in owned.owned for entry in files}
    ships = {entry.path: entry for entry in (*python, *owned.unowned, *chain.from_iterable(f for _, f in owned.owned))}
    system = libraries(located.prefix, ships, contents, seen.places, read, names=names, without=chosen.sources)
    contents |= system.contents

    packages = [
        Package(each.origin, each.name, each.version, _files(files, contents), each.build, each.source, each.records)
        for each, files in owned.owned
    ]
    if python:
        packages.append(Package("python", "python", facts.version, _files(python, contents)))
    if system.entries and wanted.system_libraries and SYSTEM_LIBRARIES not in wanted.ignore:
        packages.append(Package("system", "system-libraries", "", _files(system.entries, contents)))
    if owned.unowned:
        packages.append(Package("unowned", "unowned", "", _files(owned.unowned, contents)))
    return Environment(
        prefix=located.prefix,
        prefixes=searched,
        interpreter=Interpreter(
            executable=located.executable,
            version=facts.version,
            implementation=facts.implementation,
            cache_tag=facts.cache_tag,
            magic=facts.magic,
            base_prefix=facts.base_prefix,
            stdlib=f"lib/python{facts.short}",
            purelib=site,
            compiler=facts.compiler,
        ),
        platform=platform,
        packages=tuple(sorted(packages, key=lambda each: (each.name, each.origin))),
        left_out=tuple(sorted(left_out, key=lambda each: (each.path, each.reason))),
        findings=(
            *(*findings, *system.findings, *unrewritten(packages, located.prefix, wanted.image_prefix)),
            *unnamable(packages),
            *cramped(packages, searched, wanted.image_prefix),
            *unchecked([each for each, _ in owned.owned], system.needs),
        ),
        needs=replace(system.needs, certificates=_certificates(located, facts)),
    )


def _certificates(located: Located, facts: Facts) -> tuple[str, ...]:
    if not facts.certificates or all(path.startswith(f"{located.prefix}/") for path in facts.certificates):
        return ()
    # Not the path of a base interpreter's own folder: it is this machine's, and on no node.
    return facts.certificates if all(path.startswith(_SYSTEM) for path in facts.certificates) else ("",)


def _without_secrets(owned: Ownership) -> Ownership:
    """`owned` without what holds credentials. A wheel from an index is public: what it brings is nobody's secret."""
    kept, left_out = without_secrets(owned.unowned)
    packages = []
    for each, files in owned.owned:
        if each.direct or each.editable:
            checked, hidden = without_secrets(files)
            left_out += hidden
            packages.append((each, checked))
        else:
            packages.append((each, files))
    return owned._replace(owned=packages, unowned=kept, left_out=[*owned.left_out, *left_out])


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without garbage collection: hundreds of thousands of values are made here, none is garbage, and none is a cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _covered(left_out: Iterable[LeftOut]) -> Callable[[str], bool]:
    """Whether a path, or a folder that it is in, is left out."""
    omitted = {item.path for item in left_out}

    def covered(path: str) -> bool:
        while path:
            if path in omitted:
                return True
            path = path.rpartition("/")[0]
        return False

    return covered


def _files(entries: Iterable[Entry], contents: Mapping[str, Content]) -> tuple[File, ...]:
    # As tuples they sort by their first field, the path, which no two of them share.
    return tuple([_file(entry, contents) for entry in sorted(entries)])


def _file(entry: Entry, contents: Mapping[str, Content]) -> File:
    path, source, seen, target = entry
    if target is not None:
        return File(path, source, 0o777, 0, "", target, "", seen.st_mtime_ns, seen.st_ctime_ns)
    content = contents[source]
    mode = 0o755 if seen.st_mode & stat.S_IXUSR else 0o644
    return File(
        path, source, mode, seen.st_size, content.digest, None, content.holds, seen.st_mtime_ns, seen.st_ctime_ns
    )
