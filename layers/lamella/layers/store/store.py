"""The node's unpacked layers, by diff_id, shared by any number of processes.

    layers/<algorithm>/<hex>/tree/       the layer's content, as its tar has it (opt/env/...), always whole
    layers/<algorithm>/<hex>/skeleton    its tar without the files' content, for `verify`
    layers/<algorithm>/<hex>/layer.json  its size
    partial/                             layers that are being unpacked, or removed
    documents/<algorithm>/<hex>          manifests and configs that were pulled
    names/<algorithm>/<hex>              the references by which an index was pulled; see `names`
    derived/<key>/                       trees made of several layers; see `derived`
    locks/, lock, leases/, holds/        running work, and the layers that it keeps

A layer is unpacked in `partial`, synced and renamed to its place, and renamed out of it before it is removed, so that
a crash at any moment leaves only what the next pull or `gc` removes. See docs/adr/the-store.md.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent, StoreError
from lamella.layers.hardening.permissions import is_shared_folder, make_folders, make_part, stranger
from lamella.layers.oci.documents import Digest
from lamella.layers.settings.folders import named_folder
from lamella.layers.settings.homes import cache_folder
from lamella.layers.settings.policy import machine_policy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FOLDERS = ("layers", "partial", "documents", "locks", "leases", "holds")


def default_path() -> str:
    """The folder that `LAMELLA_STORE` or a configuration file names, else `own_path`. Raises `LayersError`."""
    return named_folder("store") or own_path()


def own_path() -> str:
    """The store that is this user's own: /var/lib/lamella for root. Raises `StoreError` if the user has no home."""
    if os.geteuid() == 0:
        return "/var/lib/lamella"
    if not (caches := cache_folder()):
        raise StoreError("no home folder for a store; set HOME, or LAMELLA_STORE to a folder of your own")
    return os.path.join(caches, "lamella", "store")


class Store:
    """A store at `path`; nothing is made there before something is written. All methods may run in any process."""

    __slots__ = ("path",)

    def __init__(self, path: str | None = None) -> None:
        self.path = os.path.abspath(path) if path else default_path()

    def __repr__(self) -> str:
        return f"Store({self.path!r})"

    def folder(self, diff_id: Digest) -> str:
        """Where a layer and what belongs to it is, or would be."""
        return f"{self.path}/layers/{diff_id.algorithm}/{diff_id.hex}"

    def layer_path(self, diff_id: Digest) -> str:
        """Path of the layer's unpacked tree, which holds opt/env/…; the layer may be missing."""
        return self.folder(diff_id) + "/tree"

    def has(self, diff_id: Digest) -> bool:
        """Whether the layer is here. It stays only as long as it is leased or held."""
        return os.path.isdir(self.folder(diff_id))

    def present(self, diff_ids: Iterable[Digest]) -> set[Digest]:
        """Those of the layers that are here; see `has`."""
        folder = f"{self.path}/layers"
        return {each for each in diff_ids if os.access(f"{folder}/{each.algorithm}/{each.hex}", os.F_OK)}

    def size(self, diff_id: Digest) -> int:
        """Bytes that the layer takes of the disk, about; 0 for a layer that is not here."""
        try:
            with open(self.folder(diff_id) + "/layer.json", encoding="utf-8") as file:
                size = json.load(file)["bytes"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0
        return size if isinstance(size, int) else 0

    def layers(self) -> Iterator[Digest]:
        """The diff_ids of the layers that are here, in no order."""
        for algorithm in _names(f"{self.path}/layers"):
            for name in _names(f"{self.path}/layers/{algorithm}"):
                with suppress(InvalidContent):
                    yield Digest(algorithm, name)

    def writable(self) -> Store:
        """The store for trees that this user makes of the layers: this one, or the user's own if this is another's."""
        # A store that another process of this user is just making has a folder, and no folders in it yet.
        for folder in (f"{self.path}/holds", self.path):
            if os.path.isdir(folder):
                return self if os.access(folder, os.W_OK, effective_ids=True) else Store(own_path())
        return self

    def check_private(self) -> None:
        """Raise `StoreError` if others than this user and root can change the store: they would choose what this user runs."""
        if found := stranger(self.path, machine_policy().shared_group):
            raise StoreError(f"the store {self.path}: {found}; {found.advice('another store with LAMELLA_STORE')}")

    def prepare(self) -> None:
        """Make the store's missing folders. Raises `StoreError` if it can't."""
        with self.explained():
            root = os.geteuid() == 0
            if self.is_made():
                self._close_locks()
                return
            # What root pulls is for everybody on the node, whatever root's umask; what a user pulls is the user's.
            make_folders(os.path.dirname(self.path))
            make_part(self.path, 0o755 if root else 0o700)
            for name in _FOLDERS:
                mode = {"partial": 0o700, "locks": 0o700, "leases": 0o1777 if root else 0o755}.get(name, 0o755)
                make_part(f"{self.path}/{name}", mode)
            lock = os.open(f"{self.path}/lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.fchmod(lock, 0o664 if is_shared_folder(self.path) else 0o644)
            finally:
                os.close(lock)
        # Another user may have been faster, in a folder such as /tmp.
        self.check_private()

    def is_made(self) -> bool:
        """Whether all of the store's folders are there: a full disk can end `prepare` in its middle.

        Raises `StoreError` for a store that this user can't read, and for a file in its place.
        """
        try:
            os.stat(f"{self.path}/holds/.")
            os.stat(f"{self.path}/lock")
        except FileNotFoundError:
            return False
        except PermissionError:
            raise StoreError(
                f"the store {self.path} can't be read by this user: choose another with LAMELLA_STORE, "
                "or run as its owner"
            ) from None
        except OSError as error:
            raise StoreError(_explanation(self.path, error)) from error
        return True

    def exists(self) -> bool:
        """Whether a store is here, or an empty folder for one. Raises as `is_made`."""
        if self.is_made():
            return True
        with self.explained():
            names = os.listdir(self.path) if os.path.isdir(self.path) else ["not a folder"]
        # A full disk can end `prepare` behind the first of its folders.
        return not names or "layers" in names

    def _close_locks(self) -> None:
        # Earlier versions made it readable, and a process that can open a lock's file can lock it.
        status = os.stat(f"{self.path}/locks")
        if status.st_mode & 0o077 and not is_shared_folder(self.path) and os.geteuid() in (0, status.st_uid):
            with suppress(OSError):
                os.chmod(f"{self.path}/locks", 0o700)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the file system refuses inside the block into a `StoreError` that says what to do."""
        try:
            yield
        except OSError as error:
            raise StoreError(_explanation(self.path, error)) from error


def _explanation(path: str, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the store {path} is full: free space with lamella gc, or choose another disk with LAMELLA_STORE; "
            "layers that were pulled before are untouched"
        )
    if error.errno == errno.EROFS:
        return f"the store {path} is on a read-only disk: choose another with LAMELLA_STORE"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"the store {path} can't be written by this user: choose another with LAMELLA_STORE, or run as its owner"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"the store {path} is not a folder, or has a file in place of a folder; set LAMELLA_STORE to another"
    if error.errno == errno.ELOOP:
        return f"the store {path}: {error.filename} is a symlink, which is not followed; remove it"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many open files; raise the limit (ulimit -n)"
    what = f" ({error.filename})" if error.filename else ""
    return f"the store {path} failed: {error.strerror}{what}; choose another with LAMELLA_STORE"


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
