from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import LayersError, Unsupported
from lamella.layers.mounting.mount import mount
from lamella.layers.oci.documents import Platform
from lamella.layers.published.preflight import glibc, missing_drivers, missing_glibc, missing_level, notes
from lamella.layers.pulling.pull import pull
from lamella.layers.running.run import exec_command, run
from lamella.layers.store.store import Store
from support.published import publish

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
        ("2.36.0", "2.36", True),
        ("2.36.1", "2.36", False),
        ("2.36", "2.36.9000", True),
        ("9" * 5000, "2.36", True),
    ],
)
def test_glibc_versions_are_compared_as_numbers(needed: str, here: str, enough: bool) -> None:
    assert (missing_glibc(needed, here) == "") is enough


def test_this_machines_glibc_is_what_its_loader_says() -> None:
    assert glibc() == "" or glibc().startswith("2.")


V2 = {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}


def test_a_cpu_is_enough_when_it_has_what_each_level_adds() -> None:
    assert missing_level(1, set()) == ""
    assert missing_level(2, V2) == ""
    assert "x86-64-v3 and this one lacks avx, avx2" in missing_level(3, V2)
    assert "lacks popcnt:" in missing_level(3, (V2 - {"popcnt"}) | {"avx", "avx2"})


def test_a_driver_is_there_when_the_loader_knows_it_or_a_folder_has_it(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"glibc-ld.so.cache1.1\0libcuda.so.1\0/usr/lib/libcuda.so.1\0")
    (tmp_path / "libhip.so.6").touch()
    cache = str(tmp_path / "cache")

    assert missing_drivers(["libcuda.so.1", "libhip.so.6"], f":{tmp_path}", cache) == []
    assert missing_drivers(["libcuda.so", "libhip.so.6"], "", cache) == ["libcuda.so", "libhip.so.6"]
    assert missing_drivers(["libcuda.so.1"], "", str(tmp_path / "absent")) == ["libcuda.so.1"]


def test_missing_driver_is_reported_and_not_an_obstacle(tmp_path: Path) -> None:
    reference = publish(tmp_path / "layout", LAYERS, drivers="libnone.so.1")
    store = Store(str(tmp_path / "store"))

    assert run(reference, ["true"], store=store) == 0

    (note,) = notes(pull(reference, store=store).environment)
    assert "libnone.so.1: not found" in note


@pytest.mark.parametrize("verb", [exec_command, mount])
def test_missing_driver_is_reported_before_any_download(tmp_path: Path, verb: object) -> None:
    reference = publish(tmp_path / "layout", LAYERS, drivers="libnone.so.1")
    store = Store(str(tmp_path / "store"))
    heard = []

    def notify(sentence: str) -> None:
        heard.append((sentence, list(store.layers())))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verb(reference, str(tmp_path / "target"), store=store, notify=notify)  # type: ignore[operator]

    [(sentence, layers)] = heard
    assert "libnone.so.1: not found" in sentence
    assert layers == []


@pytest.mark.parametrize("verb", [exec_command, mount])
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

    with pytest.raises(LayersError, match="one of plan9/mips"):
        exec_command(reference, ["true"], store=Store(str(tmp_path / "store")))


@pytest.mark.parametrize("verb", [exec_command, mount])
def test_verbs_for_linux_fail_elsewhere_before_any_request(
    tmp_path: Path, verb: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")

    with pytest.raises(Unsupported, match="mounting an environment needs Linux"):
        verb("oci:/not/there:v1", str(tmp_path / "target"))  # type: ignore[operator]
