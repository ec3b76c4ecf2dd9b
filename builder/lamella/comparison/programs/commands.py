"""Commands and servers of a comparison: each in a session of its own, with its output in a log, and ended with the comparison."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

from lamella.comparison.errors import StepFailed
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

MARK = "LAMELLA_COMPARE"
"""Variable in the environment of every process of a comparison: the path of its scratch folder. It finds processes that were left."""
TERMINATION_SECONDS = 20.0
_LINE = 300
_DROPPED = (
    "REGISTRY_",
    "DOCKER_",
    "BUILDX_",
    "BUILDKIT_",
    "BUILDAH_",
    "CONTAINER_",
    "CONTAINERS_",
    "UV_",
    "PIP_",
    "LAMELLA_",
    "VIRTUAL_ENV",
    "CONDA_",
    "PYTHON",
    "RAY_",
)
"""Settings of the user's own work: a comparison runs each program as its documentation says."""


class Commands:
    """Runs programs. `children` are the processes that are waited for, `servers` those whose time is not a client's."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._log = os.path.join(scratch, "log")
        os.makedirs(self._log, exist_ok=True)
        self._number = 0
        self._lock = threading.Lock()
        self.children: set[int] = set()
        self.servers: set[int] = set()
        self.daemons: dict[int, str] = {}

    def elsewhere(self, places: Collection[str]) -> frozenset[int]:
        """Return the processes that do not work for machines with these folders: servers, and other machines' daemons."""
        return frozenset(self.servers | {pid for pid, place in self.daemons.items() if place not in places})

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: str | None = None,
    ) -> str:
        """Run `command`, and return its standard output. `stdin`: a file for its standard input.

        Raises:
            StepFailed: it did not end with 0.
        """
        path = self._path(command[0])
        with (
            open(path, "wb") as err,
            open(f"{path}.out", "wb") as out,
            open(stdin or os.devnull, "rb") as source,
            self._started(command, env, cwd, out=out.fileno(), err=err.fileno(), source=source.fileno()) as process,
        ):
            code = process.wait()
        with open(f"{path}.out", "rb") as result:
            text = result.read().decode("utf-8", "replace")
        if code:
            with open(path, "rb") as messages:
                lines = [line for line in messages.read().decode("utf-8", "replace").splitlines() if line.strip()]
            lines = lines or text.splitlines() or ["no message"]
            # A build ends with lines about itself: the reason is further up.
            said = next((line for line in lines if "error: " in line.lower()), lines[-1]).strip()
            raise StepFailed(f"{os.path.basename(command[0])} ended with {code}: {_shown(said)}")
        return text

    @contextlib.contextmanager
    def daemon(
        self,
        command: Sequence[str],
        ready: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        is_server: bool = False,
        place: str = "",
    ) -> Iterator[str]:
        """Run `command` until the context is left, and yield the line of its output that has `ready` in it.

        `place`: folder of the machine that it belongs to.

        Raises:
            StepFailed: it ended before it was ready.
        """
        path = self._path(command[0])
        read, write = os.pipe()
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(open(read, "rb"))
            try:
                process = stack.enter_context(self._started(command, env, cwd, out=write, err=write))
            finally:
                os.close(write)
            if is_server:
                self.servers.add(process.pid)
                stack.callback(self.servers.discard, process.pid)
            self.daemons[process.pid] = place
            stack.callback(self.daemons.pop, process.pid)
            log = stack.enter_context(open(path, "wb"))
            last = b""
            for line in source:
                log.write(line)
                last = line or last
                if ready.encode() in line:
                    break
            else:
                said = _shown(last.decode("utf-8", "replace").strip())
                raise StepFailed(f"{os.path.basename(command[0])} did not start: {said or 'no message'}")
            drain = threading.Thread(target=_drain, args=(source.fileno(), path), daemon=True)
            drain.start()
            stack.callback(drain.join, TERMINATION_SECONDS)
            stack.callback(_end, process)
            yield line.decode("utf-8", "replace").strip()

    @contextlib.contextmanager
    def _started(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None,
        cwd: str | None,
        *,
        out: int,
        err: int,
        source: int = -3,
    ) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            command,
            env=self.environment(env),
            cwd=cwd or self._scratch,
            stdin=source,
            stdout=out,
            stderr=err,
            # Ctrl-C on the terminal reaches the comparison alone, which then ends each in its order.
            start_new_session=True,
        )
        self.children.add(process.pid)
        try:
            yield process
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            self.children.discard(process.pid)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables of a command: the user's, without settings of the programs that are compared."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED)}
        return {**kept, MARK: self._scratch, **(more or {})}

    def _path(self, program: str) -> str:
        with self._lock:
            self._number += 1
            return os.path.join(self._log, f"{self._number:04}-{os.path.basename(program)}")


def _shown(line: str) -> str:
    """Return a line of a program's messages fit to be shown. A long one, as podman writes, has its reason at the end."""
    text = escaped(line)
    return text if len(text) <= _LINE else f"{text[: _LINE // 3]}…{text[-_LINE * 2 // 3 :]}"


def _drain(descriptor: int, path: str) -> None:
    """Read a daemon's output to its end, so that it never waits for room."""
    with open(path, "ab") as log, contextlib.suppress(OSError):
        while data := os.read(descriptor, 65536):
            log.write(data)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(TERMINATION_SECONDS)
