"""Asking a node's agent for an environment, as an init container does: it waits for an agent that starts or restarts."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import TYPE_CHECKING

from lamella.layers.agent.protocol import NodeEnvironment, error_of
from lamella.layers.errors import InvalidContent, LayersError, Unreachable
from lamella.layers.oci.parsing import parse_object
from lamella.layers.oci.reference import Reference
from lamella.layers.published import preflight

if TYPE_CHECKING:
    from collections.abc import Callable

_POLL = 0.2
_LONGEST = 3600.0
"""Seconds to wait for an answer: a large environment over a slow line. An agent that ends closes the connection."""
_MAX_ANSWER = 1 << 20


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Unanswered(Exception):
    """No agent answered: none listens, it ended meanwhile, or it has too many requests."""


def request_environment(
    reference: str,
    *,
    path: str,
    timeout: float = 120.0,
    elsewhere: bool = False,
    pause: Callable[[float], object] = time.sleep,
) -> NodeEnvironment:
    """Ask the agent that listens at the socket `path` to pull and mount `reference`, and return the place.

    Waits up to `timeout` seconds for an agent, and as long as it takes for its answer. The glibc of this process's machine
    or container is compared with the environment's needs, unless programs run `elsewhere`, in another one. Raises the error
    that the agent had, `Unreachable` without an agent, `InvalidReference`.
    """
    parsed = Reference.parse(reference).absolute()
    asked = json.dumps({"reference": str(parsed), "glibc": None if elsewhere else preflight.glibc()})
    until = time.monotonic() + timeout
    while True:
        began = time.monotonic()
        try:
            status, answer = _exchange(path, "POST", "/environments", asked, _LONGEST)
        except _Unanswered as error:
            if time.monotonic() - began > _POLL:
                until = time.monotonic() + timeout  # an agent was at work, and ended: wait for the next one
            if time.monotonic() + _POLL > until:
                raise Unreachable(
                    f"--agent {path}: no agent answered within {timeout:g} s ({error}); check the pod of the DaemonSet "
                    "that runs lamella agent on this node"
                ) from error
            pause(_POLL)
            continue
        if status != 200:
            raise _error(answer)
        return NodeEnvironment.parse(answer)


def agent_state(path: str, timeout: float = 5.0) -> dict[str, object]:
    """Return what the agent at the socket `path` answers to `GET /health`. Raises `Unreachable`, `InvalidContent`."""
    try:
        status, answer = _exchange(path, "GET", "/health", None, timeout)
    except _Unanswered as error:
        raise Unreachable(f"--socket {path}: no agent answers ({error}); start one with lamella agent") from error
    if status != 200:
        raise InvalidContent(f"--socket {path}: status {status}; this is not a lamella agent")
    return parse_object(answer, f"the answer of {path}")


def _exchange(path: str, method: str, url: str, body: str | None, timeout: float) -> tuple[int, bytes]:
    connection = _Connection(path, timeout)
    try:
        connection.request(method, url, body)
        response = connection.getresponse()
        content = response.read(_MAX_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, PermissionError):
            raise Unreachable(f"{path}: {error.strerror}; the socket's mode is the agent's --socket-mode") from error
        why = (
            "timed out" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or "connection closed"
        )
        raise _Unanswered(str(why).lower()) from error
    finally:
        connection.close()
    if response.status == 503 and response.headers.get("Retry-After"):
        raise _Unanswered("too many requests")
    return response.status, content


def _error(answer: bytes) -> LayersError:
    failure = parse_object(answer, "the agent's answer").get("error")
    if not isinstance(failure, dict):
        raise InvalidContent("the agent's answer has no error; update the agent")
    parts = [part for name in ("message", "hint") if isinstance(part := failure.get(name), str)]
    return error_of(str(failure.get("code")), f"agent of the node: {'; '.join(parts)}")
