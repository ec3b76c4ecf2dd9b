"""What every test gets: a home, a store and settings that are nobody's but the run's own."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy is no finding: property tests have no deadline.
settings.register_profile("lamella", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lamella")


@pytest.fixture(autouse=True)
def no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """A LAMELLA_* variable or an activated environment of whoever runs the tests changes no test."""
    for name in list(os.environ):
        if name.startswith("LAMELLA_") or name in {"VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV"}:
            monkeypatch.delenv(name)
