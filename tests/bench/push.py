"""How long a push takes: of everything, of nothing, of one changed package, of an edit; beside tar and zstd of the same tree.

    python tests/bench/push.py PREFIX

Needs GNU tar and zstd. PREFIX is only read: changes are made to a copy. Prints seconds, ratios, bytes and memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

from support.engines import need
from support.projects import editable

EDIT_BUDGET = 2.0
"""Seconds."""


@dataclass(frozen=True)
class Run:
    """One command: how long it took, the largest of its processes, what it printed."""

    seconds: float
    cpu: float
    memory: int
    """Bytes."""
    value: dict[str, Any]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("prefix", type=Path)
    prefix = parser.parse_args().prefix.absolute()
    with tempfile.TemporaryDirectory(prefix="lamella-bench-", dir=prefix.parent) as name:
        folder = Path(name)
        began = time.monotonic()
        subprocess.run(
            f'"{need("tar")}" cf - . | "{need("zstd")}" -q -3 -T1 -o "{folder}/tar.zst"',
            shell=True,
            check=True,
            cwd=prefix,
        )
        plain = time.monotonic() - began
        runs = {
            "everything": push(folder, prefix),
            "nothing changed": push(folder, prefix),
            "the same elsewhere": push(folder, copy := copied(prefix, folder / "copy")),
            "one package changed": push(folder, changed(copy)),
            "with an editable project": push(folder, with_project(copy, folder / "project")),
            "one file of it edited": push(folder, edited(copy, folder / "project")),
        }
        base = os.path.getsize(folder / "tar.zst")
    print(f"{'tar and zstd -3, one thread':32} {plain:7.2f} s {'':21} {base / 1e6:8.1f} MB")
    for title, run in runs.items():
        moved = run.value["uploaded"]["bytes"] / 1e6
        print(
            f"{'push: ' + title:32} {run.seconds:7.2f} s  {run.cpu:7.2f} s of CPU  {moved:8.1f} MB moved  "
            f"{run.memory / 1e6:6.0f} MB of memory  {run.value['built']['layers']:4} layers built"
        )
    print()
    whole = runs["everything"].seconds
    print(f"{'push of everything / tar and zstd':44} {whole / plain:8.2f}")
    for title in ("nothing changed", "one package changed", "one file of it edited"):
        print(f"{'push of everything / ' + title:44} {whole / runs[title].seconds:8.1f}")
    edit = runs["one file of it edited"]
    met = "met" if edit.seconds <= EDIT_BUDGET and edit.value["uploaded"]["layers"] == 1 else "missed"
    print(f"{'an edit and its push, of 2 seconds':44} {edit.seconds / EDIT_BUDGET:8.2f} ({met})")


def push(folder: Path, prefix: Path) -> Run:
    """One push to a layout in `folder`, with a cache there, in a process of its own."""
    environment = os.environ | {"LAMELLA_CACHE": str(folder / "cache"), "LAMELLA_LOCAL": ""}
    command = [sys.executable, "-m", "lamella.cli", "push", f"oci:{folder}/layout:bench", str(prefix), "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    if process.returncode:
        sys.exit(f"the push failed: {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, cpu, used.ru_maxrss * 1024, json.loads(printed))


def copied(prefix: Path, copy: Path) -> Path:
    """A copy of an environment."""
    # No hard links: a new one changes a file's ctime, and the scan would read everything anew.
    subprocess.run(["cp", "-a", prefix, copy], check=True)
    return copy


def changed(prefix: Path) -> Path:
    """The environment, in which one module of the package with the fewest files is another now."""
    found = prefix.glob("lib/python3*/site-packages/*/__init__.py")
    modules = sorted(found, key=lambda path: len(list(path.parent.iterdir())))
    module = next(path for path in modules if path.stat().st_size)
    module.write_bytes(module.read_bytes() + b"\n# changed\n")
    return prefix


def with_project(prefix: Path, root: Path) -> Path:
    """The environment with a project of 200 modules and some data installed editable."""
    code = root / "src" / "edited"
    code.mkdir(parents=True)
    for number in range(200):
        (code / f"module_{number}.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 50)
    (code / "__init__.py").write_text("")
    (code / "data.bin").write_bytes(os.urandom(1 << 20))
    (root / "pyproject.toml").write_text("[project]\nname = 'edited'\nversion = '1.0'\n")
    editable(next(prefix.glob("lib/python3*/site-packages")), root, "edited")
    return prefix


def edited(prefix: Path, root: Path) -> Path:
    """The environment after one edit."""
    with (root / "src" / "edited" / "module_7.py").open("a") as module:
        module.write("\nnew = 1\n")
    return prefix


if __name__ == "__main__":
    main()
