"""What every test of the builder gets: a cache that is the run's own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def cache_of_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Share the hashes of the interpreter's files between tests, outside the user's home."""
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
