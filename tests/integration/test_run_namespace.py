from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING, TypeVar

import pytest

from lamella.layers.errors import CannotRun, MountError
from lamella.layers.mounting.kernel import LinuxKernel
from lamella.layers.pulling import pull
from lamella.layers.running.run import exec_command, run
from lamella.layers.store.store import Store
from support.engines import need_root
from support.people import NOBODY, as_user, folder_of, give, import_everything
from support.processes import forked, started
from support.published import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

pytestmark = pytest.mark.root

ENVIRONMENT = [
    {"bin/hello*": "#!/bin/sh\necho hello from $0\n", "bin/broken*": "#!/no/such/program\n", "bin/notes": "x"},
    {"lib/python3.12/site-packages/one.py": "1"},
    {"lib/python3.12/site-packages/two.py": "2"},
]

# In a shell: signals interrupt `wait`, and no program that runs in the foreground.
WAIT = "sleep 300 >/dev/null 2>&1 & wait"


class Node:
    """A node's store with one environment in it, and the user who runs commands there."""

    def __init__(self, folder: Path, uid: int) -> None:
        self.folder, self.uid = folder, uid
        self.store = Store(str(folder / "store"))

    def publish(self, *layers: dict[str, str], prefix: str = "/opt/env") -> str:
        reference = publish(self.folder / "layout", layers or ENVIRONMENT, prefix=prefix)
        if self.uid:
            give(self.folder, self.uid)
        # Each user pulls into a store of their own: root uses none that a user can change.
        self._as_user(partial(pull.pull, reference, store=self.store))
        return reference

    def run(self, reference: str, *command: str, notify: Callable[[str], None] = lambda _: None) -> int:
        action = partial(run, reference, command, store=self.store, notify=notify)
        return self._as_user(action)

    def _as_user(self, action: Callable[[], T]) -> T:
        return as_user(self.uid, action) if self.uid else action()


@contextmanager
def waiting_command(node: Node, reference: str, then: str) -> Iterator[Callable[[], int]]:
    """Run a command that waits for a line before `then`; give what sends the line and returns the exit code."""
    from_command, to_test = os.pipe()
    from_test, to_command = os.pipe()

    def wait() -> None:
        os.dup2(from_test, 0)
        os.dup2(to_test, 1)
        os.close(to_command)
        os._exit(node.run(reference, "sh", "-c", f"echo; read line; {then}"))

    with forked(wait) as child, os.fdopen(from_command, "rb") as output, os.fdopen(to_command, "wb") as lines:
        os.close(to_test)
        os.close(from_test)

        def end() -> int:
            lines.write(b"\n")
            lines.flush()
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        assert output.read(1) == b"\n"
        yield end


@pytest.fixture(autouse=True, scope="module")
def modules() -> None:
    """Children without privileges may be unable to read this folder."""
    import_everything()


@pytest.fixture(params=[0, NOBODY], ids=["root", "ordinary user"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    need_root()
    with folder_of(request.param) as folder:
        yield Node(folder, request.param)


def test_a_command_sees_the_environment_at_its_prefix_and_the_machine_does_not(
    node: Node, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(os.listdir("/opt"))

    assert node.run(node.publish(), "sh", "-c", "hello; ls /opt/env/lib/python3.12/site-packages") == 0

    assert capfd.readouterr().out == "hello from /opt/env/bin/hello\none.py\ntwo.py\n"
    assert sorted(os.listdir("/opt")) == before
    assert LinuxKernel().sources("/opt") == LinuxKernel().sources("/opt/env") == []


@pytest.mark.parametrize("prefix", ["/opt/env", "/opt/a/b/c", "/nowhere/at/all", "/srv/env", "/usr/lib/env"])
def test_files_beside_the_prefix_stay_visible(
    node: Node, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    # The checkout may be in a folder that only root can enter.
    monkeypatch.chdir(node.folder)
    above = prefix
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    beside = set(os.listdir(above))

    command = f"hello && pwd && id -u && stat -c %u {node.folder} && test -r /proc/self/status && ls -A1 {above}"
    assert node.run(node.publish(prefix=prefix), "sh", "-c", command) == 0

    hello, here, user, owner, *seen = capfd.readouterr().out.splitlines()
    assert hello == f"hello from {prefix}/bin/hello"
    assert (here, user, owner) == (os.getcwd(), str(node.uid), str(node.uid))
    assert beside <= set(seen)
    assert not os.path.lexists(prefix)


def test_files_that_the_command_writes_are_the_users_own(node: Node) -> None:
    assert node.run(node.publish(), "sh", "-c", f"echo x > {node.folder}/made") == 0

    made = (node.folder / "made").stat()
    assert (made.st_uid, made.st_gid) == (node.uid, node.uid)


def test_the_environment_is_read_only(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    assert node.run(node.publish(), "sh", "-c", "echo x > /opt/env/bin/hello") != 0

    assert "Read-only file system" in capfd.readouterr().err


def test_the_exit_code_is_the_commands(node: Node) -> None:
    assert node.run(node.publish(), "sh", "-c", "exit 7") == 7


def test_exit_code_after_a_signal_is_the_shells(node: Node) -> None:
    assert node.run(node.publish(), "sh", "-c", "kill -TERM $$") == 128 + signal.SIGTERM


def test_command_starts_with_the_signals_that_python_ignores_restored(
    node: Node, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("grep", "SigIgn", "/proc/self/status")
    # subprocess gives back what Python itself ignores; the tests' parent may have ignored more.
    subprocess.run(command, check=True)
    expected = capfd.readouterr().out
    node.run(node.publish(), *command)

    assert capfd.readouterr().out == expected


def test_an_empty_path_does_not_become_the_current_folder(
    node: Node, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")

    node.run(node.publish(), "sh", "-c", "echo $PATH")

    assert capfd.readouterr().out == f"/opt/env/bin:{os.defpath}\n"


def test_closed_pipe_ends_the_command(node: Node) -> None:
    assert node.run(node.publish(), "sh", "-c", "kill -PIPE $$") == 128 + signal.SIGPIPE


def test_missing_command_is_named(node: Node) -> None:
    with pytest.raises(CannotRun, match="nothing-like-it: no such command") as raised:
        node.run(node.publish(), "nothing-like-it")

    assert raised.value.exit_code == 127


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        (["python", "one.py"], "the environment has it: run python -m one"),
        (["python3", "-u", "/home/ada/jobs/other.py"], "push it with the environment, then run python -m other"),
        (["two.py"], "the environment has it: run python -m two"),
    ],
)
def test_script_that_only_the_laptop_has_is_named_with_its_module(node: Node, command: list[str], advice: str) -> None:
    with pytest.raises(CannotRun, match=f"{command[-1]}: no such file on this machine.* {advice}$"):
        node.run(node.publish(), *command)


def test_script_of_this_machine_that_differs_from_the_environment_s_is_reported(
    node: Node, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reference = node.publish({"bin/python*": "#!/bin/sh\nexit 3\n"}, {"lib/python3.12/site-packages/one.py": "1"})
    here = node.folder / "project"
    here.mkdir()
    here.chmod(0o755)
    (here / "one.py").write_text("changed")
    monkeypatch.chdir(here)

    # In the child that becomes the command.
    assert node.run(reference, "python", "one.py", notify=lambda note: print(note, flush=True)) == 3

    assert capfd.readouterr().out == (
        "one.py: runs this machine's file, which differs from the environment's; run that with python -m one\n"
    )


@pytest.mark.parametrize(("command", "code"), [("/opt/env/bin/notes", 126), ("broken", 127)])
def test_command_that_cannot_be_executed_is_named(node: Node, command: str, code: int) -> None:
    with pytest.raises(CannotRun, match=r"/opt/env/bin/\w+: cannot execute") as raised:
        node.run(node.publish(), command)

    assert raised.value.exit_code == code


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("program", [{"bin/true": "not executable"}, {"bin/true": "->/no/such/file"}])
def test_the_machines_program_never_replaces_one_of_the_environment(
    node: Node, program: dict[str, str], *, activated: bool
) -> None:
    """A search on PATH passes over a program that can't be executed."""
    script = {"etc/conda/activate.d/a.sh": "true\n", "conda-meta/history": ""} if activated else {}
    reference = node.publish(ENVIRONMENT[0], program, script)
    if activated:
        assert node.run(reference, "true") in (126, 127)
    else:
        with pytest.raises(CannotRun, match="/opt/env/bin/true: cannot execute"):
            node.run(reference, "true")


@contextmanager
def noexec(folder: Path) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,mode=755", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_an_environment_runs_from_a_store_on_a_noexec_disk(capfd: pytest.CaptureFixture[str]) -> None:
    need_root()
    with folder_of(0) as folder, noexec(folder / "disk"):
        node = Node(folder / "disk", 0)
        assert node.run(node.publish(), "hello") == 0
    assert capfd.readouterr().out == "hello from /opt/env/bin/hello\n"


def test_an_environment_that_can_not_run_from_a_noexec_disk_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    """One layer is bound, not overlaid: a mount of the disk itself, with its flags."""
    need_root()
    with folder_of(0) as folder, noexec(folder / "disk"):
        node = Node(folder / "disk", 0)
        with pytest.raises(MountError, match="is mounted noexec; set LAMELLA_STORE to another disk"):
            node.run(node.publish(ENVIRONMENT[0]), "hello")
    assert capfd.readouterr().out == ""


def test_arguments_pass_through_as_they_are(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    node.run(node.publish(), "printf", "%s|", "a b", "", "-c", "$HOME", "ü")

    assert capfd.readouterr().out == "a b||-c|$HOME|ü|"


def test_activation_scripts_and_variables_are_there(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    conda = {
        "conda-meta/history": "",
        "conda-meta/state": '{"env_vars": {"GREETING": "hello"}}',
        "etc/conda/activate.d/b.sh": 'export SECOND="$FIRST and more"\n',
        "etc/conda/activate.d/a.sh": "export FIRST=$CONDA_PREFIX\n",
    }

    node.run(node.publish(conda, {"bin/x*": ""}), "sh", "-c", 'echo "$GREETING $SECOND"')

    assert capfd.readouterr().out == "hello /opt/env and more\n"


def test_five_hundred_layers_and_more_run(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    layers = [{f"lib/{number}": str(number)} for number in range(620)]

    assert node.run(node.publish(*layers), "sh", "-c", "ls /opt/env/lib | wc -l") == 0

    assert capfd.readouterr().out.strip() == "620"


def test_layers_are_kept_from_gc_as_long_as_the_command_lives(node: Node) -> None:
    from lamella.layers.upkeep.gc import gc

    reference = node.publish()
    with waiting_command(node, reference, "hello") as end:
        freed = gc(node.store, keep_bytes=0)
        assert end() == 0

    assert freed.layers == ()
    assert len(gc(node.store, keep_bytes=0).layers) == len(ENVIRONMENT)


def test_leases_of_commands_that_ended_do_not_pile_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamella.layers.running.run._MANY_LEASES", 2)
    reference = node.publish()

    for _ in range(5):
        node.run(reference, "hello")

    assert len(os.listdir(f"{node.store.path}/leases")) <= 3


def test_an_ordinary_user_runs_what_root_has_pulled(capfd: pytest.CaptureFixture[str]) -> None:
    need_root()
    with folder_of(0) as folder:
        node = Node(folder, 0)
        reference = node.publish()
        node.uid = NOBODY

        assert node.run(reference, "hello") == 0

    assert capfd.readouterr().out == "hello from /opt/env/bin/hello\n"


@pytest.fixture
def roots(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """Root's store, and an ordinary user of it, who has a folder for a store of their own."""
    need_root()
    with folder_of(0) as folder:
        (folder / "cache").mkdir()
        os.chown(folder / "cache", NOBODY, NOBODY)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield Node(folder, 0)


def test_an_ordinary_user_runs_more_layers_of_roots_than_one_overlay_takes(
    roots: Node, capfd: pytest.CaptureFixture[str]
) -> None:
    reference = roots.publish(*({f"lib/{number}": str(number)} for number in range(620)))
    roots.uid = NOBODY

    assert roots.run(reference, "sh", "-c", "cat /opt/env/lib/* | wc -c") == 0

    assert int(capfd.readouterr().out) == len("".join(map(str, range(620))))


def test_users_tree_of_roots_layers_is_kept_while_in_use(roots: Node) -> None:
    from lamella.layers.upkeep.gc import gc

    reference = roots.publish(*({f"lib/{number}": str(number)} for number in range(620)))
    roots.uid = NOBODY
    own = Store(f"{roots.folder}/cache/lamella/store")
    with waiting_command(roots, reference, "exit") as end:
        meanwhile = as_user(NOBODY, partial(gc, own, keep_bytes=0)).bytes
        assert end() == 0

    assert (meanwhile, as_user(NOBODY, partial(gc, own, keep_bytes=0)).bytes > 0) == (0, True)


def test_without_namespaces_an_ordinary_user_runs_what_root_has_pulled(
    roots: Node, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamella.layers.mounting.kernel.LinuxKernel", Forbidding)
    reference = roots.publish()
    roots.uid = NOBODY

    assert roots.run(reference, "hello", notify=print) == 0

    sentence, hello = capfd.readouterr().out.splitlines()
    assert f"running from links in {roots.folder}/cache/lamella/store/derived/" in sentence
    assert hello.startswith(f"hello from {roots.folder}/cache/lamella/store/derived/")


def test_a_reference_with_a_digest_needs_no_source_any_more(node: Node) -> None:
    reference = node.publish()
    (node.folder / "layout").rename(node.folder / "gone")

    assert node.run(reference, "hello") == 0


class Forbidding(LinuxKernel):
    """A machine that grants no namespaces."""

    def unshare(self, flags: int) -> None:  # noqa: ARG002
        raise PermissionError(errno.EPERM, "Operation not permitted")


def test_without_namespaces_the_command_runs_in_a_tree_of_links_and_a_line_reports_it(
    node: Node, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamella.layers.mounting.kernel.LinuxKernel", Forbidding)
    listed = '{"prefix": "/opt/env", "files": [{"path": "bin/where", "kind": "text"}]}'
    script = {"bin/where*": "#!/bin/sh\necho /opt/env $0\n", ".lamella/relocate/pypi-where.json": listed}
    reference = node.publish(script, {"lib/x": ""})

    code = node.run(reference, "where", notify=print)

    sentence, shown = capfd.readouterr().out.splitlines()
    tree = shown.split()[0]
    assert code == 0
    assert sentence == (
        f"user namespaces are not available (Operation not permitted); running from links in {tree} instead of /opt/env"
    )
    assert tree.startswith(node.store.path)
    assert shown == f"{tree} {tree}/bin/where"


class Limited(LinuxKernel):
    """A machine whose administrator allows no more namespaces (user.max_user_namespaces)."""

    def unshare(self, flags: int) -> None:  # noqa: ARG002
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_limit_on_namespaces_is_not_reported_as_a_full_disk(
    node: Node, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamella.layers.mounting.kernel.LinuxKernel", Limited)

    assert node.run(node.publish(), "true", notify=print) == 0

    assert capfd.readouterr().out.startswith(
        "user namespaces are not available (their number is limited: raise the sysctls user.max_user_namespaces and"
    )


class GrantingNoRights(LinuxKernel):
    """A machine whose security module grants user namespaces, and no mount in them."""

    def mount(self, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")


def test_namespaces_without_rights_are_not_entered(
    node: Node, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamella.layers.mounting.kernel.LinuxKernel", GrantingNoRights)
    before = os.readlink("/proc/self/ns/user")

    assert node.run(node.publish(), "sh", "-c", "readlink /proc/self/ns/user; hello", notify=print) == 0

    sentence, namespace, hello = capfd.readouterr().out.splitlines()
    assert sentence.startswith("user namespaces are not available (Permission denied); running from links in")
    assert namespace == before
    assert hello.startswith(f"hello from {node.store.path}")


class WithoutOverlay(LinuxKernel):
    """A kernel before 5.11: it knows namespaces, and gives users no overlay in them."""

    def fsopen(self, fstype: str) -> int:  # noqa: ARG002
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def mount(self, source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
        if fstype == "overlay":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        super().mount(source, target, fstype, flags, data)


def test_without_overlays_a_tree_of_links_is_bound_at_the_prefix(
    node: Node, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamella.layers.mounting.kernel.LinuxKernel", WithoutOverlay)

    assert node.run(node.publish(), "sh", "-c", "hello; ls /opt/env/lib/python3.12/site-packages", notify=print) == 0

    assert capfd.readouterr().out == "hello from /opt/env/bin/hello\none.py\ntwo.py\n"


def test_file_in_place_of_a_folder_of_the_prefix_is_named(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    (node.folder / "file").write_text("")

    assert node.run(node.publish(prefix=f"{node.folder}/file/env"), "hello", notify=print) == 0

    assert (
        f"{node.folder}/file is a file on this machine, not a folder; running from links in" in capfd.readouterr().out
    )


def test_a_process_with_other_threads_runs_commands_too(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    reference = node.publish()

    def replace_beside_a_thread() -> object:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait, daemon=True)
        thread.start()
        try:
            exec_command(reference, ["sh", "-c", "hello; exit 5"], store=node.store)
        except SystemExit as ended:
            return ended.code
        finally:
            stop.set()
            thread.join()

    code = as_user(node.uid, replace_beside_a_thread)

    assert (code, capfd.readouterr().out) == (5, "hello from /opt/env/bin/hello\n")


def test_the_process_becomes_the_command(tmp_path: Path) -> None:
    need_root()
    reference = publish(tmp_path / "layout", ENVIRONMENT)
    program = "import sys; from lamella.layers.running.run import exec_command; exec_command(sys.argv[1], sys.argv[2:])"
    command = [sys.executable, "-c", program, reference, "sh", "-c", "echo $$; read line; echo got $line; exit 3"]
    variables = os.environ | {"LAMELLA_STORE": str(tmp_path / "store")}

    with started(command, stdin=PIPE, stdout=PIPE, env=variables) as process:
        output, _ = process.communicate("a line\n", timeout=60)

    assert output == f"{process.pid}\ngot a line\n"
    assert process.returncode == 3


def test_signals_reach_the_command_alone(tmp_path: Path) -> None:
    need_root()
    reference = publish(tmp_path / "layout", ENVIRONMENT)
    script = f"trap 'echo trapped; exit 9' TERM; echo ready; {WAIT}"
    command = [sys.executable, "-m", "lamella.cli", "run", reference, "--", "sh", "-c", script]
    variables = os.environ | {"LAMELLA_STORE": str(tmp_path / "store")}

    with started(command, stdout=PIPE, stderr=DEVNULL, env=variables) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)

    assert (process.returncode, output) == (9, "trapped\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_the_waiting_process_forwards_its_signals_to_the_command(tmp_path: Path, number: signal.Signals) -> None:
    need_root()
    reference = publish(tmp_path / "layout", ENVIRONMENT)
    script = f"trap 'exit 9' {number.name[3:]}; echo $$; {WAIT}"
    command = [sys.executable, "-m", "lamella.cli", "run", "--json", reference, "--", "sh", "-c", script]
    variables = os.environ | {"LAMELLA_STORE": str(tmp_path / "store")}

    with started(command, stdout=PIPE, stderr=PIPE, env=variables) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) != process.pid
        process.send_signal(number)
        _, report = process.communicate(timeout=60)

    assert process.returncode == 9
    assert json.loads(report)["exit_code"] == 9


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["in its place", "as its child"])
def test_command_inherits_ignored_signals(tmp_path: Path, options: list[str]) -> None:
    need_root()
    reference = publish(tmp_path / "layout", ENVIRONMENT)
    lamella = [sys.executable, "-m", "lamella.cli", "run", *options, reference]
    script = """trap '' HUP; exec "$@" """
    variables = os.environ | {"LAMELLA_STORE": str(tmp_path / "store")}

    command = ["sh", "-c", script, "sh", *lamella, "--", "sh", "-c", "kill -HUP $$; exit 9"]
    with started(command, stderr=DEVNULL, env=variables) as process:
        assert process.wait(timeout=60) == 9


def test_signal_during_a_pull_ends_parent_and_child() -> None:
    need_root()
    program = """
import os, signal, sys
from lamella.layers.running import run
def pulling():
    print("ready", flush=True)
    while True:  # a call that blocks could begin right after the signal came
        pass
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print(run._in_child(pulling))
"""
    with started([sys.executable, "-c", program], stdout=PIPE, stderr=PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)

    assert (output, errors) == ("143\n", "")
