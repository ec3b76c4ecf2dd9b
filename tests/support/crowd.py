"""One of many processes that pull into one store: `python -m support.crowd STORE REFERENCE...`, or `--gc`, until stdin ends.

A puller pulls each reference and checks, while its layers are leased, that every file is there.
"""

from __future__ import annotations

import os
import select
import sys

from lamella.layers.pulling.pull import leased
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import gc


def main() -> None:
    """Does the one or the other; exits with 1 where a leased layer is not there."""
    path, *references = sys.argv[1:]
    store = Store(path)
    if references == ["--gc"]:
        rounds = 0
        while not select.select([sys.stdin], [], [], 0)[0]:
            gc(store, keep_bytes=0)
            rounds += 1
        print(rounds)
        return
    for reference in references:
        with leased(reference, store=store) as pulled:
            for layer in pulled.environment.layers:
                if not os.path.isdir(store.layer_path(layer.diff_id) + "/opt/env"):
                    sys.exit(f"{layer.diff_id} was taken from under its lease")


if __name__ == "__main__":
    main()
