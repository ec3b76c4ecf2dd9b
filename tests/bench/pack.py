"""`make bench-pack`: packing a conda environment in one step beside conda-pack, by processor seconds and size.

    python -m bench.pack [--prefix /path/to/conda/environment] [--rounds 3]

conda-pack is installed from the package index into a folder of its own. Runs alternate, and the least counts:
other work on the machine only adds. For the same content, byte code and system libraries are left out.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lamella.cli.tables import Column, aligned
from lamella.layers.text import size
from support.conda import SHORT, conda_environment, conda_package, python_package
from support.installed import base_python

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMATS = ("tar.gz", "tar.zst")
SAME = ("--no-byte-code", "--no-system-libraries")


def main() -> int:
    """Pack with both, and print the table."""
    parser = argparse.ArgumentParser(prog="make bench-pack", description=__doc__.partition("\n")[0])
    parser.add_argument("--prefix", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lamella-bench-") as folder:
        scratch = Path(folder)
        prefix = arguments.prefix or made(scratch)
        theirs = conda_pack(scratch)
        rows = [compared(scratch, prefix, theirs, form, arguments.rounds) for form in FORMATS]
        columns = (
            Column("Format"),
            Column("Lamella", "right"),
            Column("conda-pack", "right"),
            Column("Ratio", "right"),
            Column("Size", "right"),
            Column("conda-pack", "right"),
            Column("Ratio", "right"),
        )
        for line in aligned(columns, rows):
            print(line)
    return 0


def compared(scratch: Path, prefix: Path, theirs: str, form: str, rounds: int) -> tuple[str, ...]:
    """Return one line: processor seconds and bytes of both, and their ratios."""
    ours_path, theirs_path = scratch / f"ours.{form}", scratch / f"theirs.{form}"
    ours, others = [], []
    for number in range(rounds):
        # A cache of its own each time: every file is read and hashed.
        cache = scratch / f"cache-{form}-{number}"
        lamella = [sys.executable, "-m", "lamella.cli", "export", "--quiet", *SAME, "--cache", str(cache)]
        ours.append(seconds([*lamella, "--force", str(prefix), str(ours_path)]))
        others.append(
            seconds([theirs, "--quiet", "--force", "--ignore-missing-files", "-p", str(prefix), "-o", str(theirs_path)])
        )
    sizes = ours_path.stat().st_size, theirs_path.stat().st_size
    return (
        form,
        f"{min(ours):.1f} s",
        f"{min(others):.1f} s",
        f"{min(ours) / min(others):.2f}",
        size(sizes[0]),
        size(sizes[1]),
        f"{sizes[0] / sizes[1]:.2f}",
    )


def seconds(command: Sequence[str]) -> float:
    """Processor seconds of a command and of its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def conda_pack(scratch: Path) -> str:
    """Install conda-pack, and return its command."""
    subprocess.run([sys.executable, "-m", "venv", scratch / "conda-pack"], check=True)
    pip = [str(scratch / "conda-pack/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "conda-pack", "setuptools", "zstandard"], check=True)
    return str(scratch / "conda-pack/bin/conda-pack")


def made(scratch: Path) -> Path:
    """A conda environment: an interpreter, and this environment's own packages as one conda package."""
    channel = scratch / "channel"
    python_package(channel, whole=True)
    site = Path(next(path for path in sys.path if path.endswith("site-packages")))
    files: dict[str, str | bytes] = {
        f"lib/python{SHORT}/site-packages/{path.relative_to(site)}": path.read_bytes()
        for path in sorted(site.rglob("*"))
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts
    }
    conda_package(channel, "packages", files, depends=["python"])
    os.environ.setdefault("PATH", os.path.dirname(base_python()))
    return conda_environment(scratch / "env", channel, ["python", "packages"])


if __name__ == "__main__":
    sys.exit(main())
