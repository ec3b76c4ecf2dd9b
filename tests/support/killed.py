"""Pulls again and again, each time in a process of its own that is killed at a random moment; then says how it went.

    python -m support.killed REFERENCE STORE KILLS SEED [LARGE]

Forks, since 200 interpreters would take a minute to start. Prints JSON: `kills`, `finished` pulls, `between` (after how
many of all these some layers were in place, not all), and what was `damaged`, by reason.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

from lamella.layers.errors import LayersError
from lamella.layers.pulling import fetch
from lamella.layers.pulling.pull import pull
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import gc
from lamella.layers.upkeep.verify import verify


def main() -> None:
    """Kills as often as it was told."""
    reference, path, kills, seed, *large = sys.argv[1:]
    if large:
        # From how many bytes on a pull has workers: a test's layers are small.
        fetch.LARGE = int(large[0])
    chance = random.Random(int(seed))
    store = Store(path)
    # Twice: the first one imports, which the forked ones need not.
    for _ in range(2):
        gc(store, keep_bytes=0)
        started = time.perf_counter()
        layers = len(pull(reference, store=store).environment.layers)
        whole = time.perf_counter() - started
    gc(store, keep_bytes=0)
    killed = finished = between = 0
    damaged: list[str] = []
    while killed < int(kills):
        child = os.fork()
        if not child:
            _pull(reference, store)
        time.sleep(chance.random() * whole)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        here = len(list(store.layers()))
        between += 0 < here < layers
        damaged += [damage.reason for damage in verify(store).damaged]
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                damaged.append("a pull failed after a kill")
            finished += 1
            gc(store, keep_bytes=0)
        else:
            killed += 1
            # Some go on with what the killed one left, some after a gc in between, some from nothing.
            if chance.random() < 0.3:
                gc(store, keep_bytes=0 if chance.random() < 0.5 else None)
    print(json.dumps({"kills": killed, "finished": finished, "between": between, "damaged": damaged}))


def _pull(reference: str, store: Store) -> None:
    try:
        pull(reference, store=store)
    except LayersError:
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
