"""A package's content: the entries of its layer, the same wherever and by whomever it was installed.

Every rule that changes a byte is here or in a module that this one names (`metadata`, `scripts`, `rewrite`, `rpath`), with
its reason. Nothing is read but the few files that are rewritten.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from typing import TYPE_CHECKING, Protocol

from lamella.builder import metadata, scripts
from lamella.builder.canonical import WHOLE, Entry, Rewritten, head, measured, read_file, read_rewritten
from lamella.builder.errors import CannotBuild

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lamella.builder.environment import Environment, File, Package

RPATH = "$ORIGIN/../lib:$ORIGIN/../lib/system"
"""Of the interpreter's executable: its own libraries, then those that a bare system lacks."""

_SMALL = 256 << 10


class Measurements(Protocol):
    """Remembers digest and size of rewritten files, by what they were and what was done."""

    def measured(self, name: str) -> tuple[str, int] | None:
        """What was remembered under `name`, or None."""

    def remember(self, name: str, digest: str, size: int) -> None:
        """Remembers it, for other processes too."""


def entries(
    environment: Environment, package: Package, image_prefix: str, measurements: Measurements | None = None
) -> tuple[Entry, ...]:
    """What ships of `package`, sorted by path, without byte code and folders. `CannotBuild` names what OCI can't hold."""
    root = image_prefix.strip("/")
    conda = package.origin == "conda"
    dist_info = package.records if package.records.endswith(".dist-info") else ""
    points = {} if package.origin in ("python", "system") else _entry_points(package)
    prefixes = () if package.origin == "system" else environment.prefixes
    made: dict[str, Entry] = {}
    relocated: list[dict[str, str]] = []
    rewritten_records: list[File] = []
    has_record = False
    pip_scripts = False

    def add(path: str, mode: int, content: File | Rewritten | bytes, measure: tuple[str, int]) -> None:
        digest, size = measure
        target = content.target if not isinstance(content, (bytes, Rewritten)) else None
        made[path] = Entry(f"{root}/{path}", mode, size, digest, content, target)

    for file in package.files:
        path = file.path
        _check_name(path, package)
        if file.target is not None:
            add(path, 0o777, file, ("", 0))
            continue
        folder, _, name = path.rpartition("/")
        if dist_info and folder == dist_info:
            # The same wheel gets other ones of these from every installer.
            if name in metadata.DROPPED and not conda:
                continue
            if name == metadata.RECORD and not conda:
                has_record = True
                continue
            if name == metadata.DIRECT_URL:
                url = metadata.direct_url(b"".join(read_file(file)))
                if url is not None:
                    add(path, 0o644, url, _of(url))
                continue
        if conda and folder == "conda-meta" and name.endswith(".json"):
            rewritten_records.append(file)
            continue
        if folder == "bin" and name in points:
            content = scripts.script(*points[name], image_prefix)
            add(path, 0o755, content, _of(content))
            relocated.append({"path": path, "kind": "text"})
            continue
        if folder == "bin" and points and not conda and _is_versioned(package.name, name):
            # pip writes these beside what entry_points.txt says, uv does not.
            pip_scripts = True
            continue
        rewritten = _rewritten(file, package, prefixes, image_prefix)
        if rewritten is None:
            add(path, file.mode, file, (file.digest, file.size))
            continue
        digest, size = _measured(rewritten, measurements)
        if digest == file.digest:
            add(path, file.mode, file, (digest, size))
        else:
            add(path, file.mode, rewritten, (digest, size))
        if rewritten.shebang or (rewritten.prefixes and digest != file.digest):
            relocated.append({"path": path, "kind": "binary" if rewritten.holds == "binary" else "text"})
    if pip_scripts or (points and package.name == "pip" and any(path.startswith("bin/") for path in made)):
        for name, point in _versioned(package.name, points, environment.interpreter.version):
            content = scripts.script(*point, image_prefix)
            add(f"bin/{name}", 0o755, content, _of(content))
            relocated.append({"path": f"bin/{name}", "kind": "text"})
    for file in rewritten_records:
        shown = metadata.conda_record(b"".join(read_file(file)), made)
        if shown is not None:
            add(file.path, 0o644, shown, _of(shown))
    if has_record:
        path = f"{dist_info}/{metadata.RECORD}"
        rows = [(name, entry.digest, entry.size) for name, entry in made.items()]
        content = metadata.record(posixpath.dirname(dist_info), path, rows)
        add(path, 0o644, content, _of(content))
    if relocated:
        path = f".lamella/relocate/{package.origin}-{package.name}.json"
        relocated.sort(key=lambda item: item["path"])
        content = json.dumps({"prefix": image_prefix, "files": relocated}, sort_keys=True).encode() + b"\n"
        add(path, 0o644, content, _of(content))
    return tuple(sorted(made.values(), key=lambda entry: entry.path.encode("utf-8", "surrogateescape")))


def _of(content: bytes) -> tuple[str, int]:
    return hashlib.sha256(content).hexdigest(), len(content)


def _check_name(path: str, package: Package) -> None:
    if "/.wh." in path or path.startswith(".wh."):
        raise CannotBuild(
            f"{path} of {package.name} can't be in an image: names that begin with '.wh.' mean deletion there; "
            "rename the file or leave it out"
        )


def _entry_points(package: Package) -> dict[str, tuple[str, str]]:
    if not package.records:
        return {}
    wanted = f"{package.records}/entry_points.txt"
    for file in package.files:
        if file.path == wanted and file.target is None:
            return scripts.entry_points(b"".join(read_file(file)))
    return {}


def _is_versioned(package: str, name: str) -> bool:
    base = {"pip": "pip", "setuptools": "easy_install-"}.get(package)
    return base is not None and name.startswith(base) and name[len(base) :].replace(".", "").isdigit()


def _versioned(package: str, points: dict[str, tuple[str, str]], version: str) -> Iterable[tuple[str, tuple[str, str]]]:
    """pip's own special case: `pip` also as pip3 and pip3.12, setuptools' `easy_install` as easy_install-3.12."""
    short = ".".join(version.split(".")[:2])
    if package == "pip" and "pip" in points:
        return [("pip", points["pip"]), ("pip3", points["pip"]), (f"pip{short}", points["pip"])]
    if package == "setuptools" and "easy_install" in points:
        return [(f"easy_install-{short}", points["easy_install"])]
    return []


def _rewritten(file: File, package: Package, prefixes: Sequence[bytes], image_prefix: str) -> Rewritten | None:
    rpath, strip = _run_path(file, package)
    shebang = _names_python(file) if package.origin != "system" else False
    holds = file.holds if prefixes else ""
    if holds == "binary" and package.origin != "conda":
        # Only conda builds with a placeholder for a prefix. Elsewhere linkers share the tails of strings, so that the
        # end of a prefix can be another string as well: CPython's version "3.11.7" is the end of /opt/python/3.11.7.
        holds = ""
    if not (holds or shebang or strip or rpath is not None):
        return None
    return Rewritten(
        file,
        tuple(prefixes) if holds else (),
        image_prefix,
        holds,
        padded=package.origin == "conda",
        shebang=shebang,
        rpath=rpath,
        strip_runpath=strip,
    )


def _names_python(file: File) -> bool:
    # Only what was put on PATH: a shebang in a module of site-packages is its author's text.
    if not file.path.startswith("bin/") or not 2 < file.size <= WHOLE:
        return False
    return scripts.names_python(head(file, scripts.LOOK))


def _run_path(file: File, package: Package) -> tuple[str | None, bool]:
    if package.name != "python" or package.origin not in ("python", "conda") or not file.size:
        return None, False
    folder, _, name = file.path.rpartition("/")
    if folder == "bin" and name.startswith(("python3", "python2")) and _is_elf(file):
        return RPATH, False
    if package.origin == "python" and (".so." in name or name.endswith(".so")) and _is_elf(file):
        return None, True
    return None, False


def _is_elf(file: File) -> bool:
    return head(file, 4) == b"\x7fELF"


def _measured(rewritten: Rewritten, measurements: Measurements | None) -> tuple[str, int]:
    if rewritten.file.size <= _SMALL and rewritten.rpath is None and not rewritten.strip_runpath:
        return _of(b"".join(read_rewritten(rewritten)))
    if measurements is None:
        return measured(rewritten)
    name = hashlib.sha256(f"{rewritten.file.digest} {rewritten.rule}".encode("utf-8", "surrogateescape")).hexdigest()
    known = measurements.measured(name)
    if known is None:
        known = measured(rewritten)
        measurements.remember(name, *known)
    return known
