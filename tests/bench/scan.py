"""How long a first and a second scan take, beside a bare walk of the same files and `sha256sum` of them, in the same run.

    python tests/bench/scan.py PREFIX

Prints seconds, bytes, peak memory, and the ratios that the budgets are about.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("prefix")
    prefix = parser.parse_args().prefix
    environment = scan(prefix)  # the operating system's cache is warm for everything that follows
    sources = [file.source for package in environment.packages for file in package.files if file.target is None]
    packages, size = len(environment.packages), sum(package.size for package in environment.packages)
    del environment  # peak memory is that of one scan
    with tempfile.TemporaryDirectory(prefix="lamella-bench-") as folder:
        seconds = {
            "walk and stat": timed(lambda: walk(prefix)),
            "sha256sum": timed(lambda: sha256sum(sources)),
            "first scan": timed(lambda: scan(prefix, ScanOptions(cache=folder))),
            "second scan": min(timed(lambda: scan(prefix, ScanOptions(cache=folder))) for _ in range(3)),
        }
    print(f"{packages} packages, {len(sources)} files that ship, {size / 1e6:.0f} MB")
    for name, value in seconds.items():
        print(f"{name:16} {value:7.2f} s")
    print(f"first scan / sha256sum       {seconds['first scan'] / seconds['sha256sum']:.2f}")
    print(f"second scan / walk and stat  {seconds['second scan'] / seconds['walk and stat']:.2f}")
    print(f"peak memory                  {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def timed(action: Callable[[], object]) -> float:
    """Seconds that `action` takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def walk(folder: str) -> None:
    """Looks at every file once."""
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    entry.stat(follow_symlinks=False)


def sha256sum(paths: list[str]) -> None:
    """ContentCache the same files with coreutils, one process."""
    named = b"\0".join(map(os.fsencode, paths))
    subprocess.run(["xargs", "-0", "sha256sum"], input=named, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
