"""Findings about files that hold the environment's prefix, or name its Python, and cannot be rewritten."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.builder.content.entry import Rewritten, measured, read_rewritten
from lamella.builder.content.package import script_payload
from lamella.builder.content.payload import holds_prefix
from lamella.builder.content.script_templates import LONGEST
from lamella.builder.errors import CannotBuild
from lamella.builder.files.prefix_pattern import pattern
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lamella.builder.environment import File, Package


def unrewritten(
    packages: Iterable[Package], prefix: str, prefixes: tuple[bytes, ...], image_prefix: str
) -> list[Finding]:
    """One finding for each file that ships with the environment's prefix, or with its Python's path, on this disk."""
    return [
        Finding("warning", "prefix", package.name, message)
        for package in packages
        # The interpreter finds its folders from its own path.
        if package.origin not in ("conda", "python", "system")
        for file in package.files
        # Few files are either, and a generator for each of the others would take most of the time.
        if file.holds == "binary" or file.path.startswith("bin/")
        for message in _unrewritten(file, prefix, prefixes, image_prefix)
    ]


def _unrewritten(file: File, prefix: str, prefixes: tuple[bytes, ...], image_prefix: str) -> Iterator[str]:
    # Byte code names its source only for tracebacks.
    binary = file.holds == "binary" and not file.path.endswith(".pyc")
    # Not each of an environment's scripts is opened: those of installers are shorter than one with data.
    script = file.path.startswith("bin/") and file.target is None and file.size > LONGEST
    if not (binary or script):
        return
    try:
        payload = script_payload(file, prefixes if binary else (), image_prefix)
    except CannotBuild as error:
        yield f"{str(error).replace(file.source, file.path, 1)}; it ships as it is; shorten the image prefix ({image_prefix})"
        return
    if binary and file.run_path:
        # Most often nothing else of such a file holds the prefix.
        rest = b"".join(read_rewritten(Rewritten(file, run_path=file.run_path)))
        binary = pattern(prefixes).search(rest) is not None
    if binary and (payload is None or holds_prefix(file, prefixes, payload.start)):
        yield (
            f"{file.path}: cannot find its data on nodes: {prefix} is compiled in, without the padding that conda "
            f"packages have for another prefix ({image_prefix})"
        )


def cramped(packages: Iterable[Package], prefixes: tuple[bytes, ...], image_prefix: str) -> list[Finding]:
    """One finding for each file of a conda package without room for the image prefix.

    Files are read only if the image prefix is longer than the prefix that they hold now.
    """
    if not prefixes or len(os.fsencode(image_prefix)) <= min(map(len, prefixes)):
        return []
    found = []
    for package in packages:
        for file in package.files if package.origin == "conda" else ():
            if file.holds == "binary" and not _is_script_with_room(file, prefixes, image_prefix):
                try:
                    measured(Rewritten(file, prefixes, image_prefix, "binary", padded=True))
                except CannotBuild as error:
                    message = str(error).replace(file.source, file.path, 1)
                    found.append(Finding("error", "prefix", package.name, message))
    return found


def _is_script_with_room(file: File, prefixes: tuple[bytes, ...], image_prefix: str) -> bool:
    try:
        return script_payload(file, prefixes, image_prefix) is not None
    except CannotBuild:
        return False
