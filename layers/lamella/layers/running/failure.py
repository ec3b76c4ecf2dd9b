"""Errors of a forked process for its parent: the class, the message and the exit code, as JSON has them."""

from __future__ import annotations

from typing import Any

from lamella.layers import errors
from lamella.layers.errors import CannotRun, LayersError

Failure = tuple[str, str, int]


def failure_of(error: LayersError) -> Failure:
    """Return an error as values."""
    return type(error).__name__, str(error), getattr(error, "exit_code", 1)


def error_of(failure: Any) -> LayersError:
    """Return the error of `failure_of`, which JSON has made a list."""
    name, message, exit_code = failure
    if name == CannotRun.__name__:
        return CannotRun(message, exit_code)
    found: LayersError = getattr(errors, name, LayersError)(message)
    return found
