"""Facts about a registry that earlier processes learned, so that a push of few requests is not half questions.

Kept are how the registry authenticates (scheme, token server, service) and that it has no referrers
API. Never a token or a credential. A fact that no longer holds costs a request, and is replaced.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Protocol

from lamella.layers.errors import InvalidContent, LamellaError
from lamella.layers.oci.parsing import parse_object, text_of
from lamella.layers.registry.url import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_A_DAY = 24 * 3600


class Notes(Protocol):
    """A few bytes by name, kept between processes where this user alone writes."""

    def note(self, name: str) -> bytes | None:
        """Return the content kept under `name`, or None."""

    def keep_note(self, name: str, content: bytes) -> None:
        """Keep `content` in place of earlier content. A failure raises a `LamellaError`."""


class Remembered:
    """Facts about the registry whose base URL `base` returns; without `notes`, none are kept."""

    def __init__(self, notes: Notes | None = None, base: Callable[[], str] = str) -> None:
        self._notes = notes
        self._base = base

    def challenge(self) -> tuple[str, dict[str, str]] | None:
        """Return the scheme and parameters of the last challenge that credentials answered."""
        content = self._note("challenge")
        try:
            value = parse_object(content, "the note") if content else {}
            parameters = {name: text_of(value, name, "") for name in ("realm", "service")}
            return (text_of(value, "scheme"), parameters) if value else None
        except InvalidContent:
            return None

    def keep_challenge(self, scheme: str, parameters: Mapping[str, str]) -> None:
        """Keep a challenge that was answered."""
        realm, service = (parameters.get(name, "") for name in ("realm", "service"))
        kept = {"scheme": scheme}
        if scheme == "bearer":
            # A careless operator can write a secret into a URL.
            if "@" in realm or "?" in realm or not _is_url(realm):
                return
            kept |= {"realm": realm, "service": service}
        self._keep("challenge", json.dumps(kept, sort_keys=True).encode())

    def lacks_referrers(self) -> bool:
        """Return whether the registry had no referrers API within the last day."""
        try:
            return time.time() - float(self._note("no referrers") or 0) < _A_DAY
        except ValueError:
            return False

    def keep_referrers(self, *, lacks: bool) -> None:
        """Keep whether the registry has no referrers API."""
        if lacks != self.lacks_referrers():
            self._keep("no referrers", str(time.time()).encode() if lacks else b"0")

    def _note(self, fact: str) -> bytes:
        if self._notes is not None:
            with contextlib.suppress(LamellaError):
                return self._notes.note(f"{fact} {self._base()}") or b""
        return b""

    def _keep(self, fact: str, content: bytes) -> None:
        if self._notes is not None and self._note(fact) != content:
            # A disk that is full stops a push where it loses something, not here.
            with contextlib.suppress(LamellaError):
                self._notes.keep_note(f"{fact} {self._base()}", content)


def _is_url(text: str) -> bool:
    with contextlib.suppress(InvalidContent):
        return bool(Address.parse(text, ""))
    return False
