"""Push an environment again whenever it or its local code changes.

Each push is of one scan that no change interrupted. A failed push is an event, and is tried again: the watch goes on
until it is stopped.
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
from lamella.builder.pushing.push import destination_of, push_to, target_of
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from lamella.builder.watching.changes import Changes
from lamella.builder.watching.folders import is_in, is_noise, of_environment, of_prefix
from lamella.builder.watching.known import KnownFiles, known_files, scan_again
from lamella.builder.watching.unsettled import unsettled
from lamella.layers.errors import LamellaError
from lamella.layers.progress.display import Silent
from lamella.layers.settings.trust import Trust
from lamella.layers.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamella.builder.environment import Environment
    from lamella.builder.pushing.push import Pushed
    from lamella.builder.watching.changes import Polled
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.storage import Storage

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


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One line of a watch."""

    kind: Literal["watching", "polling", "pushed", "waiting", "failed"]
    message: str
    """One sentence without the time: the folders, the push, or the failure with the next step."""
    reference: str = ""
    """Reference with its digest, of a push."""
    packages: tuple[str, ...] = ()
    """Name and version of each package whose layer was built or uploaded."""
    moved: int = 0
    """Bytes uploaded."""
    seconds: float = 0.0
    """From the last change to the tag."""


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
    exception, and is tried again. Raises `InvalidReference` and `BuilderError` for a reference or option that can't be
    pushed to, and for folders that can't be watched.
    """
    target = target_of(reference, options.push)
    scanned = replace(options.scan, image_prefix=options.push.image_prefix)
    stopped = (stop or threading.Event()).is_set
    with contextlib.closing(_Destination(target, trust, cache or LayerCache())) as destination:
        watcher = _Watch(prefix, replace(options, scan=scanned), destination, notify, stopped)
        with contextlib.closing(watcher):
            watcher.run()


class _Destination:
    """The registry or folder to push to: its connections, token and answers serve every push until one fails."""

    def __init__(self, target: Reference, trust: Trust, cache: LayerCache) -> None:
        self.target, self.cache = target, cache
        self._trust = trust
        self._storage: Storage | None = None

    def push(self, environment: Environment, options: PushOptions) -> Pushed:
        """Push to it. Raises as `push` does; the next push opens it anew then."""
        try:
            self._storage = self._storage or destination_of(self.target, self._trust, self.cache)
            return push_to(
                self._storage,
                self.target,
                environment,
                options,
                trust=self._trust,
                cache=self.cache,
                progress=Silent(),
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections. Idempotent."""
        if self._storage:
            self._storage.close()
        self._storage = None


class _Watch:
    """One watch. Its methods run in one thread; `_is_relevant` in those of the watchers."""

    def __init__(
        self,
        prefix: str,
        options: WatchOptions,
        destination: _Destination,
        notify: Callable[[WatchEvent], object],
        stopped: Callable[[], bool],
    ) -> None:
        self._prefix, self._options, self._destination = prefix, options, destination
        self._notify, self._stopped = notify, stopped
        self._own = _own_folders(destination, options.scan)
        self._changes = Changes(self._is_relevant, poll=options.poll, notify=self._polled)
        self._known: KnownFiles | None = None
        self._pushed: Environment | None = None
        self._changed: set[str] = set()
        self._whole = True
        self._check_at = float("inf")
        self._began = 0.0
        self._said = ""
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
        self._began = self._changes.last
        self._changed |= self._changes.take()
        if not self._changed and time.monotonic() >= self._check_at:
            self._whole = True
            self._check_at = float("inf")

    def _turn(self) -> None:
        """Scan and push once; leave behind what the next turn has to do."""
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
            self._say("waiting", f"{error}; scanning again")
            self._changes.wait(time.monotonic() + _RETRY, self._stopped)
        except (LamellaError, OSError) as error:
            self._whole = True
            self._say("failed", f"{_sentence(error)}; retrying")
            self._changes.wait(time.monotonic() + self._delay, self._stopped)
            self._delay = min(2 * self._delay, _RETRY_MOST)

    def _scanned(self) -> Environment | None:
        """Return a scan that no change interrupted and that is not half-installed; None if there is nothing new."""
        for _ in range(_TRIES):
            changed, self._changed = self._changed, set()
            whole = self._whole or self._known is None or self._options.scan.wheels
            again = None if whole or self._known is None else scan_again(self._known, changed)
            if again is None:
                again = known_files(scan(self._prefix, self._options.scan, progress=Silent()))
                self._whole = False
                self._check_at = float("inf")
                new = self._changes.follow(of_environment(again.environment, _places(self._options.scan)))
                if new or self._known is None:
                    self._say("watching", _watching(again.environment, self._destination.target))
                if new:
                    self._whole = True
                    self._known = again
                    continue
                self._changes.wait(time.monotonic() + _REPORT, self._stopped)
            else:
                self._check_at = time.monotonic() + _RECONCILE
            self._known = again
            self._changed = self._changes.take()
            if self._stopped():
                return None
            if not self._changed and not self._is_unsettled(again.environment):
                return again.environment
            self._began = self._changes.last
            self._changes.settle(_QUIET_INSTALLED, self._stopped)
        if self._known and not self._changed:
            return self._known.environment
        self._say("waiting", f"{_first(self._changed)}: changes all the time; pushing what the last scan saw")
        return self._known.environment if self._known else None

    def _is_unsettled(self, environment: Environment) -> bool:
        """Wait for a change as long as a package looks half-installed; return whether one came."""
        reason = unsettled(environment, self._pushed)
        if not reason:
            return False
        self._say("waiting", f"{reason}; waiting for the installer, at most {self._options.settle:g} s")
        self._changes.wait(max(self._changes.last, time.monotonic()) + self._options.settle, self._stopped)
        self._changed |= self._changes.take()
        self._whole |= bool(self._changed)
        return bool(self._changed)

    def _push(self, environment: Environment) -> None:
        if objection := self._options.objection(environment):
            self._say("failed", f"nothing pushed: {objection}")
            return
        if environment is self._pushed:
            return
        started = time.monotonic()
        pushed = self._destination.push(environment, self._options.push)
        failed, self._delay = self._said.startswith("failed"), _RETRY
        self._pushed = environment
        if pushed.plan.unchanged and not failed:
            return
        seconds = time.monotonic() - (self._began or started)
        self._said = ""
        self._notify(_pushed(pushed, seconds, new_errors(environment)))

    def _say(self, kind: Literal["watching", "waiting", "failed"], message: str) -> None:
        """Notify, unless the last event said the same."""
        if self._said != f"{kind} {message}":
            self._said = f"{kind} {message}"
            self._notify(WatchEvent(kind, message))

    def _polled(self, polled: Polled) -> None:
        self._notify(WatchEvent("polling", polled.reason))

    def _is_relevant(self, path: str, modified: bool) -> bool:
        if is_noise(path) or any(is_in(path, folder) for folder in self._own):
            return False
        known = self._known
        return known is None or known.is_relevant(path, modified=modified)

    def _only_local(self) -> bool:
        real = os.path.realpath(self._prefix)
        return not any(is_in(path, real) for path in self._changed)


def new_errors(environment: Environment) -> tuple[str, ...]:
    """Return the messages of the findings that are errors."""
    return tuple(each.message for each in environment.findings if each.severity == "error")


def _pushed(pushed: Pushed, seconds: float, errors: tuple[str, ...]) -> WatchEvent:
    layers = [layer for layer in pushed.plan.layers if layer.action != "reuse" and len(layer.wanted.packages) == 1]
    packages = tuple(layer.wanted.packages[0] for layer in layers)
    message = f"pushed {pushed.reference}: {_names(packages)}"
    if errors:
        message += f"; {counted(len(errors), 'error')}: {errors[0]}"
    return WatchEvent("pushed", message, pushed.reference, packages, pushed.moved, round(seconds, 3))


def _names(packages: tuple[str, ...]) -> str:
    if not packages:
        return "no package changed"
    more = f" and {len(packages) - 3} more" if packages[3:] else ""
    return f"{', '.join(packages[:3])}{more}"


def _watching(environment: Environment, target: Reference) -> str:
    local = sorted(package.name for package in environment.packages if package.origin == "local")
    code = f", and local code: {', '.join(local)}" if local else ""
    return f"watching {environment.prefix} for {target}{code}"


def _places(options: ScanOptions) -> list[str]:
    """Folders in which local code can appear."""
    if options.local == "":
        return []
    base = os.path.abspath(options.local or os.curdir) if options.local or options.working_directory else ""
    return [base, *(path for path in import_path(base) if os.path.isdir(path))] if base else []


def _own_folders(destination: _Destination, options: ScanOptions) -> tuple[str, ...]:
    """Folders that a push itself writes to, resolved."""
    folders = [cache_folder(options.cache), destination.cache.path, destination.target.folder]
    return tuple(os.path.realpath(folder) for folder in folders if folder)


def _first(paths: set[str]) -> str:
    return min(paths, default="a file")


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)
