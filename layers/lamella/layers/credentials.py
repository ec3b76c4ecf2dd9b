"""Who we are to a registry: what Docker's and podman's clients know, from their files and credential helpers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one registry knows us by. None of it is ever shown: a value's repr holds the user's name only."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """Buys tokens from the registry's token server, in place of a password."""
    registry_token: str = field(default="", repr=False)
    """Signs requests as it is."""


def find(registry: str) -> Credentials | None:  # noqa: ARG001 - anonymous so far
    """The credentials for `registry` (as references write it, such as ghcr.io), or None: ask anonymously."""
    return None
