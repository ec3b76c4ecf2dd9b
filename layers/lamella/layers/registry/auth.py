"""Signing of requests to a registry: with a user and password, or with a token for each scope.

A registry that requires a signature answers 401, and WWW-Authenticate has the scheme; `bearer`
names a token server, the realm. Tokens are kept until shortly before they expire, and renewed if a
registry refuses one earlier. Source: distribution's docs/spec/auth/{token,oauth,scope}.md; RFC
9110, 11.
"""

from __future__ import annotations

import base64
import contextlib
import io
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from lamella.layers.errors import CredentialsError, Denied, InvalidContent, LayersError, NotFound
from lamella.layers.registry.client import Body
from lamella.layers.registry.remembered import Remembered
from lamella.layers.registry.response import failure_of, login_advice
from lamella.layers.registry.retry import Patience, patiently
from lamella.layers.registry.url import Address
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from cachetools import TLRUCache

    from lamella.layers.registry.client import Client
    from lamella.layers.registry.credentials import Credentials
    from lamella.layers.registry.response import Response

_CLIENT_ID = "lamella"
_MAX_ANSWER = 1 << 20
_SHORTEST_LIFE = 60
"""Seconds that a token lives if its server gives no time. Source: token.md, `expires_in`."""
_MARGIN = 0.8
"""The part of a token's life in which it is used: a request sent in time must arrive in time."""

_PARAMETER = re.compile(r'([a-zA-Z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(r"(?:^|,)\s*([a-zA-Z0-9_-]+)(?:\s+(?=[a-zA-Z0-9_-]+\s*=)|\s*(?=,|$))")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One WWW-Authenticate challenge; the scheme and the parameters' names in lower case."""

    scheme: str
    parameters: dict[str, str]


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """Parse the challenges of all WWW-Authenticate headers; one header may hold several."""
    found = []
    for header in headers:
        # Commas separate challenges as well as parameters; a quoted scope holds commas and spaces.
        masked = re.sub(r'"(?:[^"\\]|\\.)*"', lambda match: '"' + "x" * (len(match[0]) - 2) + '"', header)
        starts = list(_SCHEME.finditer(masked))
        ends = [match.start() for match in starts[1:]] + [len(header)]
        for start, end in zip(starts, ends, strict=False):
            parameters = {
                match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
                for match in _PARAMETER.finditer(header[start.end() : end])
            }
            found.append(Challenge(start[1].lower(), parameters))
    return found


class Tokens:
    """Signatures for one client's requests. One thread asks the token server while the others wait.

    Credentials that cannot be read do not stop a request that needs none: the problem is part of
    the error when the registry refuses.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        credentials: Callable[[], Credentials | None],
        remembered: Remembered | None = None,
    ) -> None:
        """`name`: the registry as people write it. `credentials` is called once. `remembered`: facts of earlier processes."""
        self._client = client
        self._name = name
        self._find: Callable[[], Credentials | None] | None = credentials
        self._remembered = remembered or Remembered()
        self._recalled = False
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._credentials: Credentials | None = None
        self._problem: CredentialsError | None = None
        self._cache: TLRUCache[frozenset[str], tuple[str, float]] | None = None

    def signature(self, scopes: Collection[str]) -> str:
        """Return the Authorization header for `scopes`; empty before the first challenge that is known."""
        with self._lock:
            if self._challenge or self._recalled:
                return self._signature(frozenset(scopes)) if self._challenge else ""
            self._recalled = True
            return self._recall(frozenset(scopes))

    def answer(self, headers: Iterable[str], scopes: Collection[str], refused: str, what: str) -> str:
        """Return the signature that a 401 requires after the `refused` one. Raises `Denied`."""
        offered = {challenge.scheme: challenge for challenge in challenges(headers)}
        challenge = offered.get("bearer") or offered.get("basic")
        if not challenge:
            raise Denied(f"{self._name}: unsupported authentication scheme for {what}")
        wanted = frozenset(scopes)
        with self._lock:
            self._take(challenge)
            # Another thread may have got a new one since.
            if self._kept().get(wanted, ("", 0))[0] == refused:
                self._kept().pop(wanted, None)
            try:
                signature = self._signature(wanted)
            except (Denied, NotFound) as error:
                raise self.explained(error) from error
        if not signature:
            raise self.explained(Denied(f"{self._name} requires authentication for {what}; {login_advice(self._name)}"))
        if signature == refused:
            raise Denied(f"{self._name} refuses the credentials for {what}; {login_advice(self._name)}")
        self._remembered.keep_challenge(challenge.scheme, challenge.parameters)
        return signature

    def explained(self, error: LayersError) -> LayersError:
        """Return a refusal with the problem of the credentials, if there is one."""
        if self._problem and isinstance(error, Denied | NotFound):
            return type(error)(f"{error} (no credentials were sent: {self._problem})")
        return error

    def _take(self, challenge: Challenge) -> None:
        self._challenge = challenge
        find, self._find = self._find, None
        if find:
            try:
                self._credentials = find()
            except CredentialsError as error:
                self._problem = error

    def _recall(self, scopes: frozenset[str]) -> str:
        """Answer the challenge of an earlier process; if that fails, the registry is asked for its own."""
        if not (recalled := self._remembered.challenge()):
            return ""
        self._take(Challenge(*recalled))
        try:
            # Once: a token server that fails for a moment is asked again after the registry's own challenge.
            return self._signature(scopes, Patience(tries=1))
        except LayersError:
            self._challenge = None
            return ""

    def _signature(self, scopes: frozenset[str], patience: Patience | None = None) -> str:
        assert self._challenge
        credentials = self._credentials
        if self._challenge.scheme == "basic":
            return _basic(credentials) if credentials and credentials.password else ""
        known = self._kept().get(scopes)
        if known is None:
            token, life = patiently(patience or self._client.patience, lambda: self._ask(scopes))
            known = self._kept()[scopes] = (f"Bearer {token}", life)
        return known[0]

    def _kept(self) -> TLRUCache[frozenset[str], tuple[str, float]]:
        if self._cache is None:
            self._cache = _cache()
        return self._cache

    def _ask(self, scopes: frozenset[str]) -> tuple[str, float]:
        """Return a token and the seconds that it lives."""
        assert self._challenge
        parameters = self._challenge.parameters
        realm = parameters.get("realm", "")
        _check_realm(realm, self._client.address.scheme, self._name)
        # The challenge may write the scope differently; a token server omits scopes that it
        # refuses.
        asked = sorted(scopes | ({parameters["scope"]} if parameters.get("scope") and not scopes else set()))
        query = [("service", parameters["service"])] if parameters.get("service") else []
        credentials = self._credentials
        headers, body = {"Accept": "application/json"}, None
        if credentials and credentials.identity_token:
            form = [*query, ("client_id", _CLIENT_ID), ("scope", " ".join(asked))]
            form += [("grant_type", "refresh_token"), ("refresh_token", credentials.identity_token)]
            content = urlencode(form).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = Body(lambda: contextlib.closing(io.BytesIO(content)), len(content))
            response = self._client.send("POST", realm, headers, body)
        else:
            query += [("scope", scope) for scope in asked]
            if credentials and credentials.password:
                headers["Authorization"] = _basic(credentials)
                query.append(("account", credentials.username))
            glue = ("&" if "?" in realm else "?") if query else ""
            response = self._client.send("GET", f"{realm}{glue}{urlencode(query)}", headers)
        if response.status != 200:
            raise failure_of(response, f"a token for {self._name}", self._name)
        return _token(response)


def _token(response: Response) -> tuple[str, float]:
    try:
        document = response.json(_MAX_ANSWER)
        token = document.get("token") or document.get("access_token")
        life = float(document.get("expires_in") or _SHORTEST_LIFE)
    except (InvalidContent, ValueError, OverflowError, TypeError, AttributeError):
        token, life = None, 0.0
    # A line break in a header would begin another header.
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise InvalidContent(f"{response.host}: the token server's answer has no token; check for a proxy in between")
    # In this order, since NaN is neither more nor less than anything.
    return token, max(_SHORTEST_LIFE, life)


def _basic(credentials: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()


def _cache() -> TLRUCache[frozenset[str], tuple[str, float]]:
    from cachetools import TLRUCache

    # Not thread-safe; `_lock` is held around every use.
    return TLRUCache(maxsize=256, ttu=lambda _scopes, token, now: now + token[1] * _MARGIN, timer=time.monotonic)


def _check_realm(realm: str, scheme: str, name: str) -> None:
    """Refuse a realm that would get passwords in the clear. The address policy checks its host."""
    allowed = {"https"} if scheme == "https" else {"https", "http"}
    address = None
    with contextlib.suppress(InvalidContent):
        address = Address.parse(realm, name)
    if not address or address.scheme not in allowed:
        shown = address.shown if address else escaped(realm, 100)
        raise Denied(f"{name}: its token server {shown!r} is not an HTTPS URL; refused as hostile")
