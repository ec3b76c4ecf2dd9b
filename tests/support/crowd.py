"""One of many processes that pull into one store and free it, each again and again.

    python -m support.crowd STORE ROUNDS REFERENCE...

Each round pulls one reference, checks every byte of its layers while they are leased, and frees all that is not in use.
Ends after ROUNDS rounds, and prints how many layers it downloaded and freed.
"""

from __future__ import annotations

import os
import sys

from lamella.layers.pulling.pull import leased
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import gc
from lamella.layers.upkeep.verify import verify


def main() -> None:
    """Pull and collect. Exit with 1 if a leased layer is missing or damaged."""
    path, rounds, *references = sys.argv[1:]
    store = Store(path)
    downloaded = freed = 0
    for number in range(int(rounds)):
        with leased(references[number % len(references)], store=store) as pulled:
            downloaded += len(pulled.plan.fetch)
            layers = [layer.diff_id for layer in pulled.environment.layers]
            missing = [str(diff_id) for diff_id in layers if not os.path.isdir(store.layer_path(diff_id) + "/opt/env")]
            damaged = verify(store, diff_ids=layers, remove=False).damaged
            if missing or damaged:
                sys.exit(f"under its lease: {missing} missing, {damaged}")
        freed += len(gc(store, keep_bytes=0).layers)
    print(downloaded, freed)


if __name__ == "__main__":
    main()
