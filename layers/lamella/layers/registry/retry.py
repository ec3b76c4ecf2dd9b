"""Retries on a poor network: which failures, how often, and after how long."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from lamella.layers.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_WAIT = 120.0
"""Seconds of Retry-After that are obeyed; a longer one ends the retries."""

SLOWEST = 1 << 10
"""Bytes a second; a slower connection counts as broken."""

_REFUSED_TRIES = 3
"""Attempts at a wrong name or a registry that is down: few, and enough for one that restarts."""

_Result = TypeVar("_Result")


class Interrupted(Unreachable):
    """A failed request that may succeed later; `wait`: the seconds that the server asked for."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Refused(Interrupted):
    """A connection that was refused, or a name that does not resolve."""


@dataclass(frozen=True, slots=True)
class Patience:
    """The number of attempts, and the waits between them.

    The n-th wait is `first * 2**(n-1)` seconds, give or take half, at most `longest`.
    """

    tries: int = 7
    first: float = 0.2
    longest: float = 10.0
    window: float = 60.0
    """Seconds for a response's head, and for `SLOWEST` times as many bytes of its body."""

    def wait(self, failures: int, failure: Interrupted) -> None:
        """Wait after this number of failures in a row; raise the last one if no attempt is left."""
        tries = min(self.tries, _REFUSED_TRIES) if isinstance(failure, Refused) else self.tries
        if failures >= tries or failure.wait > LONGEST_WAIT:
            raise failure
        # Jitter: 300 uploads that were turned away together must not come back together.
        backoff = min(self.longest, self.first * 2 ** (failures - 1)) * random.uniform(0.5, 1.5)
        time.sleep(max(failure.wait, backoff))


def patiently(patience: Patience, action: Callable[[], _Result]) -> _Result:
    """Return the result of `action`; retry while it raises `Interrupted` and attempts are left."""
    failures = 0
    while True:
        try:
            return action()
        except Interrupted as failure:
            failures += 1
            patience.wait(failures, failure)


def retry_after(header: str) -> float:
    """Return the seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3); else 0."""
    if header.strip().isdecimal():
        return float(header)
    if not header:
        return 0.0
    from email.utils import mktime_tz, parsedate_tz

    try:
        date = parsedate_tz(header)
        return max(0.0, mktime_tz(date) - time.time()) if date else 0.0
    except (ValueError, OverflowError):
        # A date that does not exist, such as a day 99 or a year 99999999.
        return 0.0
