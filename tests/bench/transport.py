"""How fast blobs move between a layout and a registry on loopback, beside skopeo in the same run.

    python tests/bench/transport.py [--blobs 300] [--size 1000000]

Needs `docker-registry` and `skopeo`. Prints seconds, and the ratios that the budgets are about.
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import (
    LAYER_GZIP,
    Descriptor,
    Digest,
)
from lamella.layers.published.copy import copy
from support.distribution import distribution
from support.engines import need
from support.published import image

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--blobs", type=int, default=300)
    parser.add_argument("--size", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lamella-bench-"))
        layout = os.path.join(folder, "layout")
        fill(layout, arguments.blobs, arguments.size)
        ours = stack.enter_context(distribution())
        theirs = stack.enter_context(distribution())
        seconds = {
            "skopeo push": timed(lambda: skopeo(f"oci:{layout}:v1", f"docker://{theirs}/bench/image:v1")),
            "lamella push": timed(lambda: copy(f"oci:{layout}:v1", f"{ours}/bench/image:v1")),
            "skopeo push, all there": timed(lambda: skopeo(f"oci:{layout}:v1", f"docker://{theirs}/bench/image:v2")),
            "lamella push, all there": timed(lambda: copy(f"oci:{layout}:v1", f"{ours}/bench/image:v2")),
            "skopeo pull": timed(lambda: skopeo(f"docker://{theirs}/bench/image:v1", f"oci:{folder}/theirs:v1")),
            "lamella pull": timed(lambda: copy(f"{ours}/bench/image:v1", f"oci:{folder}/ours:v1")),
            "lamella mount": timed(lambda: copy(f"{ours}/bench/image:v1", f"{ours}/bench/other:v1")),
        }
    for name, value in seconds.items():
        print(f"{name:26} {value:7.2f} s")
    print()
    for name in ("push", "push, all there", "pull"):
        print(f"{name + ': lamella / skopeo':40} {seconds['lamella ' + name] / seconds['skopeo ' + name]:6.2f}")
    there = seconds["lamella push, all there"]
    print(f"{'push, all there: faster than pushing by':40} {seconds['lamella push'] / there:6.1f}")


def fill(folder: str, blobs: int, size: int) -> None:
    """A layout with one image of `blobs` layers of about `size` bytes that don't compress."""
    layout = OciLayout(folder, create=True)
    layers, diff_ids = [], []
    for _ in range(blobs):
        tar = os.urandom(size)
        # skopeo compresses uncompressed layers; the comparison is of moving bytes.
        blob = gzip.compress(tar, 1)
        layers.append(Descriptor.of(LAYER_GZIP, blob))
        diff_ids.append(Digest.of(tar))
        layout.push(layers[-1], partial(BytesIO, blob))
    config, manifest = image(layers, diff_ids)
    config.pushed(layout)
    manifest.pushed(layout, "v1")


def skopeo(source: str, destination: str) -> None:
    """Copies with skopeo, as it is by default, over plain HTTP."""
    options = ["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--quiet"]
    subprocess.run([need("skopeo"), *options, source, destination], check=True)


def timed(action: Callable[[], object]) -> float:
    """Seconds that `action` takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
