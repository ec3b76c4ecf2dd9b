"""Requests to package indexes: retries, deadlines, no login for another server, failures that name the index."""

from __future__ import annotations

import base64
import os
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lamella.builder.errors import BuilderError
from lamella.layers.errors import LayersError
from lamella.layers.registry import tls
from lamella.layers.registry.client import Client
from lamella.layers.registry.failures import BUSY
from lamella.layers.registry.retry import Interrupted, Patience, patiently, retry_after

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from typing_extensions import Self

    from lamella.builder.indexes.model import Indexes
    from lamella.layers.registry.response import Response

    _Result = TypeVar("_Result")

PATIENCE = Patience(tries=4)


class IndexUnusable(BuilderError):
    """An index that cannot be asked: down, closed to this user, or not an index."""


class LoginRefused(IndexUnusable):
    """An index that requires a login, or another one."""


class IndexClient:
    """Requests to the servers of `indexes` and to those that their pages name, from any number of threads."""

    def __init__(self, indexes: Indexes, patience: Patience = PATIENCE) -> None:
        self._indexes = indexes
        self._patience = patience
        self._clients: dict[str, Client] = {}
        self._lock = threading.Lock()

    def get(
        self,
        url: str,
        what: str,
        read: Callable[[Response], _Result],
        *,
        accept: str = "*/*",
        index: str = "",
        unless: Mapping[str, str] | None = None,
    ) -> _Result | None:
        """Return what `read` makes of the answer at `url`; None for 404 and 410.

        `index`: URL of the index that names `url`. With the conditional headers `unless`, `read` gets a 304 as well.
        Retries broken connections, `read` included. Raises `IndexUnusable` with `what` as its subject.
        """
        headers = {"Accept": accept, **(unless or {}), **self._authorization(url, index)}

        def attempt() -> _Result | None:
            with self._client(url).send("GET", url, headers) as response:
                if response.status == 200 or (unless and response.status == 304):
                    return read(response)
                if response.status in (404, 410):
                    return None
                raise _failure(response, what, bool(headers.get("Authorization")))

        try:
            return patiently(self._patience, attempt)
        except IndexUnusable:
            raise
        except LayersError as error:
            # Its advice is about a registry.
            problem = str(error).partition("; ")[0].replace("registry", "index")
            advice = "check the index's URL and the network, or try again later"
            raise IndexUnusable(f"{what}: {problem}; {advice}") from None

    def close(self) -> None:
        """Close every connection. Idempotent."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _authorization(self, url: str, index: str) -> Mapping[str, str]:
        login = self._indexes.login_for(url, index)
        if not login:
            return {}
        pair = f"{login.user}:{login.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}

    def _client(self, url: str) -> Client:
        parts = urlsplit(url)
        base = f"{parts.scheme}://{parts.netloc}"
        if parts.scheme not in ("http", "https"):
            raise IndexUnusable(f"{base}: not an HTTP server; correct the index's URL")
        with self._lock:
            if base not in self._clients:
                self._clients[base] = Client(base, tls=_tls, patience=self._patience)
            return self._clients[base]


def _tls(host: str) -> ssl.SSLContext:
    # pip's variable, and the one of most clients: companies set them for a proxy that reads TLS.
    found = [os.environ.get(name) for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")]
    return tls.context(host, [path for path in found if path and os.path.isfile(path)][:1])


def _failure(response: Response, what: str, signed: bool) -> LayersError | IndexUnusable:
    host, status = response.host, response.status
    if status in BUSY or status >= 500:
        wait = retry_after(response.header("Retry-After"))
        return Interrupted(f"{host} answered {status}", wait)
    if status == 401 and not signed:
        return LoginRefused(f"{what}: {host} requires a login; add it to netrc, or to the index's URL")
    if status in (401, 403):
        refused = "refuses the login" if signed else "denies access"
        return LoginRefused(f"{what}: {host} {refused} ({status}); correct the login of the index")
    if status == 407:
        return IndexUnusable(f"{what}: the proxy requires a login (407); write USER:PASSWORD@ before its host")
    return IndexUnusable(f"{what}: {host} answered {status}; check the index's URL")
