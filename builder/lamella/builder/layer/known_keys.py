"""Layer keys that one process has computed, so that a push after an edit computes those of the edited packages alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from lamella.builder.environment import Package
    from lamella.builder.layer.plan import WantedLayer


class KnownKeys:
    """Wanted layers of the packages of the last push.

    A package is recognised by identity: it is frozen and kept alive here, so no file is compared.
    """

    def __init__(self) -> None:
        self._rules: Hashable = None
        self._found: dict[int, tuple[Package, WantedLayer | None]] = {}
        self._next: dict[int, tuple[Package, WantedLayer | None]] = {}

    def begin(self, rules: Hashable) -> None:
        """Begin a push. `rules`: everything but the package that a key depends on; others than before forget all."""
        self._found = self._next if rules == self._rules else {}
        self._rules, self._next = rules, {}

    def wanted(self, package: Package, compute: Callable[[], WantedLayer | None]) -> WantedLayer | None:
        """Return the layer of `package`; compute it unless the last push had the package."""
        known = self._found.get(id(package))
        wanted = known[1] if known and known[0] is package else compute()
        self._next[id(package)] = package, wanted
        return wanted
