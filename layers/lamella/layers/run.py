"""One command in an environment that only it sees, at the prefix that the environment was made for.

Needs no privilege where the machine grants user namespaces; where it grants none, the environment is a tree of links
beside the store, made once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NoReturn

from lamella.layers import activation, assemble, errors, kernel, locks, lowers, namespace, overlay, preflight
from lamella.layers.errors import CannotRun, LayersError, MountError
from lamella.layers.leases import kept
from lamella.layers.progress import Silent
from lamella.layers.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamella.layers.kernel import Kernel
    from lamella.layers.progress import Progress
    from lamella.layers.published import PublishedEnvironment

_SILENT = Silent()
_MANY_LEASES = 200


def _ignore(_: str) -> None:
    """Hears nothing."""


def run(
    reference: str,
    command: Sequence[str],
    *,
    store: Store | None = None,
    insecure: bool = False,
    progress: Progress = _SILENT,
    notify: Callable[[str], None] = _ignore,
) -> int:
    """Pulls what is missing of `reference`, runs `command` in it and gives its exit code: 128 + n after signal n.

    This process stays as it is: the command runs in a child of it. `notify` hears, in one sentence, of a way that could
    not be taken. Raises `CannotRun` when there is no such command, `MountError` when the environment can't be assembled,
    and what `pull` raises.
    """
    return _in_child(
        lambda: replace(reference, command, store=store, insecure=insecure, progress=progress, notify=notify)
    )


def replace(
    reference: str,
    command: Sequence[str],
    *,
    store: Store | None = None,
    insecure: bool = False,
    progress: Progress = _SILENT,
    notify: Callable[[str], None] = _ignore,
) -> NoReturn:
    """As `run`, but this process becomes the command, so that signals, terminal and standard streams are the command's own.

    The layers stay leased as long as the command lives: it inherits the lease's descriptor. A process that has other
    threads can't enter a user namespace: it starts a child, and ends as that ends.
    """
    from lamella.layers import pull

    linux = kernel.here()
    store = store or Store()
    with ExitStack() as leases:
        with pull.leased(reference, store=store, insecure=insecure, progress=progress, check=preflight.check) as pulled:
            diff_ids = [layer.diff_id for layer in pulled.environment.layers]
            # A lease of its own, taken while the pull's still holds: only this one is to outlive this program.
            lease = leases.enter_context(store.lease(diff_ids, f"run {pulled.reference}"))
        for note in preflight.notes(pulled.environment):
            notify(note)
        os.set_inheritable(lease, True)
        _remove_dead_leases(store)

        def become() -> NoReturn:
            execute(_enter(linux, store, pulled.environment, notify), command)

        if threading.active_count() > 1:
            raise SystemExit(_in_child(become))
        become()


def execute(prefix: str, command: Sequence[str]) -> NoReturn:
    """Replaces this process by `command` in the environment at `prefix`, activated. Raises `CannotRun`."""
    variables = activation.variables(prefix, os.environ)
    program = activation.command(prefix, command)
    path = program[0] if "/" in program[0] else _found(program[0], variables["PATH"])
    if not path:
        raise CannotRun(f"there is no command {program[0]!r}, neither in the environment nor on PATH")
    # Python ignores it; a program that is told of a closed pipe by nothing else would go on writing (as subprocess does).
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execve(path, program, variables)
    except OSError as error:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        code = 127 if isinstance(error, FileNotFoundError) else 126
        raise CannotRun(f"{path} can't be executed: {error.strerror}", code) from error


def _enter(kernel: Kernel, store: Store, environment: PublishedEnvironment, notify: Callable[[str], None]) -> str:
    """Puts the environment where only this process sees it, and gives its prefix there."""
    folders = lowers.for_prefix(store, environment, environment.prefix)
    try:
        namespace.enter(kernel)
        _assemble(kernel, store, environment, folders)
    except MountError as error:
        tree = lowers.linked(store, environment)
        notify(f"{error}: the environment runs as links in {tree} instead of {environment.prefix}")
        return tree
    return environment.prefix


def _assemble(kernel: Kernel, store: Store, environment: PublishedEnvironment, folders: Sequence[str]) -> None:
    try:
        here = os.getcwd()
        place = namespace.make_place(kernel, environment.prefix)
        try:
            assemble.assemble(kernel, folders, place, assemble.MOUNTS)
        except MountError:
            # Kernels before 5.11 let users bind folders, and make no overlay.
            overlay.bind(kernel, lowers.whole(store, environment), place)
    except OSError as error:
        raise MountError(f"nothing can be mounted at {environment.prefix} ({error.strerror or error})") from error
    # By name again: what was covered is another folder now. One that this user can't reach stays what it was.
    with suppress(OSError):
        os.chdir(here)


def _in_child(replaced: Callable[[], NoReturn]) -> int:
    """The exit code of a child that `replaced` turns into a command; raises what that raises instead."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python warns of forks beside threads, whose locks the child keeps for ever. It uses none of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reader)
        _report(writer, replaced)
    os.close(writer)
    with open(reader, "rb") as answer:
        said = answer.read()  # ends when the command's program has replaced the child's
    code = _wait(child)
    if said:
        name, message, exit_code = json.loads(said)
        raise CannotRun(message, exit_code) if name == "CannotRun" else getattr(errors, name, LayersError)(message)
    return code


def _remove_dead_leases(store: Store) -> None:
    # A command can't take its own away when it ends; a node that never runs gc would collect them.
    with suppress(OSError):
        if len(os.listdir(f"{store.path}/leases")) > _MANY_LEASES:
            with locks.exclusive(f"{store.path}/lock"):
                kept(store)


def _found(name: str, search: str) -> str:
    # shutil.which would do, and its module takes as long to import as all of the mounting.
    paths = (os.path.join(folder or ".", name) for folder in search.split(os.pathsep))
    return next((path for path in paths if os.access(path, os.X_OK) and not os.path.isdir(path)), "")


def _report(writer: int, replaced: Callable[[], NoReturn]) -> NoReturn:
    try:
        replaced()
    except LayersError as error:
        said = [type(error).__name__, str(error), getattr(error, "exit_code", 1)]
        os.write(writer, json.dumps(said).encode())
    except BaseException:
        # This child has its parent's stack below it, where nobody waits for what it raises.
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def _wait(child: int) -> int:
    while True:
        try:
            _, status = os.waitpid(child, 0)
        except KeyboardInterrupt:
            continue  # the terminal sent it to the command too, and that decides what comes of it
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code
