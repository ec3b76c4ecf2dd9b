"""The document of a verb as a table for a notebook, and as text for a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from lamella.layers.text import counted, escaped, seconds, size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SHOWN = 20
"""Rows of a table; a line counts the rest."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a result. Columns whose names end with a space are aligned to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    hidden: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """Result of a verb."""

    document: Mapping[str, Any]
    """As `--json` prints it; docs/reference/json.md describes it."""
    title: str
    summary: str
    tables: tuple[Table, ...]
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """The same as text."""
        parts = [*self.remarks, self.title, *(_text(table) for table in self.tables), self.summary]
        return "\n".join(filter(None, parts))

    def _repr_html_(self) -> str:
        remarks = "".join(f"<div><small>{escape(each)}</small></div>" for each in self.remarks)
        tables = "".join(_html(table) for table in self.tables)
        return f"<div>{remarks}<div><b>{escape(self.title)}</b></div>{tables}<div>{escape(self.summary)}</div></div>"


def result_of(verb: str, document: Mapping[str, Any], remarks: Sequence[str]) -> Result:
    """Return the document of `push`, `diff` or `scan` as a result; foreign text is escaped."""
    make: Callable[[Mapping[str, Any]], tuple[str, str, list[Table]]] = {"push": _push, "diff": _diff, "scan": _scan}[
        verb
    ]
    title, summary, tables = make(document)
    kept = tuple(line for line in remarks if not line.startswith("lamella: "))
    return Result(document, escaped(title), escaped(summary), tuple(table for table in tables if table.rows), kept)


def _push(pushed: Mapping[str, Any]) -> tuple[str, str, list[Table]]:
    moving = [layer for layer in pushed["layers"] if layer["action"] != "reuse"]
    rows = [
        (layer["action"], ", ".join(layer["packages"]), "" if layer["size"] is None else size(layer["size"]))
        for layer in moving
    ]
    uploaded, built = pushed["uploaded"], pushed["built"]["layers"]
    if pushed["dry_run"]:
        done = f"{counted(len(moving), 'layer')} to build or upload"
    elif pushed["unchanged"]:
        done = "unchanged"
    else:
        done = f"{counted(built, 'layer')} built, {uploaded['layers']:,} uploaded ({size(uploaded['bytes'])})"
    found = [counted(count, severity) for severity, count in pushed["findings"].items() if count]
    summary = [f"{counted(pushed['packages'], 'package')}; {done}, {pushed['reused']['layers']:,} reused"]
    summary += [", ".join(found)] if found else []
    if "seconds" in pushed:
        summary.append(seconds(pushed["seconds"]))
    return pushed["reference"], "; ".join(summary), [_table(("Layer", "Packages", "Size "), rows)]


def _diff(difference: Mapping[str, Any]) -> tuple[str, str, list[Table]]:
    rows = [("added", each["name"], "", each["version"], size(each["size"])) for each in difference["added"]]
    rows += [("removed", each["name"], each["version"], "", "") for each in difference["removed"]]
    rows += [
        (
            "changed",
            each["after"]["name"],
            each["before"]["version"],
            each["after"]["version"],
            size(each["after"]["size"]),
        )
        for each in difference["changed"]
    ]
    sides = [each.get("reference") or each.get("prefix") for each in (difference["before"], difference["after"])]
    same = counted(difference["same"], "package")
    summary = f"{same} the same, {len(rows):,} different; {size(difference['bytes'])} to move"
    return " → ".join(sides), summary, [_table(("", "Package", "Before", "After", "Size "), rows)]


def _scan(scanned: Mapping[str, Any]) -> tuple[str, str, list[Table]]:
    packages = sorted(scanned["packages"], key=lambda each: (-each["size"], each["name"]))
    rows = [
        (each["name"], each["version"], each["origin"], f"{each['files']:,}", size(each["size"])) for each in packages
    ]
    order = ("error", "warning", "note")
    findings = sorted(
        scanned["findings"], key=lambda each: (order.index(each["severity"]), each["kind"], each["subject"])
    )
    found = [(each["severity"], each["kind"], each["message"]) for each in findings]
    total = size(sum(each["size"] for each in packages))
    files = counted(sum(each["files"] for each in packages), "file")
    title = f"{scanned['prefix']}: {scanned['implementation']} {scanned['python']} on {scanned['platform']}"
    summary = f"{counted(len(packages), 'package')}, {files}, {total}"
    return (
        title,
        summary,
        [
            _table(("Package", "Version", "Origin", "Files ", "Size "), rows),
            _table(("Finding", "Kind", "What"), found),
        ],
    )


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    shown = tuple(tuple(escaped(cell) for cell in row) for row in rows[:SHOWN])
    return Table(columns, shown, len(rows) - len(shown))


def _html(table: Table) -> str:
    sides = ["right" if name.endswith(" ") else "left" for name in table.columns]

    def row(tag: str, cells: Sequence[str]) -> str:
        made = (
            f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>' for side, cell in zip(sides, cells, strict=True)
        )
        return f"<tr>{''.join(made)}</tr>"

    head = row("th", [name.rstrip() for name in table.columns])
    body = "".join(row("td", cells) for cells in table.rows)
    more = f"<div>… and {table.hidden:,} more</div>" if table.hidden else ""
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>{more}"


def _text(table: Table) -> str:
    lines = [tuple(name.rstrip() for name in table.columns), *table.rows]
    widths = [max(len(line[number]) for line in lines) for number in range(len(table.columns))]
    padded = [
        "  ".join(
            cell.rjust(width) if name.endswith(" ") else cell.ljust(width)
            for name, cell, width in zip(table.columns, line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*padded, *([f"… and {table.hidden:,} more"] if table.hidden else [])])
