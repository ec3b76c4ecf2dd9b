"""One command in an environment that only it sees, at the prefix that the environment was made for.

Needs no privilege where the machine grants user namespaces; where it grants none, the environment is a tree of links
beside the store, made once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NoReturn

from lamella.layers.errors import CannotRun, LayersError, MountError
from lamella.layers.mounting import kernel, ladder, lowerdirs, namespace, overlay
from lamella.layers.progress.display import Silent
from lamella.layers.published import preflight
from lamella.layers.running import activation, ca_bundle, scripts
from lamella.layers.settings.trust import Trust
from lamella.layers.store import leases
from lamella.layers.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamella.layers.mounting.kernel import Kernel
    from lamella.layers.progress.display import Progress
    from lamella.layers.published.environment import PublishedEnvironment

_SILENT = Silent()
_MANY_LEASES = 200
_NO_SCRIPT = 2
"""Python's own exit code for a script that is missing."""
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def _ignore(_: str) -> None:
    """Discard the sentence."""


def run(
    reference: str,
    command: Sequence[str],
    *,
    store: Store | None = None,
    trust: Trust = Trust(),
    progress: Progress = _SILENT,
    notify: Callable[[str], None] = _ignore,
) -> int:
    """Pull the missing layers of `reference`, run `command` in the environment and return its exit code.

    The code is 128 + n after signal n. The command runs in a child process, which gets the signals that would end this one.
    `notify` gets one sentence for each need of a part of the environment that this machine lacks, and if the environment
    can't be mounted. Raises `CannotRun` without such a command, `MountError` if the environment can't be assembled,
    `Unsupported` if it can't run on this machine, and what `pull` raises.
    """
    return _in_child(
        lambda: exec_command(reference, command, store=store, trust=trust, progress=progress, notify=notify)
    )


def exec_command(
    reference: str,
    command: Sequence[str],
    *,
    store: Store | None = None,
    trust: Trust = Trust(),
    progress: Progress = _SILENT,
    notify: Callable[[str], None] = _ignore,
) -> NoReturn:
    """Run `command` as `run` does, in place of this process, as execve(2): its signals, terminal and streams are the command's.

    The layers stay leased as long as the command lives: it inherits the lease's descriptor. A process with several threads
    can't enter a user namespace: then the command runs in a child, and this process exits with its code. Raises what `run`
    raises.
    """
    from lamella.layers.pulling import pull

    def check(environment: PublishedEnvironment) -> None:
        preflight.check(environment)
        for note in preflight.notes(environment):
            notify(note)

    linux = kernel.here()
    store = store or Store()
    with ExitStack() as stack:
        with pull.leased(reference, store=store, trust=trust, progress=progress, check=check) as pulled:
            owner = f"run {pulled.reference}"
            # A lease of its own, taken while the pull's still holds: only this one is to outlive this program.
            os.set_inheritable(stack.enter_context(leases.lease(store, pulled.keeps, owner)), True)
        _remove_dead_leases(store)

        def keep(folders: Sequence[str]) -> None:
            # Trees made of another user's layers are in this user's store, which has a gc of its own.
            home = store.writable()
            if any(folder.startswith(f"{home.path}/derived/") for folder in folders) and home.path != store.path:
                os.set_inheritable(stack.enter_context(leases.lease(home, pulled.keeps, owner)), True)

        def become() -> NoReturn:
            prefix = _enter(linux, store, pulled.environment, notify, keep)
            if sentence := scripts.note(prefix, command):
                notify(sentence)
            execute(prefix, command, ca_bundle.certificate_file(prefix, pulled.environment.certificates, os.environ))

        if _has_threads():
            raise SystemExit(_in_child(become))
        become()


def execute(prefix: str, command: Sequence[str], certificates: str = "") -> NoReturn:
    """Replace this process by `command` in the environment at `prefix`, activated. Raises `CannotRun`.

    `certificates` is a file of certificate authorities that OpenSSL would not find by itself.
    """
    if sentence := scripts.missing(prefix, command):
        raise CannotRun(sentence, _NO_SCRIPT)
    # An empty PATH is unset: behind the environment's folder it would name the current folder.
    before = {name: value for name, value in os.environ.items() if name != "PATH" or value}
    variables = activation.variables(prefix, before | ({"SSL_CERT_FILE": certificates} if certificates else {}))
    program = activation.command(prefix, [_own(prefix, command[0]), *command[1:]])
    path = program[0] if "/" in program[0] else _found(program[0], variables["PATH"])
    if not path:
        advice = scripts.not_a_command(prefix, command[0])
        raise CannotRun(advice or f"{program[0]}: no such command in the environment or on PATH")
    # Python ignores them; a program that ignores them too would write to a closed pipe for ever. As subprocess does.
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(path, program, variables)
    except OSError as error:
        for number in _IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_IGN)
        code = 127 if isinstance(error, FileNotFoundError) else 126
        raise CannotRun(f"{path}: cannot execute: {error.strerror}", code) from error


def _enter(
    kernel: Kernel,
    store: Store,
    environment: PublishedEnvironment,
    notify: Callable[[str], None],
    keep: Callable[[Sequence[str]], object],
) -> str:
    """Put the environment where only this process sees it; return its prefix. `keep` gets the folders that it needs."""
    folders = lowerdirs.for_prefix(store, environment, environment.prefix)
    keep(folders)
    try:
        namespace.enter(kernel)
        assemble(kernel, store, environment, folders, keep)
    except MountError as error:
        from lamella.layers.mounting import whole_tree

        tree = whole_tree.linked(store, environment)
        keep([tree])
        if why_not := ladder.obstacle(tree):
            raise MountError(f"{error}; {why_not}; set LAMELLA_STORE to another disk") from error
        notify(f"{error}; running from links in {tree} instead of {environment.prefix}")
        return tree
    return environment.prefix


def assemble(
    kernel: Kernel,
    store: Store,
    environment: PublishedEnvironment,
    folders: Sequence[str],
    keep: Callable[[Sequence[str]], object],
) -> None:
    """Mount `folders` at the environment's prefix in this process's own namespace. Raises `MountError`."""
    try:
        here = os.getcwd()
        place = namespace.make_place(kernel, environment.prefix)
        try:
            ladder.assemble(kernel, folders, place, ladder.MOUNTS)
        except MountError:
            # Kernels before 5.11 let users bind folders, and make no overlay.
            from lamella.layers.mounting import whole_tree

            tree = whole_tree.whole(store, environment)
            keep([tree])
            overlay.bind(kernel, tree, place)
            if why_not := ladder.obstacle(place):
                raise MountError(why_not) from None
    except OSError as error:
        raise MountError(f"cannot mount at {environment.prefix} ({error.strerror or error})") from error
    # By name again: a covered folder is another one now. One that this user can't reach stays what it was.
    with suppress(OSError):
        os.chdir(here)


def _in_child(replaced: Callable[[], NoReturn]) -> int:
    """The exit code of a child that `replaced` turns into a command; raises what that raises instead."""
    from lamella.layers.running import signals
    from lamella.layers.running.failure import error_of

    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    reader, writer = os.pipe()
    with signals.blocked() as mask, warnings.catch_warnings():
        # Python warns of forks beside threads, whose locks the child keeps for ever. It uses none of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if child == 0:
            os.close(reader)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            report(writer, replaced)
        handlers = signals.forward(lambda number: _send(child, number))
    try:
        os.close(writer)
        with open(reader, "rb") as answer:
            failure = answer.read()  # ends when the command's program replaces the child's
        _, status = os.waitpid(child, 0)
    finally:
        signals.restore(handlers)
    if failure:
        raise error_of(json.loads(failure))
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _has_threads() -> bool:
    try:
        # The kernel's count, which includes threads of libraries and those that are just ending.
        return len(os.listdir("/proc/self/task")) > 1
    except OSError:
        import threading

        return threading.active_count() > 1


def _send(child: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, number)


def _remove_dead_leases(store: Store) -> None:
    # A command can't take its own away when it ends; a node that never runs gc would collect them.
    with suppress(OSError):
        if len(os.listdir(f"{store.path}/leases")) > _MANY_LEASES:
            leases.remove_dead(store)


def _own(prefix: str, name: str) -> str:
    """The path of a program of the environment; else the name, for a search on PATH.

    A search passes over a file that can't be executed and takes the machine's program of that name: another pip, which
    installs elsewhere.
    """
    path = f"{prefix}/bin/{name}"
    return path if name and "/" not in name and os.path.lexists(path) and not os.path.isdir(path) else name


def _found(name: str, search: str) -> str:
    # shutil.which would do, and its module takes as long to import as all of the mounting.
    paths = (os.path.join(folder or ".", name) for folder in search.split(os.pathsep))
    return next((path for path in paths if os.access(path, os.X_OK) and not os.path.isdir(path)), "")


def report(writer: int, replaced: Callable[[], NoReturn]) -> NoReturn:
    """Become a command in a forked child; write the error to `writer` as a JSON list if that fails."""
    code = 1
    try:
        replaced()
    except LayersError as error:
        from lamella.layers.running.failure import failure_of

        os.write(writer, json.dumps(failure_of(error)).encode())
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        # This child has its parent's stack below it, where its exceptions would be handled twice.
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)
