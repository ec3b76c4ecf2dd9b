"""The names under which environments were pulled, for `lamella ls`.

    <store>/names/<algorithm>/<hex of the index>    references without their digests, one a line, the latest last

Only for people: a name decides nothing. A tag that was resolved names one index; the earlier one loses it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent, StoreError
from lamella.layers.hardening.permissions import make_part
from lamella.layers.oci.documents import Digest
from lamella.layers.store import locks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.store.store import Store

_MAX = 16
"""Names kept of one index: a tag for each commit can name the same one."""
_MAX_BYTES = 1 << 16


def add(store: Store, index: Digest, name: str, *, resolved: bool) -> None:
    """Note that `name` was pulled and is `index`; nothing in a store that this user can't write.

    `resolved`: the name itself was looked up, so no other index has it any more. Idempotent.
    """
    if name in of(store, index) or "\n" in name or len(name) > _MAX_BYTES // _MAX:
        return
    # As for documents: `gc`, which has the lock alone, removes what a crash leaves in `partial`.
    shared = locks.shared(f"{store.path}/partial", f"the store {store.path}", f"{store.path}/lock")
    with suppress(StoreError), store.explained(), shared:
        if resolved:
            for other in _indexes(store):
                names = of(store, other)
                if other != index and name in names:
                    _write(store, other, [each for each in names if each != name])
        _write(store, index, [*of(store, index), name][-_MAX:])


def of(store: Store, index: Digest) -> list[str]:
    """Return the names of `index`, the latest last."""
    try:
        with open(_path(store, index), encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_BYTES).splitlines()
    except OSError:
        return []


def forget(store: Store) -> None:
    """Remove the names of indexes that the store no longer has."""
    for index in _indexes(store):
        if not os.path.exists(f"{store.path}/documents/{index.algorithm}/{index.hex}"):
            with suppress(OSError):
                os.unlink(_path(store, index))


def _write(store: Store, index: Digest, names: list[str]) -> None:
    path = _path(store, index)
    for folder in (os.path.dirname(os.path.dirname(path)), os.path.dirname(path)):
        make_part(folder)
    temporary = f"{store.path}/partial/document-{os.urandom(6).hex()}"
    try:
        with open(temporary, "x", encoding="utf-8", errors="replace") as file:
            os.fchmod(file.fileno(), 0o644)
            file.writelines(f"{name}\n" for name in names)
        os.rename(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _indexes(store: Store) -> Iterator[Digest]:
    folder = f"{store.path}/names"
    for algorithm in os.listdir(folder) if os.path.isdir(folder) else ():
        for name in os.listdir(f"{folder}/{algorithm}"):
            with suppress(InvalidContent):
                yield Digest(algorithm, name)


def _path(store: Store, index: Digest) -> str:
    return f"{store.path}/names/{index.algorithm}/{index.hex}"
