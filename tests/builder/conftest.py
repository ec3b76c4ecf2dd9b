"""What every test of the builder gets: a cache that is the run's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def cache_of_the_run(monkeypatch: pytest.MonkeyPatch, shared: Path) -> None:
    """Share layers and hashes of the interpreter's files between tests, outside the user's home."""
    monkeypatch.setenv("LAMELLA_CACHE", str(shared / "cache"))
