"""The policy of an administrator of this machine, for one test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lamella.layers import policy

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def administer(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str = "", **required: object) -> Path:
    """Write the machine's configuration: `text`, then `required`, whose keys have underscores for hyphens."""
    path = folder / "machine.toml"
    # JSON's strings, lists and booleans are TOML's as well.
    lines = [f"{name.replace('_', '-')} = {json.dumps(value)}" for name, value in required.items()]
    path.write_text("\n".join([text, *lines]))
    monkeypatch.setattr(policy, "PATH", str(path))
    return path
