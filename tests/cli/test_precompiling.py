"""A first push and a first export use the byte code that was made during their scan."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.builder.content import bytecode, precompiler
from lamella.cli.main import main
from support.installed import install, venv, wheel
from support.processes import DEADLINE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there the compiler cannot fork"),
]


@pytest.mark.parametrize("command", ["push oci:{0}/layout:v1 {0}/env", "export {0}/env {0}/env.tar"])
def test_a_first_push_and_a_first_export_leave_nothing_to_compile(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(venv(tmp_path / "env"), wheel(tmp_path, "greet", files={"greet/__init__.py": "a = 1\n"}))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    # The processes of the scan are waited for, and no other may start.
    monkeypatch.setattr(precompiler, "_kill", lambda process: process.wait(DEADLINE))
    monkeypatch.setattr(bytecode, "_Worker", None)
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert main([*command.format(tmp_path).split(), "--no-system-libraries"]) == 0, capsys.readouterr().err
