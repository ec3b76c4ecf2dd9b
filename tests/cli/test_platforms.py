"""Lines about what a push for another platform takes."""

from __future__ import annotations

import pytest

from lamella.builder import Artifact, InstalledPackages, Resolution, ResolveOptions, Target, TargetPlan
from lamella.builder.indexes.model import Indexes
from lamella.cli.platforms import summary
from lamella.layers import Platform


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((), "0 packages, 0 B to download"),
        ((2_000_000, 1_000_000), "2 packages, 3.0 MB to download"),
        ((2_000_000, 0), "2 packages, at least 2.0 MB to download"),
        ((0, 0), "2 packages, an unknown size to download"),
    ],
)
def test_a_size_that_an_index_does_not_state_is_not_nothing(sizes: tuple[int, ...], said: str) -> None:
    artifacts = tuple(
        Artifact("wheel", f"p{number}", "1.0", f"https://files.example/{number}.whl", "", size, "")
        for number, size in enumerate(sizes)
    )
    resolution = Resolution(Target(Platform("linux", "arm64"), "3.11.7"), artifacts)
    installed = InstalledPackages("/env", "3.11.7", "linux", "amd64", ())
    plan = TargetPlan(installed, resolution, ResolveOptions(), Indexes())
    assert summary(plan) == f"linux/arm64: {said} unless cached; the same versions"
