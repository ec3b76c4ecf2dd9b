"""What every test of the builder gets: a cache that is the run's own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def cache_of_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What one test learns of the interpreter's files, the next one need not read; nobody's home is touched."""
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
