"""Copies of conda environments: moved to another place, with records in `conda-meta` that follow each change."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamella.comparison.errors import ComparisonError
from lamella.comparison.subject.changes import write
from lamella.layers.relocation.prefixes import CannotRelocate, check_prefix
from lamella.layers.relocation.rewrite import rewrite
from lamella.layers.relocation.zip_payload import zip_archive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lamella.comparison.programs.commands import Commands
    from lamella.comparison.subject.distributions import Distribution

META = "conda-meta"
NOT_COPIED = frozenset({"conda-bld", "envs", "pkgs"})
"""Folders of a base environment that are not part of it: other environments, and the cache of packages."""
_ELF = b"\x7fELF"


@dataclass(frozen=True, slots=True)
class Moved:
    """Files of a move, as paths relative to the environment."""

    changed: tuple[str, ...]
    kept: tuple[str, ...]
    """Compiled files of other installers, which name the former path and have no room for the new one."""


def is_conda(prefix: str) -> bool:
    """Return whether `prefix` is a conda environment."""
    return os.path.isdir(os.path.join(prefix, META))


def move_conda(folder: str, former: str, path: str) -> Moved:
    """Write `path` for `former` in the files and links of the conda environment that was copied to `folder`.

    Raises:
        ComparisonError: conda left a file less room than `path` needs, or scripts would misread `path`.
    """
    try:
        check_prefix(path)
    except CannotRelocate as error:
        raise ComparisonError(f"--scratch: {error}") from None
    recorded = _recorded(folder)
    old, new = os.fsencode(former), os.fsencode(path)
    changed, kept = [], []
    for name in _files(folder):
        source = os.path.join(folder, name)
        if os.path.islink(source):
            _move_link(source, former, path)
            continue
        with open(source, "rb") as file:
            data = file.read()
        if old not in data or (entry := recorded.get(name) or _entry(name, data)) is None:
            continue
        try:
            moved = rewrite(data, entry, old, new)
        except CannotRelocate as error:
            if name in recorded:
                raise ComparisonError(f"{name}: {error} for {path}; use a shorter --scratch") from None
            kept.append(name)
            continue
        if moved != data:
            write(source, moved)
            changed.append(name)
    return Moved(tuple(changed), tuple(kept))


def follow_move(folder: str, path: str, changed: Iterable[str], python: str, commands: Commands) -> None:
    """Compile the modules among the files `changed` anew if they had byte code, and record the hashes of all."""
    names = set(changed)
    byte_code = {name: _byte_code(folder, name) for name in sorted(names) if name.endswith(".py")}
    if stale := [os.path.join(folder, name) for name, found in byte_code.items() if found]:
        command = [python, "-I", "-B", "-m", "compileall", "-q", "-f", "-s", folder, "-p", path, *stale]
        # Python before 3.9 has no -s; it then ignores the byte code of these few modules.
        with contextlib.suppress(ComparisonError):
            commands.run(command)
    names.update(each for found in byte_code.values() for each in found)
    for record_path, record in _records(folder):
        items = [item for item in _items(record) if item["_path"] in names]
        for item in items:
            _hash(folder, item["_path"], item)
        if items:
            _save(record_path, record)


def upgrade_record(prefix: str, former: Distribution, new: Distribution) -> None:
    """Let the record of a distribution's package follow its upgrade, if conda installed it.

    The package then names no folder in conda's cache: the upgraded one is not there.
    """
    before, after = (f"/{os.path.basename(each.info)}/" for each in (former, new))
    for path, record in _records(prefix):
        if not any(each.endswith(f"{before}METADATA") for each in record.get("files", ())):
            continue
        files = [each.replace(before, after) for each in record["files"]]
        record["files"] = [each for each in files if os.path.lexists(os.path.join(prefix, each))]
        items = []
        for item in _items(record):
            item["_path"] = item["_path"].replace(before, after)
            if place := _place(prefix, new.site, item["_path"]):
                _hash(prefix, place, item)
                items.append(item)
        if items:
            record["paths_data"]["paths"] = items
        stem = f"{record['name']}-{new.version}-{record.get('build', '0')}"
        suffix = ".tar.bz2" if str(record.get("fn")).endswith(".tar.bz2") else ".conda"
        record.update(version=new.version, fn=f"{stem}{suffix}", link={"source": "", "type": 1})
        record["url"] = f"{str(record.get('url') or '').rpartition('/')[0]}/{stem}{suffix}".lstrip("/")
        record.update(dict.fromkeys(record.keys() & {"extracted_package_dir", "package_tarball_full_path"}, ""))
        # Of the archive of the former version.
        for name in ("md5", "sha256", "size"):
            record.pop(name, None)
        os.unlink(path)
        _save(os.path.join(prefix, META, f"{stem}.json"), record)
        return


def _recorded(folder: str) -> dict[str, dict[str, object]]:
    """Return how conda's records say that files name the prefix, by path, as `rewrite` reads it."""
    found: dict[str, dict[str, object]] = {}
    for _, record in _records(folder):
        for item in _items(record):
            if placeholder := item.get("prefix_placeholder"):
                kind = "binary" if item.get("file_mode") == "binary" else "text"
                found[item["_path"]] = {"kind": kind, "room": len(os.fsencode(placeholder))}
    return found


def _entry(name: str, data: bytes) -> dict[str, object] | None:
    """Return how a file without such a record is rewritten; None for byte code, data, and the records themselves."""
    if name.startswith(f"{META}/") and name.endswith(".json"):
        return None  # Its paths are those of conda's cache, which stays at its place.
    if data.startswith(_ELF):
        return {"kind": "binary"}
    if b"\0" not in data:
        return {"kind": "text"}
    return {"kind": "text", "payload": "zip"} if data.startswith(b"#!") and zip_archive(data) else None


def _files(folder: str) -> Iterator[str]:
    """Yield the regular files and the links of an environment."""
    for directory, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(directory, name))]
        for name in sorted([*names, *links]):
            path = os.path.join(directory, name)
            if os.path.islink(path) or os.path.isfile(path):
                yield os.path.relpath(path, folder)


def _move_link(link: str, former: str, path: str) -> None:
    target = os.readlink(link)
    if target == former or target.startswith(f"{former}/"):
        os.unlink(link)
        os.symlink(path + target.removeprefix(former), link)


def _byte_code(folder: str, module: str) -> list[str]:
    directory, name = os.path.split(module)
    pattern = os.path.join(glob.escape(os.path.join(folder, directory)), "__pycache__", glob.escape(name[:-3]))
    return [os.path.relpath(path, folder) for path in glob.glob(f"{pattern}.*.pyc")]


def _records(prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the records that can be read. A scan reports the others."""
    for path in sorted(glob.glob(os.path.join(glob.escape(prefix), META, "*.json"))):
        with contextlib.suppress(ValueError), open(path, encoding="utf-8") as file:
            record = json.load(file)
            if isinstance(record, dict) and isinstance(record.get("name"), str):
                yield path, record


def _items(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the paths with their hashes. Records of conda before 4.3 have none."""
    data = record.get("paths_data")
    paths = data.get("paths") if isinstance(data, dict) else None
    return [item for item in paths or () if isinstance(item, dict) and isinstance(item.get("_path"), str)]


def _place(prefix: str, site: str, path: str) -> str:
    """Return where a recorded path is, or an empty string if it is gone.

    conda's own records of noarch packages have the paths of the archive. Source: conda's `get_python_noarch_target_path`.
    """
    archived = {"site-packages/": f"{os.path.relpath(site, prefix)}/", "python-scripts/": "bin/"}
    for start, place in archived.items():
        if path.startswith(start):
            path = place + path.removeprefix(start)
    return path if os.path.lexists(os.path.join(prefix, path)) else ""


def _hash(prefix: str, path: str, item: dict[str, Any]) -> None:
    """Give a recorded path the hash of its file, unless it has that."""
    whole = os.path.join(prefix, path)
    if os.path.islink(whole) or not os.path.isfile(whole):
        return
    with open(whole, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    if digest != item.get("sha256_in_prefix", item.get("sha256")):
        item["sha256_in_prefix"] = digest


def _save(path: str, record: Mapping[str, Any]) -> None:
    write(path, json.dumps(record, indent=2).encode() + b"\n")
