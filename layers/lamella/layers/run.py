"""One command in an environment that only it sees, at the prefix that the environment was made for.

Needs no privilege where the machine grants user namespaces; where it grants none, the environment is a tree of links
beside the store, made once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NoReturn

from lamella.layers import activation, assemble, errors, kernel, lowers, namespace, preflight
from lamella.layers.errors import CannotRun, LayersError, MountError
from lamella.layers.progress import Silent
from lamella.layers.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamella.layers.kernel import Kernel
    from lamella.layers.progress import Progress
    from lamella.layers.published import PublishedEnvironment

_SILENT = Silent()


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
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _report(
            writer,
            lambda: replace(reference, command, store=store, insecure=insecure, progress=progress, notify=notify),
        )
    os.close(writer)
    with open(reader, "rb") as answer:
        said = answer.read()  # ends when the command's program has replaced the child's
    code = _wait(child)
    if said:
        name, message, exit_code = json.loads(said)
        raise CannotRun(message, exit_code) if name == "CannotRun" else getattr(errors, name, LayersError)(message)
    return code


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

    The layers stay leased as long as the command lives: it inherits the lease's descriptor. This process must have one
    thread.
    """
    from lamella.layers import pull

    store = store or Store()
    with ExitStack() as leases:
        with pull.leased(reference, store=store, insecure=insecure, progress=progress, check=preflight.check) as pulled:
            diff_ids = [layer.diff_id for layer in pulled.environment.layers]
            # A lease of its own, taken while the pull's still holds: only this one is to outlive this program.
            lease = leases.enter_context(store.lease(diff_ids, f"run {pulled.reference}"))
        os.set_inheritable(lease, True)
        execute(_enter(kernel.here(), store, pulled.environment, notify), command)


def execute(prefix: str, command: Sequence[str]) -> NoReturn:
    """Replaces this process by `command` in the environment at `prefix`, activated. Raises `CannotRun`."""
    variables = activation.variables(prefix, os.environ)
    program = activation.command(prefix, command)
    path = program[0] if "/" in program[0] else shutil.which(program[0], path=variables["PATH"])
    if not path:
        raise CannotRun(
            f"there is no command {program[0]!r}, neither in the environment nor on PATH: try lamella scan on it"
        )
    # Python ignores it; a program that is told of a closed pipe by nothing else would go on writing (as subprocess does).
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execve(path, program, variables)
    except OSError as error:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        code = 127 if isinstance(error, FileNotFoundError) else 126
        raise CannotRun(f"{path} can't be executed: {error.strerror}", code) from error


def enter(kernel: Kernel, folders: Sequence[str], prefix: str) -> None:
    """Puts the folders (lowest first) together at `prefix`, for this process and its children alone.

    Raises `MountError`. After it, this process may be in namespaces that it can't leave.
    """
    here = os.getcwd()
    try:
        namespace.enter(kernel)
        place = namespace.make_place(kernel, prefix)
    except OSError as error:
        raise MountError(f"no namespace for {prefix}: {error.strerror or error}") from error
    assemble.assemble(kernel, folders, place, assemble.MOUNTS)
    # By name again: what was covered is another folder now. One that this user can't reach stays what it was.
    with suppress(OSError):
        os.chdir(here)


def _enter(kernel: Kernel, store: Store, environment: PublishedEnvironment, notify: Callable[[str], None]) -> str:
    obstacle = namespace.obstacle(kernel)
    if obstacle:
        tree = lowers.linked(store, environment)
        notify(f"no namespace for {environment.prefix} here ({obstacle}): the environment runs as links in {tree}")
        return tree
    enter(kernel, lowers.for_prefix(store, environment, environment.prefix), environment.prefix)
    return environment.prefix


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
