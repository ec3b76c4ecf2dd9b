"""Wheels of installed distributions, so that installers get exactly the environment's packages without a public index."""

from __future__ import annotations

import base64
import configparser
import contextlib
import csv
import hashlib
import io
import os
import re
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from lamella.comparison.subject.distributions import distributions as find
from lamella.comparison.subject.distributions import path_of, record, size_of

if TYPE_CHECKING:
    from lamella.comparison.programs.commands import Commands
    from lamella.comparison.subject.distributions import Distribution

_INSTALLED = frozenset(
    {"RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}
)
"""Files of `.dist-info` that installers write."""
_TIME = (1980, 1, 1, 0, 0, 0)
_MOST_WORKERS = 4


def make_wheels(commands: Commands, prefix: str, folder: str) -> None:
    """Write a wheel of each distribution of the environment `prefix` into `folder`.

    In a process of its own, so that an interruption ends its workers too.
    """
    commands.run([sys.executable, "-m", "lamella.comparison.subject.wheels", prefix, folder])


def main() -> None:
    """Make the wheels that the command line asks for."""
    prefix, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    # The largest first: the last one would else have a processor for itself.
    distributions = sorted(find(prefix), key=size_of, reverse=True)
    with ProcessPoolExecutor(min(_MOST_WORKERS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(make_wheel, distributions, [prefix] * len(distributions), [folder] * len(distributions)):
            pass


def make_wheel(distribution: Distribution, prefix: str, folder: str) -> str:
    """Write one wheel, and return its path. Its tags are those that it was installed with."""
    name = re.sub(r"[-_.]+", "_", distribution.name)
    stem = f"{name}-{distribution.version}"
    path = os.path.join(folder, f"{stem}-{_tag(distribution)}.whl")
    if os.path.exists(path):
        return path
    own = f"{os.path.basename(distribution.info)}/"
    generated = _entry_points(distribution)
    rows: list[tuple[str, str, str]] = []
    partial = f"{path}.partial"
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as wheel:

        def add(target: str, data: bytes, mode: int) -> None:
            entry = zipfile.ZipInfo(target, _TIME)
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append((target, f"sha256={digest}", str(len(data))))

        has_wheel = False
        for row in record(distribution):
            source = path_of(distribution, row)
            if row[0].endswith(".pyc") or not os.path.isfile(source):
                continue
            if row[0].startswith(own):
                rest = row[0].removeprefix(own)
                if rest in _INSTALLED:
                    continue
                has_wheel |= rest == "WHEEL"
                target = f"{stem}.dist-info/{rest}"
            elif not source.startswith(f"{distribution.site}/"):
                target = _outside(source, prefix, stem, generated)
                if not target:
                    continue
            else:
                target = row[0]
            with open(source, "rb") as file:
                data = file.read()
            if "/scripts/" in target and data.startswith(b"#!"):
                data = re.sub(rb"^#!.*python[^\n]*", b"#!python", data, count=1)
            add(target, data, os.stat(source).st_mode & 0o777)
        if not has_wheel:
            add(
                f"{stem}.dist-info/WHEEL",
                b"Wheel-Version: 1.0\nGenerator: lamella\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                0o644,
            )
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (f"{stem}.dist-info/RECORD", "", "")])
        wheel.writestr(zipfile.ZipInfo(f"{stem}.dist-info/RECORD", _TIME), text.getvalue())
    os.replace(partial, path)
    return path


def _outside(source: str, prefix: str, stem: str, generated: frozenset[str]) -> str:
    """Return a wheel's path for a file outside site-packages; empty for one that installers generate or another owns."""
    if not source.startswith(f"{prefix}/"):
        return ""
    rest = source.removeprefix(f"{prefix}/")
    if rest.startswith("bin/"):
        name = rest.removeprefix("bin/")
        return "" if name in generated else f"{stem}.data/scripts/{name}"
    return f"{stem}.data/data/{rest}"


def _tag(distribution: Distribution) -> str:
    """Return the tags of its WHEEL file as one compressed set, such as `py2.py3-none-any`. Source: PEP 425."""
    tags: list[list[str]] = []
    with contextlib.suppress(OSError), open(os.path.join(distribution.info, "WHEEL"), encoding="utf-8") as file:
        tags = [line.partition(":")[2].strip().split("-") for line in file if line.startswith("Tag:")]
    parts = zip(*(each for each in tags if len(each) == 3), strict=True)
    return "-".join(".".join(dict.fromkeys(part)) for part in parts) or "py3-none-any"


def _entry_points(distribution: Distribution) -> frozenset[str]:
    """Return the names of the scripts that installers write."""
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    with contextlib.suppress(configparser.Error, OSError):
        parser.read(os.path.join(distribution.info, "entry_points.txt"), encoding="utf-8")
    return frozenset(
        name
        for section in ("console_scripts", "gui_scripts")
        if parser.has_section(section)
        for name in parser[section]
    )


if __name__ == "__main__":
    main()
