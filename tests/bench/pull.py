"""How fast an environment is pulled and unpacked, beside skopeo and GNU tar doing the same in the same run.

    python tests/bench/pull.py [--prefix /path/to/environment | --layout FOLDER --tag TAG] [--rounds 3]

skopeo copies the package manifest's layers to a second layout, then GNU tar unpacks them, as many at once as there are
processors. Lamella pulls them into a fresh store, verified, and waits until they are on the disk, which the other two
do not: what that wait takes them is printed by itself. Rounds alternate; the least of each counts, since noise only adds.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import Platform
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.published import environment as published
from lamella.layers.settings.trust import Trust
from support.engines import need

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamella.layers.published.environment import PublishedEnvironment

PULL = """
import os, resource, sys
from lamella.layers.pulling.pull import pull
from lamella.layers.store.store import Store
pull(sys.argv[1], store=Store(sys.argv[2]))
own = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
print(own + min(4, os.cpu_count()) * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds on the clock, and of all processors."""

    wall: float
    processor: float

    def __add__(self, other: Took) -> Took:
        return Took(self.wall + other.wall, self.processor + other.processor)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prefix", default=sys.prefix)
    parser.add_argument("--layout", default="")
    parser.add_argument("--tag", default="latest")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lamella-bench-") as scratch:
        folder = Path(scratch)
        layout, tag = arguments.layout, arguments.tag
        if not layout:
            layout = str(folder / "layout")
            settings = os.environ | {"LAMELLA_CACHE": str(folder / "cache")}
            push = [sys.executable, "-m", "lamella.cli", "push", "--no-local", f"oci:{layout}:{tag}", arguments.prefix]
            subprocess.run(push, check=True, env=settings, stdout=subprocess.DEVNULL)
        environment = packages(layout, tag)
        moved = sum(layer.descriptor.size for layer in environment.layers)
        print(f"{len(environment.layers)} layers, {moved / 1e6:.0f} MB compressed, {os.cpu_count()} processors")
        runs = [measure(folder / str(number), layout, tag, environment) for number in range(arguments.rounds)]
        report(runs)


def packages(layout: str, tag: str) -> PublishedEnvironment:
    """The environment, its package manifest tagged `packages`, so that skopeo copies that one alone."""
    reference = Reference.parse(f"oci:{layout}:{tag}")
    with closing(OciLayout(layout)) as storage:
        environment = published.for_platform(published.read_index(storage, reference, Trust()), Platform.here())
        content = fetch_document(storage, environment.descriptor)
        storage.push(environment.descriptor, lambda: BytesIO(content), tag="packages")
    return environment


def measure(folder: Path, layout: str, tag: str, environment: PublishedEnvironment) -> dict[str, Took | int]:
    """One round of each, in folders of their own: creating files is slow beside folders that were just removed."""
    folder.mkdir()
    (folder / "trees").mkdir()
    blobs = [str(folder / "copy" / "blobs" / "sha256" / layer.descriptor.digest.hex) for layer in environment.layers]

    def untar(blob: str) -> None:
        tree = folder / "trees" / os.path.basename(blob)
        tree.mkdir(exist_ok=True)
        subprocess.run([need("tar"), "--extract", f"--file={blob}", f"--directory={tree}", "--zstd"], check=True)

    def untar_all() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(untar, sorted(blobs, key=os.path.getsize, reverse=True)))

    memory = []

    def pull() -> None:
        run = [sys.executable, "-c", PULL, f"oci:{layout}:{tag}", str(folder / "store")]
        memory.append(int(subprocess.run(run, check=True, capture_output=True).stdout))

    wait = [need("sync"), "--file-system", str(folder)]
    subprocess.run(wait, check=True)
    copy = [need("skopeo"), "--insecure-policy", "copy", "-q", f"oci:{layout}:packages", f"oci:{folder}/copy:x"]
    took: dict[str, Took | int] = {
        "skopeo copy": timed(lambda: subprocess.run(copy, check=True)),
        "GNU tar": timed(untar_all),
        "sync": timed(lambda: subprocess.run(wait, check=True)),
        "lamella pull": timed(pull),
    }
    return took | {"memory": memory[0] * 1024}


def report(runs: list[dict[str, Took | int]]) -> None:
    """Seconds and ratios."""
    best = {}
    for name in ("skopeo copy", "GNU tar", "sync", "lamella pull"):
        took = [run[name] for run in runs]
        best[name] = Took(
            min(each.wall for each in took if isinstance(each, Took)),
            min(each.processor for each in took if isinstance(each, Took)),
        )
        print(f"{name:30} {best[name].wall:7.2f} s, {best[name].processor:7.2f} s of processors")
    theirs = best["skopeo copy"] + best["GNU tar"]
    ours = best["lamella pull"]
    print(f"{'lamella / (skopeo + tar)':30} {ours.wall / theirs.wall:7.2f}")
    print(f"{'lamella / (skopeo + tar + sync)':30} {ours.wall / (theirs + best['sync']).wall:6.2f}")
    print(f"{'the same, of processors':30} {ours.processor / theirs.processor:7.2f}")
    peak = max(run["memory"] for run in runs if isinstance(run["memory"], int))
    print(f"{'peak memory, with workers':30} {peak / 1e6:7.0f} MB")


def timed(action: Callable[[], object]) -> Took:
    """What `action` takes."""
    used = _processor()
    begin = time.perf_counter()
    action()
    return Took(time.perf_counter() - begin, _processor() - used)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
