"""`make bench`: the budgets, as ratios measured in one run on one environment, beside other tools.

    python -m bench [--prefix /path/to/environment] [--no-engine]

Seconds depend on the machine and its load: read the ratios, and of two the one of the processors. Results are kept in
`.bench`. `make bench-compare` compares two versions of the code; `make bench-pull` and the like measure one part of it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench import others
from bench.measure import Failed, Took, lamella, run
from bench.table import ROOT, Line, absolute, beside, keep, processors, show, values
from demo.environment import IMPORTED, make
from lamella.layers.text import counted, size
from support.distribution import distribution
from support.published import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROUNDS = 5
"""Rounds of actions of less than a second. The least counts, since noise only adds."""
MADE_UP = {228: 10, 500: 50}
"""Layers, and the milliseconds that a mount of them may take from a warm store."""
MOUNT = """
import json, sys, time
from lamella.layers.mounting.mount import mount, umount
from lamella.layers.store.store import Store
store, least = Store(), 1e9
for _ in range(20):
    begin = time.perf_counter()
    mount(sys.argv[1], sys.argv[2], store=store)
    least = min(least, time.perf_counter() - begin)
    umount(sys.argv[2], store=store)
print(json.dumps({"seconds": least}))
"""


def main() -> int:
    """Measures everything and prints the table."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--prefix", type=Path, default=ROOT / "demo/env")
    parser.add_argument("--no-engine", action="store_true", help="without docker build, push and pull")
    arguments = parser.parse_args()
    prefix = arguments.prefix.absolute()
    if not prefix.exists():
        if prefix != ROOT / "demo/env":
            parser.error(f"{prefix} is not there")
        note("making the demo's environment")
        make(prefix)
    # On one file system with the environment, so that uv may make hard links and cp is not a copy between disks.
    with tempfile.TemporaryDirectory(prefix="lamella-bench-", dir=prefix.parent) as scratch, distribution() as registry:
        lines = list(measure(prefix, Path(scratch), registry, with_engine=not arguments.no_engine))
    print()
    show(lines)
    print(f"\nkept in {keep('bench', prefix, {'lines': values(lines)})}")
    return 0


def measure(prefix: Path, folder: Path, registry: str, *, with_engine: bool) -> Iterator[Line]:
    """Every comparison, in the order of a first day: all new, nothing changed, one change."""
    settings = {"LAMELLA_STORE": str(folder / "store"), "LAMELLA_CACHE": str(folder / "cache")}
    reference = f"{registry}/bench/lamella:v1"
    note("lamella push, pull, mount: everything new")
    push = lamella("push", reference, prefix, settings=settings)
    pull = lamella("pull", reference, settings=settings)
    pinned = str(push.value["reference"])
    mount = mounting(pinned, folder, settings)
    note("lamella push: nothing changed")
    again = least(lambda: lamella("push", reference, prefix, settings=settings))
    note("lamella push and pull: one file of one package changed")
    path, content = a_module(prefix)
    with changed(prefix / path, content):
        second = lamella("push", reference.replace(":v1", ":v2"), prefix, settings=settings)
    repull = lamella("pull", str(second.value["reference"]), settings=settings)
    remount = mounting(str(second.value["reference"]), folder, settings)
    print(
        f"{prefix}: {counted(push.value['packages'], 'package')}, {size(push.value['uploaded']['bytes'])} compressed; "
        f"{os.cpu_count()} processors"
    )

    yield from writing(prefix, folder, push)
    note("GNU tar, cp -a, uv pip install")
    yield beside(
        "pull and mount, everything new", plus(pull, mount), "zstd -d | tar -x", others.tar_extract(folder), budget=1
    )
    yield beside("pull and mount, everything new", plus(pull, mount), "cp -a", others.copy(prefix, folder))
    try:
        install = others.uv_install(prefix, folder)
    except Failed as error:
        note(f"without uv: {error}")
    else:
        yield beside("pull and mount, everything new", plus(pull, mount), "uv pip install, warm", install)
        yield beside("mount, everything in the store", mount, "uv pip install, warm", install, budget=1 / 100)
    yield absolute("push, nothing changed", again.seconds, 1.0, "s")
    yield absolute("push, nothing changed: processors", again.cpu, 1.0, "s")
    yield absolute(f"mount of {counted(len(pull.value['missing']), 'layer')}", mount.seconds * 1000, 10, "ms")
    note("mount of made-up environments")
    for count, budget in MADE_UP.items():
        yield absolute(
            f"mount of {count} layers, made up", made_up(count, folder, settings).seconds * 1000, budget, "ms"
        )
    yield from running(pinned, folder, settings)
    own = next(layer["size"] for layer in repull.value["missing"])
    moved = repull.value["downloaded"]["bytes"]
    yield Line(
        "one package changed: bytes pulled",
        size(moved),
        "its layer",
        size(own),
        moved / own,
        "1.05",
        moved <= 1.05 * own,
    )
    scan = lamella("scan", prefix, settings=settings)
    yield from memory({"scan": scan, "push": push, "push, nothing changed": again, "pull": pull})
    if with_engine:
        with contextlib.suppress(Failed):
            yield from docker(
                prefix, folder, registry, (push, plus(pull, mount), plus(second, repull, remount)), path, content
            )


def writing(prefix: Path, folder: Path, push: Took) -> Iterator[Line]:
    """The first push beside writing the same to one archive, with the byte code that is there and without."""
    note("tar | zstd -3 -T2, and reading once")
    listing = others.files_of(prefix, folder / "files")
    plain = plus(times(1.5, others.tar_create(listing, folder / "env.tar.zst")), others.read(listing))
    name = "1.5 tar | zstd -3 -T2, and reading"
    for line in (beside, processors):
        yield line("push, everything new", push, name, plain, budget=1)
    note("the same without byte code")
    bare = others.without_byte_code(prefix, folder / "bare")
    settings = {"LAMELLA_CACHE": str(folder / "bare-cache")}
    compiling = lamella("push", f"oci:{folder}/bare-layout:v1", bare, settings=settings)
    listing = others.files_of(bare, folder / "bare-files")
    archive, read = others.tar_create(listing, folder / "bare.tar.zst"), others.read(listing)
    plain = plus(times(1.5, archive), read, others.compile_all(bare, listing, folder))
    for line in (beside, processors):
        yield line("push, byte code to compile", compiling, f"{name}, and compileall -j2", plain, budget=1)
    if (prefix / "conda-meta").is_dir():
        yield from packing(prefix, folder)


def packing(prefix: Path, folder: Path) -> Iterator[Line]:
    """`lamella export PREFIX` of a conda environment beside conda-pack."""
    settings = {"LAMELLA_CACHE": str(folder / "cache")}
    for suffix in ("tar.gz", "tar.zst"):
        note(f"lamella export, conda-pack: {suffix}")
        ours, theirs = folder / f"ours.{suffix}", folder / f"theirs.{suffix}"
        try:
            made = lamella("export", prefix, ours, settings=settings)
            packed = others.conda_pack(prefix, theirs)
        except Failed as error:
            note(f"without conda-pack: {error}")
            return
        yield beside(f"export to {suffix}", made, "conda-pack", packed, budget=1)
        yield processors(f"export to {suffix}", made, "conda-pack", packed)
        mine, other = ours.stat().st_size, theirs.stat().st_size
        yield Line(f"size of the {suffix}", size(mine), "conda-pack", size(other), mine / other, "1", mine <= other)


def docker(
    prefix: Path, folder: Path, registry: str, ours: tuple[Took, Took, Took], path: str, content: bytes
) -> Iterator[Line]:
    """The Docker image workflow."""
    push, pull, change = ours
    try:
        with others.engine(folder) as host:
            image = others.Docker(host, prefix, folder, registry)
            note("docker build, push, pull: everything new")
            built, pushed, pulled = image.build("v1"), image.push("v1"), image.pull("v1")
            yield beside("push, everything new", push, "docker build, push", plus(built, pushed), budget=1 / 4)
            yield beside("pull and mount, everything new", pull, "docker pull", pulled, budget=1 / 4)
            note("docker build, push, pull: one file changed")
            image.change(path, content)
            whole = plus(image.build("v2"), image.push("v2"), image.pull("v2"))
            yield beside("one package changed, to mounted", change, "docker build, push, pull", whole, budget=1 / 100)
    except Failed as error:
        note(f"without Docker: {error}")


def running(reference: str, folder: Path, settings: Mapping[str, str]) -> Iterator[Line]:
    """What `lamella run` adds to a command, and how long imports take in a mount."""
    note("lamella run, and imports in the mount")
    target = folder / "mounted"
    lamella("mount", reference, target, settings=settings)
    try:
        python = target / "bin/python"
        bare = least(lambda: run([python, "-c", "pass"]))
        inside = least(lambda: lamella("run", reference, "--", "python", "-c", "pass", settings=settings))
        yield absolute("lamella run adds", (inside.seconds - bare.seconds) * 1000, 80, "ms")
        yield absolute("lamella run adds: processors", (inside.cpu - bare.cpu) * 1000, 80, "ms")
        plain = folder / "measured"
        site = next(target.glob("lib/python3*/site-packages"))
        modules = [name for name in IMPORTED if (site / name.partition(".")[0]).exists()]
        if plain.exists() and modules:
            program = ["-c", f"import {', '.join(modules)}"]
            with contextlib.suppress(Failed):
                # In turns, so that both meet the same noise; byte code of the other one is written by its first run.
                pairs = [(run([python, *program]), run([plain / "bin/python", *program])) for _ in range(ROUNDS + 1)][
                    1:
                ]
                mounted, venv = (
                    statistics.median(took.seconds for took in column) for column in zip(*pairs, strict=True)
                )
                yield Line(
                    "imports in the mount, warm", f"{mounted:.2f} s", "plain venv", f"{venv:.2f} s", mounted / venv, "1.05",
                    mounted <= 1.05 * venv,
                )  # fmt: skip
    finally:
        lamella("umount", target, settings=settings)


def mounting(reference: str, folder: Path, settings: Mapping[str, str]) -> Took:
    """The mount alone, without the start of a process: what a node's agent would see."""
    took = run([sys.executable, "-c", MOUNT, reference, folder / "target"], settings=settings)
    return Took(float(took.value["seconds"]), took.peak)


def made_up(count: int, folder: Path, settings: Mapping[str, str]) -> Took:
    """The mount of as many layers, with a few files each: what it takes depends on the number of layers alone."""
    layers = [{f"lib/p{number}/m{file}.py": f"x = {file}\n" for file in range(5)} for number in range(count)]
    reference = publish(folder / f"layers-{count}", layers)
    lamella("pull", reference, settings=settings)
    return mounting(reference, folder, settings)


def memory(verbs: Mapping[str, Took]) -> Iterator[Line]:
    """Peak memory of one process of each verb."""
    for verb, took in verbs.items():
        yield absolute(f"peak memory of {verb}", took.peak / 1e6, 200, "MB")


def a_module(prefix: Path) -> tuple[str, bytes]:
    """A module of an installed package, relative to the prefix, and what it is to become."""
    modules = sorted(prefix.glob("lib/python3*/site-packages/*/__init__.py"), key=lambda each: each.stat().st_size)
    chosen = modules[len(modules) // 2]
    return str(chosen.relative_to(prefix)), chosen.read_bytes() + b"\n# changed\n"


@contextlib.contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    """`path` with other content, and then itself again: renamed, never written to, since installers make hard links."""
    aside = path.parents[4].with_name(f"{path.name}.lamella-bench-{os.getpid()}")
    path.rename(aside)
    try:
        path.write_bytes(content)
        yield
    finally:
        aside.replace(path)


def least(action: Callable[[], Took]) -> Took:
    """The fastest of some rounds."""
    return min((action() for _ in range(ROUNDS)), key=lambda took: took.seconds)


def plus(*parts: Took) -> Took:
    """One after the other."""
    peak = max(part.peak for part in parts)
    return Took(sum(part.seconds for part in parts), peak, cpu=sum(part.cpu for part in parts))


def times(factor: float, took: Took) -> Took:
    """`took`, as often."""
    return Took(factor * took.seconds, took.peak, cpu=factor * took.cpu)


def note(text: str) -> None:
    """Print the current measurement to stderr: the table is the result."""
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
