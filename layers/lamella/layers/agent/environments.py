"""The environments of one node: each is pulled once, mounted once at a folder named by its digest, and freed when unused.

The claims of `mounting` are the only record: an agent that starts finds the mounts of the one before it. `Environments`
may be used by many threads.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from lamella.layers import mountinfo
from lamella.layers.agent import uses
from lamella.layers.agent.protocol import NodeEnvironment
from lamella.layers.errors import InvalidReference, MountError, NoSpace, StoreError, Unsupported
from lamella.layers.hardening.permissions import make_folder, make_folders, stranger
from lamella.layers.mounting import claims
from lamella.layers.mounting.kernel import here
from lamella.layers.mounting.mount import MountOptions, mounts, place, umount
from lamella.layers.oci.reference import Reference
from lamella.layers.published import preflight
from lamella.layers.pulling import pull
from lamella.layers.settings.policy import Policy, machine_policy
from lamella.layers.storages import open_registry
from lamella.layers.store import names
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamella.layers.agent.metrics import Counts
    from lamella.layers.agent.options import Allowed
    from lamella.layers.mounting.claims import Mounted
    from lamella.layers.oci.documents import Digest
    from lamella.layers.published.environment import PublishedEnvironment
    from lamella.layers.settings.trust import Trust
    from lamella.layers.store.store import Store

_AT_ONCE = 8
"""Pulls at once: each has up to eight connections and four processes."""


class Log(Protocol):
    """Receives one sentence for each event, with its facts by name."""

    def __call__(self, message: str, **fields: object) -> None:
        """Write one line."""


@dataclass(frozen=True, slots=True)
class _Known:
    """An environment that was read, verified and mounted under one policy."""

    given: NodeEnvironment
    mounted: Mounted
    environment: PublishedEnvironment
    policy: Policy


class Environments:
    """The environments of one store, below one folder."""

    def __init__(
        self, store: Store, folder: str, *, allowed: Allowed, trust: Trust, counts: Counts, notify: Log
    ) -> None:
        self.store, self.folder, self._named = store, os.path.realpath(folder), folder
        self._allowed, self._trust = allowed, trust
        self._counts, self._notify = counts, notify
        self._kernel = here()
        self._running: dict[tuple[str, str | None], Future[NodeEnvironment]] = {}
        self._starting = threading.Lock()
        self._pulling = threading.BoundedSemaphore(_AT_ONCE)
        # Mounting by options changes the working directory, and a mount must not be given while it is taken away.
        self.placing = threading.RLock()
        self._known: dict[str, _Known] = {}
        self._last: dict[str, float] = {}
        """Time of the last request or use of an environment, by its folder; monotonic."""
        self._pinned: dict[str, str] = {}
        """The folder of each reference that is kept mounted."""
        self.make_room: Callable[[int], bool] = lambda _: False
        """Frees a number of bytes as far as it can, and returns whether it freed any."""

    def prepare(self) -> None:
        """Make the folders. Raises `StoreError`."""
        self.store.prepare()
        self.store.check_private()
        with self.store.explained():
            make_folders(os.path.dirname(self.folder))
            make_folder(self.folder)
            # Else they choose, by a link of an environment's name, where a privileged process mounts.
            found = stranger(self._named, machine_policy().shared_group)
        if found:
            raise StoreError(f"--environments {self._named}: {found}; {found.advice('another folder')}")

    def give(self, text: str, c_library: str | None = None) -> NodeEnvironment:
        """Pull and mount what a reference names, unless it is there, and return its place.

        `c_library`: the glibc version of the container that will use it, empty for another C library; None to leave that
        unchecked. Requests for one reference at one time share the work. Raises what `mount` raises, and `PolicyError`.
        """
        reference = Reference.parse(text)
        self._allowed.check(reference, self._trust)
        if given := self._there(reference, c_library):
            return given
        self._check_origin(reference)
        key = (str(reference), c_library)
        with self._starting:
            running = self._running.get(key)
            if mine := running is None:
                running = self._running[key] = Future()
        assert running is not None
        if mine:
            try:
                running.set_result(self._bring(reference, c_library))
            except BaseException as error:
                running.set_exception(error)
                raise
            finally:
                with self._starting:
                    del self._running[key]
        return running.result()

    def keep(self, text: str) -> NodeEnvironment:
        """Give a reference that stays mounted; the digest that it had before may be freed."""
        given = self.give(text)
        moved = self._pinned.get(text) != given.path
        self._pinned[text] = given.path
        if moved:
            self._notify(f"{given.reference} is ready at {given.path}", reference=given.reference, path=given.path)
        return given

    def mounted(self) -> list[Mounted]:
        """Return the environments that are at their folders now, of this agent and of those before it."""
        within = f"{self.folder}/"
        return [
            each
            for each in mounts(self.store)
            if each.target.startswith(within) and claims.is_there(each, self._kernel)
        ]

    def used(self) -> set[str]:
        """Return the folders of the environments that other namespaces use, and note that they are."""
        mine, others = mountinfo.mounts(), list(mountinfo.mounts_by_namespace(own=False))
        found = {each.target for each in self.mounted() if uses.is_used(each.target, mine, others)}
        now = time.monotonic()
        self._last |= dict.fromkeys(found, now)
        return found

    def idle(self, seconds: float) -> list[str]:
        """Return the folders that were neither requested nor used for `seconds`, the longest first.

        Empty unless this process sees every process: without `hostPID` no use is visible.
        """
        if not claims.sees_every_process():
            return []
        now = time.monotonic()
        used, pinned = self.used(), set(self._pinned.values())
        free = [each.target for each in self.mounted() if each.target not in used | pinned]
        # Idle time counts from the start of the agent at the earliest.
        last = {target: self._last.setdefault(target, now) for target in free}
        return sorted((target for target in free if now - last[target] >= seconds), key=lambda target: last[target])

    def unmount(self, target: str, seconds: float) -> bool:
        """Unmount an environment unless it was requested or used within `seconds`, or is busy. Its layers stay until `gc`."""
        with self.placing:
            if target not in self.idle(seconds):
                return False
            try:
                mounted = umount(target, store=self.store, kernel=self._kernel)
            except MountError as error:
                # A process of the machine itself has a file of it open.
                self._notify(f"kept {target}: {error}", path=target)
                self._last[target] = time.monotonic()
                return False
            self._known = {key: each for key, each in self._known.items() if each.given.path != target}
            self._last.pop(target, None)
            with suppress(OSError):
                os.rmdir(target)
        self._counts.add("unmounts_total")
        self._notify(f"unmounted {mounted.reference} from {target}", reference=mounted.reference, path=target)
        return True

    def tidy(self, seconds: float) -> None:
        """Remove empty folders that are `seconds` old. The kubelet makes one for each pod, also for a wrong digest."""
        with self.placing:
            mounted = {each.target for each in self.mounted()}
            for name in os.listdir(self.folder):
                path = f"{self.folder}/{name}"
                # With content, or mounted by others, it stays.
                with suppress(OSError):
                    if path not in mounted and time.time() - os.lstat(path).st_mtime >= seconds:
                        os.rmdir(path)

    def _there(self, reference: Reference, c_library: str | None) -> NodeEnvironment | None:
        if not reference.digest:
            return None
        with self.placing:
            known = self._known.get(_name(reference))
            if known is None or known.policy != machine_policy() or not claims.is_there(known.mounted, self._kernel):
                return None
            self._last[known.given.path] = time.monotonic()
        _check(known.environment, c_library)
        return replace(known.given, reference=str(reference))

    def _check_origin(self, reference: Reference) -> None:
        """Ask the registry whether the repository has the digest, unless the store has it by a pull from there.

        The store answers by digest alone, and may hold what others pulled: naming an allowed repository must not open it.
        """
        if not reference.digest or reference.is_layout or reference.place in self._origins(reference.digest):
            return
        with closing(open_registry(reference, self._trust)) as registry:
            registry.digest_of(str(reference.digest))

    def _origins(self, digest: Digest) -> set[str]:
        """Return the repositories from which the store has an index."""
        found = set()
        for name in names.of(self.store, digest):
            with suppress(InvalidReference):
                found.add(Reference.parse(name).place)
        return found

    def _bring(self, reference: Reference, c_library: str | None) -> NodeEnvironment:
        with self._pulling:
            try:
                return self._pull_and_mount(reference, c_library)
            except NoSpace as error:
                # Unused environments make room; the second time the error is final.
                if not self.make_room(error.lacking):
                    raise
                return self._pull_and_mount(reference, c_library)

    def _pull_and_mount(self, reference: Reference, c_library: str | None) -> NodeEnvironment:
        began = time.monotonic()
        policy = machine_policy()
        with pull.leased(
            str(reference),
            store=self.store,
            trust=self._trust,
            check=lambda environment: _check(environment, c_library),
        ) as pulled:
            digest = Reference.parse(pulled.reference).digest
            assert digest is not None
            target = f"{self.folder}/{digest.algorithm}-{digest.hex}"
            with self.placing:
                options = MountOptions(prefix=pulled.environment.prefix)
                mounted = place(pulled, target, options, store=self.store, kernel=self._kernel)
                given = NodeEnvironment(pulled.reference, str(digest), target, pulled.environment.prefix)
                self._last[target] = time.monotonic()
                self._known[_name(reference.at(digest))] = _Known(given, mounted, pulled.environment, policy)
        if layers := len(pulled.plan.fetch):
            self._counts.add("pulls_total")
            self._counts.add("downloaded_layers_total", layers)
            self._counts.add("downloaded_bytes_total", pulled.moved)
            took = time.monotonic() - began
            self._notify(
                f"pulled {pulled.reference}: {counted(layers, 'layer')} downloaded, {size(pulled.moved)} in {took:.1f} s",
                reference=pulled.reference,
                layers=layers,
                bytes=pulled.moved,
                seconds=round(took, 3),
            )
        return given


def _check(environment: PublishedEnvironment, c_library: str | None) -> None:
    # The agent's own C library is not that of the programs: its needs hold unless the container's is given.
    if why_not := preflight.obstacle(environment, environment.glibc if c_library is None else c_library):
        raise Unsupported(why_not)


def _name(reference: Reference) -> str:
    """The repository and the digest: a signature may count in one repository alone."""
    return str(replace(reference, tag=""))
