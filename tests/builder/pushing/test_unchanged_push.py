"""What a push of an unchanged environment opens, imports and runs, as counts: its time follows from these."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.installed import install, venv, wheel

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import json, os, sys
opened, started = [], []
def audit(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and not isinstance(arguments[1], str):
        opened.append(os.path.realpath(arguments[0]))
    elif event in ("subprocess.Popen", "os.posix_spawn", "os.fork"):
        started.append(str(arguments[0]))
sys.addaudithook(audit)
from lamella.builder import push
from lamella.builder.files import content_cache
content_cache._RACY = (-10**12,) * 2  # the files count as old: ctime can't be set
pushed = push(sys.argv[1], sys.argv[2])
print(json.dumps({"unchanged": pushed.plan.unchanged, "opened": opened, "started": started, "loaded": list(sys.modules)}))
"""


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """A second push in a process of its own, in its program's words, with paths below the environment relative to it."""
    folder = tmp_path_factory.mktemp("unchanged")
    prefix = venv(folder / "env")
    files = {f"thing/m{number}.py": f"x = {number}\n" for number in range(20)} | {"thing/data.bin": os.urandom(5000)}
    install(
        prefix,
        wheel(folder, "thing", "1.0", files, requires=["other>=1"]),
        wheel(folder, "other", "1.0", {"o.py": ""}),
    )
    for url in prefix.rglob("direct_url.json"):
        url.unlink()  # as from an index: files of packages from elsewhere are searched for private keys
    said = [pushed(folder, prefix) for _ in range(2)]
    assert said[1]["unchanged"]
    return said[1] | {
        "opened": [path[len(str(prefix)) + 1 :] for path in said[1]["opened"] if path.startswith(f"{prefix}/")]
    }


def pushed(folder: Path, prefix: Path) -> dict[str, list[str]]:
    variables = os.environ | {"LAMELLA_CACHE": str(folder / "cache"), "LAMELLA_LOCAL": ""}
    command = [sys.executable, "-c", PROGRAM, f"oci:{folder}/layout:v1", str(prefix)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=variables)
    said: dict[str, list[str]] = json.loads(done.stdout)
    return said


@pytest.mark.slow
def test_no_file_but_records_is_opened(unchanged: dict[str, list[str]]) -> None:
    others = {path for path in unchanged["opened"] if ".dist-info/" not in path} - {"pyvenv.cfg", "bin/activate"}
    assert others == set()


@pytest.mark.slow
def test_no_file_is_opened_twice(unchanged: dict[str, list[str]]) -> None:
    opened = [path for path in unchanged["opened"] if ".dist-info/" in path]
    assert sorted(opened) == sorted(set(opened))


@pytest.mark.slow
def test_no_process_is_started(unchanged: dict[str, list[str]]) -> None:
    assert unchanged["started"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        *("packaging", "zstandard", "importlib.metadata", "zipfile", "urllib3"),
        *("lamella.builder.scanning.computed", "lamella.builder.content.package", "lamella.builder.layer.build"),
        *("lamella.layers.exporting.recognition", "lamella.layers.signing.cosign", "lamella.builder.image.sbom"),
    ],
)
def test_a_module_for_new_content_is_not_imported(unchanged: dict[str, list[str]], module: str) -> None:
    assert module not in unchanged["loaded"]
