"""Which package and layer a file is in, or why it is left out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.environment import LeftOut
from lamella.builder.installed.distributions import normalised
from lamella.builder.layer.shipped_files import shipped_files
from lamella.builder.local.exclusion_reason import exclusion_reason
from lamella.builder.prefix.walk import BYTE_CODE
from lamella.layers.settings.homes import expanded
from lamella.layers.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lamella.builder.environment import Environment, File, Package
    from lamella.builder.layer.shipped_files import ShippedFile


@dataclass(frozen=True, slots=True)
class ExplainedFile:
    """A file that ships, and the package in whose layer it is."""

    package: Package
    file: ShippedFile


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happens to a path: the files that ship, those that are left out, or the reason why it is neither."""

    path: str
    """As it was asked for."""
    files: tuple[ExplainedFile, ...]
    """The file, the files of a folder, or those of a module; by path."""
    left_out: tuple[LeftOut, ...]
    """The paths that are left out: the path itself, paths below it, or a folder above it."""
    reason: str
    """Why it is neither; empty if it ships, or is left out."""

    def __repr__(self) -> str:
        return (
            f"<Explanation of {self.path}: {counted(len(self.files), 'file')} shipped, {len(self.left_out)} left out>"
        )


def explain(environment: Environment, path: str, *, image_prefix: str = "/opt/env") -> Explanation:
    """Find `path` in a scanned environment: a file, a folder or the name of a module.

    A path is relative to the environment's prefix or to the working directory, or absolute: on this disk, through any
    link, or below the image prefix. Reads the files to rewrite of the packages that it finds.
    """
    places = tuple(_places(environment, path, image_prefix))
    chosen = [(package, files) for package in environment.packages if (files := _of(package, places))]
    if not chosen and not os.path.exists(path) and (module := _module(path)):
        places = tuple(
            f"{folder}/{module}"
            for folder in (
                environment.interpreter.purelib,
                environment.interpreter.stdlib,
                f"{environment.interpreter.stdlib}/lib-dynload",
            )
        )
        chosen = [(package, files) for package in environment.packages if (files := _of_module(package, places))]
        places = (*places, *(f"{place}.py" for place in places))
    found = [each for package, files in chosen for each in _shipped(environment, package, files, image_prefix)]
    left_out = tuple(item for item in environment.left_out if _concerns(item.path, places))
    if _is_at(_absolute(path), [environment.prefix]):
        # The local code around it leaves the environment's folder out; its files are the environment's own.
        left_out = tuple(item for item in left_out if not _is_at(environment.prefix, [item.path]))
    # Byte code is left out only to be compiled again, in the layer of its module.
    compiled = [each for each in _compiled(environment, places, image_prefix) if each not in found]
    left_out = tuple(item for item in left_out if item.reason != BYTE_CODE or (item.path in places and not compiled))
    found = sorted([*found, *compiled], key=lambda each: each.file.path)
    # What one package leaves out, another may ship: an editable install, or an archive on PYTHONPATH.
    left_out = tuple(item for item in left_out if not any(each.file.source == item.path for each in found))
    if not found and not left_out and (why := _why_left_out(environment, path)):
        left_out = (LeftOut(path, why),)
    reason = "" if found or left_out else _unknown(environment, path)
    return Explanation(path, tuple(found), left_out, reason)


def _places(environment: Environment, path: str, image_prefix: str) -> Iterator[str]:
    """Spellings of `path`: relative to the prefix, or absolute on this disk."""
    if path == image_prefix or path.startswith(f"{image_prefix}/"):
        yield path[len(image_prefix) + 1 :]
    here = _absolute(path)
    folder, name = os.path.split(here)
    # The file itself may be a link, which ships as one; the folders above it are looked through.
    for spelling in dict.fromkeys((here, os.path.join(os.path.realpath(folder), name), os.path.realpath(here))):
        yield spelling
        for prefix in map(os.fsdecode, (os.fsencode(environment.prefix), *environment.prefixes)):
            if spelling == prefix or spelling.startswith(f"{prefix}/"):
                yield spelling[len(prefix) + 1 :]
    if not os.path.isabs(path):
        yield os.path.normpath(path)


def _of(package: Package, places: Sequence[str]) -> list[File]:
    return [file for file in package.files if _is_at(file.path, places) or _is_at(file.source, places)]


def _of_module(package: Package, places: Sequence[str]) -> list[File]:
    """Files of a module: its source or extension, or all of a package's folder."""
    return [
        file
        for file in package.files
        if any(file.path.startswith((f"{place}/", f"{place}.")) and _is_of(file.path[len(place) :]) for place in places)
    ]


def _is_of(rest: str) -> bool:
    return rest.startswith("/") or rest == ".py" or rest.endswith((".so", ".pyd"))


def _module(name: str) -> str:
    parts = name.split(".")
    return "/".join(parts) if all(part.isidentifier() for part in parts) else ""


def _is_at(path: str, places: Iterable[str]) -> bool:
    """Whether `path` is one of `places`, or below one."""
    return any(place in (path, "") or path.startswith(f"{place}/") for place in places if place or path)


def _shipped(
    environment: Environment, package: Package, files: Sequence[File], image_prefix: str
) -> list[ExplainedFile]:
    """The files of a layer that come of `files`."""
    sources, paths = {file.source for file in files}, {file.path for file in files}
    return [
        ExplainedFile(package, each)
        for each in shipped_files(environment, package, image_prefix)
        if each.path in paths or (each.source in sources and each.how != "compiled")
    ]


def _compiled(environment: Environment, places: Sequence[str], image_prefix: str) -> list[ExplainedFile]:
    """Byte code at `places` that ships, made anew."""
    if not any(place.endswith(".pyc") or place.rpartition("/")[2] == "__pycache__" for place in places):
        return []
    modules = {_source_of(place) for place in places}
    return [
        ExplainedFile(package, each)
        for package in environment.packages
        if any(_source_of(file.path) in modules for file in package.files)
        for each in shipped_files(environment, package, image_prefix)
        if each.how == "compiled" and _is_at(each.path, places)
    ]


def _source_of(path: str) -> str:
    """A module without its suffix, for byte code and its source alike: `a/__pycache__/b.cpython-311.pyc` is `a/b`."""
    folder, _, name = path.rpartition("/")
    return f"{folder.removesuffix('/__pycache__')}/{name.partition('.')[0]}"


def _concerns(left_out: str, places: Iterable[str]) -> bool:
    """Whether a path that is left out is one of `places`, below one, or a folder above one."""
    return any(place and (_is_at(left_out, [place]) or _is_at(place, [left_out])) for place in places)


def _why_left_out(environment: Environment, path: str) -> str:
    """Why a file of a project, which no scan went to, does not ship; empty if that is not known."""
    here = _absolute(path)
    if not os.path.lexists(here):
        return ""
    if reason := exclusion_reason(here):
        return reason
    project = next((each for each in environment.packages if _is_beside(each, here)), None)
    return f"beside the code of the installed project {project.name}; ship it with --include" if project else ""


def _unknown(environment: Environment, path: str) -> str:
    """Why a path neither ships nor is left out."""
    here = _absolute(path)
    inside = os.path.join(environment.prefix, path)
    if any(_is_empty_folder(each) for each in (here, inside)):
        return "an empty folder, which no layer holds; add a file to it, such as .keep"
    if os.path.lexists(here):
        advice = "; ship it with --include" if here.startswith(f"{os.getcwd()}/") else ""
        return f"neither in the environment {environment.prefix} nor in local code{advice}"
    if package := next((each.name for each in environment.packages if normalised(each.name) == normalised(path)), ""):
        return f"a package, not a file or module; list its files with lamella scan --files {package}"
    module = ", and no module of that name" if _module(path) else " here, or"
    return f"no such file or folder{module} in {environment.prefix}"


def _is_empty_folder(path: str) -> bool:
    try:
        return not os.listdir(path)
    except OSError:
        return False


def _absolute(path: str) -> str:
    return os.path.normpath(os.path.join(os.getcwd(), expanded(path)))


def _is_beside(package: Package, path: str) -> bool:
    """Whether a path is in the folder of an installed project, beside its code."""
    folder = package.source.removeprefix("file://")
    return (
        package.origin == "local"
        and os.path.isabs(folder)
        and os.path.realpath(path).startswith(f"{os.path.realpath(folder)}/")
    )
