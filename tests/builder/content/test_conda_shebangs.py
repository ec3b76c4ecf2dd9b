"""Scripts for perl, R and others in conda packages ship the same from a prefix that is too long for a first line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lamella.builder.content.entry import read_entry
from lamella.builder.content.package import entries
from support.conda import PLACEHOLDER, conda_environment, conda_package
from support.packages import environment, package

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "bin/plain*": f"#!{PLACEHOLDER}/bin/perl -w\nprint 1;\n",
    "bin/names*": f'#!{PLACEHOLDER}/bin/perl\nuse lib "{PLACEHOLDER}/lib";\n',
    "bin/blank*": f"#! {PLACEHOLDER}/bin/Rscript --vanilla\ncat(1)\n",
    "bin/by-env*": "#!/usr/bin/env perl\nprint 1;\n",
    "bin/by-env-names*": f'#!/usr/bin/env perl\nuse lib "{PLACEHOLDER}/lib";\n',
    "libexec/tool*": f"#!{PLACEHOLDER}/bin/bash -e\necho {PLACEHOLDER}\n",
    "share/text": f"root={PLACEHOLDER}\n",
}
RECORD = "conda-meta/tool-1.0-0.json"


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("channel")
    files = {path.rstrip("*"): content for path, content in FILES.items()}
    conda_package(folder, "tool", files, executables=[path[:-1] for path in FILES if path.endswith("*")])
    return folder


def installed(prefix: Path, channel: Path) -> dict[str, str | bytes]:
    """Files of the package, installed at `prefix` by rattler."""
    conda_environment(prefix, channel, ["tool"])
    return {path: (prefix / path.rstrip("*")).read_bytes() for path in (*FILES, RECORD)}


def shipped(prefix: Path, files: dict[str, str | bytes]) -> dict[str, tuple[int, bytes]]:
    """Mode and content of each file in the layer."""
    one = package(prefix, "tool", files, origin="conda", records=RECORD)
    made = entries(environment(prefix, one), one, "/opt/env")
    return {entry.path.removeprefix("opt/env/"): (entry.mode, b"".join(read_entry(entry))) for entry in made}


@pytest.mark.parametrize("name", ["x" * 40, "x" * 100, "a prefix with blanks", "y" * 200])
@pytest.mark.slow
def test_scripts_ship_the_same_from_a_short_and_a_long_prefix(tmp_path: Path, channel: Path, name: str) -> None:
    short = shipped(tmp_path / "s", installed(tmp_path / "s", channel))
    files = installed(tmp_path / name, channel)
    if len(name) > 90:
        assert files["bin/plain*"] == b"#!/usr/bin/env perl -w\nprint 1;\n", "rattler shortened it"
    assert shipped(tmp_path / name, files) == short
    assert short["bin/plain"] == (0o755, b"#!/opt/env/bin/perl -w\nprint 1;\n")
    assert short["bin/blank"][1].startswith(b"#! /opt/env/bin/Rscript --vanilla\n")
    assert short["bin/by-env-names"][1] == b'#!/usr/bin/env perl\nuse lib "/opt/env/lib";\n'
    listed = json.loads(short[".lamella/relocate/conda-tool.json"][1])["files"]
    assert [each["path"] for each in listed if each["path"].startswith("bin/")] == [
        "bin/blank", "bin/by-env-names", "bin/names", "bin/plain",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_script_that_its_user_changed_keeps_its_first_line(tmp_path: Path, channel: Path) -> None:
    prefix = tmp_path / ("x" * 100)
    files = installed(prefix, channel) | {"bin/plain*": b"#!/usr/bin/env perl -w\nprint 2;\n"}
    assert shipped(prefix, files)["bin/plain"][1] == b"#!/usr/bin/env perl -w\nprint 2;\n"


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b'{"paths_data": {"paths": [{}]}}', b"{" * 9999])
def test_a_record_without_originals_restores_nothing(tmp_path: Path, record: bytes) -> None:
    prefix = tmp_path / ("x" * 100)
    ships = shipped(prefix, {"bin/plain*": b"#!/usr/bin/env perl -w\n", RECORD: record})
    assert ships["bin/plain"][1] == b"#!/usr/bin/env perl -w\n"
