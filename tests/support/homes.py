"""A home folder for a test, so that it neither sees nor changes its user's credentials."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def fresh_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `folder` the home, and remove every variable that leads to other credentials."""
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    return folder


def auth_of(username: str, password: str) -> dict[str, str]:
    """Return an entry of Docker's file."""
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def know(home: Path, host: str, entry: dict[str, str]) -> None:
    """Write Docker's file with one entry."""
    write(home / ".docker" / "config.json", {"auths": {host: entry}})


def write(path: Path, document: object) -> None:
    """Write a JSON file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
