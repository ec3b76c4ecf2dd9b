"""A session: one round of one workflow through its stories, with a registry, a laptop and nodes of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.comparison.errors import ComparisonError
from lamella.comparison.machine import load
from lamella.comparison.measuring.disk import disk_usage
from lamella.comparison.measuring.meter import Meter, Unmeasured
from lamella.comparison.programs.lines import Wire, wire
from lamella.comparison.programs.registry import registry
from lamella.comparison.result import Run, Step
from lamella.comparison.stories import ONLY_DELIVERS, change
from lamella.comparison.subject.changes import copy_environment
from lamella.comparison.subject.subject import working_copy
from lamella.comparison.workflows.workflow import Place, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lamella.comparison.options import CompareOptions
    from lamella.comparison.programs.commands import Commands
    from lamella.comparison.stories import Check
    from lamella.comparison.subject.subject import Original
    from lamella.comparison.workflows.workflow import Opened, Workflow

_FIRST, _SECOND = "first", "second"


@dataclass(frozen=True, slots=True)
class Bench:
    """What all sessions share."""

    scratch: str
    commands: Commands
    original: Original
    options: CompareOptions
    base: str | None
    """Storage of a registry that has the base image; None if no workflow uses it."""
    index: str | None
    """HOST:PORT of the index; None for an environment without wheels."""
    note: Callable[[str], None]
    """Gets a line for the terminal."""


def run_session(
    bench: Bench, workflow: Workflow, number: int, stories: Sequence[str], keep: Callable[[Run], None]
) -> None:
    """Run `stories` through `workflow` in round `number`, and keep each run as it ends.

    A story that was not asked for, but that the others build upon, runs and is not kept. A run that fails ends the session:
    the runs of the stories after it are kept as failed too.
    """
    folder = os.path.join(bench.scratch, "session")
    left = ["new", *(name for name in stories if name != "new")]
    try:
        with contextlib.ExitStack() as stack:
            os.makedirs(folder)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                running = stack.enter_context(_opened(bench, workflow, folder))
                while left:
                    run = running.tell(left[0], number)
                    if left[0] in stories:
                        keep(run)
                    left.pop(0)
            except (KeyboardInterrupt, SystemExit):
                # Minutes, after large runs.
                bench.note("interrupted: ending programs, and removing their files")
                raise
    except ComparisonError as error:
        sentence = str(error)
        for name in left:
            if name in stories:
                keep(_failed(workflow.name, name, number, sentence))
            sentence = f"{left[0]} failed before it: {error}"


@contextlib.contextmanager
def _opened(bench: Bench, workflow: Workflow, folder: str) -> Iterator[_Running]:
    storage = os.path.join(folder, "registry")
    if workflow.uses_base_image and bench.base:
        os.makedirs(storage)
        copy_environment(bench.base, storage, linked=True)
    with contextlib.ExitStack() as stack:
        host, repository = _registry(bench, storage, stack)
        subject = working_copy(bench.original)
        places = _Places(bench, folder, host, stack)
        laptop = places.add("laptop")
        session = Session(bench.commands, subject, laptop, repository)
        running = _Running(bench, workflow, session, places, storage, stack.enter_context(workflow.opened(session)))
        running.add_node("node")
        yield running


def _registry(bench: Bench, storage: str, stack: contextlib.ExitStack) -> tuple[str, str]:
    if bench.options.registry:
        host, _, repository = bench.options.registry.partition("/")
        # Fresh for each session, as a registry of its own is.
        return host, f"{repository}/compare-{secrets.token_hex(8)}/".lstrip("/")
    return stack.enter_context(registry(bench.commands, storage)), ""


@dataclass(slots=True)
class _Places:
    """The machines of a session, with their lines."""

    bench: Bench
    folder: str
    host: str
    stack: contextlib.ExitStack
    known: list[Place] = field(default_factory=list)

    def add(self, name: str) -> Place:
        """Lay the lines of a machine."""
        bench, folder = self.bench, os.path.join(self.folder, name)
        lines = os.path.join(self.folder, "lines", name)

        def line(server: str, what: str) -> Wire:
            return self.stack.enter_context(wire(bench.commands, server, os.path.join(lines, what), bench.options))

        os.makedirs(folder)
        index = line(bench.index, "index") if bench.index else None
        place = Place(name, folder, line(self.host, "registry"), index)
        self.known.append(place)
        return place

    def counts(self) -> tuple[int, int]:
        """Return bytes from the machines and to them, on all lines."""
        wires = [each for place in self.known for each in (place.registry, place.index) if each]
        found = [each.counts.read() for each in wires]
        return sum(up for up, _ in found), sum(down for _, down in found)


@dataclass(slots=True)
class _Running:
    """A session that is open."""

    bench: Bench
    workflow: Workflow
    session: Session
    places: _Places
    storage: str
    opened: Opened
    tag: str = _FIRST
    nodes: list[Place] = field(default_factory=list)

    def add_node(self, name: str) -> Place:
        """Start a node."""
        place = self.places.add(name)
        self.places.stack.enter_context(self.opened.node(place))
        self.nodes.append(place)
        return place

    def tell(self, story: str, number: int) -> Run:
        """Run one story."""
        check = change(story, self.session.subject)
        if story == "sharing":
            self.tag = _SECOND
        nodes = [self.nodes[0]]
        if story in ONLY_DELIVERS:
            amount = self.bench.options.nodes if story == "ten-nodes" else 1
            nodes = [self.add_node(f"{story}-{each}") for each in range(amount)]
        before = self._measured(nodes)
        # What earlier runs wrote is on the disk before this one is timed.
        os.sync()
        average = load()
        meter = Meter(self.bench.commands)
        if story not in ONLY_DELIVERS:
            self.opened.publish(self.tag, meter)
        if len(nodes) == 1:
            self.opened.deliver(nodes[0], self.tag, check, meter)
        else:
            meter.steps.append(self._deliver_at_once(nodes, check))
        grown = [after - former for after, former in zip(self._measured(nodes), before, strict=True)]
        steps = tuple(meter.steps)
        return Run(
            workflow=self.workflow.name,
            story=story,
            round=number,
            caches="warm",
            load=average,
            steps=steps,
            seconds=round(sum(each.seconds for each in steps), 4),
            cpu_seconds=round(sum(each.cpu_seconds for each in steps), 3),
            peak_memory=max(each.peak_memory for each in steps),
            uploaded=grown[0],
            downloaded=grown[1],
            registry_bytes=max(0, grown[2]),
            node_bytes=max(0, grown[3]),
            failed=None,
        )

    def _measured(self, nodes: Sequence[Place]) -> tuple[int, int, int, int]:
        up, down = self.places.counts()
        return up, down, disk_usage(self.storage), sum(disk_usage(each.folder) for each in nodes)

    def _deliver_at_once(self, nodes: Sequence[Place], check: Check) -> Step:
        """Deliver to all nodes at the same time, as one step: processor and memory can't be told apart by node."""
        meter = Meter(self.bench.commands)
        with meter.step("pull", *(each.folder for each in nodes)), ThreadPoolExecutor(len(nodes)) as pool:
            for done in [pool.submit(self.opened.deliver, each, self.tag, check, Unmeasured()) for each in nodes]:
                done.result()
        return meter.steps[0]


def _failed(workflow: str, story: str, number: int, sentence: str) -> Run:
    return Run(workflow, story, number, "warm", load(), (), 0.0, 0.0, 0, 0, 0, 0, 0, sentence)
