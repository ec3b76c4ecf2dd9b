"""Bar charts as SVG by matplotlib: text as text, colours as CSS variables, and the same bytes for the same numbers."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from lamella.comparison.report.colours import LIGHT, variables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

WIDE, NARROW = 420, 340
"""Pixels of a panel in a file, and on a page."""
_GAP = 28
_NUMBERS = 64
"""Pixels at the right of the longest bar, for its number."""
_LABEL, _SINGLE, _DOUBLE, _SPACE = 17, 15, 13, 11
"""Pixels of a row's label, of one bar, of each of two bars, and below."""
_TITLE, _LEGEND, _TICKS = 26, 28, 20
_SVG = "http://www.w3.org/2000/svg"
_FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif"


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar."""

    colour: str
    """One of `colours`."""
    value: float
    tip: str


@dataclass(frozen=True, slots=True)
class Bar:
    """Segments from zero on, with the number at their end."""

    segments: tuple[Segment, ...]
    text: str
    spread: tuple[float, float] | None = None
    """Least and most of several runs."""


@dataclass(frozen=True, slots=True)
class Row:
    """A label above its bars."""

    label: str
    bars: tuple[Bar, ...]

    @property
    def height(self) -> int:
        """Pixels."""
        return _LABEL + (_SINGLE if len(self.bars) < 2 else _DOUBLE * len(self.bars)) + _SPACE

    @property
    def end(self) -> float:
        """The greatest value that is drawn."""
        ends = [sum(segment.value for segment in bar.segments) for bar in self.bars]
        return max([0.0, *ends, *(bar.spread[1] for bar in self.bars if bar.spread)])


@dataclass(frozen=True, slots=True)
class Panel:
    """Rows with one linear scale from zero."""

    title: str
    """Empty if it stands elsewhere."""
    rows: tuple[Row, ...]

    @property
    def height(self) -> int:
        """Pixels."""
        return (_TITLE if self.title else 0) + sum(row.height for row in self.rows) + _TICKS


@dataclass(frozen=True, slots=True)
class Chart:
    """One or several panels, each with its own scale, and one legend."""

    title: str
    description: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, str], ...]
    """Colour and words."""
    number: Callable[[float], str]
    """Text of a value at the scale."""


def draw(chart: Chart, columns: int = 1, panel_width: int = NARROW) -> str:
    """Return the chart as an SVG element with its panels in columns; `standalone` makes a file of it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    lines = [chart.panels[at : at + columns] for at in range(0, len(chart.panels), columns)]
    heights = [max(panel.height for panel in line) + (_GAP if len(lines) > 1 else 0) for line in lines]
    width, height = panel_width * columns + _GAP * (columns - 1), _LEGEND + sum(heights)
    with mpl.rc_context(), warnings.catch_warnings():
        # The reader's browser has its own fonts, and draws letters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph")
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lamella", "text.parse_math": False})
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        tips: list[str] = []

        def canvas(left: float, top: float, wide: float, high: float) -> Axes:
            found = figure.add_axes((left / width, 1 - (top + high) / height, wide / width, high / height))
            found.set_ylim(high, 0)
            found.axis("off")
            return found

        _legend(canvas(0, 0, width, _LEGEND), chart.legend, width)
        top = _LEGEND
        for line, high in zip(lines, heights, strict=True):
            for at, panel in enumerate(line):
                wide = panel_width - _NUMBERS
                _panel(canvas(at * (panel_width + _GAP), top, wide, panel.height), panel, chart.number, tips, wide)
            top += high
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _element(drawn.getvalue(), chart, (width, height), tips)


def standalone(svg: str) -> str:
    """Return an SVG element as a file: with its colours, and with a background, since the page around it may be dark."""
    head, end, rest = svg.partition("</title>")
    background = '<rect width="100%" height="100%" fill="var(--paper)"/>'
    return f"{head}{end}<style>{variables()}</style>{background}{rest}\n"


def _legend(axes: Axes, legend: Sequence[tuple[str, str]], width: int) -> None:
    axes.set_xlim(0, width)
    left = 0.0
    for colour, words in legend:
        axes.barh([9], [10], left=left, height=10, color=_key(colour), clip_on=False)
        axes.text(left + 15, 13, words, color=_key("muted"), fontsize=11, va="baseline")
        left += 15 + sum(_width(letter) for letter in words) + 13


def _width(letter: str) -> float:
    """Return about the pixels of a letter of a legend: the reader's font is unknown."""
    return 10.5 if letter in "mwMW" else 4.0 if letter in "fijlrt',. " else 6.7


def _panel(axes: Axes, panel: Panel, number: Callable[[float], str], tips: list[str], wide: int) -> None:
    from matplotlib.ticker import MaxNLocator

    end = max(row.end for row in panel.rows) or 1.0
    axes.set_xlim(0, end)
    top = 0
    if panel.title:
        axes.text(0, 16, panel.title, color=_key("ink"), fontsize=13, fontweight="bold", va="baseline")
        top = _TITLE
    bottom = panel.height - _TICKS
    ticks = [tick for tick in MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(0, end) if 0 <= tick <= end]
    axes.vlines(ticks, top, bottom, color=_key("line"), linewidth=1, zorder=0, clip_on=False)
    for tick in ticks:
        align = "center" if tick else "left"
        axes.text(tick, bottom + 14, number(tick), color=_key("muted"), fontsize=10, ha=align, va="baseline")
    for row in panel.rows:
        axes.text(0, top + 11, row.label, color=_key("ink"), fontsize=12, va="baseline")
        thick = _SINGLE if len(row.bars) < 2 else _DOUBLE
        for at, bar in enumerate(row.bars):
            _bar(axes, bar, top + _LABEL + thick * (at + 0.5), thick - 2, pixel=end / wide, tips=tips)
        top += row.height


def _bar(axes: Axes, bar: Bar, middle: float, thick: float, *, pixel: float, tips: list[str]) -> None:
    left = 0.0
    for segment in bar.segments:
        (drawn,) = axes.barh(
            [middle], [segment.value], left=left, height=thick, color=_key(segment.colour), clip_on=False
        )
        drawn.set_gid(f"tip-{len(tips)}")
        tips.append(segment.tip)
        left += segment.value
    if bar.spread and bar.spread[1] > bar.spread[0]:
        least, most = bar.spread
        axes.hlines([middle], least, most, color=_key("ink"), linewidth=1.2, clip_on=False)
        axes.vlines([least, most], middle - 3.5, middle + 3.5, color=_key("ink"), linewidth=1.2, clip_on=False)
        left = max(left, most)
    shade = "ink" if bar.segments else "muted"
    axes.text(left + 6 * pixel, middle + 4, bar.text, color=_key(shade), fontsize=11, va="baseline", clip_on=False)


def _key(colour: str) -> str:
    """Return a colour that stands for a CSS variable until the SVG is rewritten."""
    return f"#fe01{list(LIGHT).index(colour):02x}"


def _element(svg: bytes, chart: Chart, size: tuple[int, int], tips: Sequence[str]) -> str:
    """Return matplotlib's SVG without metadata, sizes in points, fonts and ids, and with a title and a description."""
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(svg)
    for name in ("metadata", "defs"):
        for child in root.findall(f"{{{_SVG}}}{name}"):
            root.remove(child)
    for element in root.iter():
        found = element.attrib.pop("id", "")
        if found.startswith("tip-"):
            title = ElementTree.Element(f"{{{_SVG}}}title")
            title.text = tips[int(found.removeprefix("tip-"))]
            element.insert(0, title)
    root.attrib.clear()
    width, height = size
    root.attrib.update({
        "role": "img", "aria-label": f"{chart.title}. {chart.description}", "viewBox": f"0 0 {width} {height}",
        "width": str(width), "height": str(height), "font-family": _FONT,
    })  # fmt: skip
    title = ElementTree.Element(f"{{{_SVG}}}title")
    title.text = chart.title
    root.insert(0, title)
    text = ElementTree.tostring(root, encoding="unicode")
    text = re.sub(r"#fe01([0-9a-f]{2})", lambda key: f"var(--{list(LIGHT)[int(key[1], 16)]})", text)
    text = re.sub(r" transform=\"rotate\(-?0 [^\"]*\"| font-family: [^;\"]*;?|<path [^>]*fill: none\" />", "", text)
    return re.sub(r"<g>\s*</g>|<g />", "", re.sub(r">\s*\n\s*<", "><", text)).strip()
