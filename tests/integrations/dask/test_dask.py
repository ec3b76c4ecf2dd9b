"""The package itself: its names, and the error without its extra."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lamella.integrations.dask

_WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "distributed":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
import lamella.integrations.dask as integration
try:
    integration.sync
except ImportError as error:
    print(error)
"""


@pytest.mark.slow
def test_without_distributed_the_error_names_the_extra() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT], check=True, capture_output=True, text=True)
    assert done.stdout == (
        "lamella.integrations.dask.sync: distributed is missing; install Lamella with its extra: lamella[dask]\n"
    )


@pytest.mark.slow
def test_each_public_name_exists() -> None:
    assert [name for name in dir(lamella.integrations.dask) if not hasattr(lamella.integrations.dask, name)] == []
