from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamella.builder.content.entry import Entry
from lamella.builder.content.key import FORMAT, bundle_key, layer_key
from lamella.builder.environment import File, Package, RunPath
from lamella.builder.errors import EnvironmentChanged
from lamella.builder.layer import layer_set
from lamella.builder.layer.cache import LayerCache
from lamella.builder.layer.code_fingerprint import Remembered
from lamella.layers.oci.documents import Platform
from support.packages import SITE, environment, package

if TYPE_CHECKING:
    from lamella.builder.environment import Environment

ENTRIES = (
    Entry("opt/env/a", 0o644, 1, "ab" * 32, b"a"),
    Entry("opt/env/b", 0o777, 0, "", b"", "a"),
)


def key(entries: tuple[Entry, ...] = ENTRIES, **changes: str) -> str:
    values = {"image_prefix": "/opt/env", "magic": "a70d0d0a", "compression": "zstd:3"} | changes
    return layer_key(
        entries, image_prefix=values["image_prefix"], magic=values["magic"], compression=values["compression"]
    )


def test_the_key_is_golden() -> None:
    assert key() == "535cba699c90f72dcc040da5429825814262229161fcb94433c58d4a52eb64c6"
    assert bundle_key(["b" * 64, "a" * 64]) == "d1d4ee140dc2e96f71c5d9d971bf32a24f9c9566b4f02d234888b822d3012d9b"


@pytest.mark.parametrize(
    "changed",
    [
        key(ENTRIES[:1]),
        key((replace(ENTRIES[0], path="opt/env/c"), ENTRIES[1])),
        key((replace(ENTRIES[0], mode=0o755), ENTRIES[1])),
        key((replace(ENTRIES[0], digest="cd" * 32), ENTRIES[1])),
        key((ENTRIES[0], replace(ENTRIES[1], target="c"))),
        key(image_prefix="/opt/other"),
        key(magic=""),
        key(compression="gzip:6"),
    ],
)
def test_whatever_decides_the_bytes_is_in_the_key(changed: str) -> None:
    assert changed != key()


def test_the_reference_page_is_of_the_format_that_is_written() -> None:
    page = Path(__file__).parents[3] / "docs/reference/layer-format.md"
    assert page.read_text().splitlines()[0] == f"# Layer format, version {FORMAT}"


def test_a_bundles_key_follows_from_its_members_in_any_order() -> None:
    assert bundle_key(["a", "b"]) == bundle_key(["b", "a"]) != bundle_key(["a"])


def keys(env: Environment, cache: LayerCache | None = None) -> dict[str, str]:
    made = layer_set.layers(
        env, image_prefix="/opt/env", compression="zstd", image_layers=100, notes=Remembered(cache) if cache else None
    )
    return {one.package.name: one.wanted.key for one in made.packages}


def two(prefix: Path, text: str = "a = 1\n") -> tuple[Package, Package]:
    """A package with a module and one without."""
    info = f"{SITE}/code-1.0.dist-info"
    code = {
        f"{SITE}/code.py": text,
        f"{info}/RECORD": "",
        "bin/run*": f"#!{prefix}/bin/python\n",
        "share/x": str(prefix),
    }
    return package(prefix, "code", code, records=info), package(prefix, "data", {"share/data": "x"})


def test_where_and_on_what_an_environment_is_does_not_show(tmp_path: Path) -> None:
    here = environment(tmp_path / "a", *two(tmp_path / "a"), compiles=True)
    there = environment(tmp_path / "b/c", *two(tmp_path / "b/c"), compiles=True)
    there = replace(
        there,
        platform=Platform("linux", "arm64"),
        interpreter=replace(there.interpreter, version="3.99.1", executable="/x"),
    )
    assert keys(here) == keys(there)


def test_a_package_without_modules_is_one_layer_for_all_pythons(tmp_path: Path) -> None:
    env = environment(tmp_path, *two(tmp_path), compiles=True)
    other = replace(env, interpreter=replace(env.interpreter, magic="00000000"))
    assert keys(env)["data"] == keys(other)["data"]
    assert keys(env)["code"] != keys(other)["code"]


@pytest.mark.slow
def test_a_remembered_key_is_the_key(tmp_path: Path) -> None:
    cache = LayerCache(str(tmp_path / "cache"))
    env = environment(tmp_path / "a", *two(tmp_path / "a"), compiles=True)
    assert keys(env) == keys(env, cache) == keys(env, cache)
    changed = environment(tmp_path / "b", *two(tmp_path / "b", "a = 2\n"), compiles=True)
    assert keys(changed) == keys(changed, cache) != keys(env, cache)
    moved = replace(env, interpreter=replace(env.interpreter, magic="00000000"))
    assert keys(moved) == keys(moved, cache) != keys(env, cache)
    fewer = replace(env, prefixes=())
    assert keys(fewer) == keys(fewer, cache) != keys(env, cache)


@pytest.mark.slow
def test_a_remembered_key_is_not_that_of_another_run_path(tmp_path: Path) -> None:
    cache = LayerCache(str(tmp_path / "cache"))
    program = Path(shutil.copy("/bin/true", tmp_path))
    digest = hashlib.sha256(program.read_bytes()).hexdigest()

    def shipped(folders: str) -> Environment:
        size, run_path = program.stat().st_size, RunPath("RUNPATH", folders)
        file = File("lib/program", str(program), 0o755, size, digest, run_path=run_path)
        return environment(tmp_path, Package("pypi", "one", "1", (file,)))

    one, other = shipped("$ORIGIN"), shipped("$ORIGIN/../other")
    assert keys(one) == keys(one, cache) == keys(one, cache)
    assert keys(other) == keys(other, cache) != keys(one, cache)


def test_a_package_of_which_nothing_ships_has_no_layer(tmp_path: Path) -> None:
    cache = LayerCache(str(tmp_path / "cache"))
    env = environment(tmp_path, package(tmp_path, "meta", {}))
    assert keys(env, cache) == keys(env, cache) == {}


def test_a_file_that_is_rewritten_and_changed_after_the_scan_gives_no_key(tmp_path: Path) -> None:
    env = environment(tmp_path, *two(tmp_path), compiles=True)
    (tmp_path / "share/x").write_text(f"{tmp_path} and more")
    with pytest.raises(EnvironmentChanged, match="share/x: changed"):
        keys(env)
