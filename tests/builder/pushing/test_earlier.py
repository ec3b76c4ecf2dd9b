"""A push of a watch goes on from the last one, and decides what a push without it would."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from lamella.builder.environment import File, Package
from lamella.builder.errors import CannotBuild
from lamella.builder.layer.known_keys import KnownKeys
from lamella.builder.pushing.earlier import Earlier
from lamella.layers.oci.documents import Digest

if TYPE_CHECKING:
    from lamella.builder.layer.plan import WantedLayer


def of(name: str, *files: tuple[str, str]) -> Package:
    """A package of files, each as its path and the letter of its hash."""
    return Package("pypi", name, "1.0", tuple(File(path, f"/{path}", 0o644, 1, letter * 64) for path, letter in files))


def test_a_path_that_an_edit_adds_is_checked_for_collisions() -> None:
    earlier, other = Earlier(), of("other", ("lib/y", "a"))
    earlier.check_collisions([of("code", ("lib/x", "a")), other])
    earlier.check_collisions([of("code", ("lib/x", "b")), other])
    with pytest.raises(CannotBuild, match="lib/y"):
        earlier.check_collisions([of("code", ("lib/x", "b"), ("lib/y", "c")), other])


def test_files_that_were_equal_at_one_path_collide_after_an_edit_of_one() -> None:
    earlier, other = Earlier(), of("other", ("lib/x", "a"))
    earlier.check_collisions([of("code", ("lib/x", "a")), other])
    with pytest.raises(CannotBuild, match="lib/x"):
        earlier.check_collisions([of("code", ("lib/x", "b")), other])


def test_layers_are_known_under_the_index_of_the_last_push_alone() -> None:
    earlier = Earlier()
    first, second = (Digest("sha256", letter * 64) for letter in "ab")
    assert (earlier.is_pushed, earlier.layers_of(first)) == (False, None)
    earlier.pushed(first, {})
    assert (earlier.is_pushed, earlier.layers_of(first), earlier.layers_of(second)) == (True, {}, None)


def test_a_key_is_computed_again_for_an_edited_package_and_under_other_rules() -> None:
    known = KnownKeys()
    computed: list[str] = []
    code, other, edited = of("code"), of("other"), of("code")

    def compute(package: Package) -> WantedLayer | None:
        computed.append(package.name)
        return None

    def push(rules: str, *packages: Package) -> list[str]:
        computed.clear()
        known.begin(rules)
        for package in packages:
            known.wanted(package, partial(compute, package))
        return list(computed)

    assert push("zstd", code, other) == ["code", "other"]
    assert push("zstd", edited, other) == ["code"]
    assert push("zstd", edited, other) == []
    assert push("gzip", edited, other) == ["code", "other"]
