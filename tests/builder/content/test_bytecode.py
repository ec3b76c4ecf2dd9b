from __future__ import annotations

import importlib.util
import marshal
import os
import py_compile
import random
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lamella.builder.content.bytecode import BLOCK, Compiler, modules
from lamella.builder.content.package import entries
from lamella.builder.errors import CannotBuild, EnvironmentChanged
from lamella.builder.layer.layer_set import shipped
from support.packages import SITE, environment, interpreter, package

if TYPE_CHECKING:
    from types import CodeType

    from lamella.builder.content.bytecode import Module
    from lamella.builder.environment import Interpreter, Origin

SOURCE = """
import os
names = {"alpha", "beta", "gamma", "path", "source"}
def f(path=names, *, size={"a", "b"} | {1}):
    return path in frozenset(("alpha", "beta", "gamma")), "interned_%d", os.path
class C:
    alpha = beta = "a constant with spaces"
"""


def others() -> list[str]:
    """Other interpreters of this machine, on PATH or as pyenv keeps them, besides the one that runs the tests."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = [
        *pyenv.glob("3.1?.*/bin/python3"),
        *(Path(shutil.which(f"python3.{minor}") or "") for minor in range(10, 15)),
    ]
    ours = Path(sys.executable).resolve()
    runnable = {path.resolve() for path in found if path.is_file() and "shims" not in path.parts}
    return sorted(map(str, runnable - {ours}))


def sources(
    prefix: Path, contents: list[str], name: str = "thing", *, installed: bool = False, by: Interpreter | None = None
) -> list[Module]:
    files = {f"{SITE}/{name}/m{number:03}.py": content for number, content in enumerate(contents)}
    one = package(prefix, name, files)
    ships = entries(environment(prefix, one), one, "/opt/env")
    return modules(ships, by or interpreter(), "/opt/env", installed=installed)


def compiled(wanted: list[Module], by: Interpreter | None = None) -> list[bytes | None]:
    with closing(Compiler(by or interpreter())) as compiler:
        return list(compiler.compile(wanted))


def test_byte_code_is_what_python_looks_for_and_does_not_look_at_times(tmp_path: Path) -> None:
    wanted = sources(tmp_path, [SOURCE])
    assert wanted[0].path == f"opt/env/{SITE}/thing/__pycache__/m000.{sys.implementation.cache_tag}.pyc"
    made = compiled(wanted)[0]
    assert made
    assert made[:4] == importlib.util.MAGIC_NUMBER
    assert int.from_bytes(made[4:8], "little") == 0b01, "PEP 552: hash-based, unchecked"
    assert made[8:16] == importlib.util.source_hash(SOURCE.encode())
    assert marshal.loads(made[16:]).co_filename == f"/opt/env/{SITE}/thing/m000.py"


def test_modules_that_python_does_not_import_by_name_are_not_compiled(tmp_path: Path) -> None:
    one = package(tmp_path, "thing", {"bin/x.py*": "a = 1", "share/x.py": "a = 1", f"{SITE}/a.py": "a = 1"})
    made = modules(entries(environment(tmp_path, one), one, "/opt/env"), interpreter(), "/opt/env")
    assert [module.source.path for module in made] == [f"opt/env/{SITE}/a.py"]


def test_the_tests_of_packages_ship_as_source(tmp_path: Path) -> None:
    files = dict.fromkeys([f"{SITE}/a/tests/t.py", f"{SITE}/a/sub/test/t.py", f"{SITE}/a/testing.py"], "x = 1")
    one = package(tmp_path, "a", files)
    wanted = modules(entries(environment(tmp_path, one), one, "/opt/env"), interpreter(), "/opt/env")
    assert [module.source.path for module in wanted] == [f"opt/env/{SITE}/a/testing.py"]


@pytest.mark.parametrize("executable", [sys.executable, *others()])
@pytest.mark.slow
def test_bytes_depend_on_the_package_alone(executable: str, tmp_path: Path) -> None:
    """Not on what the process compiled before, nor on how many compile at once, nor on the prefix."""
    by = interpreter(executable)
    noise = [
        f"{name} = frozenset(('{name}', 'x{number}'))\nclass {name}: pass\n" for number, name in enumerate("abcdefgh")
    ]
    first = sources(tmp_path / "one", [SOURCE, *noise])
    alone = compiled(first, by)
    with closing(Compiler(by)) as compiler, ThreadPoolExecutor(4) as threads:
        jobs = [sources(tmp_path / f"noise{number}", noise, f"noise{number}") for number in range(6)]
        jobs += [sources(tmp_path / f"again{number}", [SOURCE, *noise]) for number in range(4)]
        random.Random(1).shuffle(jobs)
        results = list(threads.map(lambda job: list(compiler.compile(job)), jobs))
    again = [made for job, made in zip(jobs, results, strict=True) if "/thing/" in job[0].path]
    assert again == [alone] * 4


@pytest.mark.slow
@pytest.mark.parametrize("executable", [sys.executable, *others()])
def test_byte_code_from_the_disk_gives_the_bytes_of_a_compilation(executable: str, tmp_path: Path) -> None:
    """Of the interpreter's own library, compiled as pip does, with other hash seeds and in another order."""
    asked = "import os, sys; print(os.path.dirname(os.__file__)); print(sys.implementation.cache_tag)"
    library, tag = subprocess.check_output([executable, "-c", asked], text=True).splitlines()
    contents = [path.read_text("utf-8", "surrogateescape") for path in sorted(Path(library).glob("*.py"))]
    by = replace(interpreter(executable), cache_tag=tag)
    wanted = sources(tmp_path, contents, installed=True, by=by)
    fresh = compiled([replace(module, installed="") for module in wanted], by)
    subprocess.run([executable, "-m", "compileall", "-q", str(tmp_path)], check=True, stdout=subprocess.DEVNULL)
    assert all(os.path.exists(module.installed) for module, made in zip(wanted, fresh, strict=True) if made)
    assert len(fresh) > 150
    assert compiled(wanted, by) == fresh


def replaced(pyc: str, code: CodeType, *, header: bytes | None = None) -> None:
    there = Path(pyc).read_bytes()
    Path(pyc).write_bytes((there[:16] if header is None else header) + marshal.dumps(code))


@pytest.mark.parametrize("executable", [sys.executable, *others()])
def test_strings_of_one_character_give_the_same_bytes_interned_or_not(executable: str, tmp_path: Path) -> None:
    """There is one of each in a process, and byte code on the disk may make it another kind of string for all that follows."""
    asked = "import sys; print(sys.implementation.cache_tag)"
    by = replace(
        interpreter(executable), cache_tag=subprocess.check_output([executable, "-c", asked], text=True).strip()
    )
    source = "def f(a='}', b='\u00e9'):\n    return a + '{' + b\n"
    wanted = sources(tmp_path, [source] * 2, installed=True, by=by)
    fresh = compiled([replace(module, installed="") for module in wanted], by)
    interning = "import sys, compileall; kept = [sys.intern(c) for c in '{}\u00e9']; compileall.compile_dir(sys.argv[1], quiet=2)"
    subprocess.run([executable, "-c", interning, str(tmp_path)], check=True)
    assert os.path.exists(wanted[0].installed)
    assert compiled(wanted, by) == fresh


@pytest.mark.skipif(sys.version_info < (3, 11), reason="marshal's frozensets are in no order before 3.11")
def test_byte_code_from_the_disk_is_taken_where_python_would_take_it(tmp_path: Path) -> None:
    wanted = sources(tmp_path, ["a = 1"], installed=True)
    py_compile.compile(str(tmp_path / SITE / "thing/m000.py"), doraise=True)
    fresh = compiled(sources(tmp_path, ["a = 1"]))
    other = compile("a = 2", "elsewhere.py", "exec")
    replaced(wanted[0].installed, other)
    taken = compiled(wanted)
    assert taken != fresh, "Python runs this one, too: time and size are its source's"
    assert taken[0]
    assert marshal.loads(taken[0][16:]).co_filename == f"/opt/env/{SITE}/thing/m000.py"
    os.utime(tmp_path / SITE / "thing/m000.py", (1, 1))
    assert compiled(wanted) == fresh


@pytest.mark.skipif(sys.version_info < (3, 11), reason="marshal's frozensets are in no order before 3.11")
@pytest.mark.parametrize("flags", [1, 3])
def test_byte_code_that_knows_its_source_by_hash_is_taken_for_that_hash(flags: int, tmp_path: Path) -> None:
    wanted = sources(tmp_path, ["a = 1"], installed=True)
    py_compile.compile(str(tmp_path / SITE / "thing/m000.py"), doraise=True)
    fresh = compiled(sources(tmp_path, ["a = 1"]))
    head = importlib.util.MAGIC_NUMBER + bytes([flags, 0, 0, 0])
    other = compile("a = 2", "elsewhere.py", "exec")
    replaced(wanted[0].installed, other, header=head + importlib.util.source_hash(b"a = 1"))
    assert compiled(wanted) != fresh
    replaced(wanted[0].installed, other, header=head + importlib.util.source_hash(b"a = 3"))
    assert compiled(wanted) == fresh


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"half"])
def test_broken_byte_code_on_the_disk_is_as_good_as_none(content: bytes, tmp_path: Path) -> None:
    wanted = sources(tmp_path, ["a = 1"], installed=True)
    source = tmp_path / SITE / "thing/m000.py"
    py_compile.compile(str(source), doraise=True)
    fresh = compiled(sources(tmp_path, ["a = 1"]))
    there = Path(wanted[0].installed).read_bytes()
    for broken in (content, there[:16] + content, there[:16] + there[16:-3]):
        Path(wanted[0].installed).write_bytes(broken)
        assert compiled(wanted) == fresh


def test_byte_code_that_names_two_files_is_not_taken(tmp_path: Path) -> None:
    """Leftovers of the other name would reveal where the environment was."""
    wanted = sources(tmp_path, ["def f(): pass"], installed=True)
    source = tmp_path / SITE / "thing/m000.py"
    py_compile.compile(str(source), doraise=True)
    fresh = compiled(sources(tmp_path, ["def f(): pass"]))
    code = compile("def f(): pass", str(source), "exec")
    inner = code.replace(co_consts=(*code.co_consts, str(source)))
    replaced(wanted[0].installed, inner)
    assert compiled(wanted) == fresh


def test_code_that_people_edit_is_compiled(tmp_path: Path) -> None:
    files = {f"{SITE}/thing/m.py": "a = 1"}
    origins: list[tuple[Origin, bool]] = [("local", False), ("unowned", False), ("pypi", True), ("conda", True)]
    for origin, expected in origins:
        one = replace(package(tmp_path, "thing", files), origin=origin)
        ships = shipped(environment(tmp_path, one, compiles=True), one, "/opt/env")
        assert [bool(module.installed) for module in ships.modules] == [expected]


def test_a_source_that_does_not_compile_has_none_and_stops_nothing(tmp_path: Path) -> None:
    made = compiled(sources(tmp_path, ["a = 1", "def", "\0", "# coding: nowhere\n", "b = 2"]))
    assert [one is not None for one in made] == [True, False, False, False, True]


@pytest.mark.parametrize("begun", ["b''", "b'C'", "b'C'+hashlib.sha256(s).digest()+bytes((0,0,0,9))"])
def test_a_source_that_kills_the_compiler_has_none_and_stops_nothing(tmp_path: Path, begun: str) -> None:
    wanted = sources(tmp_path, ["a = 1", "kill", "b = 2"])
    killer = tmp_path / "python"
    hook = (
        "import os,builtins,hashlib;c=compile;"
        f"builtins.compile=lambda s,*a:os.write(1,{begun}) + os.abort() if s==b'kill' else c(s,*a);"
    )
    killer.write_text(
        f"#!/bin/sh\nfor last; do :; done\nexec {sys.executable} -s -S -B -c \"{hook}exec(c(open('$last').read(),'x','exec'))\"\n"
    )
    killer.chmod(0o755)
    made = compiled(wanted, interpreter(str(killer)))
    assert [one is not None for one in made] == [True, False, True]


@pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGCHLD, and a process for each block")
def test_a_process_that_ignores_its_children_compiles_block_after_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []

    class Counted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            starts.append(args)
            super().__init__(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", Counted)
    wanted = sources(tmp_path, [f"a = {number}" for number in range(BLOCK + 1)])
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        made = compiled(wanted)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert None not in made
    assert len(starts) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there no process waits for another block")
def test_processes_that_died_while_they_were_idle_cost_no_module(tmp_path: Path) -> None:
    wanted = sources(tmp_path, ["a = 1", "b = 2"])
    with closing(Compiler(interpreter())) as compiler:
        streams = [compiler.compile(wanted) for _ in range(3)]
        for stream in streams:
            next(stream)
        for stream in streams:
            list(stream)
        workers = [compiler._idle.get() for _ in streams]
        for worker in workers:
            worker._process.kill()
            worker._process.wait()
            compiler._idle.put(worker)
        assert None not in list(compiler.compile(wanted))


@pytest.mark.parametrize("accident", ["os.abort()", "raise MemoryError"])
def test_a_compiler_that_fails_by_accident_changes_no_bytes(accident: str, tmp_path: Path) -> None:
    wanted = sources(tmp_path, ["a = 'x'", "b = ('x', 'y')", "c = 'y'"])
    once = tmp_path / "once"
    dying = tmp_path / "python"
    hook = (
        f"import os,builtins;c=compile\n"
        f"def f(s,*a):\n"
        f"    if s.startswith(b'c') and not os.path.exists('{once}'):\n"
        f"        os.mkdir('{once}'); {accident}\n"
        f"    return c(s,*a)\n"
        f"builtins.compile=f\n"
    )
    (tmp_path / "hook.py").write_text(hook + "import sys\nexec(c(open(sys.argv[1]).read(),'x','exec'))\n")
    dying.write_text(f"#!/bin/sh\nfor last; do :; done\nexec {sys.executable} -s -S -B {tmp_path}/hook.py $last\n")
    dying.chmod(0o755)
    by = interpreter(str(dying))
    interrupted = compiled(wanted, by)
    assert once.exists()
    assert interrupted == compiled(wanted, by)
    assert None not in interrupted


@pytest.mark.parametrize("which", ["getpid", "getppid"], ids=["child", "process"])
def test_a_push_fails_if_a_compiler_is_killed_again_and_again(which: str, tmp_path: Path) -> None:
    """The kernel kills the largest process when memory is short. The layer would be kept, and be another one."""
    wanted = sources(tmp_path, ["a = 1", "large = 2"])
    hook = tmp_path / "hook.py"
    hook.write_text(
        "import builtins, os, signal, sys\n"
        "c = compile\n"
        "def f(s, *a):\n"
        f"    if s.startswith(b'large'): os.kill(os.{which}(), signal.SIGKILL); os._exit(0)\n"
        "    return c(s, *a)\n"
        "builtins.compile = f\n"
        "exec(c(open(sys.argv[1]).read(), 'x', 'exec'))\n"
    )
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nfor last; do :; done\nexec {sys.executable} -s -S -B {hook} $last\n")
    python.chmod(0o755)
    with pytest.raises(CannotBuild, match=r"m001\.py: its compiler was killed twice, .* memory"):
        compiled(wanted, interpreter(str(python)))


def test_more_modules_than_one_process_compiles_come_in_order(tmp_path: Path) -> None:
    wanted = sources(tmp_path, [f"a = {number}" for number in range(BLOCK * 2 + 3)])
    found: dict[str, int] = {}
    for number, made in enumerate(compiled(wanted)):
        assert made
        exec(marshal.loads(made[16:]), found)
        assert found["a"] == number


def test_a_rewritten_module_is_compiled_as_it_ships(tmp_path: Path) -> None:
    made = compiled(sources(tmp_path, [f"where = '{tmp_path}/share'"]))[0]
    assert made
    assert b"/opt/env/share" in made
    assert bytes(tmp_path) not in made
    assert int.from_bytes(made[4:8], "little") == 0b11, "PEP 552: checked, since a node may rewrite the source"


def test_a_module_that_changed_after_the_scan_is_noticed(tmp_path: Path) -> None:
    wanted = sources(tmp_path, ["a = 1"])
    (tmp_path / SITE / "thing/m000.py").write_text("a = 2")
    with pytest.raises(EnvironmentChanged, match=r"m000\.py: changed while it was being packed"):
        compiled(wanted)


def test_an_interpreter_that_does_not_start_is_named(tmp_path: Path) -> None:
    wanted = sources(tmp_path, ["a = 1"])
    broken = tmp_path / "python"
    with pytest.raises(CannotBuild, match=r"cannot run .*python to compile .*: No such file"):
        compiled(wanted, interpreter(str(broken)))
    broken.write_text("#!/bin/sh\necho wrong machine >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(CannotBuild, match=r"cannot run .*python to compile .*: wrong machine"):
        compiled(wanted, interpreter(str(broken)))
