"""Scan an environment: assign every file on disk to one package, or leave it out with a reason."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from lamella.builder.cache_folder import cache_folder
from lamella.builder.environment import Environment, Interpreter
from lamella.builder.files.content_cache import ContentCache
from lamella.builder.garbage import uncollected
from lamella.builder.prefix.interpreter import prefix_of, recorded_platform
from lamella.builder.prefix.locate import locate
from lamella.builder.prefix.places import prefixes
from lamella.builder.scanning.collect import collect
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.remembered import keep, recall, scan_key
from lamella.builder.scanning.task import ScanTask
from lamella.layers.progress.display import shown

if TYPE_CHECKING:
    from lamella.builder.content.precompiler import Precompiler
    from lamella.builder.prefix.interpreter import Prefix
    from lamella.layers.progress.display import Progress

_SYSTEM = ("/usr/", "/etc/")


def scan(
    prefix: str | None = None,
    options: ScanOptions = ScanOptions(),
    *,
    progress: Progress | None = None,
    precompiler: Precompiler | None = None,
) -> Environment:
    """Scan the environment at `prefix`; the default is the running interpreter's, `sys.prefix`.

    `precompiler` compiles the modules of an environment that no scan has read before, for a push or
    export of the result. Raises `NotAnEnvironment` if there is none, `EnvironmentChanged` if it
    changes during the scan, `CannotBuild` for an unreadable file and for too much local code,
    and `BuilderError` for a wheel that cannot be built.
    """
    located = locate(sys.prefix if prefix is None else prefix)
    path = os.path.join(cache_folder(options.cache), "hashes.sqlite")
    with shown(progress) as bars, contextlib.closing(ContentCache(path)) as hashes, uncollected():
        return _scan(prefix_of(located, hashes, options.companion), options, hashes, bars, precompiler)


def _scan(
    prefix: Prefix, options: ScanOptions, hashes: ContentCache, progress: Progress, precompiler: Precompiler | None
) -> Environment:
    task = ScanTask(prefix, options, recorded_platform(prefix, options.platform), prefixes(prefix), hashes, progress)
    collected = collect(prefix, task.local, cache_folder(options.cache))
    # A wheel is built of more than the inventory has.
    key = None if task.wheels else scan_key(prefix, options, collected)
    result = recall(hashes, key, collected) if key else None
    if result is None:
        # Most scans find an unchanged environment: what computes one is imported only then.
        from lamella.builder.scanning import computed

        if precompiler and not hashes.knows(task.searched):
            sources = [(entry.path, entry.source) for entry in collected.entries.values() if entry.target is None]
            precompiler.start(_interpreter(prefix), options.image_prefix, sources)
        result = computed.result(task, collected)
        if key:
            result = keep(hashes, key, collected, result, task.disk)
    environment = Environment(
        prefix=prefix.path,
        prefixes=task.searched,
        interpreter=_interpreter(prefix),
        platform=task.platform,
        packages=result.packages,
        left_out=result.left_out,
        findings=result.findings,
        needs=replace(result.needs, certificates=_certificates(prefix)),
    )
    object.__setattr__(environment, "digest", result.digest)
    return environment


def _interpreter(prefix: Prefix) -> Interpreter:
    python = prefix.python
    return Interpreter(
        executable=prefix.executable,
        version=python.version,
        implementation=python.implementation,
        cache_tag=python.cache_tag,
        magic=python.magic,
        base_prefix=python.base_prefix,
        stdlib=prefix.stdlib,
        purelib=prefix.site_packages,
        compiler=python.compiler,
    )


def _certificates(prefix: Prefix) -> tuple[str, ...]:
    paths = prefix.python.certificates
    if not paths or all(path.startswith(f"{prefix.path}/") for path in paths):
        return ()
    # Omit the path of a base interpreter's own folder, which no node has.
    return paths if all(path.startswith(_SYSTEM) for path in paths) else ("",)
