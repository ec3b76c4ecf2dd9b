"""The program of a scheduler or worker on its host. It arrives as text, since the environment need not hold Lamella.

The specification is the first line of stdin, never an argument that every user of the host could read. The server lives as
long as stdin stays open: a lost connection, or the end of the caller, leaves no process behind. Answers are JSON texts on
stdout, each after a record separator (RFC 7464), among the lines that tasks print.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHECKED = ("distributed", "dask", "cloudpickle", "msgpack")
"""Packages whose versions are part of the protocol between client, scheduler and workers."""
SEPARATOR = "\x1e"
_CLOSE_SECONDS = 5.0


def versions() -> dict[str, str]:
    """The versions of Python, without its patch, and of the packages in `CHECKED`; raises `ModuleNotFoundError`."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return {"python": python} | {name: _version(import_module(name)) for name in CHECKED}


def _version(module: Any) -> str:
    # msgpack's is a tuple of another name.
    return str(getattr(module, "__version__", "") or ".".join(map(str, module.version)))


def main() -> None:
    """Serve by the specification in the first line of stdin."""
    # The folder where the connection starts holds whatever its user keeps there.
    sys.path[:] = [folder for folder in sys.path if folder]
    line = b""
    while not line.endswith(b"\n") and (read := os.read(0, 65536)):
        line += read
    if not line:
        return
    specification = json.loads(line)
    # Read when dask is imported, here and in each worker that a nanny starts.
    os.environ["DASK_INTERNAL_INHERIT_CONFIG"] = specification["configuration"]
    try:
        found = versions()
    except ModuleNotFoundError as error:
        _answer(missing=error.name)
        return
    _answer(versions=found)
    if specification["class"] and found == specification["versions"]:
        asyncio.run(_serve(specification))


async def _serve(specification: Mapping[str, Any]) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    threading.Thread(target=_watch_stdin, args=(lambda: loop.call_soon_threadsafe(ended.set),), daemon=True).start()
    module, _, name = specification["class"].rpartition(".")
    server = getattr(import_module(module), name)(*specification["arguments"], **specification["options"])
    life = asyncio.ensure_future(_live(server))
    gone = asyncio.ensure_future(ended.wait())
    await asyncio.wait({life, gone}, return_when=asyncio.FIRST_COMPLETED)
    if life.done():
        if error := life.exception():
            _answer(error=f"{type(error).__name__}: {error}")
        os._exit(1 if error else 0)
    if not specification["scheduler"]:
        # A nanny ends its worker.
        await asyncio.wait({asyncio.ensure_future(server.close())}, timeout=_CLOSE_SECONDS)
    # A scheduler that closes in order would close its clients too, which are to find its successor.
    os._exit(0)


async def _live(server: Any) -> None:
    await server
    _answer(address=server.address)
    await server.finished()


def _watch_stdin(end: Callable[[], object]) -> None:
    while os.read(0, 65536):
        pass
    end()


def _answer(**values: object) -> None:
    # One write, whole between the lines of tasks.
    os.write(1, f"\n{SEPARATOR}{json.dumps(values)}\n".encode())


if __name__ == "__main__":
    main()
