"""A report beside the environment that it measured, as an artifact."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.comparison import write_report
from lamella.comparison.report.write import FILES
from support.comparisons import comparison
from support.published import publish

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
TYPE = "application/vnd.lamella.comparison"


def test_a_report_is_attached_to_its_environment_and_fetched_again(tmp_path: Path) -> None:
    reference = publish(tmp_path / "images", [{"lib/a.py": "A = 1\n"}])
    report, fetched = tmp_path / "report", tmp_path / "fetched"
    write_report(comparison(rounds=1), report)

    def lamella(*arguments: object) -> None:
        subprocess.run([sys.executable, "-m", "lamella.cli", *map(str, arguments), "--quiet"], check=True)

    lamella("attach", reference, *sorted(report.iterdir()), "--type", TYPE)
    lamella("fetch", reference, fetched, "--type", TYPE)
    found = {path.name: path.read_bytes() for path in fetched.rglob("*") if path.is_file()}
    assert found == {name: (report / name).read_bytes() for name in FILES}
