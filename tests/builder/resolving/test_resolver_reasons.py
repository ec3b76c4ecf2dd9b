"""What resolvers write about packages without an answer becomes clauses that name the package and the platform."""

from __future__ import annotations

import pytest

from lamella.builder.resolving.model import Target
from lamella.builder.resolving.resolver_reasons import Reason, of_pip, of_uv
from lamella.layers.oci.documents import Platform

TARGET = Target(Platform("linux", "arm64"), "3.11.7")
HEAD = "× No solution found when resolving dependencies: ╰─▶ "
END = "we can conclude that lamella-target's requirements are unsatisfiable."


@pytest.mark.parametrize(
    ("text", "clauses", "names"),
    [
        (
            (
                "Because native==1.0 has no wheels with a matching platform tag (e.g., `manylinux_2_28_aarch64`) and lamella-target "
                f"depends on native==1.0, {END} hint: Wheels are available for `native` (v1.0) on the following platform: `win_amd64`"
            ),
            "native 1.0 has no wheel for linux/arm64",
            ("native",),
        ),
        (
            f"Because old==1.0 has no wheels with a matching Python ABI tag (e.g., `cp311`) and lamella-target depends on old==1.0, {END}",
            "old 1.0 has no wheel for linux/arm64 and Python 3.11",
            ("old",),
        ),
        (
            (
                "Because only source[all]==1.0 is available and source==1.0 has no usable wheels, we can conclude that all versions of "
                f"source cannot be used. And because app==2 depends on source and lamella-target depends on app==2, {END}"
            ),
            ("source 1.0 has no wheel for linux/arm64 and Python 3.11; app 2 requires source"),
            ("source",),
        ),
        (
            f"Because only known==1.0 is available and app==1.0 depends on known>2, {END}",
            "no index has a version of known that is required; app 1.0 requires known>2",
            ("known",),
        ),
        (
            f"Because there is no version of Odd.Name==9.9 and lamella-target depends on odd-name==9.9, {END}",
            "no index has Odd.Name 9.9",
            ("odd-name",),
        ),
        (
            (
                f"Because missing>=5.0 was not found in the package registry and app==1.0 depends on missing>=5.0, we can conclude that "
                f"app==1.0 cannot be used. And because lamella-target depends on app==1.0, {END}"
            ),
            "missing>=5.0 is not on the configured indexes; app 1.0 requires missing>=5.0",
            ("missing",),
        ),
        (
            (
                "Because the requested Python version (>=3.11.7) does not satisfy Python>=3.12 and new==1.0 depends on Python>=3.12, we can "
                f"conclude that new==1.0 cannot be used. And because lamella-target depends on new==1.0, {END}"
            ),
            "new 1.0 requires Python >=3.12, not 3.11.7",
            ("new",),
        ),
        (
            f"Because taken==1.0 was yanked (reason: broken) and app==1.0 depends on taken==1.0, {END}",
            "taken 1.0 was yanked; app 1.0 requires taken==1.0",
            ("taken",),
        ),
        (
            (
                "Because app==1.0 depends on lib<2 and lamella-target depends on app==1.0, we can conclude that lamella-target depends on "
                f"lib<2. And because lamella-target depends on lib==2.0, {END}"
            ),
            "app 1.0 requires lib<2",
            (),
        ),
        ("error: something else", "", ()),
    ],
)
def test_each_refusal_of_uv_names_packages_and_not_the_project_that_it_was_given(
    text: str, clauses: str, names: tuple[str, ...]
) -> None:
    assert of_uv(HEAD + text, TARGET) == Reason(clauses, names)


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        (
            (
                "ERROR: Could not find a version that satisfies the requirement native==1.0 (from versions: none) "
                "ERROR: No matching distribution found for native==1.0"
            ),
            "native 1.0 has no wheel for linux/arm64 and Python 3.11",
        ),
        (
            (
                "ERROR: Ignored the following versions that require a different python version: 1.0 Requires-Python >=3.12 ERROR: Could "
                "not find a version that satisfies the requirement native==1.0 (from versions: none) ERROR: No matching distribution "
                "found for native==1.0"
            ),
            "native 1.0 requires Python >=3.12, not 3.11.7",
        ),
    ],
)
def test_each_refusal_of_pip_names_the_package(text: str, clauses: str) -> None:
    assert of_pip(text, TARGET) == Reason(clauses, ("native",))
