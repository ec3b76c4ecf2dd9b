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
