"""Where the target's interpreter comes from: an environment in the repository, any OCI image, or a folder."""

from __future__ import annotations

import os
import re
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.errors import NotAnEnvironment
from lamella.builder.image.base import read_base
from lamella.builder.resolving.image_tree import folder_tree, image_tree
from lamella.layers.errors import InvalidContent, NotFound, NotSigned
from lamella.layers.oci.annotations import IMAGE
from lamella.layers.oci.documents import INDEX_TYPES, Index
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.oci.tags import is_derived
from lamella.layers.published.environment import for_platform, read_index
from lamella.layers.storages import open_storage, trust_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lamella.builder.resolving.image_tree import Tree
    from lamella.builder.resolving.model import Target
    from lamella.layers.oci.documents import Layer
    from lamella.layers.oci.storage import ReadOnlyStorage
    from lamella.layers.progress.display import Progress
    from lamella.layers.published.environment import PublishedEnvironment
    from lamella.layers.settings.trust import Trust

_MAX_TAGS = 50
"""Tags that are looked at for an interpreter, two requests each."""
_PARTS = ("python", "system")
"""Origins of the layers that make an interpreter."""
FLAG = "--python-from"
_FOLDERS = ("/", "./", "../", "~")


@dataclass(frozen=True, slots=True)
class Source:
    """Files that hold an interpreter."""

    name: str
    """For messages: `--python-from python:3.12-slim`."""
    tree: Tree
    folders: tuple[str, ...]
    """Prefixes to look in first, such as those of the image's PATH."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a source needs."""

    target: Target
    spool: str
    """Empty folder for the contents of files; they are there as long as it is."""
    goal: str
    """The reference that is pushed to; may be empty."""
    trust: Trust
    """For `goal`."""
    progress: Progress

    def tree(self, storage: ReadOnlyStorage, layers: Sequence[Layer]) -> Tree:
        """The files of an image's layers, with contents of those that an interpreter may have."""
        return image_tree(storage, layers, _wanted(short(self.target.python)), self.spool, self.progress)


def short(version: str) -> str:
    """`3.12` for 3.12.4."""
    return ".".join(version.split(".")[:2])


def named_source(named: str, reading: Reading) -> Source:
    """The source that `--python-from` names: a folder, an image or an environment of Lamella's.

    Raises `NotAnEnvironment`, `InvalidReference`, and what reading an image raises.
    """
    target = reading.target
    name, version = f"{FLAG} {named}", short(target.python)
    if os.path.isdir(named):
        return Source(name, folder_tree(named, _wanted(version)), ("",))
    if named.startswith(_FOLDERS):
        raise NotAnEnvironment(f"{name}: no such folder; name a folder, or an image such as python:{version}-slim")
    reference = Reference.parse(named)
    trust = _trust(reference, reading.goal, reading.trust)
    with closing(open_storage(reference, trust)) as storage:
        if _is_environment(storage, reference):
            environment = for_platform(read_index(storage, reference, trust, target.platform), target.platform)
            if _version(environment):
                return _of_environment(name, storage, environment, reading)
            raise NotAnEnvironment(
                f"{name}: a conda environment, whose Python needs its other packages; name an image such as "
                f"python:{version}-slim"
            )
        base = read_base(storage, reference, target.platform, trust, flag=FLAG)
        tree = reading.tree(storage, base.layers)
    path = next((each[5:] for each in base.config.env if each.startswith("PATH=")), "")
    folders = [each.strip("/").removesuffix("bin").strip("/") for each in path.split(":") if each.endswith("/bin")]
    return Source(name, tree, tuple(dict.fromkeys(folders)))


def named_digest(named: str, goal: str, trust: Trust) -> str:
    """Digest that the reference of `--python-from` names now; empty for a folder, whose files may change at any time.

    `goal` is the reference that is pushed to, for which `trust` is. Raises as `named_source`.
    """
    if os.path.isdir(named) or named.startswith(_FOLDERS):
        return ""
    reference = Reference.parse(named)
    if reference.digest:
        return str(reference.digest)
    with closing(open_storage(reference, _trust(reference, goal, trust))) as storage:
        return str(storage.resolve(reference.tag).digest)


def _trust(reference: Reference, goal: str, trust: Trust) -> Trust:
    return trust_for(reference, Reference.parse(goal), trust) if goal else trust


def repository_source(reading: Reading) -> Source | None:
    """An environment for the target in the repository that is pushed to, with the target's minor version of Python.

    The newest patch version up to the target's is preferred, then the oldest above it. None for a
    repository that is empty, missing, or without such an environment. An environment that this machine's policy refuses is not used.
    """
    parsed, target = Reference.parse(reading.goal), reading.target
    try:
        storage = open_storage(parsed, reading.trust)
    except NotFound:
        return None
    with closing(storage):
        found = [
            (version, tag, environment)
            for tag, environment in _environments(storage, parsed, target, reading.trust)
            if short(version := _version(environment)) == short(target.python)
        ]
        if not found:
            return None
        _, tag, environment = min(found, key=lambda each: _distance(each[0], target.python))
        return _of_environment(str(parsed.at_tag(tag)), storage, environment, reading)


def _environments(
    storage: ReadOnlyStorage, parsed: Reference, target: Target, trust: Trust
) -> Iterator[tuple[str, PublishedEnvironment]]:
    try:
        tags = [tag for tag in storage.tags() if not is_derived(tag)]
    except NotFound:
        return
    # The pushed tag first: most often an earlier push of the same environment has the interpreter.
    for tag in sorted(tags, key=lambda tag: tag != parsed.tag)[:_MAX_TAGS]:
        reference = parsed.at_tag(tag)
        try:
            if not _is_environment(storage, reference):
                continue
            published = read_index(storage, reference, trust, target.platform)
        except (NotFound, InvalidContent, NotSigned):
            continue
        if published.environments:
            yield tag, for_platform(published, target.platform)


def _distance(version: str, wanted: str) -> tuple[bool, int]:
    patch, goal = (int(found[0]) if (found := re.findall(r"\d+", each)[2:]) else 0 for each in (version, wanted))
    return patch > goal, abs(patch - goal)


def _is_environment(storage: ReadOnlyStorage, reference: Reference) -> bool:
    descriptor = storage.resolve(str(reference.digest) if reference.digest else reference.tag)
    if descriptor.media_type not in INDEX_TYPES:
        return False
    return any(IMAGE in each.annotations for each in Index.parse(fetch_document(storage, descriptor)).manifests)


def _version(environment: PublishedEnvironment) -> str:
    """Version of the environment's interpreter; empty if it is conda's."""
    return next((each.version for each in environment.packages if each.origin == "python"), "")


def _of_environment(name: str, storage: ReadOnlyStorage, environment: PublishedEnvironment, reading: Reading) -> Source:
    layers = [each.layer for each in environment.packages if each.origin in _PARTS]
    return Source(name, reading.tree(storage, layers), (environment.prefix.strip("/"),))


def _wanted(version: str) -> Callable[[str], bool]:
    """Paths whose contents may be part of an interpreter of this minor version."""
    name = re.escape(f"python{version}")
    library = rf"lib/{name}/(?!(?:site|dist)-packages/|test/|config-[^/]*/libpython)(?:.*/)?(?!__pycache__/)[^/]*"
    found = re.compile(
        rf"(?:.*/)?(?:bin/{name}|{library}|include/{name}/.*|lib(?:64)?/(?:[^/]*-linux-gnu[^/]*/|system/)?[^/]*\.so(?:\.[^/]*)?"
        r"|lib/(?:tcl|tk|itcl|thread)\d[^/]*/.*|share/terminfo/.*|etc/ld\.so\.conf(?:\.d/[^/]*)?)"
    )
    return lambda path: bool(found.fullmatch(path)) and "/__pycache__/" not in path
