"""`make demo`: Lamella's main job on a real environment, and what it costs the first time and after an upgrade.

Everything is made in demo/, in folders of this run alone; the environment stays there for `make bench`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.environment import AFTER, BEFORE, IMPORTED, UPGRADED, make, tree, upgrade
from lamella.cli.tables import Column, aligned
from lamella.layers.text import counted, seconds, size

DEMO = Path(__file__).parents[2] / "demo"


@dataclass(frozen=True, slots=True)
class Round:
    """What one push and one pull moved."""

    pushed: dict[str, Any]
    pulled: dict[str, Any]


def main() -> int:
    """Runs the demo, from nothing to the comparison."""
    began = time.monotonic()
    # A fresh folder, and all of them removed at the end: a disk that has just removed many files makes new ones slowly.
    run = DEMO / f"run-{os.getpid()}-{int(time.time())}"
    run.mkdir(parents=True)
    # The demo is of the environment alone: the folder that it runs in is the repository.
    environment = {"LAMELLA_STORE": str(run / "store"), "LAMELLA_CACHE": str(run / "cache"), "LAMELLA_LOCAL": ""}
    os.environ.update(environment)
    prefix, layout = DEMO / "env", f"oci:{run.relative_to(DEMO.parent)}/layout"
    os.chdir(DEMO.parent)

    title("A virtual environment")
    replace_environment(prefix)
    files, total = tree(prefix)
    say(f"{prefix.relative_to(DEMO.parent)}: {counted(files, 'file')}, {size(total)}")
    lamella("scan", str(prefix.relative_to(DEMO.parent)))

    title("The first push, and the first pull into an empty store")
    first = both(f"{layout}:first", prefix)
    title("Python runs from the mount")
    imports(f"{layout}:first")

    title("Pushed and pulled again, nothing changed")
    again = both(f"{layout}:again", prefix)

    title(f"{UPGRADED} {BEFORE} becomes {AFTER}")
    upgrade(prefix)
    upgraded = both(f"{layout}:upgraded", prefix)
    imports(f"{layout}:upgraded")

    title("What moved")
    for line in comparison(first, again, upgraded):
        say(line)
    say("")
    say("Packages in the runnable image's shared layer count twice; nodes pull one layer for each package.")
    say(f"All of it, the download of the packages included, took {seconds(time.monotonic() - began)}.")
    for folder in DEMO.glob("run-*"):
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def replace_environment(prefix: Path) -> None:
    """Makes the environment anew, beside the one of an earlier run, so that the two runs begin alike."""
    fresh = prefix.with_name(f"run-env-{os.getpid()}")
    if prefix.exists():
        prefix.rename(fresh)
    make(prefix)


def both(reference: str, prefix: Path) -> Round:
    """Pushes and pulls."""
    pushed = lamella("push", reference, str(prefix.relative_to(DEMO.parent)), result=True)
    return Round(pushed, lamella("pull", reference, result=True))


def imports(reference: str) -> None:
    """Imports the lot in the mounted environment and says where it came from."""
    program = f"import {', '.join(IMPORTED)}; print(pandas.__version__, numpy.__file__)"
    lamella("run", reference, "--", "python", "-c", program)


def lamella(*arguments: str, result: bool = False) -> dict[str, Any]:
    """Runs a verb as a person would; with `result`, gives what it says with --json and prints its sentence."""
    say(f"$ lamella {shlex.join(arguments)}")
    command = [sys.executable, "-m", "lamella.cli", *arguments]
    if not result:
        subprocess.run(command, check=True)
        return {}
    done = subprocess.run([*command, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    value: dict[str, Any] = json.loads(done.stdout)
    say(value["reference"])
    return value


def comparison(first: Round, again: Round, upgraded: Round) -> list[str]:
    """The table of what moved."""
    rounds = (first, again, upgraded)
    columns = (
        Column(""),
        Column("first time", "right"),
        Column("nothing changed", "right"),
        Column(f"{UPGRADED} upgraded", "right"),
    )
    rows = [
        ("push: layers built", *(f"{item.pushed['built']['layers']}" for item in rounds)),
        ("push: layers uploaded", *(f"{item.pushed['uploaded']['layers']}" for item in rounds)),
        ("push: bytes uploaded", *(size(item.pushed["uploaded"]["bytes"]) for item in rounds)),
        ("push: seconds", *(f"{item.pushed['seconds']:.2f}" for item in rounds)),
        ("pull: layers downloaded", *(f"{item.pulled['downloaded']['layers']}" for item in rounds)),
        ("pull: bytes downloaded", *(size(item.pulled["downloaded"]["bytes"]) for item in rounds)),
        ("pull: seconds", *(f"{item.pulled['seconds']:.2f}" for item in rounds)),
    ]
    return aligned(columns, rows)


def share(first: Round, upgraded: Round) -> tuple[str, float]:
    """What the upgrade moved of what the first pull did."""
    all_of_it, some = first.pulled["downloaded"], upgraded.pulled["downloaded"]
    return f"{some['layers']} of {counted(all_of_it['layers'], 'layer')}", some["bytes"] / all_of_it["bytes"]


def title(text: str) -> None:
    """A heading between the steps."""
    say(f"\n=== {text}\n")


def say(line: str) -> None:
    """Prints now: the verbs print to the same place."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
