"""`make comparison-page NAME=venv RESULT=result.json`: put a result of `lamella compare` into docs/comparison.md.

    python -m bench.documented NAME RESULT

Keeps the raw data and its charts in docs/comparison/NAME, and writes the tables between the page's marks for NAME. No number
of the page is typed by hand: a test compares its tables with the raw data.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lamella.comparison import Comparison, ComparisonError, digits, ratio, read, summarize, write_report
from lamella.layers.text import counted, escaped, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lamella.comparison import Figures

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "comparison.md"
KEPT = DOCS / "comparison"
CHARTS = {
    "seconds.svg": "Seconds of each story through each workflow, by step",
    "bytes.svg": "Bytes that each workflow uploads and downloads in each story",
    "disk.svg": "Growth of the registry's and the node's disk in each story",
}
_REGION = re.compile(r"(<!-- result (\w[\w-]*): by make comparison-page -->\n).*?(<!-- end of result -->)", re.DOTALL)
NOTHING = "*No run is kept here yet.*"


def main() -> int:
    """Keep a result, and write the page."""
    parser = argparse.ArgumentParser(prog="make comparison-page", description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="one of the page's marks, such as venv")
    parser.add_argument("result", type=Path, help="result.json of a report")
    arguments = parser.parse_args()
    text = PAGE.read_text()
    names = [found[1] for found in _REGION.findall(text)]
    if arguments.name not in names:
        parser.error(f"{arguments.name}: {PAGE.name} has marks for {', '.join(names)}")
    try:
        keep(arguments.name, read(json.loads(arguments.result.read_text())), KEPT)
    except (ComparisonError, OSError, ValueError) as error:
        parser.error(f"{arguments.result}: {error}")
    PAGE.write_text(filled(text, KEPT))
    return 0


def keep(name: str, comparison: Comparison, kept: Path) -> None:
    """Write raw data and charts to the folder `name` of `kept`; its page stays out, since GitHub does not show one."""
    with tempfile.TemporaryDirectory() as scratch:
        write_report(comparison, scratch)
        (kept / name).mkdir(parents=True, exist_ok=True)
        for file in ("result.json", *CHARTS):
            shutil.copyfile(Path(scratch) / file, kept / name / file)


def filled(text: str, kept: Path) -> str:
    """Return a page with the tables of the results in `kept` between its marks."""

    def region(found: re.Match[str]) -> str:
        path = kept / found[2] / "result.json"
        body = markdown(read(json.loads(path.read_text())), found[2]) if path.exists() else NOTHING
        return f"{found[1]}\n{body}\n\n{found[3]}"

    return _REGION.sub(region, text)


def markdown(comparison: Comparison, name: str) -> str:
    """Return the tables and pictures of a result; links are relative to docs/."""
    parts = [_about(comparison), f"    {escaped(comparison.command)}", _seconds(comparison)]
    parts += [f"![{words}](comparison/{name}/{file})" for file, words in CHARTS.items()]
    parts += [_details("All medians", _medians(comparison)), _details("The workflows", _workflows(comparison))]
    if failed := _failed(comparison):
        parts.append(failed)
    if left_out := [each for each in comparison.workflows if not each.available]:
        lines = "\n".join(f"- {plain(each.title)}: {plain(each.missing or '')}" for each in left_out)
        parts.append(f"Left out:\n\n{lines}")
    parts.append(f"Every run is in [the raw data](comparison/{name}/result.json).")
    return "\n\n".join(parts)


def plain(text: str) -> str:
    """Return foreign text that Markdown shows as it is, within a cell too."""
    return re.sub(r"([\\`*_{}\[\]<>|~#])", r"\\\1", escaped(text))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int = 1) -> str:
    """Return a table whose first `texts` columns are words, and the others numbers."""
    lines = [columns, [*["---"] * texts, *["---:"] * (len(columns) - texts)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def _about(comparison: Comparison) -> str:
    environment, machine, network = comparison.environment, comparison.machine, comparison.network
    contents = (
        f"{environment.kind}, Python {environment.python}, {counted(environment.packages, 'package')},"
        f" {counted(environment.files, 'file')}, {size(environment.bytes)},"
        f" {'with' if environment.byte_code else 'without'} byte code"
    )
    hardware = (
        f"{counted(machine.processors, 'processor')} ({machine.processor}), {size(machine.memory)} of memory,"
        f" {machine.file_system}, {machine.system}, kernel {machine.kernel}"
    )
    runs = (
        f"{len(comparison.runs)} in {comparison.seconds / 60:,.0f} minutes, {counted(comparison.rounds, 'round')},"
        f" begun {comparison.begun}, lamella {comparison.lamella}{'' if comparison.complete else '; interrupted'}"
    )
    rows = [
        ("Environment", contents),
        ("Machine", hardware),
        ("Network", f"one machine; each line: {network.line}"),
        ("Registry", comparison.registry.program),
        ("Load", " before, ".join(f"{load:.2f}" for load in machine.load) + " after"),
        ("Runs", runs),
    ]
    lines = ["| | |", "|---|---|", *(f"| {title} | {plain(value)} |" for title, value in rows)]
    return "\n".join(lines)


def _seconds(comparison: Comparison) -> str:
    stories = summarize(comparison)
    shown = [each for each in comparison.workflows if any(story.row(each.name) for story in stories)]

    def cell(row: Figures | None, fastest: Figures | None) -> str:
        if row is None or row.seconds is None:
            return "" if row is None else "failed"
        number = f"**{digits(row.seconds.median)}**" if row is fastest else digits(row.seconds.median)
        return number if row.ratio is None else f"{number} ({ratio(row.ratio)})"

    rows = [[plain(each.title), *(cell(story.row(each.name), story.fastest) for story in stories)] for each in shown]
    table = _table(["Seconds (ratio to Lamella's)", *(plain(story.story.title) for story in stories)], rows)
    notes = "\n".join(f"- {plain(story.story.title)}: {plain(story.story.description)}" for story in stories)
    return f"{table}\n\n{notes}"


def _medians(comparison: Comparison) -> str:
    columns = (
        "Story", "Workflow", "Seconds", "Least", "Most", "Up", "Down", "Registry", "Node", "Memory", "Processor seconds",
    )  # fmt: skip
    rows = [
        [
            plain(story.story.title), plain(row.workflow.title), digits(row.seconds.median), digits(row.seconds.least),
            digits(row.seconds.most), size(row.uploaded), size(row.downloaded),
            "" if row.registry_bytes is None else size(row.registry_bytes), size(row.node_bytes), size(row.peak_memory),
            digits(row.cpu_seconds),
        ]
        for story in summarize(comparison)
        for row in story.rows
        if row.seconds
    ]  # fmt: skip
    return _table(columns, rows, texts=2)


def _workflows(comparison: Comparison) -> str:
    ran = {run.workflow for run in comparison.runs}
    rows = [
        [
            plain(each.title),
            plain(each.steps),
            plain(each.compression or "none"),
            "yes" if each.byte_code else "no",
            plain(", ".join(f"{name} {version}" for name, version in each.programs.items())),
            _link(each.source),
        ]
        for each in comparison.workflows
        if each.name in ran
    ]
    columns = ("Workflow", "Steps", "Compression", "Byte code", "Programs", "Follows")
    return _table(columns, rows, texts=len(columns))


def _link(source: str) -> str:
    """Return a link from the page, which is in docs/."""
    return f"[{source}]({source.removeprefix('docs/')})" if source.startswith("docs/") else f"<{source}>"


def _failed(comparison: Comparison) -> str:
    lines = [
        f"- {plain(story.story.title)}, {plain(row.workflow.title)}: {len(row.failures)} of {row.runs}:"
        f" {plain(row.failures[0])}"
        for story in summarize(comparison)
        for row in story.rows
        if row.failures
    ]
    return "Runs that failed:\n\n" + "\n".join(lines) if lines else ""


if __name__ == "__main__":
    sys.exit(main())
