"""The machine's policy and the user's settings, for one test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lamella.layers.settings import policy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest


def user_file(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str = "", **settings: object) -> Path:
    """Write the user's settings, as `administer` writes the machine's."""
    path = folder / "config" / "lamella" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    path.write_text(_toml(text, settings))
    return path


def administer(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str = "", **required: object) -> Path:
    """Write the machine's configuration: `text`, then `required`, whose keys have underscores for hyphens."""
    path = folder / "machine.toml"
    path.write_text(_toml(text, required))
    monkeypatch.setattr(policy, "PATH", str(path))
    return path


def _toml(text: str, values: Mapping[str, object]) -> str:
    # JSON's strings, lists and booleans are TOML's as well.
    return "\n".join([text, *(f"{name.replace('_', '-')} = {json.dumps(value)}" for name, value in values.items())])
