"""Errors of `lamella.comparison`: VALUE: problem; next command."""

from __future__ import annotations

from lamella.layers import LamellaError


class ComparisonError(LamellaError):
    """Root of the errors of `lamella.comparison`: a comparison that cannot be run, read or drawn."""


class StepFailed(ComparisonError):
    """A step that a program did not end: the run is recorded as failed, and the others go on."""
