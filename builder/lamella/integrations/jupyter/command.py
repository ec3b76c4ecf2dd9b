"""The command `lamella` as a process: its lines as they come, its document, and its failure as one sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamella.builder import LamellaError
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# As `python -m lamella.cli`, which would import from the notebook's folder first.
_PROGRAM = "import sys; sys.path.pop(0); from lamella.cli.main import main; raise SystemExit(main())"
_TICK_SECONDS = 0.2
_MARK = "lamella: "


class CommandFailed(LamellaError):
    """A command that failed; a notebook shows the sentence without a traceback, and runs no further cells."""

    def _render_traceback_(self) -> list[str]:
        # The protocol of IPython's `showtraceback`.
        return [f"{_MARK}{self}"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    output: str
    """What it wrote to stdout, unless it was shown line by line."""
    remarks: tuple[str, ...]
    """The lines that it wrote to stderr."""

    @property
    def document(self) -> dict[str, Any]:
        """The document of `--json`; empty without one."""
        try:
            found = json.loads(self.output)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def check(self) -> None:
        """Raise `CommandFailed` unless the command succeeded."""
        if self.code:
            marked = [line.removeprefix(_MARK) for line in self.remarks if line.startswith(_MARK)]
            raise CommandFailed([f"exit code {self.code}", *(marked or self.remarks)][-1])


def run(
    words: Sequence[str],
    *,
    input_text: str = "",
    line: Callable[[str], object] | None = None,
    remark: Callable[[str], object],
    tick: Callable[[], object],
) -> Ended:
    """Run the command with `words`.

    `line` gets each line of stdout, which is collected without it; `remark` each line of stderr; both are called in this
    thread, and `tick` five times a second. Ctrl-C ends the command as in a shell, and is `CommandFailed`.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        # The kernel's environment, whatever was active when Jupyter started. Without a terminal nothing asks a question.
        env={**os.environ, "VIRTUAL_ENV": sys.prefix},
        start_new_session=True,
    )
    queues: dict[str, list[str]] = {"output": [], "remarks": []}
    threads = [
        threading.Thread(target=queues["output"].extend, args=(process.stdout,), daemon=True),
        threading.Thread(target=queues["remarks"].extend, args=(process.stderr,), daemon=True),
    ]
    seen = {"output": 0, "remarks": 0}

    def show(code: int | None = None) -> None:
        for name, act in (("output", line), ("remarks", remark)):
            fresh = queues[name][seen[name] :]
            # The last sentence is a failure's, which is raised, unless more follows or the command succeeds.
            if code != 0 and fresh and name == "remarks" and fresh[-1].startswith(_MARK):
                fresh = fresh[:-1]
            seen[name] += len(fresh)
            for text in fresh:
                if act:
                    act(escaped(text.rstrip("\n")))
        tick()

    with process:
        for thread in threads:
            thread.start()
        try:
            assert process.stdin
            process.stdin.write(input_text)
            process.stdin.close()
            while any(thread.is_alive() for thread in threads):
                threads[0].join(_TICK_SECONDS)
                if not threads[0].is_alive():
                    threads[1].join(_TICK_SECONDS)
                show()
        except BrokenPipeError:
            pass
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise CommandFailed("interrupted; no partial result left behind") from None
        code = process.wait()
        for thread in threads:
            thread.join()
        show(code)
    remarks = tuple(escaped(text.rstrip("\n")) for text in queues["remarks"])
    return Ended(code, "".join(queues["output"]), remarks)
