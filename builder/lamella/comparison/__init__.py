"""`lamella compare`: one environment through Lamella and through other workflows, side by side, measured.

This is the whole API of the package. Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamella.comparison.comparing import compare, write_result
    from lamella.comparison.errors import ComparisonError
    from lamella.comparison.options import CompareOptions
    from lamella.comparison.report.write import check_report, write_report
    from lamella.comparison.result import (
        ComparedPrefix,
        Comparison,
        Machine,
        Network,
        RegistryProgram,
        Run,
        Step,
        Story,
        Workflow,
        document,
        read,
    )
    from lamella.comparison.summary import Figures, Spread, StoryFigures, digits, ratio, summarize

__all__ = [
    "CompareOptions",
    "ComparedPrefix",
    "Comparison",
    "ComparisonError",
    "Figures",
    "Machine",
    "Network",
    "RegistryProgram",
    "Run",
    "Spread",
    "Step",
    "Story",
    "StoryFigures",
    "Workflow",
    "check_report",
    "compare",
    "digits",
    "document",
    "ratio",
    "read",
    "summarize",
    "write_report",
    "write_result",
]

_MODULES = {
    "CompareOptions": "lamella.comparison.options",
    "compare": "lamella.comparison.comparing",
    "write_result": "lamella.comparison.comparing",
    "ComparisonError": "lamella.comparison.errors",
    "check_report": "lamella.comparison.report.write",
    "write_report": "lamella.comparison.report.write",
    "ComparedPrefix": "lamella.comparison.result",
    "Comparison": "lamella.comparison.result",
    "Machine": "lamella.comparison.result",
    "Network": "lamella.comparison.result",
    "RegistryProgram": "lamella.comparison.result",
    "Run": "lamella.comparison.result",
    "Step": "lamella.comparison.result",
    "Story": "lamella.comparison.result",
    "Workflow": "lamella.comparison.result",
    "document": "lamella.comparison.result",
    "read": "lamella.comparison.result",
    "Figures": "lamella.comparison.summary",
    "Spread": "lamella.comparison.summary",
    "StoryFigures": "lamella.comparison.summary",
    "digits": "lamella.comparison.summary",
    "ratio": "lamella.comparison.summary",
    "summarize": "lamella.comparison.summary",
}


def __getattr__(name: str) -> object:
    """Import `name` from its module. Source: PEP 562."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return __all__
