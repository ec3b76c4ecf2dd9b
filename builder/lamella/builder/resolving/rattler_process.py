"""Ask rattler in a process of its own, and give its failures one sentence each."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from lamella.builder.errors import CannotResolve
from lamella.builder.urls import text_without_credentials
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lamella.builder.resolving.rattler_worker import main; main()"
)
_STATUS = re.compile(r"\b(?P<status>401|403|404)\b")
_MISMATCH = re.compile(r"hash mismatch|checksum|sha256|hash did not match", re.IGNORECASE)
_URL = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>()]+")
_WITHOUT_INDEX = re.compile(r"could not find subdir '([^']+)' in channel '([^']+?)/?'")
_ADVICE = {
    "401": "requires authentication; log in with pixi auth login HOST or set RATTLER_AUTH_FILE",
    "403": "access denied; log in with pixi auth login HOST or set RATTLER_AUTH_FILE",
    "404": "not found; check the channel's URL",
}


@contextlib.contextmanager
def rattler_process() -> Iterator[Rattler]:
    """A process with rattler, ended at the end. Raises `CannotResolve` if py-rattler is not installed."""
    if importlib.util.find_spec("rattler") is None:
        raise CannotResolve("py-rattler: not installed, and needed for conda packages; pip install py-rattler")
    # The child has the parent's modules: whatever way Lamella was found is right.
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, json.dumps([os.path.abspath(path) for path in sys.path])]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
    )
    try:
        yield Rattler(process)
    finally:
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        process.wait()


class Rattler:
    """Asks a process with rattler, one request at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, do: str, advance: Callable[[int], object] = lambda _: None, **request: Any) -> Any:
        """The worker's answer. Raises `CannotResolve`."""
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            answer = json.loads(line)
            if "advance" in answer:
                advance(answer["advance"])
            elif "error" in answer:
                raise CannotResolve(failure(answer["error"]))
            else:
                return answer["result"]
        raise CannotResolve(f"rattler ended with exit code {self._process.wait()}; run the command again")


def failure(text: str) -> str:
    """One sentence of rattler's error, without credentials."""
    text = text_without_credentials(text)
    url = found[0].rstrip(".,:;") if (found := _URL.search(text)) else "conda channel"
    if status := _STATUS.search(text.replace(url, "")):
        return f"{url}: {_ADVICE[status['status']]}"
    if missing := _WITHOUT_INDEX.search(text):
        # A folder that has shards alone is one of them: rattler reads those of servers.
        subdir, channel = (escaped(each, 300) for each in missing.groups())
        return f"{channel}: has no {subdir}/repodata.json; check the channel's URL, or index the channel"
    if text.startswith("LookupError: "):
        return text.partition(": ")[2]
    if _MISMATCH.search(text):
        return f"{url}: its hash differs from the channel's; the file is damaged or was replaced, push again"
    if re.search(r"error sending request|connect|timed? ?out|dns", text, re.IGNORECASE):
        return f"{url}: cannot be reached; check the network and the channel's URL"
    return f"conda: {escaped(' '.join(text.split()), 500)}"
