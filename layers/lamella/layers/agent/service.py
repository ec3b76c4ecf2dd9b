"""The agent's HTTP: environments and metrics on a Unix socket, metrics alone on a TCP address.

Any pod with the socket's folder may connect, so that each request is bounded in bytes, in seconds and in number, and
answered with a document. Source: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import socketserver
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from lamella.layers.agent.metrics import CONTENT_TYPE
from lamella.layers.agent.protocol import status_of
from lamella.layers.errors import InvalidContent, InvalidReference, LamellaError
from lamella.layers.oci.parsing import parse_object

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _typeshed import WriteableBuffer

    from lamella.layers.agent.environments import Environments, Log
    from lamella.layers.agent.metrics import Counts

MAX_REQUEST = 64 << 10
"""Bytes of a request, its head included."""
MAX_SECONDS = 10.0
"""Seconds that a request may take to come, and its answer to be taken."""
MAX_CONNECTIONS = 256
"""Connections at once: twice the pods that a node usually has."""
_DRAIN_BYTES, _DRAIN_SECONDS = 4 * MAX_REQUEST, 0.5
_MAX_REFERENCE = 1024
_C_LIBRARY = re.compile(r"(?:[0-9]{1,4}(?:\.[0-9]{1,4}){0,3})?", re.ASCII)
_TOO_MANY = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


class InvalidRequest(InvalidReference):
    """A request that is not the agent's protocol."""


@dataclass(frozen=True, slots=True)
class Service:
    """All that the requests of one agent share."""

    environments: Environments
    counts: Counts
    notify: Log
    describe: Callable[[BaseException], str]
    """An error as the document that `--json` has for failures."""
    metrics: Callable[[], str]
    state: Mapping[str, object]
    """The answer to `GET /health`."""


class _Bounded(io.RawIOBase):
    """The bytes of one request: `MAX_REQUEST` of them, within `MAX_SECONDS` of the first."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._left = MAX_REQUEST
        self._until = time.monotonic() + MAX_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if not self._left:
            return 0
        self._connection.settimeout(left)
        count = self._connection.recv_into(view[: self._left])
        self._left -= count
        return count


class _Handler(BaseHTTPRequestHandler):
    """One request, one answer, one connection."""

    server: _Server
    server_version = "lamella-agent"
    sys_version = ""
    default_request_version = "HTTP/1.0"

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Bounded(self.connection))

    def handle(self) -> None:
        # The client may go away at any time.
        with suppress(ConnectionError, TimeoutError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Log nothing: the agent logs each event itself."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer an error of the protocol with a document."""
        del explain
        why = message or self.responses.get(code, ("unknown error",))[0]
        self._answer(int(code), self._service.describe(InvalidRequest(f"invalid request: {why}")))

    def do_GET(self) -> None:
        if self.path == "/metrics":
            try:
                text = self._service.metrics()
            except (LamellaError, OSError) as error:
                self._answer(*self._failed(error))
            else:
                self._answer(200, text, CONTENT_TYPE)
        elif self.path == "/health":
            self._answer(200, json.dumps(self._service.state))
        else:
            self.send_error(404, "use GET /health, GET /metrics or POST /environments")

    def do_POST(self) -> None:
        if self.path != "/environments" or not self.server.gives:
            self.send_error(404, "use POST /environments on the agent's Unix socket")
            return
        began = time.monotonic()
        try:
            reference, c_library = self._asked()
            given = self._service.environments.give(reference, c_library)
        except (LamellaError, OSError, MemoryError) as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise
            status, answer = self._failed(error)
        else:
            status, answer = 200, given.to_json()
        self._service.counts.add("requests_total", label=("status", str(status)))
        self._service.counts.observe(time.monotonic() - began)
        self._answer(status, answer)

    def _failed(self, error: BaseException) -> tuple[int, str]:
        status = status_of(error)
        answer = self._service.describe(error)
        failure = json.loads(answer)["error"]
        sentence = "; ".join(filter(None, (failure["message"], failure["hint"])))
        self._service.counts.add("errors_total", label=("code", failure["code"]))
        self._service.notify(f"request failed: {sentence}", code=failure["code"], status=status)
        return status, answer

    def _asked(self) -> tuple[str, str | None]:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length, re.ASCII):
            raise InvalidRequest("invalid request: no Content-Length")
        if int(length) > MAX_REQUEST:
            raise InvalidRequest(f"invalid request: more than {MAX_REQUEST} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise InvalidRequest("invalid request: shorter than its Content-Length, or too long with its head")
        try:
            document = parse_object(body, "the request")
        except InvalidContent as error:
            raise InvalidRequest(f'invalid request: {error}; send {{"reference": "…"}}') from None
        reference, c_library = document.get("reference"), document.get("glibc")
        if not isinstance(reference, str) or not 0 < len(reference) <= _MAX_REFERENCE:
            raise InvalidRequest(f"invalid request: reference is not a string of 1 to {_MAX_REFERENCE} characters")
        if c_library is not None and not (isinstance(c_library, str) and _C_LIBRARY.fullmatch(c_library)):
            raise InvalidRequest("invalid request: glibc is not a version such as 2.36")
        return reference, c_library

    def _answer(self, status: int, text: str, content_type: str = "application/json") -> None:
        content = text.encode()
        self.connection.settimeout(MAX_SECONDS)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def _service(self) -> Service:
        return self.server.service


class _Server(socketserver.ThreadingMixIn, socketserver.BaseServer):
    """A thread for each connection, up to `MAX_CONNECTIONS`, on a socket that listens already."""

    daemon_threads = True
    gives = False
    """Whether environments are given here."""

    def __init__(self, listener: socket.socket, service: Service, *, gives: bool) -> None:
        super().__init__(listener.getsockname() or "", _Handler)
        self._listener, self.service, self.gives = listener, service, gives
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def fileno(self) -> int:
        """See `selectors`."""
        return self._listener.fileno()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        return self._listener.accept()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread, or refuse the connection if there are too many."""
        if not self._free.acquire(blocking=False):
            request.settimeout(0)
            with suppress(OSError):
                request.sendall(_TOO_MANY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads
            self._free.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle a request, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection after sending end-of-file to the client."""
        with suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            # Closed with bytes unread, a client that still sends would lose the answer.
            until, left = time.monotonic() + _DRAIN_SECONDS, _DRAIN_BYTES
            while left > 0 and (remaining := until - time.monotonic()) > 0:
                request.settimeout(remaining)
                piece = len(request.recv(min(left, 1 << 16)))
                left -= piece or left
        self.close_request(request)

    def close_request(self, request: Any) -> None:
        """Close a connection."""
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a bug in one line; the agent goes on."""
        del request, client_address
        error = sys.exc_info()[1]
        self.service.counts.add("errors_total", label=("code", "internal"))
        self.service.notify(f"internal error: {type(error).__name__}: {error}", code="internal")


def code_of(document: str) -> str:
    """Return the code of a failure's document."""
    return str(json.loads(document)["error"]["code"])


def started(listener: socket.socket, service: Service, *, gives: bool) -> _Server:
    """Serve in a thread, until `shutdown` of the result."""
    server = _Server(listener, service, gives=gives)
    name = f"lamella-agent-{os.path.basename(str(listener.getsockname()))}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name=name, daemon=True).start()
    return server
