"""The canonical content of a package: the entries of its layer, the same wherever it was installed.

Every rule that changes a byte is here, or in `metadata`, `scripts`, `prefix_rewrite` and `rpath`, with
its reason. Only the few files to rewrite are read.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from typing import TYPE_CHECKING, Literal, Protocol

from lamella.builder.content import metadata, scripts
from lamella.builder.content.bytecode import modules
from lamella.builder.content.conda_shebangs import can_shorten, originals, restored
from lamella.builder.content.entry import Entry, Rewritten, head, measured, read_file, read_rewritten
from lamella.builder.content.header_places import canonical_place
from lamella.builder.content.names import is_whiteout, refusal
from lamella.builder.content.payload import find_payload
from lamella.builder.content.prefix_rewrite import rewrite_text
from lamella.builder.content.script_templates import LONGEST
from lamella.builder.environment import File, RunPath
from lamella.builder.errors import CannotBuild

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lamella.builder.content.conda_shebangs import Original
    from lamella.builder.content.payload import Payload
    from lamella.builder.environment import Environment, Package

RPATH = "$ORIGIN/../lib:$ORIGIN/../lib/system"
"""Run path of the interpreter's executable: its own libraries, then those shipped from the system."""

_SMALL = 256 << 10


class Measurements(Protocol):
    """Remembers digest and size of rewritten files, by original and by change."""

    def measured(self, name: str) -> tuple[str, int] | None:
        """Result remembered under `name`, or None."""

    def remember(self, name: str, digest: str, size: int) -> None:
        """Remember a result, for other processes too."""


def entries(
    environment: Environment, package: Package, image_prefix: str, measurements: Measurements | None = None
) -> tuple[Entry, ...]:
    """Return the entries of `package`, sorted by path, without byte code and folders.

    Raises `CannotBuild` for a name that an OCI layer cannot contain.
    """
    layer = _Layer(environment, package, image_prefix, measurements)
    for file in package.files:
        if is_whiteout(file.path):
            raise CannotBuild(f"{file.path} of {package.name}: {refusal(file.path)}")
        if file.target is not None or not (layer.metadata(file) or layer.script(file) or layer.shortened(file)):
            layer.file(file)
    return layer.finished()


class _Layer:
    """Entries of one package while they are collected, by path relative to the image prefix."""

    def __init__(
        self, environment: Environment, package: Package, image_prefix: str, measurements: Measurements | None
    ) -> None:
        self._environment = environment
        self._package = package
        self._image_prefix = image_prefix
        self._measurements = measurements
        self._made: dict[str, Entry] = {}
        self._relocated: list[dict[str, str]] = []
        self._conda_records: list[File] = []
        self._dist_info = package.records if package.records.endswith(".dist-info") else ""
        self._record = False
        self._points = _entry_points(package)
        self._originals = _originals(package, environment.prefixes)
        self._versioned = False
        # A package from an index is public, including its files that look like secrets.
        direct_url = f"{self._dist_info}/{metadata.DIRECT_URL}"
        self._private = package.origin in ("local", "unowned") or (
            package.origin == "pypi"
            and (bool(package.source) or any(file.path == direct_url for file in package.files))
        )

    def metadata(self, file: File) -> bool:
        """Take the file if installers write it in different ways."""
        folder, _, name = file.path.rpartition("/")
        conda = self._package.origin == "conda"
        if conda and folder == "conda-meta" and name.endswith(".json"):
            self._conda_records.append(file)
            return True
        own = bool(self._dist_info) and folder == self._dist_info
        if (own and name == metadata.DIRECT_URL) or (self._private and name in metadata.PROVENANCE):
            url = metadata.direct_url(b"".join(read_file(file)))
            # PEP 710's file records a mirror's address, which depends on the machine of the installation.
            if url is not None and not (own and name in metadata.DROPPED):
                self._generated(file.path, url)
            return True
        if self._private and name in metadata.REQUIREMENTS and folder.endswith((".dist-info", ".egg-info")):
            self._generated(file.path, metadata.without_url_credentials(name, b"".join(read_file(file))))
            return True
        if not own:
            return False
        # Inside a conda package these are content, written by conda-build.
        if conda or name not in (metadata.RECORD, *metadata.DROPPED):
            return False
        self._record = self._record or name == metadata.RECORD
        return True

    def script(self, file: File) -> bool:
        """Take the file if an installer wrote it for an entry point."""
        folder, _, name = file.path.rpartition("/")
        if folder != "bin":
            return False
        if self._package.origin == "conda":
            point = scripts.written_by_conda(head(file, scripts.LOOK)) if file.size < scripts.LOOK else None
            if point:
                self._generated_script(name, point)
            return point is not None
        versioned = name not in self._points and _is_versioned(self._package.name, name)
        point = self._points.get(name.rstrip("-.0123456789") if versioned else name)
        if not point or file.size > LONGEST or not scripts.installers_own(head(file, LONGEST), name, point):
            # Not every script: one that was changed keeps its text, and one by pipx its flag for Python, -E.
            return False
        if versioned:
            # pip writes these besides the names in entry_points.txt, uv does not.
            self._versioned = True
        else:
            self._generated_script(name, point)
        return True

    def shortened(self, file: File) -> bool:
        """Take the file if it is a conda package's script whose first line was too long at this prefix."""
        original = self._originals.get(file.path)
        prefixes = self._environment.prefixes
        content = restored(b"".join(read_file(file)), prefixes, original) if original else None
        if content is None:
            return False
        image_prefix = self._image_prefix.encode("utf-8", "surrogateescape")
        self._generated(file.path, b"".join(rewrite_text([content], prefixes, image_prefix)), file.mode)
        self._relocate(file.path, "text")
        return True

    def file(self, file: File) -> None:
        """Take any file or symlink, rewritten if necessary."""
        path, target = canonical_place(file)
        if target != file.target:
            file = file._replace(target=target)
        rewritten = _rewritten(file, self._package, self._environment.prefixes, self._image_prefix)
        # pip keeps the mode of a wheel's script, uv makes it executable.
        script = path.startswith("bin/") and file.target is None and self._package.origin == "pypi"
        mode = 0o755 if script or (rewritten and rewritten.shebang) else file.mode
        if rewritten is None:
            self._add(path, mode, file, (file.digest, file.size))
            return
        measure = _measured(rewritten, self._measurements)
        changed = measure[0] != file.digest
        self._add(path, mode, rewritten if changed else file, measure)
        if rewritten.shebang or (rewritten.holds and changed):
            payload = rewritten.payload.kind if rewritten.payload else ""
            self._relocate(path, "binary" if rewritten.holds == "binary" and not payload else "text", payload)

    def finished(self) -> tuple[Entry, ...]:
        """Return all entries, including the records that list them."""
        pip = self._package.name == "pip" and any(name in self._points for name in ("pip", "pip3"))
        if self._versioned or (pip and any(path.startswith("bin/") for path in self._made)):
            for name, point in _versioned(self._package.name, self._points, self._environment.interpreter.version):
                if f"bin/{name}" not in self._made:
                    self._generated_script(name, point)
        paths = self._conda_paths() if self._conda_records else {}
        for file in self._conda_records:
            shown = metadata.conda_record(b"".join(read_file(file)), paths)
            if shown is not None:
                self._generated(file.path, shown)
        if self._record:
            path = f"{self._dist_info}/{metadata.RECORD}"
            rows = [(name, entry.digest, entry.size) for name, entry in self._made.items()]
            self._generated(path, metadata.record(posixpath.dirname(self._dist_info), path, rows))
        if self._relocated:
            listed = sorted(self._relocated, key=lambda item: item["path"])
            content = json.dumps({"prefix": self._image_prefix, "files": listed}, sort_keys=True).encode() + b"\n"
            self._generated(f".lamella/relocate/{self._package.origin}-{self._package.name}.json", content)
        return tuple(sorted(self._made.values(), key=lambda entry: entry.path.encode("utf-8", "surrogateescape")))

    def _conda_paths(self) -> dict[str, str]:
        """Paths for a conda record, with conda's types. Byte code is among them, so that it is removed with the package."""
        paths = {path: "hardlink" if entry.target is None else "softlink" for path, entry in self._made.items()}
        compiled = modules(tuple(self._made.values()), self._environment.interpreter, self._image_prefix)
        return paths | {module.path[len(self._image_prefix) :]: "pyc_file" for module in compiled}

    def _add(self, path: str, mode: int, content: File | Rewritten | bytes, measure: tuple[str, int]) -> None:
        digest, size = measure
        target = content.target if isinstance(content, File) else None
        self._made[path] = Entry(f"{self._image_prefix[1:]}/{path}", mode, size, digest, content, target)

    def _generated(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._add(path, mode, content, _of(content))

    def _generated_script(self, name: str, point: tuple[str, str]) -> None:
        self._generated(f"bin/{name}", scripts.script(*point, self._image_prefix), 0o755)
        self._relocate(f"bin/{name}", "text")

    def _relocate(self, path: str, kind: Literal["text", "binary"], payload: str = "") -> None:
        self._relocated.append({"path": path, "kind": kind} | ({"payload": payload} if payload else {}))


def _of(content: bytes) -> tuple[str, int]:
    return hashlib.sha256(content).hexdigest(), len(content)


def _entry_points(package: Package) -> dict[str, tuple[str, str]]:
    if not package.records or package.origin in ("python", "system"):
        return {}
    wanted = f"{package.records}/entry_points.txt"
    for file in package.files:
        if file.path == wanted and file.target is None:
            return scripts.entry_points(b"".join(read_file(file)))
    return {}


def _originals(package: Package, prefixes: Sequence[bytes]) -> dict[str, Original]:
    if package.origin != "conda" or not can_shorten(prefixes):
        return {}
    found: dict[str, Original] = {}
    for file in package.files:
        if file.path == package.records and file.target is None:
            found |= originals(b"".join(read_file(file)))
    return found


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
    run_path, strip = _run_path(file, package)
    shebang = _names_python(file, conda=package.origin == "conda") if package.origin != "system" else False
    holds = file.holds if prefixes else ""
    payload, cramped = None, False
    if shebang or holds == "binary":
        try:
            payload = script_payload(file, prefixes if holds else (), image_prefix)
        except CannotBuild:
            cramped = True  # which is a finding: it ships as it is
    if holds == "binary" and not payload and package.origin != "conda":
        # Only conda builds with a placeholder for a prefix. Other linkers share the tails of strings, so that the end of
        # a prefix may belong to another string too: CPython's version "3.11.7" is the end of /opt/python/3.11.7.
        holds = ""
    shebang = shebang and not cramped
    if not (holds or shebang or strip or run_path):
        return None
    return Rewritten(
        file,
        tuple(prefixes) if holds else (),
        image_prefix,
        holds,
        padded=package.origin == "conda",
        shebang=shebang,
        run_path=run_path,
        strip_runpath=strip,
        payload=payload,
    )


def script_payload(file: File, prefixes: Sequence[bytes], image_prefix: str) -> Payload | None:
    """Return the payload of a script, None for any other file. Raises `CannotBuild` if its text has no room."""
    if head(file, 2) != b"#!":
        return None
    return find_payload(file, tuple(prefixes), image_prefix, shebang=_names_python(file))


def _names_python(file: File, *, conda: bool = False) -> bool:
    # Only scripts on PATH: a shebang in a module of site-packages is its author's text.
    if not file.path.startswith("bin/") or file.size <= 2:
        return False
    return scripts.names_python(head(file, scripts.LOOK), conda=conda)


def _run_path(file: File, package: Package) -> tuple[RunPath | None, bool]:
    if file.run_path:
        return file.run_path, False
    if package.name != "python" or package.origin not in ("python", "conda") or not file.size:
        return None, False
    folder, _, name = file.path.rpartition("/")
    if folder == "bin" and name.startswith(("python3", "python2")) and _is_elf(file):
        return RunPath("RPATH", RPATH), False
    if package.origin == "python" and (".so." in name or name.endswith(".so")) and _is_elf(file):
        return None, True
    return None, False


def _is_elf(file: File) -> bool:
    return head(file, 4) == b"\x7fELF"


def _measured(rewritten: Rewritten, measurements: Measurements | None) -> tuple[str, int]:
    if rewritten.file.size <= _SMALL and rewritten.run_path is None and not rewritten.strip_runpath:
        return _of(b"".join(read_rewritten(rewritten)))
    if measurements is None:
        return measured(rewritten)
    name = hashlib.sha256(f"{rewritten.file.digest} {rewritten.rule}".encode("utf-8", "surrogateescape")).hexdigest()
    known = measurements.measured(name)
    if known is None:
        known = measured(rewritten)
        measurements.remember(name, *known)
    return known
