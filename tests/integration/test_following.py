"""Environments that follow a tag: at a folder, and for one command, through crashes, garbage and outages."""

from __future__ import annotations

import errno
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING

import pytest

from lamella.layers import FollowEvent, FollowOptions, MountError, Trust, follow, run_following, umount
from lamella.layers import sign as sign_reference
from lamella.layers.following import namespaced  # noqa: F401 # a child without privileges may be unable to import it
from lamella.layers.mounting import claims
from lamella.layers.mounting.kernel import LinuxKernel
from lamella.layers.mounting.mount import mounts
from lamella.layers.mounting.swap import swap
from lamella.layers.pulling import pull
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import gc
from support.agents import wait_for
from support.distribution import distribution
from support.engines import need_linux, need_root
from support.keys import key_pair
from support.people import NOBODY, become, folder_of, give, import_everything
from support.processes import Lines, ended, exit_code, forked, started
from support.published import publish
from support.registry_simulator import Fault, RegistrySimulator
from support.schemas import problems
from support.slow_line import SlowLine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.root

SECONDS = 60.0
"""Deadline for an event: its absence is a failure, whatever the load of the machine."""


def push(folder: Path, version: str, *, tag: str = "dev") -> str:
    """Move the tag of the layout in `folder` to an environment whose `tool` prints `version`."""
    layers = [{"bin/tool*": f"#!/bin/sh\necho {version}\n"}, {"lib/version": version}]
    publish(folder / "images", layers, tag=tag)
    return f"oci:{folder}/images:{tag}"


class Followed:
    """Events of a `follow` in a thread."""

    def __init__(self) -> None:
        self.events: queue.Queue[FollowEvent] = queue.Queue()

    def next(self, kind: str) -> FollowEvent:
        """The next event, of that kind."""
        event = self.events.get(timeout=SECONDS)
        assert event.kind == kind, event
        return event


@contextmanager
def following(reference: str, target: Path, store: Store, trust: Trust | None = None) -> Iterator[Followed]:
    """Follow at `target` until the block ends, with the first event taken."""
    followed, stop = Followed(), threading.Event()
    raised: list[Exception] = []

    def run() -> None:
        try:
            follow(
                reference,
                str(target),
                FollowOptions(interval=0.05),
                store=store,
                trust=trust or Trust(),
                notify=followed.events.put,
                stop=stop,
            )
        except Exception as error:
            raised.append(error)
            followed.events.put(FollowEvent("failed", repr(error)))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        followed.next("following")
        yield followed
    finally:
        stop.set()
        thread.join(SECONDS)
    assert not raised


def tool(target: Path) -> str:
    """What a new process at the target sees."""
    command = [target / "bin/tool"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout.strip()


def mounted(target: Path) -> int:
    """How many mounts there are at `target`."""
    return len(LinuxKernel().sources(str(target)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    need_root()
    store = Store(str(tmp_path / "store"))
    yield store
    for each in mounts(store):
        umount(each.target, store=store, lazy=True)


def test_new_processes_see_a_moved_tag_and_running_ones_keep_theirs(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "target"
    reference = push(tmp_path, "1")
    with following(reference, target, store) as followed:
        assert tool(target) == "1"
        with open(target / "lib/version") as held:
            folder = os.open(target / "lib", os.O_RDONLY)
            push(tmp_path, "2")
            followed.next("replaced")
            assert tool(target) == "2"
            assert held.read() == "1"
            assert os.listdir(folder) == ["version"]
            os.close(folder)
    assert mounted(target) == 1
    assert tool(target) == "2"


def test_no_process_ever_finds_the_target_without_an_environment(store: Store, tmp_path: Path) -> None:
    need_linux(6, 7)
    target = tmp_path / "target"
    reference = push(tmp_path, "0")
    missing: list[OSError] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            try:
                with open(target / "lib/version") as file:
                    file.read()
            except OSError as error:
                missing.append(error)

    with following(reference, target, store) as followed:
        thread = threading.Thread(target=look)
        thread.start()
        try:
            for version in range(1, 6):
                push(tmp_path, str(version))
                followed.next("replaced")
        finally:
            stop.set()
            thread.join(SECONDS)
    assert missing == []


def test_gc_keeps_a_former_environment_until_its_last_user_has_ended(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "target"
    reference = push(tmp_path, "1")
    with following(reference, target, store) as followed:
        with started(["cat"], stdin=PIPE, cwd=target / "lib") as user:
            push(tmp_path, "2")
            followed.next("replaced")
            gc(store, keep_bytes=0)
            with open(f"/proc/{user.pid}/cwd/version") as file:
                assert file.read() == "1"
        # Namespaces of tests beside this one hold copies of every mount, and end soon.
        wait_for(lambda: bool(gc(store, keep_bytes=0).layers))
        assert tool(target) == "2"


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param("true", id="another mount namespace"),
        pytest.param('mount --bind "$0" "$1" && mount -t tmpfs none "$0"', id="a bind mount of a container"),
    ],
)
def test_gc_keeps_a_former_environment_that_another_mount_namespace_shows(
    store: Store, tmp_path: Path, setup: str
) -> None:
    target, point = tmp_path / "target", tmp_path / "point"
    point.mkdir()
    seen = target if setup == "true" else point
    reference = push(tmp_path, "1")
    with following(reference, target, store) as followed:
        # Without propagation, as a container's runtime has it, the namespace keeps the mount that it was made with.
        command = ["unshare", "--mount", "sh", "-c", f"{setup} && echo ready && read line; cat {seen}/lib/version"]
        with started([*command, str(target), str(point)], stdin=PIPE, stdout=PIPE) as container:
            assert container.stdin
            assert container.stdout
            lines = Lines(container.stdout)
            assert next(lines) == "ready"
            push(tmp_path, "2")
            followed.next("replaced")
            gc(store, keep_bytes=0)
            container.stdin.write("\n")
            container.stdin.flush()
            assert next(lines) == "1"
        # Namespaces of tests beside this one hold copies of every mount, and end soon.
        wait_for(lambda: bool(gc(store, keep_bytes=0).layers))


def test_a_follower_that_was_killed_is_replaced_by_the_next(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "target"
    reference = push(tmp_path, "1")
    command = [sys.executable, "-m", "lamella.cli", "mount", "--follow", "--json", reference, str(target)]
    settings = os.environ | {"LAMELLA_STORE": store.path}
    with started(command, stdout=PIPE, env=settings) as process:
        assert process.stdout
        event = json.loads(next(Lines(process.stdout)))
        assert event["event"] == "following"
        schema = Path(__file__).parents[2] / "docs/reference/schemas/follow.json"
        assert problems(event, schema) == []
        process.kill()
    push(tmp_path, "2")
    with following(reference, target, store) as followed:
        followed.next("replaced")
        assert tool(target) == "2"
    assert mounted(target) == 1


class Crashing(LinuxKernel):
    """Ends its process after one step of a replacement."""

    def __init__(self, step: str) -> None:
        self._step = step

    def move_mount(self, mount: int, target: str, *, beneath: bool = False) -> None:
        super().move_mount(mount, target, beneath=beneath)
        if self._step == "move_mount":
            os._exit(9)

    def umount(self, target: str, flags: int = 0) -> None:
        super().umount(target, flags)
        os._exit(9)


def crash_in_a_replacement(folder: Path, target: Path, store: Store, step: str) -> str:
    """Follow a tag, move it, and crash after that step of the replacement; the reference."""
    need_linux(6, 7)
    reference = push(folder, "1")
    with following(reference, target, store):
        pass
    push(folder, "2")

    def crash() -> None:
        with pull.leased(reference, store=store) as pulled:
            swap(pulled, str(target), store=store, kernel=Crashing(step))

    assert exit_code(crash) == 9
    return reference


@pytest.mark.parametrize("step", ["move_mount", "umount"])
def test_a_crash_in_the_middle_of_a_replacement_is_cleared_by_the_next(store: Store, tmp_path: Path, step: str) -> None:
    target = tmp_path / "target"
    reference = crash_in_a_replacement(tmp_path, target, store, step)
    with following(reference, target, store) as followed:
        followed.next("replaced")
        assert tool(target) == "2"
    assert mounted(target) == 1
    umount(str(target), store=store)
    assert not target.exists()


class Failing(LinuxKernel):
    """Makes no mount."""

    def fscreate(self, filesystem: int) -> None:
        del filesystem
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def test_a_failed_replacement_leaves_the_claim_of_the_former_environment(store: Store, tmp_path: Path) -> None:
    need_linux(6, 7)
    target = tmp_path / "target"
    reference = push(tmp_path, "1")
    with following(reference, target, store):
        pass
    (before,) = claims.claims(store)
    push(tmp_path, "2")
    with pull.leased(reference, store=store) as pulled, pytest.raises(MountError, match="Cannot allocate memory"):
        swap(pulled, str(target), store=store, kernel=Failing())
    assert list(claims.claims(store)) == [before]
    assert tool(target) == "1"
    with following(reference, target, store) as followed:
        followed.next("replaced")
        assert tool(target) == "2"


def test_a_kernel_without_mount_descriptors_replaces_an_environment_too(store: Store, tmp_path: Path) -> None:
    class Older(LinuxKernel):
        def fsopen(self, fstype: str) -> int:
            del fstype
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    target = tmp_path / "target"
    reference = push(tmp_path, "1")
    with following(reference, target, store):
        pass
    push(tmp_path, "2")
    with pull.leased(reference, store=store) as pulled:
        assert not swap(pulled, str(target), store=store, kernel=Older())[1]
    assert tool(target) == "2"
    assert mounted(target) == 1
    with pytest.raises(OSError, match="Read-only"):
        (target / "new").write_text("")
    umount(str(target), store=store)
    assert not target.exists()


def test_umount_after_a_crash_leaves_no_mount(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "target"
    crash_in_a_replacement(tmp_path, target, store, "move_mount")
    assert mounted(target) == 2
    umount(str(target), store=store)
    assert mounted(target) == 0
    assert list(claims.claims(store)) == []


def test_garbage_at_the_tag_leaves_the_former_environment(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "target"
    reference = push(tmp_path, "1")
    with following(reference, target, store) as followed:
        index = tmp_path / "images/index.json"
        document = json.loads(index.read_text())
        (entry,) = document["manifests"]
        blob = tmp_path / "images/blobs/sha256" / entry["digest"].partition(":")[2]
        listed = json.loads(blob.read_text())
        entry |= {"digest": listed["manifests"][-1]["digest"], "size": listed["manifests"][-1]["size"]}
        entry["mediaType"] = listed["manifests"][-1]["mediaType"]
        index.with_suffix(".new").write_text(json.dumps(document))
        index.with_suffix(".new").rename(index)
        assert "the former environment stays in use" in followed.next("failed").message
        assert tool(target) == "1"
        push(tmp_path, "2")
        followed.next("replaced")
        assert tool(target) == "2"


def test_an_unsigned_push_does_not_replace_a_signed_environment(store: Store, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    target = tmp_path / "target"
    reference = push(tmp_path, "1")
    sign_reference(reference, private)
    with following(reference, target, store, Trust(required_key=public)) as followed:
        push(tmp_path, "2")
        assert "not signed" in followed.next("failed").message
        assert tool(target) == "1"


def test_a_follower_goes_on_when_the_registry_is_back(store: Store, tmp_path: Path) -> None:
    from lamella.layers import copy

    target = tmp_path / "target"
    registry = RegistrySimulator()
    with ExitStack() as stack:
        with registry.serving():
            reference = f"{registry.host}/team/envs:dev"
            port = int(registry.host.rpartition(":")[2])
            copy(push(tmp_path, "1"), reference)
            followed = stack.enter_context(following(reference, target, store))
            registry.faults.append(Fault("", status=503, times=1))
            followed.next("failed")
        with registry.serving(port=port):
            copy(push(tmp_path, "2"), reference)
            while tool(target) != "2":
                assert followed.events.get(timeout=SECONDS).kind in {"failed", "replaced"}


@pytest.mark.engine
@pytest.mark.slow
def test_a_follower_behind_a_long_line_sees_each_move(store: Store, tmp_path: Path) -> None:
    from lamella.layers import copy

    target = tmp_path / "target"
    with distribution() as registry, SlowLine(registry, 0.05).serving() as far:
        copy(push(tmp_path, "1"), f"{registry}/team/envs:dev")
        with following(f"{far}/team/envs:dev", target, store) as followed:
            for version in ("2", "3"):
                copy(push(tmp_path, version), f"{registry}/team/envs:dev")
                followed.next("replaced")
                assert tool(target) == version


def test_ctrl_c_names_the_mount_that_stays(store: Store, tmp_path: Path) -> None:
    reference, target = push(tmp_path, "1"), tmp_path / "target"
    command = ["-m", "lamella.cli", "mount", "--follow", "--store", store.path, reference, str(target)]
    with started([sys.executable, *command], stderr=PIPE) as process:
        assert process.stderr
        assert " following: " in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
        assert process.stderr.read() == (f"stopped following; {target} stays mounted until lamella umount {target}\n")
    assert mounted(target) == 1


def test_two_followers_share_a_store(store: Store, tmp_path: Path) -> None:
    reference = push(tmp_path, "1")
    one, two = tmp_path / "one", tmp_path / "two"
    with following(reference, one, store) as first, following(reference, two, store) as second:
        push(tmp_path, "2")
        first.next("replaced")
        second.next("replaced")
        assert (tool(one), tool(two)) == ("2", "2")


def test_a_link_of_another_user_is_refused_as_the_target(store: Store, tmp_path: Path) -> None:
    theirs, aim = tmp_path / "theirs", tmp_path / "aim"
    theirs.mkdir()
    aim.mkdir()
    (theirs / "link").symlink_to(aim)
    give(theirs, NOBODY)
    stop = threading.Event()
    stop.set()
    with pytest.raises(MountError, match="link: symlink owned by user nobody; name the folder that it leads to"):
        follow(push(tmp_path, "1"), str(theirs / "link"), store=store, stop=stop)
    assert mounted(aim) == 0


def test_a_tree_of_links_is_refused(store: Store, tmp_path: Path) -> None:
    from lamella.layers import MountOptions, mount

    target = tmp_path / "target"
    reference = push(tmp_path, "1")
    mount(reference, str(target), options=MountOptions(method="copies"), store=store)
    with pytest.raises(MountError, match="use lamella run --follow"):
        follow(reference, str(target), store=store)


class Running:
    """A command that prints what `tool` says for each line that it gets."""

    def __init__(self, process: int, lines: int, answers: int, events: int) -> None:
        self.process = process
        self._lines, self._pipes = lines, (answers, events)
        self._answers, self._events = Lines(answers), Lines(events)

    def tool(self) -> str:
        """What a process sees that the command starts now."""
        os.write(self._lines, b"go\n")
        return self.line()

    def line(self) -> str:
        """The next line of the command."""
        return next(self._answers).strip()

    def event(self, kind: str) -> str:
        """The message of the next event, of that kind."""
        found, message = json.loads(next(self._events))
        assert found == kind, message
        return str(message)

    def close(self) -> None:
        """Close the pipes."""
        for pipe in self._pipes:
            os.close(pipe)
        with suppress(OSError):
            os.close(self._lines)

    def end(self) -> int:
        """Close the command's input; return the exit code."""
        os.close(self._lines)
        self._lines = -1
        return ended(self.process)


TOOL = ["sh", "-c", "tool; while read line; do tool; done; exit 7"]


@contextmanager
def running(
    folder: Path,
    uid: int,
    reference: str,
    options: FollowOptions,
    command: Sequence[str] = TOOL,
    *,
    raised: Exception | None = None,
) -> Iterator[Running]:
    """Run a command that follows, as that user, until the block ends. `raised`: at the end of `notify`."""
    import_everything()
    (taken, lines), (answers, said), (events, happened) = os.pipe(), os.pipe(), os.pipe()

    def run() -> None:
        for ours in (lines, answers, events):
            os.close(ours)
        os.dup2(taken, 0)
        os.dup2(said, 1)
        if uid:
            become(uid)

        def notify(event: FollowEvent) -> None:
            os.write(happened, (json.dumps([event.kind, event.message]) + "\n").encode())
            if raised:
                raise raised

        os._exit(run_following(reference, command, options, store=Store(f"{folder}/store"), notify=notify))

    with forked(run) as child:
        for theirs in (taken, said, happened):
            os.close(theirs)
        its = Running(child, lines, answers, events)
        try:
            yield its
        finally:
            its.close()


@pytest.fixture(params=[0, NOBODY], ids=["root", "user"])
def home(request: pytest.FixtureRequest) -> Iterator[tuple[Path, int]]:
    """A folder with a user who may write to it."""
    with folder_of(request.param) as folder:
        yield folder, request.param


def push_as(home: tuple[Path, int], version: str) -> str:
    """See `push`, with the layout given to the user."""
    reference = push(home[0], version)
    give(home[0] / "images", home[1])
    return reference


def test_processes_of_a_command_see_a_moved_tag_and_its_exit_code_is_kept(home: tuple[Path, int]) -> None:
    reference = push_as(home, "1")
    with running(*home, reference, FollowOptions(interval=0.05)) as command:
        assert command.line() == "1"
        push_as(home, "2")
        command.event("replaced")
        assert command.tool() == "2"
        push_as(home, "3")
        command.event("replaced")
        assert command.tool() == "3"
        assert command.end() == 7


def test_a_command_is_started_again_when_the_tag_moves(home: tuple[Path, int]) -> None:
    reference = push_as(home, "1")
    with running(*home, reference, FollowOptions(interval=0.05, restart=True)) as command:
        assert command.line() == "1"
        push_as(home, "2")
        command.event("restarted")
        assert command.line() == "2"
        assert command.end() == 7


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace(home: tuple[Path, int]) -> None:
    reference = push_as(home, "1")
    stubborn = ["sh", "-c", "trap '' TERM; tool; while read line; do :; done"]
    with running(*home, reference, FollowOptions(0.05, restart=True, grace=0.1), stubborn) as command:
        assert command.line() == "1"
        push_as(home, "2")
        command.event("restarted")
        assert command.line() == "2"


def test_a_command_gets_a_signal_when_the_tag_moved(home: tuple[Path, int]) -> None:
    reference = push_as(home, "1")
    script = "trap 'tool; exit 3' HUP; echo ready; while :; do sleep 0.05; done"
    with running(*home, reference, FollowOptions(0.05, signal=signal.SIGHUP), ["sh", "-c", script]) as command:
        assert command.line() == "ready"
        push_as(home, "2")
        command.event("signalled")
        assert command.line() == "2"
        assert command.end() == 3


def test_a_signal_to_the_follower_ends_the_command(home: tuple[Path, int]) -> None:
    reference = push_as(home, "1")
    with running(*home, reference, FollowOptions(interval=0.05)) as command:
        assert command.line() == "1"
        os.kill(command.process, signal.SIGTERM)
        # Its input stays open: the command would end by itself.
        assert ended(command.process) == 128 + signal.SIGTERM


def test_a_command_survives_its_follower_with_the_environment_that_it_has(home: tuple[Path, int]) -> None:
    reference = push_as(home, "1")
    with running(*home, reference, FollowOptions(interval=0.05)) as command:
        assert command.line() == "1"
        push_as(home, "2")
        command.event("replaced")
        os.kill(command.process, signal.SIGKILL)
        ended(command.process)
        assert command.tool() == "2"
        gc(Store(f"{home[0]}/store"), keep_bytes=0)
        assert command.tool() == "2"


def test_a_command_is_followed_on_when_its_events_can_not_be_shown(home: tuple[Path, int]) -> None:
    reference = push_as(home, "1")
    index = home[0] / "images/index.json"
    with running(*home, reference, FollowOptions(interval=0.05), raised=BrokenPipeError()) as command:
        assert command.line() == "1"
        whole = index.read_bytes()
        index.write_bytes(b"garbage")
        command.event("failed")
        index.write_bytes(whole)
        push_as(home, "2")
        command.event("replaced")
        assert command.tool() == "2"
        assert command.end() == 7


def test_the_exit_code_of_a_command_is_kept_when_its_tag_is_not_asked_any_more(home: tuple[Path, int]) -> None:
    reference = push_as(home, "1")
    with running(*home, reference, FollowOptions(interval=0.05), raised=RuntimeError()) as command:
        assert command.line() == "1"
        (home[0] / "images/index.json").write_bytes(b"garbage")
        command.event("failed")
        assert command.tool() == "1"
        assert command.end() == 7


def test_every_former_environment_of_a_command_stays_leased(home: tuple[Path, int]) -> None:
    reference = push_as(home, "1")
    leases = home[0] / "store/leases"
    with running(*home, reference, FollowOptions(interval=0.05)) as command:
        assert command.line() == "1"
        push_as(home, "2")
        command.event("replaced")
        before = set(os.listdir(leases))
        push_as(home, "3")
        command.event("replaced")
        assert len(before) == 2
        assert before < set(os.listdir(leases))


def test_a_command_that_ended_leaves_no_descriptor_and_no_lease(store: Store, tmp_path: Path) -> None:
    need_linux(6, 7)
    reference = push(tmp_path, "1")
    before = sorted(os.listdir("/proc/self/fd"))
    assert run_following(reference, ["tool"], FollowOptions(interval=0.05), store=store) == 0
    deadline = time.monotonic() + SECONDS
    while sorted(os.listdir("/proc/self/fd")) != before:
        assert time.monotonic() < deadline, os.listdir("/proc/self/fd")
        threading.Event().wait(0.02)


def test_another_image_prefix_is_refused(home: tuple[Path, int]) -> None:
    reference = push_as(home, "1")
    with running(*home, reference, FollowOptions(interval=0.05)) as command:
        assert command.line() == "1"
        publish(home[0] / "images", [{"a": "1"}, {"b": "2"}], prefix="/opt/other", tag="dev")
        give(home[0] / "images", home[1])
        assert "its image prefix is /opt/other, not /opt/env" in command.event("failed")
        assert command.tool() == "1"
