"""Codes and exit codes of failures, and their document."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

import lamella.builder
import lamella.layers
from lamella.cli.errors import UsageError
from lamella.cli.failures import EXIT_CODES, Failure, failure_of, report
from lamella.cli.redaction import without_user
from lamella.layers.agent.protocol import STATUSES, error_of

PAGE = Path(__file__).parents[2] / "docs/reference/json.md"


def caused(by: int) -> Exception:
    """An error of layers that the system's error `by` caused."""
    try:
        raise OSError(by, os.strerror(by))
    except OSError as error:
        try:
            raise lamella.layers.StoreError("the store failed") from error
        except lamella.layers.StoreError as translated:
            return translated


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), "invalid"),
        (lamella.layers.InvalidReference("x"), "invalid"),
        (lamella.layers.NotFound("x"), "not-found"),
        (lamella.layers.Denied("x"), "unauthorized"),
        (lamella.layers.CredentialsError("x"), "unauthorized"),
        (lamella.layers.Unreachable("x"), "unreachable"),
        (lamella.layers.NoSpace("x"), "no-space"),
        (lamella.layers.Busy("x"), "busy"),
        (lamella.layers.FalseMirror("x"), "damaged"),
        (lamella.layers.UnsafeLayer("x"), "damaged"),
        (lamella.layers.NotSigned("x"), "not-signed"),
        (lamella.layers.SignatureError("x"), "invalid"),
        (lamella.layers.PolicyError("x"), "not-allowed"),
        (lamella.layers.Unsupported("x"), "unsupported"),
        (lamella.layers.CannotRun("x"), "command-not-found"),
        (lamella.layers.CannotRun("x", 126), "not-executable"),
        (lamella.layers.StoreError("x"), "failed"),
        (lamella.layers.ExportError("x"), "failed"),
        (lamella.layers.ExportError("--threads -1: x", code="invalid"), "invalid"),
        (lamella.builder.NotAnEnvironment("x"), "no-environment"),
        (lamella.builder.EnvironmentChanged("x"), "changed"),
        (lamella.builder.CannotBuild("x"), "failed"),
        (OSError(errno.ENOSPC, "full", "f"), "no-space"),
        (caused(errno.ENOSPC), "no-space"),
        (caused(errno.EDQUOT), "no-space"),
        (caused(errno.EBUSY), "busy"),
        (caused(errno.EACCES), "no-permission"),
        (caused(errno.EROFS), "no-permission"),
        (caused(errno.EIO), "failed"),
        (MemoryError(), "failed"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_each_error_has_its_code(error: BaseException, code: str) -> None:
    assert failure_of(error).code == code


@pytest.mark.parametrize("kind", STATUSES)
def test_the_client_of_an_agent_raises_the_error_that_the_agent_had(kind: type[lamella.layers.LayersError]) -> None:
    assert type(error_of(failure_of(kind("x")).code, "x")) is kind


def test_the_page_lists_every_code_with_its_exit_code() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", PAGE.read_text(), re.MULTILINE))
    assert {code: int(number) for code, number in rows.items()} == EXIT_CODES


def test_exit_codes_tell_failures_apart() -> None:
    numbers = [number for code, number in EXIT_CODES.items() if code != "internal"]
    assert len(numbers) == len(set(numbers))


def test_a_failure_of_run_is_125_and_one_of_its_command_is_the_shells() -> None:
    assert Failure("not-found", "x").exit_code("run") == 125
    assert Failure("invalid", "x").exit_code("run") == 125
    assert Failure("command-not-found", "x").exit_code("run") == 127
    assert Failure("not-found", "x").exit_code("pull") == 3


def test_the_document_separates_the_problem_from_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    report(Failure("failed", "a; b: c\x1b; do d"), as_json=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "version": 1,
        "error": {"code": "failed", "message": "a; b: c\x1b", "hint": "do d"},
    }
    assert printed.err == "lamella: a; b: c\\x1b; do d\n"
    assert json.loads(Failure("failed", "only").document())["error"]["hint"] is None


def test_failure_is_added_to_the_termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "termination-log"
    log.write_text("before\n")
    monkeypatch.setenv("LAMELLA_TERMINATION_LOG", str(log))

    report(Failure("failed", "http://ada:s3cret@host/v2/: refused; \x1b[31mretry"), as_json=False)

    assert log.read_text() == "before\nlamella: http://***@host/v2/: refused; \\x1b[31mretry\n"


def test_termination_log_that_is_missing_or_a_link_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "link", "pipe", "."):
        monkeypatch.setenv("LAMELLA_TERMINATION_LOG", str(tmp_path / name))
        report(Failure("failed", "refused"), as_json=False)

    assert sorted(os.listdir(tmp_path)) == ["link", "pipe", "target"]
    assert (tmp_path / "target").read_text() == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("oci:/images:v1@sha256:00", "oci:/images:v1@sha256:00"),
        ("oci://ada:s3cret@host/x", "oci://***@host/x"),
        ("https:/ada:s3cret@host/x", "https:/***@host/x"),
    ],
)
def test_layout_in_the_root_folder_is_not_taken_for_a_user(text: str, shown: str) -> None:
    assert without_user(text) == shown
