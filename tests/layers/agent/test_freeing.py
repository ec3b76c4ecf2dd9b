"""How much of a store is to be freed."""

from __future__ import annotations

import pytest

from lamella.layers.agent.freeing import Space, limit


@pytest.mark.parametrize(
    ("used", "free", "keep", "share", "wanted"),
    [
        (50, 40, None, 0.0, None),
        (50, 40, 60, 0.1, None),
        (50, 40, 30, 0.0, 30),
        (50, 5, None, 0.1, 45),
        (50, 5, 48, 0.1, 45),
        (50, 5, 20, 0.1, 20),
        (3, 5, None, 0.5, 0),
    ],
)
def test_the_stricter_of_both_limits_counts(
    used: int, free: int, keep: int | None, share: float, wanted: int | None
) -> None:
    assert limit(Space(1, used, free, 100), keep, share) == wanted
