from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import LayersError, Unsupported
from lamella.layers.mount import mount
from lamella.layers.oci import Platform
from lamella.layers.preflight import glibc, missing_glibc
from lamella.layers.run import replace
from lamella.layers.store import Store
from support.environments import publish

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = [{"a": "1"}, {"b": "2"}]


@pytest.mark.parametrize(
    ("needed", "here", "enough"),
    [
        ("", "2.36", True),
        ("", "", True),
        ("2.36", "2.36", True),
        ("2.4", "2.36", True),
        ("2.9", "2.10", True),
        ("2.38", "2.36", False),
        ("2.17", "", False),
        ("3.0", "2.99", False),
    ],
)
def test_glibc_versions_are_compared_as_numbers(needed: str, here: str, enough: bool) -> None:
    assert (missing_glibc(needed, here) == "") is enough


def test_this_machines_glibc_is_what_its_loader_says() -> None:
    assert glibc() == "" or glibc().startswith("2.")


@pytest.mark.parametrize("verb", [replace, mount])
def test_an_environment_for_a_newer_system_is_refused_before_anything_is_downloaded(
    tmp_path: Path, verb: object
) -> None:
    reference = publish(tmp_path / "layout", LAYERS, glibc="9.99")
    store = Store(str(tmp_path / "store"))

    with pytest.raises(Unsupported, match=r"it needs glibc 9\.99 or newer and this machine has "):
        verb(reference, str(tmp_path / "target"), store=store)  # type: ignore[operator]

    assert list(store.layers()) == []
    assert not os.path.exists(tmp_path / "target")


def test_an_environment_for_another_platform_is_refused_with_those_there_are(tmp_path: Path) -> None:
    reference = publish(tmp_path / "layout", LAYERS, platform=Platform("plan9", "mips"))

    with pytest.raises(LayersError, match="it has plan9/mips"):
        replace(reference, ["true"], store=Store(str(tmp_path / "store")))


@pytest.mark.parametrize("verb", [replace, mount])
def test_what_needs_linux_says_so_before_anything_is_asked(
    tmp_path: Path, verb: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")

    with pytest.raises(Unsupported, match="mounting an environment needs Linux"):
        verb("oci:/not/there:v1", str(tmp_path / "target"))  # type: ignore[operator]
