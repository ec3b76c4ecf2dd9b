"""Changes of folders, collected in the background while a push is in progress.

watchfiles reports them: by inotify, or by polling if inotify does not work. The loop sees a change during a scan before it
publishes anything.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from lamella.builder.errors import BuilderError
from lamella.layers.mountinfo import mount_of, mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lamella.builder.watching.folders import Folders

_STEP_MS = 50
_POLL_MS = 300
_SETTLE_MOST = 60.0
"""Most seconds to wait for quiet: a program may write all the time."""
_LIMITS = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENFILE})
# inotify does not report changes that their servers make. Source: statfs(2), by the names of /proc/filesystems.
_REMOTE = frozenset(
    {"9p", "afs", "ceph", "cifs", "smb3", "nfs", "nfs4", "virtiofs", "vboxsf", "drvfs", "lustre", "gpfs", "beegfs"}
)


_Root = tuple[str, bool]
"""A folder, and whether everything below it is followed too."""


class Changes:
    """Changed paths since the last `take`. Start it with `follow`, end it with `close`.

    `is_relevant` decides, in a thread of its own, about each path, and whether it was only modified. `notify` gets the reason if
    folders have to be polled.
    """

    def __init__(
        self, is_relevant: Callable[[str, bool], bool], *, poll: bool = False, notify: Callable[[str], object]
    ) -> None:
        self._is_relevant = is_relevant
        self._poll = poll
        self._notify = notify
        self._changed = threading.Condition()
        self._paths: set[str] = set()
        self._last = 0.0
        self._followed: dict[_Root, int] = {}
        """With a descriptor of each folder: inotify follows the folder itself, and not another one at its path later."""
        self._missing: set[_Root] = set()
        self._watchers: list[_Watcher] = []
        self._failure: BaseException | None = None

    @property
    def last(self) -> float:
        """When the last relevant change was seen, by the monotonic clock; 0 before the first."""
        return self._last

    def follow(self, folders: Folders) -> bool:
        """Watch `folders` too, and each followed one that was replaced. Return whether any of them was new: what changed in
        it before is unknown.
        """
        wanted = {(folder, True) for folder in folders.deep} | {(folder, False) for folder in folders.flat}
        wanted |= self._end_replaced()
        new = {root for root in wanted - self._followed.keys() if os.path.isdir(root[0])}
        self._missing = (self._missing | wanted) - new - self._followed.keys()
        self._followed |= {root: _descriptor(root[0]) for root in new}
        for deep in (True, False):
            if paths := sorted(folder for folder, is_deep in new if is_deep is deep):
                self._start(paths, deep=deep)
        return bool(new)

    def is_replaced(self) -> bool:
        """Whether a followed folder was removed and is there again, so that changes of it are unknown until `follow`."""
        here = [root for root, descriptor in self._followed.items() if not _is_at(root[0], descriptor)]
        return any(os.path.isdir(folder) for folder, _ in (*here, *self._missing))

    def take(self) -> set[str]:
        """Return the relevant paths that changed since the last call."""
        with self._changed:
            if self._failure:
                raise self._failure
            taken, self._paths = self._paths, set()
            return taken

    def wait(self, until: float, stopped: Callable[[], bool]) -> None:
        """Wait for a relevant change or a replaced folder, at most until that time of the monotonic clock."""
        with self._changed:
            while not (self._paths or self._failure or stopped() or self.is_replaced()):
                left = until - time.monotonic()
                if left <= 0:
                    return
                # Short, since `stopped` has no way to wake this thread.
                self._changed.wait(min(left, 0.5))

    def settle(self, quiet: float, stopped: Callable[[], bool]) -> None:
        """Wait until nothing has changed for `quiet` seconds, at most a minute."""
        most = time.monotonic() + _SETTLE_MOST
        with self._changed:
            while not (self._failure or stopped()):
                left = min(self._last + quiet, most) - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)

    def close(self) -> None:
        """Stop watching. Idempotent."""
        for watcher in self._watchers:
            watcher.stop.set()
        for watcher in self._watchers:
            watcher.thread.join(timeout=5)
        self._watchers.clear()
        for root in list(self._followed):
            self._forget(root)

    def _end_replaced(self) -> set[_Root]:
        """End the watchers of folders that are gone; return all folders of those, and the missing ones."""
        gone = {root for root, descriptor in self._followed.items() if not _is_at(root[0], descriptor)}
        ended = [watcher for watcher in self._watchers if gone & watcher.roots]
        for watcher in ended:
            watcher.stop.set()
            self._watchers.remove(watcher)
        again = {root for watcher in ended for root in watcher.roots}
        for root in again & self._followed.keys():
            self._forget(root)
        return again | self._missing

    def _forget(self, root: _Root) -> None:
        descriptor = self._followed.pop(root)
        if descriptor >= 0:
            os.close(descriptor)

    def _start(self, paths: list[str], *, deep: bool) -> None:
        remote = [path for path in paths if _file_system(path) in _REMOTE]
        local = [path for path in paths if path not in remote]
        if self._poll:
            self._watch(paths, deep=deep, poll=True)
            return
        if remote:
            kind = _file_system(remote[0])
            self._notify(f"{remote[0]}: on a network file system ({kind}); polled every {_POLL_MS} ms")
            self._watch(remote, deep=deep, poll=True)
        if not local:
            return
        try:
            self._watch(local, deep=deep, poll=_is_wsl())
        except OSError as error:
            if not is_limit(error):
                raise
            self._notify(
                "the limit of inotify is reached: raise it with sudo sysctl fs.inotify.max_user_watches=524288 "
                f"fs.inotify.max_user_instances=512; until then, folders are polled every {_POLL_MS} ms"
            )
            self._watch(local, deep=deep, poll=True)

    def _watch(self, paths: list[str], *, deep: bool, poll: bool) -> None:
        watcher = _Watcher(paths, deep=deep, poll=poll)
        self._watchers.append(watcher)
        watcher.start(self._changed_paths, self._failed)

    def _changed_paths(self, paths: Mapping[str, bool]) -> None:
        relevant = {path for path, modified in paths.items() if self._is_relevant(path, modified)}
        if relevant:
            with self._changed:
                self._paths |= relevant
                self._last = time.monotonic()
                self._changed.notify_all()

    def _failed(self, error: BaseException) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()


class _Watcher:
    """One thread of watchfiles. It is ready when `start` returns: watchfiles adds its watches before it first waits."""

    def __init__(self, paths: list[str], *, deep: bool, poll: bool) -> None:
        self.stop = threading.Event()
        self._paths, self._deep, self._poll = paths, deep, poll
        self.roots = {(path, deep) for path in paths}
        self._ready = threading.Event()
        self._refused: OSError | None = None
        self.thread = threading.Thread(target=self._run, name="lamella-watch", daemon=True)
        self._report: Callable[[Mapping[str, bool]], None] = lambda _: None
        self._fail: Callable[[BaseException], None] = lambda _: None

    def start(self, report: Callable[[Mapping[str, bool]], None], fail: Callable[[BaseException], None]) -> None:
        """Watch until `stop` is set. Raises `OSError` if the kernel refuses."""
        self._report, self._fail = report, fail
        self.thread.start()
        self._ready.wait()
        if self._refused:
            raise self._refused

    def _run(self) -> None:
        import watchfiles

        try:
            # The first turn ends after a millisecond: then every watch is there.
            found = watchfiles.watch(
                *self._paths,
                watch_filter=None,
                debounce=_STEP_MS,
                step=_STEP_MS,
                stop_event=self.stop,
                rust_timeout=_STEP_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
                force_polling=self._poll,
                poll_delay_ms=_POLL_MS,
                recursive=self._deep,
                # True would hide the limit of inotify, too.
                ignore_permission_denied=False,
            )
            for changes in found:
                self._ready.set()
                if changes:
                    created = {path for kind, path in changes if kind != watchfiles.Change.modified}
                    self._report({path: path not in created for _, path in changes})
        except OSError as error:
            self._refused = error
            if self._ready.is_set():
                self._fail(BuilderError(f"cannot watch {self._paths[0]}: {error}; start the watch again"))
        except RuntimeError as error:  # the root of watchfiles' own, which has no public name
            self._fail(BuilderError(f"cannot watch {self._paths[0]}: {error}; start the watch again"))
        finally:
            self._ready.set()


def _descriptor(folder: str) -> int:
    """Return a descriptor of `folder`, by which its inode's number is not given to another one; -1 without one."""
    try:
        return os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1


def _is_at(path: str, descriptor: int) -> bool:
    """Whether the folder of `descriptor` is at `path`."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return descriptor < 0 or os.path.samestat(found, os.fstat(descriptor))


def is_limit(error: OSError) -> bool:
    """Whether inotify has no more watches or instances. watchfiles gives the number, or the kernel's words."""
    return error.errno in _LIMITS or "limit" in str(error) or "No space left" in str(error)


def _is_wsl() -> bool:
    return "microsoft-standard" in os.uname().release.lower()


def _file_system(path: str) -> str:
    """Return the type of the file system that holds `path`; empty if unknown."""
    with suppress(OSError):
        if found := mount_of(path, mounts()):
            return found.kind.removeprefix("fuse.")
    return ""
