"""The HTML page of a comparison: one file that loads nothing, with every number as text."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lamella.comparison.report.charts import draw
from lamella.comparison.report.colours import variables
from lamella.comparison.report.figures import KINDS, figure
from lamella.comparison.summary import REFERENCE, digits, ratio, summarize
from lamella.layers.text import counted, escaped, seconds, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.comparison.result import Comparison, Run, Workflow
    from lamella.comparison.summary import Figures, StoryFigures

COLUMNS = (
    "Seconds", "Ratio", "Least", "Most", "Up", "Down", "Registry", "Node", "Memory", "Processor",
)  # fmt: skip
_NUMERIC = (2, 4)
"""Columns of numbers among the first cells of a run."""


def page(comparison: Comparison, charts: tuple[str, ...]) -> str:
    """Return the page; `charts` are the names of the files beside it."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    # Every text of the result is foreign: names of packages, errors of other programs.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_shown)
    folder = files("lamella.comparison.report")
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    style = variables() + folder.joinpath("style.css").read_text(encoding="utf-8").replace("\n", "")
    summary = summarize(comparison)
    shown = [each for each in comparison.workflows if any(story.row(each.name) for story in summary)]
    values = {
        "result": comparison,
        "title": f"One environment, {counted(len(shown), 'workflow')}",
        "lead": _lead(comparison, len(summary)),
        "date": comparison.begun.replace("T", " ").replace("Z", " UTC"),
        "facts": list(_facts(comparison)),
        "style": Markup(style),
        "shown": shown,
        "columns": COLUMNS,
        "matrix": [
            {"title": each.title, "cells": [_cell(story.row(each.name), story.fastest) for story in summary]}
            for each in shown
        ],
        "stories": [
            _story(story, number, {kind: Markup(draw(figure(kind, [story]))) for kind in KINDS})
            for number, story in enumerate(summary, 1)
        ],
        "ran": [_workflow(each) for each in shown],
        "left_out": [_workflow(each) for each in comparison.workflows if not each.available],
        "files": charts,
        "runs": [_run(comparison, run) for run in comparison.runs],
        "numeric": _NUMERIC,
    }
    return template.render(values) + "\n"


def _shown(value: object) -> object:
    """Return text without the characters that control a terminal or reorder a line; leave markup of our own alone."""
    return escaped(value) if type(value) is str else value


def _lead(comparison: Comparison, stories: int) -> str:
    environment = comparison.environment
    return (
        f"{counted(environment.packages, 'package')} and {size(environment.bytes)}, carried from this machine to a node in"
        f" {stories} {'story' if stories == 1 else 'stories'}, {counted(comparison.rounds, 'time')} each."
    )


def _facts(comparison: Comparison) -> Iterator[tuple[str, str]]:
    environment, machine, network = comparison.environment, comparison.machine, comparison.network
    yield "Environment", f"{environment.prefix}: {environment.kind}, Python {environment.python}"
    code = "with byte code" if environment.byte_code else "without byte code"
    yield (
        "Contents",
        f"{counted(environment.packages, 'package')}, {counted(environment.files, 'file')}, {size(environment.bytes)}, {code}",
    )
    yield (
        "Machine",
        f"{counted(machine.processors, 'processor')} ({machine.processor}), {size(machine.memory)} of memory, {machine.file_system}",
    )
    yield "System", f"{machine.system}, kernel {machine.kernel}"
    yield "Network", f"Laptop and nodes are on this machine; each has its own line: {network.line}"
    whose = "named by the user; its disk is not counted" if comparison.registry.given else "started for the comparison"
    yield "Registry", f"{comparison.registry.program}, {whose}"
    yield "Load", f"{' before, '.join(f'{load:.2f}' for load in machine.load)} after" if machine.load else "unknown"
    took = f"{comparison.seconds / 60:,.0f} minutes" if comparison.seconds >= 90 else seconds(comparison.seconds)
    yield "Duration", f"{counted(len(comparison.runs), 'run')} in {took}"


def _workflow(workflow: Workflow) -> dict[str, Any]:
    """Return a workflow for the template, with a link only to an address of the web."""
    try:
        host = urlsplit(workflow.source).hostname or ""
    except ValueError:
        host = ""
    web = bool(host) and workflow.source.startswith(("https://", "http://"))
    return {
        "title": workflow.title, "steps": workflow.steps, "compression": workflow.compression,
        "byte_code": workflow.byte_code, "programs": workflow.programs, "missing": workflow.missing,
        "link": workflow.source if web else "", "host": host.removeprefix("www.") if web else workflow.source,
    }  # fmt: skip


def _story(story: StoryFigures, number: int, charts: dict[str, Any]) -> dict[str, Any]:
    return {
        "anchor": f"story-{number}",
        "title": story.story.title,
        "description": story.story.description,
        "finding": _finding(story),
        "charts": charts,
        "rows": [_row(row) for row in story.rows],
        "failures": [
            f"{row.workflow.title}: {len(row.failures)} of {counted(row.runs, 'run')} failed: {row.failures[0]}"
            for row in story.rows
            if row.failures
        ],
    }


def _finding(story: StoryFigures) -> str:
    """Return the fastest workflow and Lamella's time beside it, or the next one's if Lamella is the fastest."""
    ranked = sorted(
        (row for row in story.rows if row.seconds), key=lambda row: row.seconds.median if row.seconds else 0
    )
    if not ranked or not ranked[0].seconds:
        return ""
    least = ranked[0].seconds.median
    first = f"Fastest: {ranked[0].workflow.title}, {digits(least)} s"
    for row in ranked[1:]:
        if row.seconds and REFERENCE in (row.workflow.name, ranked[0].workflow.name):
            times = f" ({ratio(row.seconds.median / least)})" if least else ""
            word = "" if row.workflow.name == REFERENCE else "next: "
            return f"{first}; {word}{row.workflow.title}, {digits(row.seconds.median)} s{times}."
    return f"{first}."


def _cell(row: Figures | None, fastest: Figures | None) -> dict[str, Any]:
    if row is None or row.seconds is None:
        return {"seconds": "" if row is None else "failed", "ratio": "", "best": False}
    times = "" if row.ratio is None else ratio(row.ratio)
    return {"seconds": f"{digits(row.seconds.median)} s", "ratio": times, "best": row is fastest}


def _row(row: Figures) -> list[str]:
    if row.seconds is None:
        return [row.workflow.title, "failed", *[""] * (len(COLUMNS) - 1)]
    return [
        row.workflow.title,
        f"{digits(row.seconds.median)} s",
        "" if row.ratio is None else ratio(row.ratio),
        digits(row.seconds.least),
        digits(row.seconds.most),
        size(row.uploaded),
        size(row.downloaded),
        "" if row.registry_bytes is None else size(row.registry_bytes),
        size(row.node_bytes),
        size(row.peak_memory),
        f"{digits(row.cpu_seconds)} s",
    ]


def _run(comparison: Comparison, run: Run) -> dict[str, Any]:
    titles = {each.name: each.title for each in comparison.workflows}
    stories = {each.name: each.title for each in comparison.stories}
    steps = ", ".join(f"{step.name} {digits(step.seconds)}" for step in run.steps)
    return {
        "cells": [stories[run.story], titles[run.workflow], str(run.round), run.caches, f"{run.load:.2f}"],
        "failed": run.failed,
        "figures": [
            digits(run.seconds),
            steps,
            size(run.uploaded),
            size(run.downloaded),
            "" if comparison.registry.given else size(run.registry_bytes),
            size(run.node_bytes),
            size(run.peak_memory),
            digits(run.cpu_seconds),
        ],
    }
