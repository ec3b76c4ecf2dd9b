"""A whole environment moved in place, also past crashes."""

from __future__ import annotations

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import pytest

from lamella.layers.relocation.move import PREFIX_FILE, move
from lamella.layers.relocation.prefixes import CannotRelocate
from support.people import NOBODY, as_user, folder_of
from support.processes import exit_code
from support.relocatable import relocatable
from support.trees import content, write

if TYPE_CHECKING:
    from pathlib import Path


def test_moving_keeps_modes_and_notes_the_new_prefix(tmp_path: Path) -> None:
    relocatable(tmp_path, "/opt/env", {"bin/tool*": "#!/bin/sh\necho /opt/env\n", "etc/x": "/opt/env"})

    assert move(str(tmp_path), "/moved") == 3

    assert os.stat(tmp_path / "bin/tool").st_mode & 0o777 == 0o755
    assert content(tmp_path)["etc/x"] == "/moved"
    assert move(str(tmp_path), "/moved") == 0
    assert move(str(tmp_path), "/again") == 3
    assert content(tmp_path)["etc/x"] == "/again"


def test_moving_breaks_hardlinks_and_writes_into_none(tmp_path: Path) -> None:
    relocatable(tmp_path / "env", "/opt/env", {"x": "/opt/env"})
    os.link(tmp_path / "env/x", tmp_path / "store")

    move(str(tmp_path / "env"), "/moved")

    assert (tmp_path / "store").read_text() == "/opt/env"


def test_a_move_that_crashed_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"f{number}": "/opt/env" for number in range(5)}
    relocatable(tmp_path, "/opt/env", files)
    calls = 0
    real = os.replace

    def crash(source: str, target: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        move(str(tmp_path), "/opt/env/opt/env")
    monkeypatch.setattr(os, "replace", real)
    move(str(tmp_path), "/opt/env/opt/env")

    found = content(tmp_path)
    assert {found[name] for name in files} == {"/opt/env/opt/env"}
    assert not any(name.startswith(".lamella/moving") for name in found)


def test_a_move_that_fails_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"a": "/opt/env", "b": "/opt/env\0"})
    listed = {"prefix": "/opt/env", "files": [{"path": "a", "kind": "text"}, {"path": "b", "kind": "binary"}]}
    write(tmp_path, {".lamella/relocate/pypi-x.json": json.dumps(listed)})

    with pytest.raises(CannotRelocate, match="b holds the prefix in 8 bytes, and needs 14: choose a shorter path"):
        move(str(tmp_path), "/opt/elsewhere")

    assert content(tmp_path)["a"] == "/opt/env"


def crash_in_the_middle(folder: Path, prefix: str) -> None:
    """Moves, in a process of its own that ends when some of the files are in their places."""
    real = os.replace

    def replace(source: str, target: str) -> None:
        if source.endswith("/2"):
            os._exit(9)
        real(source, target)

    def move_and_die() -> None:
        os.replace = replace  # type: ignore[assignment] # in this process alone
        move(str(folder), prefix)

    assert exit_code(move_and_die) == 9


@pytest.mark.parametrize("prefix", ["/first", "/second", "/opt/env"])
def test_a_move_after_a_crash_ends_at_its_own_prefix(tmp_path: Path, prefix: str) -> None:
    files = {f"f{number}": "/opt/env" for number in range(5)}
    relocatable(tmp_path, "/opt/env", files)
    crash_in_the_middle(tmp_path, "/first")
    assert {content(tmp_path)[name] for name in files} == {"/opt/env", "/first"}

    move(str(tmp_path), prefix)

    assert {content(tmp_path)[name] for name in files} == {prefix}
    assert move(str(tmp_path), prefix) == 0


def test_files_removed_since_a_crash_stay_away(tmp_path: Path) -> None:
    relocatable(tmp_path, "/opt/env", {f"f{number}": "/opt/env" for number in range(5)})
    crash_in_the_middle(tmp_path, "/first")
    (tmp_path / "f4").unlink()

    move(str(tmp_path), "/second")

    assert content(tmp_path).keys() & {"f3", "f4"} == {"f3"}


def test_the_prefix_file_is_replaced_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relocatable(tmp_path, "/opt/env", {PREFIX_FILE: "/opt/env", "a": "/opt/env", "z": "/opt/env"})
    order: list[str] = []
    real = os.replace

    def watched(source: str, target: str) -> None:
        order.append(os.path.relpath(target, tmp_path))
        real(source, target)

    monkeypatch.setattr(os, "replace", watched)
    move(str(tmp_path), "/moved")

    assert order[-1] == PREFIX_FILE
    assert len(order) == 4


@pytest.mark.slow
def test_concurrent_moves_to_one_prefix_move_once(tmp_path: Path) -> None:
    files = {f"f{number}": "/opt/env" for number in range(50)}
    relocatable(tmp_path, "/opt/env", files)

    with ProcessPoolExecutor(8, mp_context=multiprocessing.get_context("spawn")) as pool:
        changed = list(pool.map(move, [str(tmp_path)] * 16, ["/moved"] * 16))

    assert sorted(changed) == [0] * 15 + [51]
    assert {content(tmp_path)[name] for name in files} == {"/moved"}


@pytest.mark.root
def test_an_environment_of_another_user_is_left_to_its_owner(tmp_path: Path) -> None:
    with folder_of(0) as folder:
        relocatable(folder / "env", "/opt/env", {"x": "/opt/env", PREFIX_FILE: "/opt/env\n"})

        with pytest.raises(CannotRelocate, match=r"Permission denied\), and is made for /opt/env: let its owner run"):
            as_user(NOBODY, lambda: move(str(folder / "env"), "/moved"))

        assert as_user(NOBODY, lambda: move(str(folder / "env"), "/opt/env")) == 0
