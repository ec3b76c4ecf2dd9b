"""Trees that a node makes of layers, once, and keeps beside them: merged layers, relocated files, whole trees of links.

    <store>/derived/<key>/tree/     the tree
    <store>/derived/<key>/layers    the diff_ids that it was made of, one a line

A derived tree is used only under a lease or a hold of all of its layers, so that whoever removes one of these may
remove the tree with it (`sweep`).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent
from lamella.layers.oci import Digest

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

    Many processes may make it at once: the first to end wins. A crash leaves nothing that is found.
    """
    tree = path(store, kind, diff_ids)
    final = os.path.dirname(tree)
    if os.path.isdir(final):
        return tree
    store.prepare()
    partial = f"{store.path}/partial/derived-{os.urandom(6).hex()}"
    with store.explained():
        os.makedirs(f"{store.path}/derived", exist_ok=True)
        os.mkdir(partial, 0o755)
        folder = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Tells whoever removes leftovers that this is none.
            fcntl.flock(folder, fcntl.LOCK_SH)
            os.mkdir(f"{partial}/tree", 0o755)
            build(f"{partial}/tree")
            with open(f"{partial}/layers", "x", encoding="ascii") as file:
                file.writelines(f"{diff_id}\n" for diff_id in diff_ids)
            try:
                os.rename(partial, final)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        finally:
            os.close(folder)
            shutil.rmtree(partial, ignore_errors=True)
    return tree


def sweep(store: Store, removed: Iterable[Digest]) -> int:
    """Removes every derived tree of which a layer was `removed`; gives their number. The caller has the store's lock."""
    gone = set(removed)
    count = 0
    try:
        names = os.listdir(f"{store.path}/derived")
    except FileNotFoundError:
        return 0
    for name in names:
        folder = f"{store.path}/derived/{name}"
        if gone & _layers(folder):
            shutil.rmtree(folder, ignore_errors=True)
            count += 1
    return count


def _layers(folder: str) -> set[Digest]:
    found = set()
    try:
        with open(f"{folder}/layers", encoding="ascii") as file:
            for line in file:
                found.add(Digest.parse(line.strip()))
    except (OSError, InvalidContent):
        return found
    return found
