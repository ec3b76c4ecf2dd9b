"""The place that a watch pushes to, kept open from push to push."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.builder.pushing.earlier import Earlier
from lamella.builder.pushing.push import destination_of, push_to
from lamella.layers.progress.display import Silent

if TYPE_CHECKING:
    from lamella.builder.environment import Environment
    from lamella.builder.layer.cache import LayerCache
    from lamella.builder.pushing.options import PushOptions
    from lamella.builder.pushing.push import Pushed
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.storage import Storage
    from lamella.layers.settings.trust import Trust


class Destination:
    """The registry or folder to push to: its connections, token and answers serve every push until one fails."""

    def __init__(self, target: Reference, trust: Trust, cache: LayerCache) -> None:
        self.target, self.cache = target, cache
        self._trust = trust
        self._storage: Storage | None = None
        self._earlier = Earlier()

    def push(self, environment: Environment, options: PushOptions) -> Pushed:
        """Push to it. Raises what `push` raises; the next push then opens it again."""
        try:
            self._storage = self._storage or destination_of(self.target, self._trust, self.cache)
            return push_to(
                self._storage,
                self.target,
                environment,
                options,
                trust=self._trust,
                cache=self.cache,
                progress=Silent(),
                earlier=self._earlier,
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections. Idempotent."""
        if self._storage:
            self._storage.close()
        self._storage = None
        self._earlier = Earlier()
