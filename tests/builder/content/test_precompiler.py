from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from lamella.builder.content import precompiler as precompiling
from lamella.builder.content.bytecode import Compiler, modules
from lamella.builder.content.package import entries
from lamella.builder.content.precompiler import Precompiler
from support.packages import SITE, environment, interpreter, package
from support.processes import DEADLINE, forked

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.content.bytecode import Module

PREFIX = "/opt/env"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there the compiler cannot fork")


@pytest.fixture(autouse=True)
def _processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)


def modules_of(prefix: Path, contents: dict[str, str]) -> list[Module]:
    one = package(prefix, "thing", {f"{SITE}/{name}": content for name, content in contents.items()})
    ships = entries(environment(prefix, one), one, PREFIX)
    return modules(ships, interpreter(), PREFIX, installed=True)


def sources(wanted: list[Module]) -> list[tuple[str, str]]:
    below = len(PREFIX)
    return [(module.source.path[below:], module.source.content.source) for module in wanted]  # type: ignore[union-attr]


def started(wanted: list[Module], cache: Path) -> Precompiler:
    precompiler = Precompiler(str(cache))
    precompiler.start(interpreter(), PREFIX, sources(wanted))
    return precompiler


def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `stop` wait until every module is compiled."""
    monkeypatch.setattr(precompiling, "_kill", lambda process: process.wait(DEADLINE))


def compiled(wanted: list[Module]) -> list[bytes | None]:
    with closing(Compiler(interpreter())) as compiler:
        return list(compiler.compile(wanted))


def test_its_answers_are_the_compilers_and_spare_a_build_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {f"pkg{number % 7}/m{number}.py": f"a = {number}, 'text'\n" for number in range(200)}
    wanted = modules_of(tmp_path, contents | {"broken.py": "a = (\n", "empty.py": ""})
    expected = compiled(wanted)
    waits(monkeypatch)
    with closing(started(wanted, tmp_path / "cache")) as precompiler:
        known = precompiler.stop(interpreter(), PREFIX)
        nothing = replace(interpreter(), compiler="/no/such/python")
        with closing(Compiler(nothing, known)) as compiler:
            assert list(compiler.compile(wanted)) == expected
    assert None in expected


def test_a_source_that_changed_or_ships_rewritten_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits(monkeypatch)
    before = modules_of(tmp_path, {"a.py": "a = 1\n", "b.py": "b = 1\n", "c.py": "c = 1\n"})
    with closing(started(before, tmp_path / "cache")) as precompiler:
        known = precompiler.stop(interpreter(), PREFIX)
        assert known
        after = modules_of(tmp_path, {"a.py": "a = 1\n", "b.py": "b = 2\n", "c.py": "c = 1\n"})
        edited = [replace(module, installed="") for module in after]
        assert [known.has(module) for module in after] == [True, False, True]
        # Code that people edit is not known by its times: its byte code on disk may be of another text.
        assert not any(map(known.has, edited))
        with closing(Compiler(interpreter(), known)) as compiler:
            assert list(compiler.compile(after)) == compiled(after)


def test_answers_for_another_interpreter_or_prefix_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits(monkeypatch)
    with closing(started(modules_of(tmp_path, {"a.py": "a = 1\n"}), tmp_path / "cache")) as precompiler:
        assert precompiler.stop(interpreter(), "/srv/env") is None
        assert precompiler.stop(replace(interpreter(), magic="00000000"), PREFIX) is None
        assert precompiler.stop(interpreter(), PREFIX) is precompiler


def test_a_second_start_forgets_the_answers_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits(monkeypatch)
    wanted = modules_of(tmp_path, {"a.py": "a = 1\n"})
    with closing(started(wanted, tmp_path / "cache")) as precompiler:
        # The byte code names the file by the other prefix.
        precompiler.start(interpreter(), "/srv/env", sources(wanted))
        precompiler.start(interpreter(), PREFIX, [])
        assert precompiler.stop(interpreter(), PREFIX) is None


@pytest.mark.parametrize("kept", [0, 1, 20, 37, 60, 300, 600])
def test_answers_that_were_cut_short_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    wanted = modules_of(tmp_path, {f"m{number}.py": f"a = {number}\n" for number in range(9)})
    expected = compiled(wanted)

    def cut(process: subprocess.Popen[bytes]) -> None:
        process.wait(DEADLINE)
        for each in os.scandir("/proc/self/fd"):
            if each.is_symlink() and str(tmp_path / "cache") in os.readlink(each.path):
                os.truncate(int(each.name), kept)

    monkeypatch.setattr(precompiling, "_kill", cut)
    with closing(started(wanted, tmp_path / "cache")) as precompiler:
        known = precompiler.stop(interpreter(), PREFIX)
        answers = sum(map(known.has, wanted)) if known else 0
        assert answers < len(wanted)
        assert (answers > 0) == (kept >= 300)
        with closing(Compiler(interpreter(), known)) as compiler:
            assert list(compiler.compile(wanted)) == expected


@pytest.mark.parametrize("written", [b"", b"C", b"C%s"], ids=["before", "in the header", "before the byte code"])
def test_a_compiler_that_dies_in_an_answer_leaves_the_rest_to_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bytes
) -> None:
    fatal = tmp_path / "fatal"
    begun = "b'C' + hashlib.sha256(source).digest() + bytes((0, 0, 0, 9))" if b"%" in written else repr(written)
    fatal.write_text(
        "#!/bin/sh\n"
        f'exec {sys.executable} -c "import os, sys, builtins, hashlib\n'
        "there = builtins.compile\n"
        "def fails(source, *others):\n"
        f"    if b'fatal' in source: os.write(1, {begun}); os._exit(9)\n"
        "    return there(source, *others)\n"
        "builtins.compile = fails\n"
        'sys.argv = sys.argv[4:]; exec(there(open(sys.argv[0]).read(), sys.argv[0], \'exec\'))" "$@"\n'
    )
    fatal.chmod(0o755)
    monkeypatch.setattr(precompiling, "block_size", lambda _: 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    contents = {f"m{number}.py": f"a = {number}\n" for number in range(9)} | {"m4.py": "fatal = 1\n"}
    wanted = modules_of(tmp_path, contents)
    expected = compiled(wanted)
    waits(monkeypatch)
    with closing(Precompiler(str(tmp_path / "cache"))) as precompiler:
        by = replace(interpreter(), compiler=str(fatal))
        precompiler.start(by, PREFIX, sources(wanted))
        known = precompiler.stop(by, PREFIX)
        assert known
        assert [known.has(module) for module in wanted] == [True] * 4 + [False] * 5
        with closing(Compiler(interpreter(), known)) as compiler:
            assert list(compiler.compile(wanted)) == expected


def test_a_cache_folder_is_asked_for_only_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precompiling, "cache_folder", None)
    with closing(Precompiler()) as precompiler:
        assert precompiler.stop(interpreter(), PREFIX) is None


def test_without_a_thread_nothing_is_compiled_and_no_process_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with closing(started(modules_of(tmp_path, {"a.py": "a = 1\n"}), tmp_path / "cache")) as precompiler:
        processes = [each.process for each in precompiler._processes]
        assert precompiler.stop(interpreter(), PREFIX) is None
    assert [process.returncode for process in processes] == [-signal.SIGKILL]


def test_a_process_that_has_ended_is_reaped_where_its_group_refuses_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS."""

    def refused(_group: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refused)
    precompiler = started(modules_of(tmp_path, {"a.py": "a = 1\n"}), tmp_path / "cache")
    processes = [each.process for each in precompiler._processes]
    precompiler.close()
    assert processes
    assert None not in [process.returncode for process in processes]


def test_without_a_processor_to_spare_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(subprocess, "Popen", None)
    with closing(started(modules_of(tmp_path, {"a.py": "a = 1\n"}), tmp_path / "cache")) as precompiler:
        assert precompiler.stop(interpreter(), PREFIX) is None


def test_without_room_for_answers_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setattr(subprocess, "Popen", None)
    with closing(started(modules_of(tmp_path, {"a.py": "a = 1\n"}), tmp_path / "cache")) as precompiler:
        assert precompiler.stop(interpreter(), PREFIX) is None


def test_on_a_disk_that_is_nearly_full_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    monkeypatch.setattr(subprocess, "Popen", None)
    with closing(started(modules_of(tmp_path, {"a.py": "", "b.py": ""}), tmp_path / "cache")) as precompiler:
        assert precompiler.stop(interpreter(), PREFIX) is None


def many(tmp_path: Path, functions: int) -> list[Module]:
    """Modules that take minutes to compile, each with a number of functions."""
    text = "".join(f"def f{number}(a, b={number}): return [a, b, {{'x': a}}]\n" for number in range(functions))
    (module,) = modules_of(tmp_path, {"m.py": text})
    return [module] * (3_000_000 // functions)


def test_closing_ends_the_processes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precompiling, "_ROOM", 0)

    def group(number: int) -> list[str]:
        listed = subprocess.run(["ps", "-o", "stat=", "-g", str(number)], capture_output=True, text=True, check=False)
        return [state for state in listed.stdout.split() if not state.startswith("Z")]

    precompiler = started(many(tmp_path, 3_000), tmp_path / "cache")
    pids = [each.process.pid for each in precompiler._processes]
    assert pids
    precompiler.close()
    precompiler.close()
    deadline = time.monotonic() + DEADLINE
    while any(map(group, pids)):  # they are dying
        assert time.monotonic() < deadline
    assert precompiler.stop(interpreter(), PREFIX) is None


@pytest.mark.slow
def test_the_processes_end_soon_after_a_parent_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precompiling, "_ROOM", 0)
    wanted = many(tmp_path, 100)
    read, write = os.pipe()

    def parent() -> None:
        precompiler = started(wanted, tmp_path / "cache")
        os.write(write, " ".join(str(each.process.pid) for each in precompiler._processes).encode())
        signal.pause()

    with forked(parent) as child, contextlib.ExitStack() as stack:
        processes = [os.pidfd_open(int(number)) for number in os.read(read, 100).split()]
        for each in (read, write, *processes):
            stack.callback(os.close, each)
        os.kill(child, signal.SIGKILL)
        assert [select.select([each], [], [], DEADLINE)[0] for each in processes] == [[each] for each in processes]
