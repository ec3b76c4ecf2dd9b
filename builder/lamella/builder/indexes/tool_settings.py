"""What one tool's settings say about where packages come from. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.builder.indexes.model import PackageIndex, Strategy


@dataclass(frozen=True, slots=True)
class ToolSettings:
    """Indexes in order of preference, before logins are looked up."""

    indexes: tuple[PackageIndex, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)
    """URL of the one index of a package, by its normalised name."""
    find_links: tuple[PackageIndex, ...] = ()
    """Pages, and folders by absolute path."""
    strategy: Strategy = "first-index"
    keyring: str = "disabled"
    """pip's and uv's provider of logins: `subprocess`, `import`, `auto` or `disabled`."""
    configured: bool = False
    """Whether the settings name a place to look in; otherwise the indexes are the tool's defaults."""
