"""How long it takes to assemble an environment that is in the store, beside making its tree without a mount.

    python tests/bench/mount.py [--files 40] [--rounds 30]

Needs root for the mounts. Prints the least and the median of all rounds in milliseconds, and the budgets.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

from lamella.layers.mounting import kernel, link_tree, lowerdirs, overlay
from lamella.layers.mounting.mount import mount, umount
from lamella.layers.pulling import pull
from lamella.layers.store.store import Store
from support.published import publish

if TYPE_CHECKING:
    from collections.abc import Callable

BUDGETS = {228: 10, 500: 50}
RUN_BUDGET = 150


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=40, help="in each layer")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lamella-bench-") as folder:
        for count in (228, 500, 1200):
            measure(Path(folder), count, arguments.files, arguments.rounds)


def measure(folder: Path, count: int, files: int, rounds: int) -> None:
    """Prints what `count` layers take."""
    layers = [{f"lib/p{number}/m{file}.py": f"x = {file}\n" for file in range(files)} for number in range(count)]
    reference = publish(folder / f"layout-{count}", layers)
    store = Store(str(folder / f"store-{count}"))
    environment = pull.pull(reference, store=store).environment
    target = str(folder / "target")
    os.mkdir(target)
    took = {}
    began = time.perf_counter()
    parts = lowerdirs.for_prefix(store, environment, environment.prefix)
    merging = time.perf_counter() - began
    took["the kernel's part of a mount"] = timed(
        rounds,
        lambda: overlay.by_descriptors(kernel.here(), parts, target),
        lambda: kernel.here().umount(target),
    )
    os.rmdir(target)
    took["mount, with claim, lease and manifests"] = timed(
        rounds,
        lambda: mount(reference, target, store=store),
        lambda: umount(target, store=store),
    )
    command = [sys.executable, "-m", "lamella.cli", "run", reference, "--", "true"]
    settings = os.environ | {"LAMELLA_STORE": store.path}
    # In turns, so that both meet the same noise.
    pairs = [
        (once(partial(subprocess.run, command, check=True, env=settings)), once(partial(subprocess.run, ["true"])))
        for _ in range(rounds)
    ]
    took["lamella run, beyond the command"] = sorted(run - bare for run, bare in pairs)
    linked = folder / f"linked-{count}"
    linked.mkdir()
    took["a tree of hardlinks"] = timed(1, lambda: link_tree.lay(parts, str(linked), "hardlinks"))
    print(f"{count} layers of {files} files")
    budgets = [None, BUDGETS.get(count), RUN_BUDGET, None]
    for (name, values), budget in zip(took.items(), budgets, strict=True):
        least, median = values[0] * 1000, values[len(values) // 2] * 1000
        print(f"  {name:42} {least:8.1f} ms, median {median:8.1f} ms{f'   budget {budget} ms' if budget else ''}")
    if len(parts) < count:
        print(f"  {'merging, once':42} {merging * 1000:8.1f} ms")


def timed(rounds: int, work: Callable[[], object], undo: Callable[[], object] = lambda: None) -> list[float]:
    """The seconds of each of `rounds` rounds, the least first."""
    took = []
    for _ in range(rounds):
        took.append(once(work))
        undo()
    return sorted(took)


def once(work: Callable[[], object]) -> float:
    """The seconds of one round."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
