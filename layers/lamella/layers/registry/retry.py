"""Patience with a poor network: what may do better when it is tried again, how often, and after how long."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from lamella.layers.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_WAIT = 120.0
"""Seconds of Retry-After that are obeyed; a registry that wants more time is one that could not be asked."""

SLOWEST = 1 << 10
"""Bytes a second; what drips slower than this is a connection that may as well be broken."""

_REFUSED_TRIES = 3
"""A wrong name or a registry that is down is told soon; one that restarts is given a moment."""

_Result = TypeVar("_Result")


class Interrupted(Unreachable):
    """A request that failed in a way that another try may mend; `wait` is what the server asked for, in seconds."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Refused(Interrupted):
    """Nobody listens there, or the name is not known."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often something is tried; the n-th wait is `first * 2**(n-1)` seconds, give or take half, at most `longest`."""

    tries: int = 7
    first: float = 0.2
    longest: float = 10.0
    window: float = 60.0
    """Seconds of waiting for a body in which at least `SLOWEST` times as many bytes must come, and for a whole head."""

    def wait(self, failures: int, failure: Interrupted) -> None:
        """Waits after the given number of failures in a row; raises the last of them when it is one too many."""
        tries = min(self.tries, _REFUSED_TRIES) if isinstance(failure, Refused) else self.tries
        if failures >= tries or failure.wait > LONGEST_WAIT:
            raise failure
        # Jitter: 300 uploads that were turned away together must not come back together.
        backoff = min(self.longest, self.first * 2 ** (failures - 1)) * random.uniform(0.5, 1.5)
        time.sleep(max(failure.wait, backoff))


def patiently(patience: Patience, action: Callable[[], _Result]) -> _Result:
    """The result of `action`, tried again while it raises `Interrupted` and there is patience left."""
    failures = 0
    while True:
        try:
            return action()
        except Interrupted as failure:
            failures += 1
            patience.wait(failures, failure)


def retry_after(header: str) -> float:
    """The seconds that a Retry-After header asks for, as a number or as a date (RFC 9110, 10.2.3); 0 for nonsense."""
    if header.strip().isdecimal():
        return float(header)
    if not header:
        return 0.0
    from email.utils import mktime_tz, parsedate_tz

    try:
        date = parsedate_tz(header)
        return max(0.0, mktime_tz(date) - time.time()) if date else 0.0
    except (ValueError, OverflowError):
        # A date that no calendar has, such as a day 99 or a year 99999999.
        return 0.0
