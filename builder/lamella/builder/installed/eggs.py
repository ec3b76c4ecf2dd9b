"""Read eggs: distributions that `setup.py install` and easy_install leave, as a folder or a zip file of their own.

Sources: setuptools' documentation, "The Internal Structure of Python Eggs"; `requires.txt` as importlib.metadata
reads it.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from lamella.builder.files.small_file import plain_text, read_small, read_text
from lamella.builder.installed.distributions import Distribution, headers, normalised, script_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MOST = 1 << 20
_LARGEST = 256 << 20
"""Maximum bytes of a zip file whose metadata is read."""


def eggs(source: str, site: str) -> list[Distribution]:
    """Eggs in the folder `source`, which belongs at `site` (relative to the prefix), sorted by name."""
    try:
        names = sorted(name for name in os.listdir(source) if name.endswith(".egg"))
    except OSError:
        return []
    return [found for name in names if (found := egg(os.path.join(source, name), f"{site}/{name}"))]


def egg(source: str, path: str) -> Distribution | None:
    """The egg `source`, which belongs at `path`; None if it has no metadata."""
    import zipfile  # rarely needed, and slow to import

    try:
        if os.path.isdir(source):
            return _distribution(path, dict.fromkeys(_files(source, path), ""), _of_folder(source))
        return _distribution(path, {path: ""}, _of_zip(source))
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return None


def _distribution(path: str, files: dict[str, str], metadata: tuple[bytes, str, str]) -> Distribution:
    head, requires, points = metadata
    fields = headers(head)
    stem = plain_text(os.path.basename(path)).split("-")
    return Distribution(
        origin="pypi",
        name=normalised(fields.get("name", [stem[0]])[0]),
        version=fields.get("version", [stem[1] if len(stem) > 1 else ""])[0],
        records=f"{path}/EGG-INFO",
        files=files,
        scripts=script_names(points.split("\n")),
        requires=tuple(_requires(requires.split("\n"))),
        requires_python=fields.get("requires-python", [""])[0],
    )


def _files(source: str, path: str) -> Iterator[str]:
    for folder, folders, names in os.walk(source):
        folders[:] = [name for name in folders if name != "__pycache__"]
        inside = path + folder[len(source) :]
        yield from (f"{inside}/{name}" for name in names)


def _of_folder(source: str) -> tuple[bytes, str, str]:
    def text(name: str) -> str:
        try:
            return read_text(f"{source}/EGG-INFO/{name}", _MOST)
        except FileNotFoundError:
            return ""

    return read_small(f"{source}/EGG-INFO/PKG-INFO", _MOST), text("requires.txt"), text("entry_points.txt")


def _of_zip(source: str) -> tuple[bytes, str, str]:
    if os.path.getsize(source) > _LARGEST:
        raise ValueError("too large")
    import zipfile

    with zipfile.ZipFile(io.BytesIO(read_small(source))) as archive:

        def content(name: str) -> bytes:
            try:
                with archive.open(f"EGG-INFO/{name}") as file:
                    return file.read(_MOST)
            except KeyError:
                return b""

        head = content("PKG-INFO")
        if not head:
            raise ValueError("no metadata")
        texts = [content(name).decode("utf-8", "replace") for name in ("requires.txt", "entry_points.txt")]
        return head, texts[0], texts[1]


def _requires(lines: Iterable[str]) -> Iterator[str]:
    """Requirements as in METADATA: a section names an extra, a marker, or both, as `[extra:marker]`."""
    section = ""
    for line in map(str.strip, lines):
        if line.startswith("["):
            extra, _, marker = line.strip("[]").partition(":")
            conditions = [f"({marker})"] if marker else []
            conditions += [f'extra == "{extra}"'] if extra else []
            section = " and ".join(conditions)
        elif line and not line.startswith("#"):
            yield f"{line} ; {section}" if section else line
