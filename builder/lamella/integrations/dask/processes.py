"""A scheduler and workers as processes of `lamella run` on hosts, in the terms of distributed's `SpecCluster`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar

import dask
from distributed.core import Status
from distributed.deploy.spec import ProcessInterface

from lamella.integrations.dask import server
from lamella.integrations.dask.hosts import ClusterError
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from lamella.integrations.dask.hosts import Hosts

_LOG = logging.getLogger(__name__)
_PIECE = 65536
_CLOSE_SECONDS = 10.0
_KEPT_LINES = 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs, and in which environment."""

    host: str
    hosts: Hosts
    reference: str
    """Pinned to a digest."""


@dataclass(slots=True)
class _Output:
    """What a process has written: its answers, and its last lines for an error."""

    answers: asyncio.Queue[dict[str, Any] | None] = field(default_factory=asyncio.Queue)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))

    @property
    def last(self) -> str:
        """The last line with text."""
        return self.lines[-1].removeprefix("lamella: ") if self.lines else ""


class Process(ProcessInterface):
    """A server of distributed on a host: `lamella run REFERENCE -- python`, which lives as long as its connection."""

    role: ClassVar[str]

    def __init__(self, place: Place, server_class: str, options: Mapping[str, Any], name: object = None) -> None:
        super().__init__(name=name)
        self.place = place
        self.name = name
        self._class = server_class
        self._options = dict(options)
        self._arguments: tuple[str, ...] = ()
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._output = _Output()

    async def start(self) -> None:
        """Start the process and wait until it serves. Raises `ClusterError`."""
        try:
            process = await self._begin(server.versions())
            self.address = await self._answer("address")
        except BaseException:
            await self.close()
            raise
        self._tasks.append(asyncio.create_task(self._wait(process)))
        await super().start()

    async def close(self) -> None:
        """End the process: its connection closes, and 10 seconds later it is killed. Idempotent."""
        process, self._process = self._process, None
        if process:
            assert process.stdin
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), _CLOSE_SECONDS)
            except asyncio.TimeoutError:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            # A program that a task left running may hold the streams.
            await asyncio.wait(self._tasks, timeout=1)
            for task in self._tasks:
                task.cancel()
        await super().close()

    async def _begin(self, expected: Mapping[str, str]) -> asyncio.subprocess.Process:
        """Start the process, which checks its versions."""
        place = self.place
        program = files("lamella.integrations.dask").joinpath("server.py").read_text(encoding="utf-8")
        command = place.hosts.command(place.host, "run", "--quiet", place.reference, "--", "python", "-c", program)
        self._process = process = await _started(command, place.host)
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self._tasks = [
            asyncio.create_task(self._read_output(process.stdout)),
            asyncio.create_task(self._read_errors(process.stderr)),
        ]
        process.stdin.write(json.dumps(self._specification(expected)).encode() + b"\n")
        with suppress(ConnectionError):  # it has ended, and its answer has the reason
            await process.stdin.drain()
        self._check(expected, await self._answer("versions"))
        return process

    def _specification(self, expected: Mapping[str, str]) -> dict[str, Any]:
        return {
            "class": self._class,
            "arguments": self._arguments,
            "options": self._options,
            "scheduler": self.role == "scheduler",
            "versions": expected,
            "configuration": dask.config.serialize(dask.config.global_config),
        }

    async def _answer(self, key: str) -> Any:
        answer = await self._output.answers.get()
        if answer is None:
            raise ClusterError(f"{self._where}: did not start: {escaped(self._output.last or 'no output', 500)}")
        if "missing" in answer:
            raise ClusterError(
                f"{self._where}: {self.place.reference} lacks {answer['missing']}; install it in the environment that "
                "you push"
            )
        if key not in answer:
            raise ClusterError(f"{self._where}: did not start: {escaped(str(answer.get('error', answer)), 500)}")
        return answer[key]

    def _check(self, expected: Mapping[str, str], found: Mapping[str, str]) -> None:
        for name, version in expected.items():
            if found.get(name) != version:
                raise ClusterError(
                    f"{self._where}: {self.place.reference} has {name} {escaped(str(found.get(name)), 50)}, and this "
                    f"process {version}; push the environment of this process, or run it in that one"
                )

    @property
    def _where(self) -> str:
        return f"{self.role} on {self.place.host or 'this machine'}"

    async def _read_output(self, stream: asyncio.StreamReader) -> None:
        async for line in _lines(stream):
            if line.startswith(server.SEPARATOR):
                with suppress(ValueError):
                    self._output.answers.put_nowait(json.loads(line[1:]))
            else:
                self._log(line)
        self._output.answers.put_nowait(None)

    async def _read_errors(self, stream: asyncio.StreamReader) -> None:
        async for line in _lines(stream):
            self._output.lines.append(line)
            self._log(line)

    def _log(self, line: str) -> None:
        if line:
            _LOG.info("%s: %s", self._where, escaped(line))

    async def _wait(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if self._process is process and self.status == Status.running:
            _LOG.warning("%s: ended with code %d: %s", self._where, code, escaped(self._output.last, 500))
            self.status = Status.closed
            self._event_finished.set()


class Trial(Process):
    """A try of an environment on a host: pull it, and compare its versions with this process's."""

    role = "python"

    def __init__(self, place: Place) -> None:
        super().__init__(place, "", {})

    async def check(self) -> None:
        """Raise `ClusterError` unless the environment works there."""
        try:
            await self._begin(server.versions())
        finally:
            await self.close()


class Scheduler(Process):
    """A scheduler on a host."""

    role = "scheduler"

    def __init__(self, place: Place, options: Mapping[str, Any]) -> None:
        super().__init__(place, "distributed.Scheduler", options)


class Worker(Process):
    """A worker, with its nanny unless `worker_class` is another, on a host."""

    role = "worker"

    def __init__(
        self, scheduler: str, place: Place, worker_class: str, options: Mapping[str, Any], name: object = None
    ) -> None:
        super().__init__(place, worker_class, {"name": name, **options}, name)
        self._arguments = (scheduler,)


async def _started(command: list[str], host: str) -> asyncio.subprocess.Process:
    """Start `command`, with pipes, outside the terminal's group: Ctrl-C is this process's to handle. Raises `ClusterError`."""
    pipe = asyncio.subprocess.PIPE
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
    except OSError as error:
        raise ClusterError(
            f"{host or 'this machine'}: cannot start {command[0]}: {error.strerror}; correct connect or lamella of Hosts"
        ) from error


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Yield the lines of `stream`, without their ends; a line without an end is cut after 64 KiB."""
    rest = b""
    while piece := await stream.read(_PIECE):
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > _PIECE:
            whole, rest = [*whole, rest], b""
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")
