"""Retries: which failures, how often, and when they end."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from lamella.layers.errors import NotFound, Unreachable
from lamella.layers.registry.retry import LONGEST_WAIT, Interrupted, Patience, Refused, patiently, retry_after

SOON = Patience(tries=5, first=0.0001)


class Failing:
    """Raises the given failures one by one, then returns 5."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return 5


def test_an_interrupted_action_is_retried() -> None:
    action = Failing(*[Interrupted("broken")] * 4)
    assert patiently(SOON, action) == 5
    assert action.calls == 5


def test_the_last_failure_is_raised_in_the_end() -> None:
    action = Failing(*[Interrupted("broken")] * 4, Interrupted("the last"))
    with pytest.raises(Unreachable, match="the last"):
        patiently(SOON, action)


def test_a_permanent_failure_is_raised_at_once() -> None:
    action = Failing(NotFound("absent"))
    with pytest.raises(NotFound):
        patiently(SOON, action)
    assert action.calls == 1


def test_a_registry_that_is_down_is_retried_less() -> None:
    action = Failing(*[Refused("refused")] * 9)
    with pytest.raises(Refused):
        patiently(SOON, action)
    assert action.calls == 3


def test_a_wait_that_is_too_long_ends_the_retries() -> None:
    action = Failing(Interrupted("busy", LONGEST_WAIT + 1))
    with pytest.raises(Interrupted):
        patiently(SOON, action)


@pytest.mark.parametrize(("header", "seconds"), [("", 0), ("30", 30), (" 30 ", 30), ("soon", 0), ("-5", 0), ("²", 0)])
def test_retry_after_is_read_as_seconds(header: str, seconds: float) -> None:
    assert retry_after(header) == seconds


def test_retry_after_is_read_as_a_date() -> None:
    assert 50 < retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert retry_after(formatdate(time.time() - 60, usegmt=True)) == 0
