"""The charts of a comparison: seconds, bytes that moved, and disks, of one story or of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lamella.comparison.report.charts import Bar, Chart, Panel, Row, Segment
from lamella.comparison.report.colours import STEPS
from lamella.comparison.summary import digits
from lamella.layers.text import escaped, size

if TYPE_CHECKING:
    from lamella.comparison.summary import Figures, StoryFigures

KINDS = ("seconds", "bytes", "disk")
_LABEL = 52
"""Characters of a workflow's title at most."""
Paint = tuple[str, str, Callable[["Figures"], "int | None"]]
_MOVED: tuple[Paint, ...] = (
    ("send", "uploaded", lambda row: row.uploaded),
    ("fetch", "downloaded", lambda row: row.downloaded),
)
_DISKS: tuple[Paint, ...] = (
    ("make", "registry's disk", lambda row: row.registry_bytes),
    ("install", "node's disk", lambda row: row.node_bytes),
)


def figure(kind: str, stories: Sequence[StoryFigures]) -> Chart:
    """Return the chart of one of `KINDS`, with a panel for each story; one story alone has no title of its own."""
    if kind == "seconds":
        names = dict.fromkeys(name for story in stories for row in story.rows for name, _ in row.steps)
        return Chart(
            _title("Seconds from the change to the import on the node", stories),
            _spoken(stories, lambda row: f"{digits(row.seconds.median)} s" if row.seconds else "failed"),
            tuple(_panel(story, stories, _seconds) for story in stories),
            _steps_legend(list(names)),
            lambda value: f"{value:g} s" if value else "0",
        )
    paints = _MOVED if kind == "bytes" else _DISKS
    return Chart(
        _title("Bytes on the wire" if kind == "bytes" else "Growth of the registry's and the node's disk", stories),
        _spoken(stories, lambda row: ", ".join(f"{size(found)} {words}" for found, _, words in _known(row, paints))),
        tuple(_panel(story, stories, lambda row: _sizes(row, paints)) for story in stories),
        tuple((colour, words) for colour, words, _ in paints),
        lambda value: size(value) if value else "0",
    )


def _title(words: str, stories: Sequence[StoryFigures]) -> str:
    return f"{words}: {escaped(stories[0].story.title, _LABEL)}" if len(stories) == 1 else words


def _spoken(stories: Sequence[StoryFigures], value: Callable[[Figures], str]) -> str:
    """Return the chart in words, for one story; the tables have the numbers of all."""
    if len(stories) != 1:
        return "The tables have the same numbers."
    return "; ".join(f"{escaped(row.workflow.title, _LABEL)}: {value(row)}" for row in stories[0].rows) + "."


def _panel(story: StoryFigures, stories: Sequence[StoryFigures], bars: Callable[[Figures], tuple[Bar, ...]]) -> Panel:
    title = escaped(story.story.title, _LABEL) if len(stories) > 1 else ""
    return Panel(title, tuple(Row(_label(row), bars(row)) for row in story.rows))


def _label(row: Figures) -> str:
    failed = f" ({len(row.failures)} of {row.runs} failed)" if row.failures and row.seconds else ""
    return escaped(row.workflow.title, _LABEL) + failed


def _steps_legend(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return one entry for each colour: steps that no workflow has both of share one."""
    words: dict[str, list[str]] = {}
    order = list(STEPS)
    for name in sorted(names, key=lambda name: order.index(name) if name in order else len(order)):
        words.setdefault(_colour(name), []).append(escaped(name, 12))
    return tuple((colour, ", ".join(each)) for colour, each in words.items())


def _colour(step: str) -> str:
    return STEPS.get(step, "other")


def _seconds(row: Figures) -> tuple[Bar, ...]:
    if row.seconds is None:
        return (Bar((), "failed"),)
    total = sum(seconds for _, seconds in row.steps)
    # The steps of the run in the middle, at the length of the median.
    scale = row.seconds.median / total if total else 1.0
    segments = tuple(
        Segment(
            _colour(name),
            seconds * scale,
            f"{escaped(row.workflow.title, _LABEL)}: {escaped(name, 12)} {digits(seconds)} s",
        )
        for name, seconds in row.steps
    )
    return (Bar(segments, f"{digits(row.seconds.median)} s", (row.seconds.least, row.seconds.most)),)


def _sizes(row: Figures, paints: Sequence[Paint]) -> tuple[Bar, ...]:
    if row.seconds is None:
        return (Bar((), "failed"),)
    return tuple(
        Bar((Segment(colour, found, f"{escaped(row.workflow.title, _LABEL)}: {size(found)} {words}"),), size(found))
        for found, colour, words in _known(row, paints)
    )


def _known(row: Figures, paints: Sequence[Paint]) -> list[tuple[int, str, str]]:
    """Return the counts that there are, with their colour and words."""
    counts = ((count(row), colour, words) for colour, words, count in paints)
    return [(found, colour, words) for found, colour, words in counts if found is not None]
