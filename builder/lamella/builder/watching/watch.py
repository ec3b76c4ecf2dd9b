"""Push an environment again whenever it or its local code changes.

Each push is of one scan that no change interrupted. A failed push is an event and is retried; the watch goes on until it
is stopped.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from lamella.builder.cache_folder import cache_folder
from lamella.builder.errors import EnvironmentChanged
from lamella.builder.layer.cache import LayerCache
from lamella.builder.local.import_path import import_path
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import target_of
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from lamella.builder.watching.changes import Changes
from lamella.builder.watching.destination import Destination
from lamella.builder.watching.events import WatchEvent, first_of, new_errors, of_push, sentence_of, watched
from lamella.builder.watching.folders import is_in, is_noise, of_environment, of_prefix
from lamella.builder.watching.installers import half_installed
from lamella.builder.watching.rescan import ScannedFiles, rescan, scanned_files
from lamella.layers.errors import LamellaError
from lamella.layers.progress.display import Silent
from lamella.layers.settings.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamella.builder.environment import Environment

_QUIET_INSTALLED = 0.3
"""Seconds without a change in an environment before its scan: installers write in bursts."""
_REPORT = 0.15
"""Seconds within which a change during a scan is reported: two steps of the watcher, and some."""
_RECONCILE = 10.0
"""Seconds without a change before a whole scan checks the short ones: a full queue of inotify loses events."""
_RETRY = 1.0
_RETRY_MOST = 30.0
_TRIES = 5
"""Scans that changes may interrupt before one is pushed as it is."""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What to push, and when."""

    push: PushOptions = PushOptions()
    scan: ScanOptions = ScanOptions(working_directory=True)
    quiet: float = 0.05
    """Seconds without a change of local code before a push."""
    settle: float = 5.0
    """Most seconds without a change for which a push waits if a package looks half-installed."""
    poll: bool = False
    """Poll the folders, instead of inotify."""
    objection: Callable[[Environment], str] = lambda _: ""
    """Why a scanned environment must not be pushed; an empty string if it may."""


def _ignore(_: WatchEvent) -> None:
    """Discard the event."""


def watch(
    reference: str,
    prefix: str,
    options: WatchOptions = WatchOptions(),
    *,
    trust: Trust = Trust(),
    cache: LayerCache | None = None,
    notify: Callable[[WatchEvent], object] = _ignore,
    stop: threading.Event | None = None,
) -> None:
    """Push the environment at `prefix` as `reference`, and again after each change, until `stop` is set.

    `notify` gets each event, in this thread or in another one. An error of a scan or push is an event, not an
    exception, and is retried. Raises `InvalidReference` and `BuilderError` for a reference or option that can't be
    pushed to, and for folders that can't be watched.
    """
    target = target_of(reference, options.push)
    scanned = replace(options.scan, image_prefix=options.push.image_prefix)
    stopped = (stop or threading.Event()).is_set
    with contextlib.closing(Destination(target, trust, cache or LayerCache())) as destination:
        watcher = _Watch(prefix, replace(options, scan=scanned), destination, notify, stopped)
        with contextlib.closing(watcher):
            watcher.run()


class _Watch:
    """One watch. Its methods run in one thread; `_is_relevant` in those of the watchers."""

    def __init__(
        self,
        prefix: str,
        options: WatchOptions,
        destination: Destination,
        notify: Callable[[WatchEvent], object],
        stopped: Callable[[], bool],
    ) -> None:
        self._prefix, self._options, self._destination = prefix, options, destination
        self._notify, self._stopped = notify, stopped
        self._own = _own_folders(destination, options.scan)
        self._changes = Changes(self._is_relevant, poll=options.poll, notify=self._polled)
        self._scan: ScannedFiles | None = None
        self._pushed: Environment | None = None
        self._changed: set[str] = set()
        self._whole = True
        self._check_at = float("inf")
        self._began = 0.0
        self._last = ""
        self._delay = _RETRY

    def run(self) -> None:
        """See `watch`."""
        self._changes.follow(of_prefix(self._prefix))
        while not self._stopped():
            if not (self._whole or self._changed):
                self._wait()
            if not self._stopped():
                self._turn()

    def close(self) -> None:
        """Stop watching. Idempotent."""
        self._changes.close()

    def _wait(self) -> None:
        self._changes.wait(self._check_at, self._stopped)
        changed = self._changes.take()
        # A check without a change begins at its own time, not at that of the last edit.
        self._began = self._changes.last if changed else 0.0
        self._changed |= changed
        self._whole |= self._changes.is_replaced()
        if not self._changed and time.monotonic() >= self._check_at:
            self._whole = True
            self._check_at = float("inf")

    def _turn(self) -> None:
        """Scan and push once; leave the rest to the next turn."""
        quiet = self._options.quiet if self._only_local() else _QUIET_INSTALLED
        if self._changed:
            self._changes.settle(quiet, self._stopped)
        self._changed |= self._changes.take()
        try:
            environment = self._scanned()
            if environment is not None:
                self._push(environment)
        except EnvironmentChanged as error:
            # Its event is on its way; if it is not, as with a clock that was set back, the next scan is in a second.
            self._whole = True
            self._report("waiting", f"{error}; scanning again")
            self._changes.wait(time.monotonic() + _RETRY, self._stopped)
        except (LamellaError, OSError) as error:
            self._whole = True
            self._report("failed", f"{sentence_of(error)}; retrying")
            self._changes.wait(time.monotonic() + self._delay, self._stopped)
            self._delay = min(2 * self._delay, _RETRY_MOST)

    def _scanned(self) -> Environment | None:
        """Return a scan that no change interrupted and that is not half-installed; None if there is nothing new."""
        for _ in range(_TRIES):
            changed, self._changed = self._changed, set()
            whole = self._whole or self._scan is None or self._options.scan.wheels
            again = None if whole or self._scan is None else rescan(self._scan, changed)
            if again is None:
                again = scanned_files(scan(self._prefix, self._options.scan, progress=Silent()))
                self._whole = False
                self._check_at = float("inf")
                new = self._changes.follow(of_environment(again.environment, _places(self._options.scan)))
                if new or self._scan is None:
                    self._report("watching", watched(again.environment, self._destination.target))
                if new:
                    self._whole = True
                    self._scan = again
                    continue
                self._changes.wait(time.monotonic() + _REPORT, self._stopped)
            else:
                self._check_at = time.monotonic() + _RECONCILE
            self._scan = again
            self._changed = self._changes.take()
            if self._stopped():
                return None
            if not self._changed and not self._is_half_installed(again.environment):
                return again.environment
            self._began = self._changes.last
            self._changes.settle(_QUIET_INSTALLED, self._stopped)
        if self._scan and not self._changed:
            return self._scan.environment
        self._report("waiting", f"{first_of(self._changed)}: changes all the time; pushing the last scan")
        return self._scan.environment if self._scan else None

    def _is_half_installed(self, environment: Environment) -> bool:
        """Wait for a change as long as a package looks half-installed; return whether one came."""
        reason = half_installed(environment, self._pushed)
        if not reason:
            return False
        self._report("waiting", f"{reason}; waiting for the installer, at most {self._options.settle:g} s")
        self._changes.wait(max(self._changes.last, time.monotonic()) + self._options.settle, self._stopped)
        self._changed |= self._changes.take()
        self._whole |= bool(self._changed)
        return bool(self._changed)

    def _push(self, environment: Environment) -> None:
        if objection := self._options.objection(environment):
            self._report("failed", f"nothing pushed: {objection}")
            return
        if environment is self._pushed:
            return
        started = time.monotonic()
        pushed = self._destination.push(environment, self._options.push)
        failed, self._delay = self._last.startswith("failed"), _RETRY
        self._pushed = environment
        if pushed.plan.unchanged and not failed:
            return
        seconds = time.monotonic() - (self._began or started)
        self._last = ""
        self._notify(of_push(pushed, seconds, new_errors(environment)))

    def _report(self, kind: Literal["watching", "waiting", "failed"], message: str) -> None:
        """Notify, unless the last event said the same."""
        if self._last != f"{kind} {message}":
            self._last = f"{kind} {message}"
            self._notify(WatchEvent(kind, message))

    def _polled(self, reason: str) -> None:
        self._notify(WatchEvent("polling", reason))

    def _is_relevant(self, path: str, modified: bool) -> bool:
        if is_noise(path) or any(is_in(path, folder) for folder in self._own):
            return False
        scan = self._scan
        return scan is None or scan.is_relevant(path, modified=modified)

    def _only_local(self) -> bool:
        real = os.path.realpath(self._prefix)
        return not any(is_in(path, real) for path in self._changed)


def _places(options: ScanOptions) -> list[str]:
    """Folders in which local code can appear."""
    if options.local == "":
        return []
    base = os.path.abspath(options.local or os.curdir) if options.local or options.working_directory else ""
    return [base, *(path for path in import_path(base) if os.path.isdir(path))] if base else []


def _own_folders(destination: Destination, options: ScanOptions) -> tuple[str, ...]:
    """Folders that a push itself writes to, resolved."""
    folders = [cache_folder(options.cache), destination.cache.path, destination.target.folder]
    return tuple(os.path.realpath(folder) for folder in folders if folder)
