"""Records of requests and decisions, for programs that use logging."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from lamella.layers import Store, pull
from support.published import publish

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_program_that_listens_gets_decisions_with_their_parts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reference = publish(tmp_path / "layout", [{"a": ""}])
    with caplog.at_level(logging.DEBUG, logger="lamella"):
        pull(reference, store=Store(str(tmp_path / "store")))
    found: list[Any] = [record for record in caplog.records if record.name == "lamella.layers.pulling"]
    assert found[0].getMessage() == "0 layers in the store, 1 to fetch"
    assert found[0].fields == {"present": 0, "fetch": 1}
    assert found[1].fields["package"] == "p0"


def test_nothing_is_recorded_above_debug(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lamella"):
        pull(publish(tmp_path / "layout", [{"a": ""}]), store=Store(str(tmp_path / "store")))
    assert caplog.records == []


def test_a_program_without_logging_does_not_import_it(tmp_path: Path) -> None:
    program = "import sys; from lamella.layers import logs; logs.record('lamella.layers', 'x'); print('logging' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
