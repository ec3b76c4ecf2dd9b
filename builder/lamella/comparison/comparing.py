"""The whole comparison: every story through every workflow, in rounds that alternate the workflows."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lamella.comparison import stories as told
from lamella.comparison.errors import ComparisonError
from lamella.comparison.machine import load, machine
from lamella.comparison.measuring.processes import subreaper
from lamella.comparison.programs import base_image
from lamella.comparison.programs import registry as registries
from lamella.comparison.programs.commands import Commands
from lamella.comparison.programs.index import index
from lamella.comparison.result import (
    ComparedPrefix,
    Comparison,
    Network,
    RegistryProgram,
    Run,
    Workflow,
    document,
)
from lamella.comparison.scratch import scratch_folder
from lamella.comparison.sessions import Bench, run_session
from lamella.comparison.subject.subject import take
from lamella.comparison.workflows import table
from lamella.layers import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamella.builder import Environment
    from lamella.comparison.options import CompareOptions
    from lamella.comparison.subject.subject import Original
    from lamella.comparison.workflows.workflow import Workflow as AnyWorkflow
    from lamella.layers import Progress

_TASK = "compare"


def compare(
    environment: Environment,
    options: CompareOptions,
    *,
    progress: Progress,
    note: Callable[[str], None],
    partial: Callable[[Comparison], None],
) -> Comparison:
    """Take a scanned environment through the workflows, and return the measurements.

    `note` gets a line for each thing that is done; `partial` the result so far, after each run. An interruption leaves no
    process, mount or file; what `partial` got stays.

    Raises:
        ComparisonError: an invalid option, or neither a registry given nor a program for one.
    """
    names = told.chosen(options.stories)
    workflows = table.chosen(options.workflows)
    if not options.registry and not shutil.which(registries.PROGRAM):
        raise ComparisonError(f"{registries.PROGRAM}: not installed; {registries.HOW}")
    began = time.monotonic()
    with subreaper(), scratch_folder(options.scratch) as scratch, contextlib.ExitStack() as stack:
        commands = Commands(scratch)
        original = take(environment, scratch, commands, note)
        described = tuple(_described(each, original, options) for each in workflows)
        available = [each for each, found in zip(workflows, described, strict=True) if found.available]
        for found in described:
            if not found.available:
                note(f"{found.name}: left out: {found.missing}")
        result = _Result(
            began,
            Comparison(
                lamella=__version__,
                command=options.command,
                begun=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                seconds=0.0,
                complete=False,
                environment=_prefix(environment, byte_code=original.byte_code),
                machine=machine(scratch, (load(),)),
                network=Network("loopback", options.delay_ms, options.megabits),
                registry=_registry(commands, options),
                rounds=options.rounds,
                workflows=described,
                stories=tuple(told.described(name, original, options.nodes) for name in names),
                runs=(),
            ),
        )
        base = None
        if any(each.uses_base_image for each in available):
            note("make the base image")
            base = base_image.prepare(commands, scratch, options.base_image, original.base_prefix)
        served = stack.enter_context(index(commands, original.wheels)) if original.wheels else None
        bench = Bench(scratch, commands, original, options, base, served, note)
        progress.begin(_TASK, options.rounds * len(available) * len(names), "runs")
        stack.callback(progress.end, _TASK)

        def keep(run: Run) -> None:
            result.runs.append(run)
            progress.advance(_TASK, 1)
            note(f"round {run.round}, {run.workflow}, {run.story}: {run.failed or f'{run.seconds:.1f} s'}")
            partial(result.comparison(complete=False))

        for number in range(1, options.rounds + 1):
            # Rotated, so that what the workflow before leaves in caches does not always help the same one.
            turn = (number - 1) % max(1, len(available))
            for workflow in (*available[turn:], *available[:turn]):
                run_session(bench, workflow, number, names, keep)
    return result.comparison(complete=True)


def write_result(comparison: Comparison, path: str) -> None:
    """Write the document of a comparison to `path`, as a whole or not at all."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(document(comparison), file, indent=1)
        file.write("\n")
    os.replace(temporary, path)


@dataclass(slots=True)
class _Result:
    began: float
    first: Comparison
    runs: list[Run] = field(default_factory=list)

    def comparison(self, *, complete: bool) -> Comparison:
        """Return the result so far."""
        return replace(
            self.first,
            seconds=round(time.monotonic() - self.began, 1),
            complete=complete,
            machine=replace(self.first.machine, load=(*self.first.machine.load[:1], load())),
            runs=tuple(self.runs),
        )


def _described(workflow: AnyWorkflow, original: Original, options: CompareOptions) -> Workflow:
    missing = workflow.missing(original, options)
    return Workflow(
        name=workflow.name,
        title=workflow.title,
        steps=workflow.steps,
        programs={} if missing else workflow.programs(),
        byte_code=original.byte_code if workflow.byte_code is None else workflow.byte_code,
        compression=workflow.compression,
        source=workflow.source,
        available=missing is None,
        missing=missing,
    )


def _prefix(environment: Environment, *, byte_code: bool) -> ComparedPrefix:
    origins = {package.origin for package in environment.packages}
    return ComparedPrefix(
        prefix=environment.prefix,
        kind="conda" if "conda" in origins else "venv",
        python=environment.interpreter.version,
        packages=len(environment.packages),
        files=sum(len(package.files) for package in environment.packages),
        bytes=sum(package.size for package in environment.packages),
        byte_code=byte_code,
    )


def _registry(commands: Commands, options: CompareOptions) -> RegistryProgram:
    if options.registry:
        return RegistryProgram(options.registry, given=True)
    return RegistryProgram(registries.version(commands), given=False)
