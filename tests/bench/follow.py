"""How long an edit takes to reach a node: from the saved file to the next Python that sees it.

    python tests/bench/follow.py [PREFIX] [--rounds 10] [--line 50] [--interval 1] [--keep FOLDER]

`push --watch` and `mount --follow` run as processes of their own, with a registry between them: on loopback, and
behind a line of some milliseconds a round trip. Needs root and `docker-registry`. PREFIX, by default
the demo's environment, is only read.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

from bench.table import ROOT, keep
from demo.environment import make
from lamella.layers import umount
from lamella.layers.store.store import Store
from support.distribution import distribution
from support.engines import need_root
from support.processes import started
from support.slow_line import SlowLine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BUDGETS = {"loopback": 1.0, "line": 3.0}
"""Seconds from a saved edit to its use on the node."""
PATIENCE = 60.0
"""Seconds until an edit that is not seen is an error."""
_TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Round:
    """One edit."""

    seconds: float
    """From the saved file to the first look at the node that finds it."""
    watch: float
    """Seconds of the processors, of the watch and its children."""
    follower: float
    """Seconds of the processors, of the follower."""
    requests: int
    """HTTP requests of both; 0 on loopback, since only the line counts them."""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("prefix", type=Path, nargs="?", default=ROOT / "demo/env")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--line", type=float, default=50, help="milliseconds of a round trip")
    parser.add_argument(
        "--interval", type=float, default=1.0, help="seconds between the follower's requests over the line"
    )
    parser.add_argument("--only", choices=sorted(BUDGETS), help="one of the two ways")
    parser.add_argument(
        "--keep", type=Path, help="folder for caches and the registry, for a second run without a cold push"
    )
    parser.add_argument("--requests", action="store_true", help="print the requests of the last edit over the line")
    arguments = parser.parse_args()
    need_root()
    if not arguments.prefix.exists():
        make(arguments.prefix)
    found: dict[str, list[Round]] = {}
    for way in BUDGETS:
        if arguments.only in (None, way):
            found[way] = measure(way, arguments)
            show(way, found[way], arguments)
    values = {way: [asdict(each) for each in rounds] for way, rounds in found.items()}
    kept = keep("follow", arguments.prefix.absolute(), {"rounds": values})
    print(f"\nkept in {kept}")


def measure(way: str, arguments: argparse.Namespace) -> list[Round]:
    """The rounds of one way between the two sides."""
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lamella-bench-")))
        registry = stack.enter_context(distribution(folder=str(folder / "registry")))
        line, options = None, []
        if way == "line":
            line = SlowLine(registry, arguments.line / 1000)
            registry = stack.enter_context(line.serving())
            # A registry on loopback is asked more often than one elsewhere.
            options = ["--interval", str(arguments.interval)]
        return list(edits(stack, folder, f"{registry}/bench/follow:dev", line, options, arguments))


def edits(
    stack: contextlib.ExitStack,
    folder: Path,
    reference: str,
    line: SlowLine | None,
    options: Sequence[str],
    arguments: argparse.Namespace,
) -> Iterator[Round]:
    """Start both sides, and measure one edit after another."""
    module = project(folder / "project")
    settings = os.environ | {"LAMELLA_CACHE": str(folder / "cache"), "LAMELLA_STORE": str(folder / "store")}
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH"):
        settings.pop(name, None)
    local = ["--local", str(folder / "project")]
    watch = Side(["push", "--watch", *local, reference, str(arguments.prefix.absolute())], settings, stack)
    watch.wait("pushed")
    target = folder / "target"
    stack.callback(lambda: umount(str(target), store=Store(str(folder / "store")), lazy=True))
    follower = Side(["mount", "--follow", *options, reference, str(target)], settings, stack)
    follower.wait("following")
    seen = Path(python(target, "print(trainer.edited.__file__)"))
    for number in range(1, arguments.rounds + 2):
        before = watch.cpu, follower.cpu, len(line.requests) if line else 0
        # New in every run: a kept registry has the layers of the last one.
        content = f"VALUE = {number}  # {time.time_ns()}\n"
        module.write_text(content)
        began = time.monotonic()
        while seen.read_text() != content:
            time.sleep(0.002)
            if time.monotonic() - began > PATIENCE:
                sys.exit(f"not seen within {PATIENCE:g} s: {watch.last} {follower.last}")
        seconds = time.monotonic() - began
        assert python(target, "print(trainer.edited.VALUE)") == str(number)
        watch.wait("pushed")
        follower.wait("replaced")
        requests = line.requests[before[2] :] if line else []
        # The first edit is the first after a whole scan, and opens connections.
        if number > 1:
            yield Round(seconds, watch.cpu - before[0], follower.cpu - before[1], len(requests))
        if arguments.requests and number == arguments.rounds + 1:
            print("\n".join(each[:120] for each in requests))


class Side:
    """One of the two programs, with its events."""

    def __init__(self, command: Sequence[str], settings: dict[str, str], stack: contextlib.ExitStack) -> None:
        whole = [sys.executable, "-m", "lamella.cli", command[0], command[1], "--json", *command[2:]]
        self._process = stack.enter_context(started(whole, stdout=PIPE, env=settings))
        self._events: Counter[str] = Counter()
        self._waited: Counter[str] = Counter()
        self._changed = threading.Condition()
        self.last: dict[str, Any] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def wait(self, kind: str) -> None:
        """Wait for the next event of that kind."""
        self._waited[kind] += 1
        with self._changed:
            if not self._changed.wait_for(lambda: self._events[kind] >= self._waited[kind], 10 * PATIENCE):
                sys.exit(f"no event {kind!r}; the last one: {self.last}")

    @property
    def cpu(self) -> float:
        """Seconds of the processors until now, with those of ended children. Source: proc_pid_stat(5)."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) * _TICK

    def _read(self) -> None:
        assert self._process.stdout
        for text in self._process.stdout:
            with self._changed:
                self.last = json.loads(text)
                self._events[self.last["event"]] += 1
                self._changed.notify_all()


def project(folder: Path) -> Path:
    """A project of 50 modules; return the one to edit."""
    code = folder / "trainer"
    code.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text("[project]\nname = 'trainer'\nversion = '1.0'\n")
    (code / "__init__.py").write_text("")
    for number in range(50):
        (code / f"module_{number}.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 50)
    (code / "edited.py").write_text("VALUE = 0\n")
    return code / "edited.py"


def python(target: Path, statement: str) -> str:
    """What a new Python of the node's environment prints."""
    command = [str(target / "bin/python"), "-c", f"import trainer.edited; {statement}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def show(way: str, rounds: Sequence[Round], arguments: argparse.Namespace) -> None:
    """Print one way's figures."""
    seconds = sorted(each.seconds for each in rounds)
    median = statistics.median(seconds)
    name = f"a line of {arguments.line:g} ms, asked every {arguments.interval:g} s" if way == "line" else way
    met = "met" if median < BUDGETS[way] else "missed"
    print(f"{name}: {len(rounds)} edits, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    print(
        f"  seen after     {median:6.2f} s  ({seconds[0]:.2f} to {seconds[-1]:.2f}; budget {BUDGETS[way]:g} s: {met})"
    )
    for side in ("watch", "follower"):
        cpu = sorted(getattr(each, side) for each in rounds)
        print(f"  {side:10}     {statistics.median(cpu):6.2f} s of the processors  ({cpu[0]:.2f} to {cpu[-1]:.2f})")
    if way == "line":
        print(f"  requests       {statistics.median(each.requests for each in rounds):6g}")


if __name__ == "__main__":
    main()
