"""Records that an installer did not write: a scan reports them, and neither waits nor fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.builder.installed.conda import conda_packages
from lamella.builder.installed.distributions import distributions
from lamella.builder.scanning.scan import scan
from lamella.layers.oci.documents import canonical_json
from support.installed import venv
from support.scanned import SITE

if TYPE_CHECKING:
    from pathlib import Path

METADATA = (
    "RECORD",
    "METADATA",
    "INSTALLER",
    "direct_url.json",
    "top_level.txt",
    "entry_points.txt",
    "installed-files.txt",
)


def dist_info(site: Path, name: str) -> Path:
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    return folder


@pytest.mark.slow
def test_a_scan_of_an_environment_with_fifos_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    prefix = venv(tmp_path / "venv")
    site = prefix / SITE
    for number, name in enumerate(METADATA):
        folder = dist_info(site, f"p{number}")
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    for fifo in (site / "some.pth", site / "__editable___x_finder.py", prefix / ".gitignore"):
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo)
    (prefix / "bin/activate").unlink()
    os.mkfifo(prefix / "bin/activate")
    # In a process of its own, which can be ended: a read of a FIFO answers no signal handler.
    done = subprocess.run(
        [sys.executable, "-m", "lamella.cli", "scan", "--json", str(prefix)],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    messages = [finding["message"] for finding in json.loads(done.stdout)["findings"]]
    assert any("p0" in message and "RECORD cannot be read (not a regular file)" in message for message in messages)


DEEP = "[" * 100_000
NESTED = "[" * 900 + "]" * 900


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("direct_url.json", DEEP.encode()),
        ("direct_url.json", b'{"url": %s}' % NESTED.encode()),
        ("direct_url.json", b'{"url": "https://x/\\ud800", "vcs_info": {"vcs": [1], "commit_id": "\\udc80"}}'),
        ("direct_url.json", b'{"url": "https://x/", "subdirectory": %s}' % NESTED.encode()),
        ("direct_url.json", b"\xff\xfe"),
        ("direct_url.json", b'{"url": "https://[x/"}'),
        ("RECORD", b'"' + b"x" * 200_000 + b'",,\n'),
        ("RECORD", b'"a\0b",,\n'),
        ("RECORD", b"a\0b,,\n\xff/\xfe,sha256=" + b"A" * 43 + b",\n"),
        ("RECORD", b"/,,\n..,,\n../../../../../../x,,\n"),
        ("METADATA", b"\xff\0: \n\n"),
        ("METADATA", b"Name: \xff\xfe\nVersion: \x1b[2J\n"),
        ("METADATA", b"Name: x\nVersion: 1\nRequires-Dist: " + b"(" * 100_000 + b"\n"),
        ("entry_points.txt", b"[console_scripts]\n\xff\0=x\n"),
        ("top_level.txt", b"\0\n../..\n"),
    ],
)
def test_metadata_that_no_installer_writes_is_read_or_reported(tmp_path: Path, name: str, content: bytes) -> None:
    folder = dist_info(tmp_path / "site", "alpha")
    (folder / name).write_bytes(content)
    (found,) = distributions(str(tmp_path / "site"), "lib/site-packages", ["/opt/env"])
    # The remaining values can be written into a document.
    assert canonical_json({"all": [found.name, found.version, found.source, *found.requires]})


def test_a_name_that_is_not_utf_8_can_be_written_into_a_document(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/site/\xff\xfe-1.0.dist-info"
    os.makedirs(folder)
    (found,) = distributions(str(tmp_path / "site"), "lib/site-packages", [])
    assert canonical_json({"name": found.name, "version": found.version})


@pytest.mark.parametrize(
    "record",
    [
        DEEP,
        NESTED,
        '{"name": "a", "version": "1", "depends": [NESTED]}',
        '{"name": "a", "version": NESTED}',
        '{"name": "a\\ud800", "version": "1"}',
        '{"name": "a", "version": "\\ud800", "url": "https://x/\\ud800", "depends": ["\\ud800"]}',
        '{"name": ["a"]}',
        '{"name": "a", "files": [NESTED]}',
        '{"name": "a", "paths_data": {"paths": [{"_path": NESTED}]}}',
        '{"name": "a", "paths_data": {"paths": [5]}}',
        '{"name": "a", "paths_data": {"paths": [{"_path": "a\\u0000b"}]}}',
        '{"name": "a", "channel": "https://[x/"}',
    ],
)
def test_a_conda_record_that_conda_does_not_write_is_read_or_reported(tmp_path: Path, record: str) -> None:
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "conda-meta/a-1-0.json").write_text(record.replace("NESTED", NESTED))
    packages, findings = conda_packages(str(tmp_path))
    assert len(packages) + len(findings) == 1
    for each in packages:
        assert canonical_json({"all": [each.name, each.version, each.source, *each.requires]})


def test_a_conda_record_that_is_a_fifo_is_reported(tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    os.mkfifo(tmp_path / "conda-meta/a-1-0.json")
    _, (finding,) = conda_packages(str(tmp_path))
    assert "cannot be read (not a regular file)" in finding.message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content"),
    [("RECORD", b"a\0b,,\n"), ("RECORD", b"\xff\n" + b"x/" * 3000 + b"y,,\n"), ("direct_url.json", DEEP.encode())],
)
def test_a_scan_of_an_environment_with_broken_metadata_ends_well(tmp_path: Path, name: str, content: bytes) -> None:
    prefix = venv(tmp_path / "venv")
    (dist_info(prefix / SITE, "alpha") / name).write_bytes(content)
    assert any(each.name == "alpha" for each in scan(str(prefix)).packages)
