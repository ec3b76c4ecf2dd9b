"""Trees that a node makes of layers, once, and keeps beside them: merged layers, relocated files, whole trees of links.

    <store>/derived/<key>/tree/     the tree
    <store>/derived/<key>/layers    the diff_ids that it was made of, one a line

A derived tree is used only under a lease or a hold of all of its layers, so that whoever removes one of these may
remove the tree with it (`sweep`).
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from lamella.layers import locks
from lamella.layers.errors import InvalidContent
from lamella.layers.oci import Digest
from lamella.layers.store import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lamella.layers.store import Store


def path(store: Store, kind: str, diff_ids: Sequence[Digest]) -> str:
    """Where the tree of `kind` (a word, with whatever else decides its content) of these layers is, or would be."""
    name = hashlib.sha256("\n".join([kind, *map(str, diff_ids)]).encode()).hexdigest()
    # Short: programs look for files below it, and paths of binaries have little room.
    return f"{store.path}/derived/{name[:16]}/tree"


def make(store: Store, kind: str, diff_ids: Sequence[Digest], build: Callable[[str], object]) -> str:
    """The path of that tree, made by `build` (which gets an empty folder) unless it is there. The layers are leased.

    One process makes it, others wait for it. A crash leaves nothing that is found.
    """
    tree = path(store, kind, diff_ids)
    final = os.path.dirname(tree)
    if os.path.isdir(final):
        return tree
    import shutil

    store.prepare()
    key = os.path.basename(final)
    lock_path = f"{store.path}/locks/{key}"
    with store.explained():
        # Named as a layer's are, so that gc knows that somebody is at work here, or was.
        lock = locks.acquire(lock_path)
        partial = f"{store.path}/partial/{key}-{os.urandom(6).hex()}"
        try:
            if not os.path.isdir(final):
                # For everybody, whatever the umask, as layers are.
                make_folder(partial)
                make_folder(f"{partial}/tree")
                build(f"{partial}/tree")
                with open(f"{partial}/layers", "x", encoding="ascii") as file:
                    file.writelines(f"{diff_id}\n" for diff_id in diff_ids)
                make_folder(os.path.dirname(final))
                os.rename(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if lock is not None:
                locks.release(lock, lock_path)
    return tree


def made_of(store: Store, removed: Iterable[Digest]) -> list[str]:
    """The folders of all trees of which a layer is among `removed`: what else goes when these go."""
    gone = set(removed)
    folder = f"{store.path}/derived"
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [path for path in (f"{folder}/{name}" for name in sorted(names)) if gone & _layers(path)]


def _layers(folder: str) -> set[Digest]:
    found = set()
    try:
        with open(f"{folder}/layers", encoding="ascii") as file:
            for line in file:
                found.add(Digest.parse(line.strip()))
    except (OSError, InvalidContent):
        return found
    return found
