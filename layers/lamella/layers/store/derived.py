"""Trees that a node makes of layers, once, and keeps beside them: merged layers, relocated files, whole trees of links.

    <store>/derived/<key>/tree/        the tree
    <store>/derived/<key>/layers       the diff_ids that it was made of, one a line
    <store>/derived/<key>/record.json  what it takes of the disk beyond the layers, and the digest that `verify` compares

A derived tree is used under a lease or a hold of all of its layers, in the store that has it: it can be removed with any
of them, and `gc` also counts and frees it by itself. A user who may not write to the store has trees in a store of their
own.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent
from lamella.layers.hardening.permissions import make_part
from lamella.layers.oci.documents import Digest
from lamella.layers.store import locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lamella.layers.store.store import Store

_PIECE = 1 << 20


def path(store: Store, kind: str, diff_ids: Sequence[Digest]) -> str:
    """Where the tree of `kind` (a word, with whatever else decides its content) of these layers is, or would be."""
    name = hashlib.sha256("\n".join([kind, *map(str, diff_ids)]).encode()).hexdigest()[:16]
    there = f"{store.path}/derived/{name}"
    # Short: programs look for files below it, and paths of binaries have little room.
    return f"{there if os.path.isdir(there) else f'{store.writable().path}/derived/{name}'}/tree"


def make(store: Store, kind: str, diff_ids: Sequence[Digest], build: Callable[[str], object]) -> str:
    """The path of that tree, made by `build` (which gets an empty folder) unless it is there. The layers are leased.

    One process makes it, others wait for it. A crash leaves nothing that is found.
    """
    tree = path(store, kind, diff_ids)
    home = store.writable()
    home.check_private()
    final = os.path.dirname(tree)
    if os.path.isdir(final):
        with suppress(OSError):  # another user's store: used, but its times stay
            os.utime(final)
        return tree
    home.prepare()
    key = os.path.basename(final)
    lock_path = f"{home.path}/locks/{key}"
    with home.explained():
        # Named as a layer's lock, so that gc takes it for the lock of work in progress.
        lock = locks.acquire(lock_path, kind, f"the tree {final}")
        try:
            if not os.path.isdir(final):
                _make(home, final, diff_ids, build)
        finally:
            locks.release(lock, lock_path)
    return tree


def _make(home: Store, final: str, diff_ids: Sequence[Digest], build: Callable[[str], object]) -> None:
    import shutil

    from lamella.layers.store.incoming import sync

    partial = f"{home.path}/partial/{os.path.basename(final)}-{os.urandom(6).hex()}"
    try:
        # For everybody, whatever the umask, as layers are.
        make_part(partial)
        make_part(f"{partial}/tree")
        build(f"{partial}/tree")
        digest, size = _read(f"{partial}/tree")
        with open(f"{partial}/layers", "x", encoding="ascii") as file:
            file.writelines(f"{diff_id}\n" for diff_id in diff_ids)
        with open(f"{partial}/record.json", "x", encoding="utf-8") as file:
            json.dump({"bytes": size, "digest": digest}, file)
        for name in ("layers", "record.json"):
            os.chmod(f"{partial}/{name}", 0o644)
        # As with layers: on the disk before it is found under its name.
        sync(partial)
        make_part(os.path.dirname(final))
        os.rename(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def trees(store: Store) -> list[str]:
    """The folder of each tree of the store, sorted."""
    folder = f"{store.path}/derived"
    return [f"{folder}/{name}" for name in sorted(os.listdir(folder))] if os.path.isdir(folder) else []


def made_of(store: Store, removed: Iterable[Digest]) -> list[str]:
    """The folders of all trees of which a layer is among `removed`: what else goes when these go."""
    gone = set(removed)
    return [folder for folder in trees(store) if gone & layers(folder)]


def layers(folder: str) -> set[Digest]:
    """Return the layers that the tree was made of; empty if that can't be read."""
    try:
        with open(f"{folder}/layers", encoding="ascii") as file:
            return {Digest.parse(line.strip()) for line in file}
    except (OSError, ValueError, InvalidContent):
        return set()


def size(folder: str) -> int:
    """Return the bytes on disk that the tree does not share with layers; 0 if that can't be read."""
    try:
        return int(_record(folder)["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def damage(folder: str) -> str:
    """Return the damage of the tree; empty if it is whole."""
    try:
        made = _record(folder)["digest"]
        digest, _ = _read(f"{folder}/tree")
    except OSError as error:
        return f"it can't be read: {error.strerror} ({error.filename})"
    except (ValueError, KeyError, TypeError):
        return "its record is damaged"
    return "" if digest == made else "its files were changed since it was made"


def _record(folder: str) -> dict[str, str]:
    with open(f"{folder}/record.json", encoding="utf-8") as file:
        value: dict[str, str] = json.load(file)
    return value


def _read(tree: str) -> tuple[str, int]:
    """The digest of all that is in a tree (paths, modes, content), and the bytes of files that it has alone."""
    whole = hashlib.sha256()
    own = 0
    for path, status in _walk(os.fsencode(tree)):
        whole.update(b"%b\0%o\0" % (path[len(tree) :], status.st_mode))
        if stat.S_ISLNK(status.st_mode):
            whole.update(os.readlink(path) + b"\0")
        elif stat.S_ISREG(status.st_mode):
            whole.update(b"%d\0" % status.st_size)
            own += status.st_size if status.st_nlink == 1 else 0
            with open(path, "rb") as file:
                while piece := file.read(_PIECE):
                    whole.update(piece)
    return whole.hexdigest(), own


def _walk(folder: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        yield entry.path, entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
