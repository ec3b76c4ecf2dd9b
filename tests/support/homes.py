"""A home folder that is nobody's, so that no test sees or changes the credentials of whoever runs it."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def fresh_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes `folder` the home, and forgets every variable that leads to credentials elsewhere."""
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    return folder


def auth_of(username: str, password: str) -> dict[str, str]:
    """An entry of Docker's file."""
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def know(home: Path, host: str, entry: dict[str, str]) -> None:
    """Writes Docker's file with one entry."""
    write(home / ".docker" / "config.json", {"auths": {host: entry}})


def write(path: Path, document: object) -> None:
    """Writes a JSON file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
