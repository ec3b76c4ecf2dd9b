"""The errors of `lamella.builder`: what happened, to what, and what to do next, in one sentence."""

from __future__ import annotations

from lamella.layers.errors import LamellaError


class BuilderError(LamellaError):
    """The root of the errors of `lamella.builder`."""


class NotAnEnvironment(BuilderError):
    """A prefix that holds no Python environment, or none that can be captured."""


class EnvironmentChanged(BuilderError):
    """Files that changed while they were read; what would have been a mixed layer is thrown away."""


class CannotBuild(BuilderError):
    """A layer that can't be built: a file that can't be read, or a name that OCI can't hold."""


class CacheError(BuilderError):
    """A layer cache that can't be read or written: full, read-only, not ours."""
