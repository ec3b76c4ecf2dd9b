"""Results as text and as HTML."""

from __future__ import annotations

from typing import Any

from lamella.integrations.jupyter.results import SHOWN, result_of

PUSHED: dict[str, Any] = {
    "reference": "localhost:5000/team/envs:v1@sha256:0",
    "dry_run": False,
    "unchanged": False,
    "packages": 2,
    "built": {"layers": 1},
    "reused": {"layers": 1},
    "uploaded": {"layers": 1, "bytes": 2048},
    "findings": {"error": 0, "warning": 1, "note": 0},
    "layers": [
        {"packages": ["alpha 1.0"], "action": "build", "size": None},
        {"packages": ["beta 1.0"], "action": "reuse", "size": 10},
    ],
    "seconds": 1.5,
}


def scanned(name: str, count: int = 1) -> dict[str, Any]:
    package = {"name": name, "version": "1.0", "origin": "pypi", "files": 3, "size": 2048}
    finding = {"severity": "warning", "kind": "missing", "subject": "b", "message": "b lacks a file"}
    note = {"severity": "error", "kind": "missing", "subject": "a", "message": "a lacks a file"}
    return {
        "prefix": "/home/ada/.venv",
        "implementation": "CPython",
        "python": "3.11.7",
        "platform": "linux/amd64",
        "packages": [package] * count,
        "findings": [finding, note],
    }


def test_a_push_shows_the_layers_that_moved() -> None:
    assert repr(result_of("push", PUSHED, ["local code of /home/ada: 1 file"])) == (
        "local code of /home/ada: 1 file\n"
        "localhost:5000/team/envs:v1@sha256:0\n"
        "Layer  Packages   Size\n"
        "build  alpha 1.0\n"
        "2 packages; 1 layer built, 1 uploaded (2.0 kB), 1 reused; 1 warning; 1.50 s"
    )


def test_a_push_without_a_change_has_no_table() -> None:
    result = result_of("push", {**PUSHED, "unchanged": True, "layers": []}, [])
    assert (result.tables, "unchanged" in result.summary) == ((), True)


def test_a_scan_shows_the_worst_finding_first() -> None:
    assert [row[0] for row in result_of("scan", scanned("alpha"), []).tables[1].rows] == ["error", "warning"]


def test_a_long_table_counts_the_rest() -> None:
    result = result_of("scan", scanned("alpha", SHOWN + 3), [])
    assert "… and 3 more" in repr(result)
    assert "… and 3 more" in result._repr_html_()


def test_foreign_text_is_escaped() -> None:
    result = result_of("scan", scanned("<script>\x1b[2J"), [])
    assert "<script>" not in result._repr_html_()
    assert "\x1b" not in repr(result)
