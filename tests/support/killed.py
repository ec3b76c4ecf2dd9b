"""Runs one verb again and again, each time in a process of its own that is killed at a random moment, and counts errors.

    python -m support.killed VERB REFERENCE FOLDER KILLS SEED [LARGE | DATA]

VERB is pull, gc, export or mount, or push or copy, with the destination as REFERENCE, without a tag, and DATA, the folder of
its blobs. After each kill the store or destination is verified, the verb is run once more to its end, and every byte of its
result is compared. `LARGE`: the bytes from which a pull uses worker processes. Forks, since 200 interpreters would take a
minute to start. Prints JSON: `kills`; `finished`, runs that ended before their kill; `between`, kills that left the result
unfinished; `wrong`, a sentence for each wrong byte and each command that failed after a kill.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lamella.layers.errors import LamellaError, MountError
from lamella.layers.exporting.export import export
from lamella.layers.exporting.target import ExportOptions
from lamella.layers.mounting.mount import MountOptions, mount, umount
from lamella.layers.pulling import fetch
from lamella.layers.pulling.pull import pull
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import gc
from lamella.layers.upkeep.verify import verify
from support import killed_writes, tars

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.mounting.ladder import Method


class Verb(Protocol):
    """One verb under test."""

    @abstractmethod
    def prepare(self) -> None:
        """Bring about the state before the verb. Not killed."""

    @abstractmethod
    def run(self) -> None:
        """The verb, also to be repeated after a kill."""

    @abstractmethod
    def is_between(self) -> bool:
        """Whether the result is there in part."""

    @abstractmethod
    def damage(self) -> Iterator[str]:
        """Wrong bytes, at any moment."""

    @abstractmethod
    def wrong(self) -> Iterator[str]:
        """The errors after a run to the end."""


class Pull:
    """Some runs begin with the layers that a killed one brought, some with none."""

    def __init__(self, reference: str, store: Store, chance: random.Random) -> None:
        self.reference, self.store, self.chance = reference, store, chance
        self.layers = {layer.diff_id for layer in pull(reference, store=store).environment.layers}

    def prepare(self) -> None:
        if self.chance.random() < 0.5:
            gc(self.store, keep_bytes=0)

    def run(self) -> None:
        pull(self.reference, store=self.store)

    def is_between(self) -> bool:
        return 0 < len(self.layers & set(self.store.layers())) < len(self.layers)

    def damage(self) -> Iterator[str]:
        return (damage.reason for damage in verify(self.store).damaged)

    def wrong(self) -> Iterator[str]:
        if not self.layers <= set(self.store.layers()):
            yield "a layer is missing after a pull"


class Gc(Pull):
    """Frees everything."""

    def prepare(self) -> None:
        pull(self.reference, store=self.store)

    def run(self) -> None:
        gc(self.store, keep_bytes=0)

    def wrong(self) -> Iterator[str]:
        for name in ("layers/sha256", "documents/sha256", "partial", "locks"):
            if left := os.listdir(f"{self.store.path}/{name}"):
                yield f"gc left {name}/{left[0]}"


class Export:
    """Writes a folder of copies or links."""

    def __init__(self, reference: str, store: Store, chance: random.Random) -> None:
        self.reference, self.store, self.chance = reference, store, chance
        self.path = f"{os.path.dirname(store.path)}/exported"
        export(reference, self.path, store=store)
        self.expected = tars.snapshot(self.path)
        self._clean()

    def _clean(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def prepare(self) -> None:
        self._clean()
        self.options = ExportOptions(link=self.chance.random() < 0.5)

    def run(self) -> None:
        # A killed export that came to its end left a whole folder, which no export replaces.
        if os.path.isdir(self.path) and tars.snapshot(self.path) == self.expected:
            self._clean()
        export(self.reference, self.path, options=self.options, store=self.store)

    def is_between(self) -> bool:
        return os.path.isdir(self.path) and tars.snapshot(self.path) != self.expected

    def damage(self) -> Iterator[str]:
        return (damage.reason for damage in verify(self.store).damaged)

    def wrong(self) -> Iterator[str]:
        if tars.snapshot(self.path) != self.expected:
            yield "an export has other files"


class Mount:
    """Mounts by each rung of the ladder, and unmounts."""

    def __init__(self, reference: str, store: Store, chance: random.Random) -> None:
        self.reference, self.store, self.chance = reference, store, chance
        self.target = f"{os.path.dirname(store.path)}/mounted"
        mount(reference, self.target, store=store)
        self.expected = tars.snapshot(self.target)
        umount(self.target, store=store)

    def prepare(self) -> None:
        methods: tuple[Method, ...] = ("overlay", "options", "hardlinks", "copies")
        self.options = MountOptions(method=self.chance.choice(methods), writable=self.chance.random() < 0.2)
        if self.options.method == "hardlinks":
            self.options = MountOptions(method="hardlinks")

    def run(self) -> None:
        if self.options.writable:
            # A killed mount that came to its end holds changes, which no mount replaces.
            with suppress(MountError):
                umount(self.target, store=self.store)
        mount(self.reference, self.target, options=self.options, store=self.store)
        umount(self.target, store=self.store)

    def is_between(self) -> bool:
        return os.path.lexists(self.target)

    def damage(self) -> Iterator[str]:
        return (damage.reason for damage in verify(self.store).damaged)

    def wrong(self) -> Iterator[str]:
        mount(self.reference, self.target, options=self.options, store=self.store)
        if tars.snapshot(self.target) != self.expected:
            yield f"a mount by {self.options.method} has other files"
        umount(self.target, store=self.store)
        if os.path.lexists(self.target):
            yield "umount left the target"
        gc(self.store)
        if left := [*os.listdir(f"{self.store.path}/holds"), *os.listdir(f"{self.store.path}/locks")]:
            yield f"umount and gc left {left[0]}"


VERBS: dict[str, type[Pull | Gc | Export | Mount]] = {"pull": Pull, "gc": Gc, "export": Export, "mount": Mount}
WRITES: dict[str, type[killed_writes.Push | killed_writes.Copy]] = {
    "push": killed_writes.Push,
    "copy": killed_writes.Copy,
}


def main() -> None:
    """Kill as often as asked."""
    name, reference, folder, kills, seed, *more = sys.argv[1:]
    chance = random.Random(int(seed))
    verb: Verb
    if name in WRITES:
        verb = WRITES[name](killed_writes.Destination(reference, Path(more[0])), Path(folder), chance)
    else:
        if more:
            fetch.LARGE = int(more[0])
        verb = VERBS[name](reference, Store(f"{folder}/store"), chance)
    durations = []
    for _ in range(4):
        verb.prepare()
        started = time.perf_counter()
        verb.run()
        durations.append(time.perf_counter() - started)
    # Without the first one, which imports: the forked ones need not. Some had nothing to do.
    longest = max(durations[1:])
    killed = finished = between = 0
    wrong: list[str] = []
    while killed < int(kills) and len(wrong) < 10:
        verb.prepare()
        status = _killed(verb, chance.random() * longest)
        if os.WIFEXITED(status):
            finished += 1
            if os.WEXITSTATUS(status):
                wrong.append(f"{name} failed without a kill")
            continue
        killed += 1
        between += verb.is_between()
        wrong += [f"after a kill: {damage}" for damage in verb.damage()]
        try:
            verb.run()
            wrong += [*verb.wrong(), *(f"at the end: {damage}" for damage in verb.damage())]
        except (LamellaError, OSError) as error:
            wrong.append(f"{name} after a kill: {error!r}")
    print(json.dumps({"kills": killed, "finished": finished, "between": between, "wrong": wrong}))


def _killed(verb: Verb, moment: float) -> int:
    """The status of a child that runs the verb and is killed after `moment` seconds."""
    child = os.fork()
    if not child:
        try:
            verb.run()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


if __name__ == "__main__":
    main()
