"""`make bench-compare BASE=COMMIT`: two versions of the code on one environment, in turns.

    python -m bench.compare --base COMMIT-OR-FILE [--prefix /path/to/environment] [--rounds 5]

Both versions do each action in each round, in changing order, so that both meet the same load. With a file that this
program kept in `.bench`, only the present version runs, and is compared with what the file says of another moment: then
ratios of the clock mean little.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Took, run
from bench.table import ROOT, keep
from lamella.cli.tables import Column, aligned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Samples = dict[str, list[Took]]

PACKAGES = ("layers", "builder", "cli")


class Version:
    """One version of the code, with a cache, a layout and a store of its own."""

    def __init__(self, code: Path, folder: Path, prefix: Path) -> None:
        self._folder = folder
        self._prefix = prefix
        self._reference = f"oci:{folder}/layout:v1"
        self._settings = {
            "PYTHONPATH": os.pathsep.join(str(code / name) for name in PACKAGES),
            "LAMELLA_CACHE": str(folder / "cache"),
            "LAMELLA_STORE": str(folder / "store"),
        }
        self.samples: Samples = {}

    def round(self, quick: int) -> None:
        """Measure each action once, and `quick` times those that take less than a second."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        push = ("push", self._reference, self._prefix, "--quiet", "--json")
        pushed = self._measure("push, everything new", *push)
        self._measure("pull, everything new", "pull", self._reference, "--quiet", "--json")
        for _ in range(quick):
            self._measure("push, nothing changed", *push)
            self._measure("run", "run", pushed.value["reference"], "--quiet", "--", "true")
            self._measure("--version", "--version")

    def _measure(self, what: str, *arguments: str | Path) -> Took:
        took = run([sys.executable, "-m", "lamella.cli", *arguments], settings=self._settings)
        self.samples.setdefault(what, []).append(took)
        return took


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench-compare", description=__doc__.partition("\n")[0])
    parser.add_argument("--base", required=True, help="a commit, or a file in .bench")
    parser.add_argument("--prefix", type=Path, default=ROOT / "demo/env")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", type=int, default=3, help="repetitions in a round of actions of under a second")
    arguments = parser.parse_args()
    prefix = arguments.prefix.absolute()
    if not prefix.exists():
        parser.error(f"--prefix {prefix}: no such environment; make demo makes one")
    with tempfile.TemporaryDirectory(prefix="lamella-bench-", dir=prefix.parent) as scratch:
        folder = Path(scratch)
        here = Version(ROOT, folder / "here", prefix)
        if Path(arguments.base).is_file():
            before, versions = _kept(Path(arguments.base)), [here]
        else:
            base = Version(checkout(arguments.base, folder / "code"), folder / "base", prefix)
            before, versions = base.samples, [base, here]
        # Byte code of both versions is written in a round that does not count.
        for number in range(arguments.rounds + 1):
            print(f"... round {number} of {arguments.rounds}", file=sys.stderr, flush=True)
            for version in versions if number % 2 else versions[::-1]:
                version.round(arguments.quick)
            if not number:
                for version in versions:
                    version.samples.clear()
    show(before, here.samples, arguments.base)
    print(f"\nkept in {keep('compare', prefix, {'base': arguments.base, 'samples': _plain(here.samples)})}")
    return 0


def checkout(commit: str, folder: Path) -> Path:
    """The code of `commit`, in a new folder."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit, *PACKAGES], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "--extract", f"--directory={folder}"], input=archive, check=True)
    return folder


def show(base: Samples, here: Samples, name: str) -> None:
    """Print medians with their spread, and the ratios of the medians."""
    columns = (
        Column("what"), Column(name[:20], "right"), Column("here", "right"), Column("ratio", "right"),
        Column("clock", "right"), Column("memory", "right"),
    )  # fmt: skip
    rows = []
    for what in here:
        if what in base:
            before, now = base[what], here[what]
            rows.append((
                what, spread([took.cpu for took in before]), spread([took.cpu for took in now]),
                f"{ratio([took.cpu for took in before], [took.cpu for took in now]):.2f}",
                f"{ratio([took.seconds for took in before], [took.seconds for took in now]):.2f}",
                f"{max(took.peak for took in now) / max(took.peak for took in before):.2f}",
            ))  # fmt: skip
    print("Seconds of the processors: median (least to most). Ratios of medians: processors, clock, peak memory.")
    for text in aligned(columns, rows):
        print(text)


def spread(values: Sequence[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def ratio(before: Sequence[float], now: Sequence[float]) -> float:
    """Ratio of the medians."""
    return statistics.median(now) / statistics.median(before)


def _plain(samples: Samples) -> dict[str, list[dict[str, float]]]:
    return {
        what: [{"seconds": took.seconds, "cpu": took.cpu, "peak": took.peak} for took in each]
        for what, each in samples.items()
    }


def _kept(path: Path) -> Samples:
    value: Mapping[str, list[Mapping[str, float]]] = json.loads(path.read_text())["samples"]
    return {
        what: [Took(each["seconds"], int(each["peak"]), cpu=each["cpu"]) for each in samples]
        for what, samples in value.items()
    }


if __name__ == "__main__":
    sys.exit(main())
