"""The agent of a node: it serves its socket, keeps tags pulled, and frees by pressure until it is stopped."""

from __future__ import annotations

import ipaddress
import random
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from lamella.layers import mountinfo
from lamella.layers.agent import freeing, listening, service, uses
from lamella.layers.agent.environments import Environments
from lamella.layers.agent.metrics import Counts
from lamella.layers.agent.options import AgentOptions, allowed
from lamella.layers.errors import InvalidReference, LayersError
from lamella.layers.mounting import claims
from lamella.layers.settings.trust import Trust
from lamella.layers.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamella.layers.agent.environments import Log

_FRESH = 5.0
"""Seconds for which sizes of the store are kept: every pod with the socket can request them."""
_GRACE = 5.0
"""Seconds to let a mount or an unmount end before the agent does."""


def _ignore(message: str, **fields: object) -> None:
    """Discard the event."""


def serve_agent(
    options: AgentOptions,
    *,
    describe: Callable[[BaseException], str],
    stop: threading.Event,
    store: Store | None = None,
    trust: Trust = Trust(),
    notify: Log = _ignore,
    ready: Callable[[dict[str, object]], object] = lambda _: None,
) -> None:
    """Serve environments to the pods of this node until `stop` is set. Mounts stay, and the next agent finds them.

    `describe`: an error as the JSON document that clients get. `ready` gets the state that `GET /health` answers, once the
    socket listens. Raises `PolicyError` without a limit on registries, `Busy` if another agent has the socket or the
    folder, `LayersError`.
    """
    store = store or Store()
    limits, counts = allowed(options), Counts()
    folder = options.environments or f"{store.path}/environments"
    environments = Environments(store, folder, allowed=limits, trust=trust, counts=counts, notify=notify)
    environments.prepare()
    # Below the store, in a folder that is closed to other users.
    with ExitStack() as stack:
        name = claims.lock_name(environments.folder)
        stack.enter_context(listening.alone(f"{store.path}/locks/agent-{name}", f"--environments {folder}"))
        stack.enter_context(listening.alone(f"{options.socket}.lock", f"--socket {options.socket}"))
        listener = stack.enter_context(listening.listening(options.socket, options.socket_mode))
        metrics = stack.enter_context(_metrics_listener(options.metrics)) if options.metrics else None
        state: dict[str, object] = {
            "version": 1,
            "socket": options.socket,
            "environments": environments.folder,
            "metrics": _address(metrics) if metrics else None,
            "ready": True,
        }
        gauges = _Gauges(environments, counts)
        shared = service.Service(environments, counts, notify, describe, gauges.text, state)
        servers = [service.started(listener, shared, gives=True)]
        servers += [service.started(metrics, shared, gives=False)] if metrics else []
        agent = _Agent(environments, options, counts, notify, describe, stop)
        environments.make_room = agent.make_room
        notify(f"listening on {options.socket}, environments below {environments.folder}", **state)
        agent.greet()
        threading.Thread(target=agent.run, name="lamella-agent", daemon=True).start()
        ready(state)
        stop.wait()
        for server in servers:
            server.shutdown()
        # Not in the middle of a mount: the next agent would have to undo it.
        environments.placing.acquire(timeout=_GRACE)
        notify("stopped; mounts stay")


@dataclass(frozen=True, slots=True)
class _Agent:
    """Background work: pull ahead, free space."""

    environments: Environments
    options: AgentOptions
    counts: Counts
    notify: Log
    describe: Callable[[BaseException], str]
    stop: threading.Event

    def greet(self) -> None:
        """Log the mounts of earlier agents, and limits of this one."""
        if found := self.environments.mounted():
            self.notify(f"found {len(found)} mounted environments of an earlier agent", mounted=len(found))
        if not _reaches_pods(self.environments.folder):
            self.notify("mounts made here may not reach pods: set privileged: true, mountPropagation: Bidirectional")
        if not claims.sees_every_process():
            self.notify(
                "other pods' mounts are not visible, so mounted environments are not freed; set hostPID: true, user 0"
            )

    def run(self) -> None:
        """Pull ahead and free, again and again."""
        failures: dict[str, str] = {}
        while not self.stop.is_set():
            for reference in self.options.pull:
                self._attempt(f"pull {reference}", failures, partial(self.environments.keep, reference))
            self._attempt("free space", failures, self._relieve)
            self.counts.add("checks_total")
            # Nodes that started together must not ask the registry together for ever.
            self.stop.wait(self.options.every * random.uniform(0.9, 1.1))

    def make_room(self, lacking: int) -> bool:
        """Free `lacking` bytes as far as unused environments have them; return whether anything was freed."""
        used = freeing.measured(self.environments.store).used
        wanted = max(0, used - lacking) if lacking else 0
        return freeing.shrink(self.environments, wanted, self.options.idle, self.counts, self.notify)

    def _relieve(self) -> object:
        self.environments.used()
        self.environments.tidy(self.options.idle)
        return freeing.relieve(self.environments, self.options, self.counts, self.notify)

    def _attempt(self, what: str, failures: dict[str, str], do: Callable[[], object]) -> None:
        try:
            do()
        except (LayersError, OSError) as error:
            self.counts.add("errors_total", label=("code", service.code_of(self.describe(error))))
            # A registry that is down for a day is one line, not a thousand.
            if failures.get(what) != str(error):
                self.notify(f"cannot {what}: {error}")
            failures[what] = str(error)
        else:
            if failures.pop(what, ""):
                self.notify(f"can {what} again")


class _Gauges:
    """The text of all metrics. Gauges that read the store or /proc are cached for `_FRESH` seconds."""

    def __init__(self, environments: Environments, counts: Counts) -> None:
        self._environments, self._counts, self._version = environments, counts, version("lamella")
        self._lock = threading.Lock()
        self._values: dict[str, float] = {}
        self._at = -_FRESH

    def text(self) -> str:
        with self._lock:
            if time.monotonic() - self._at >= _FRESH:
                space = freeing.measured(self._environments.store)
                self._values = {
                    "environments_mounted": len(self._environments.mounted()),
                    "store_layers": space.layers,
                    "store_bytes": space.used,
                    "filesystem_free_bytes": space.free,
                    "filesystem_size_bytes": space.capacity,
                    "start_time_seconds": self._counts.started,
                }
                if claims.sees_every_process():
                    self._values["environments_in_use"] = len(self._environments.used())
                self._at = time.monotonic()
            return self._counts.text(self._values, self._version)


def _reaches_pods(folder: str) -> bool:
    """Whether pods see mounts made in `folder`, as far as that can be known."""
    return not claims.sees_every_process() or uses.is_of_first_process() or uses.is_shared(folder, mountinfo.mounts())


def _metrics_listener(address: str) -> socket.socket:
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        if not (colon and host and port.isascii() and port.isdecimal() and int(port) < 1 << 16):
            raise ValueError
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        raise InvalidReference(f"--metrics {address}: not ADDRESS:PORT, such as 127.0.0.1:9464") from None
    try:
        return socket.create_server((host, int(port)), family=family)
    except OSError as error:
        raise LayersError(f"--metrics {address}: {error.strerror}; choose another port") from error


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
