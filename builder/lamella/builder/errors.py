"""Errors of `lamella.builder`: VALUE: problem; next command."""

from __future__ import annotations

from lamella.layers.errors import LamellaError


class BuilderError(LamellaError):
    """Root of the errors of `lamella.builder`."""


class NotAnEnvironment(BuilderError):
    """A prefix without a Python environment, or with one that Lamella does not support."""

    code = "no-environment"


class EnvironmentChanged(BuilderError):
    """Files changed while they were read; the inconsistent layer is discarded."""

    code = "changed"


class CannotBuild(BuilderError):
    """A layer that cannot be built: an unreadable file, or a name that an OCI layer cannot contain."""


class CannotResolve(BuilderError):
    """Packages that another platform lacks, or an index or channel that cannot be asked."""


class CacheError(BuilderError):
    """A layer cache that cannot be read or written: full, read-only, or another user's."""


class InvalidManifest(BuilderError):
    """Kubernetes YAML that cannot be read, or that an environment cannot be added to."""

    code = "invalid"
