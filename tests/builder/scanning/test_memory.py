"""A scan that remembers contents gives what a scan without memory gives, after any sequence of changes."""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from lamella.builder.files import content_cache
from lamella.builder.prefix.venv import CONFIGURATION
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from support.installed import install, venv, wheel
from support.scanned import SITE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from lamella.builder.environment import Environment, File

pytestmark = pytest.mark.slow

OLD = 1_600_000_000_000_000_000


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    modules = {f"tool/module{number}.py": f"value = {number:04}\n" for number in range(10)}
    return install(
        venv(folder / "env"), wheel(folder, "tool", "1.0", modules), wheel(folder, "other", "1.0", {"o.py": ""})
    )


@pytest.fixture(autouse=True)
def remember_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as old, since ctime cannot be set, and few files are listed, too."""
    monkeypatch.setattr(content_cache, "_RACY", (-(10**12),) * 2)
    monkeypatch.setattr(content_cache, "_FEW", 5)


def edit(path: Path, chance: random.Random) -> None:
    """Change bytes alone: neither size nor mtime."""
    path.write_bytes(bytes(chance.choices(b"abcdef", k=path.stat().st_size)))
    os.utime(path, ns=(OLD, OLD))


def replace(path: Path, chance: random.Random) -> None:
    shutil.copy(path, path.with_suffix(".new"))
    edit(path.with_suffix(".new"), chance)
    os.replace(path.with_suffix(".new"), path)


def link(path: Path, chance: random.Random) -> None:
    os.link(path, path.with_name(f"linked{chance.randrange(10**9)}.py"))


def swap(path: Path, chance: random.Random) -> None:
    other = chance.choice([each for each in path.parent.glob("*.py") if each.is_file() and not each.is_symlink()])
    shutil.move(other, path.with_suffix(".new"))
    if path.exists():
        path.rename(other)
    path.with_suffix(".new").rename(path)


def retarget(path: Path, chance: random.Random) -> None:
    target = chance.choice(sorted(each.name for each in path.parent.glob("*.py")))
    path.with_name("link.py").unlink(missing_ok=True)
    path.with_name("link.py").symlink_to(target)


def chmod(path: Path, chance: random.Random) -> None:
    path.chmod(chance.choice([0o644, 0o755]))


def record(path: Path, chance: random.Random) -> None:
    """Drop a line of RECORD: its file belongs to no package."""
    listed = path.parent.parent / "tool-1.0.dist-info/RECORD"
    lines = listed.read_text().splitlines(keepends=True)
    del lines[chance.randrange(len(lines))]
    listed.write_text("".join(lines))


CHANGES: list[Callable[[Path, random.Random], None]] = [
    edit, replace, link, swap, retarget, chmod, record, lambda path, _: path.unlink(),
]  # fmt: skip


def scanned(prefix: Path, cache: Path) -> Environment:
    return scan(str(prefix), ScanOptions(cache=str(cache), working_directory=False))


def stable(files: Iterable[File]) -> list[File]:
    """`files` with times only of those that a cache does not generate."""
    return [file if file.path != CONFIGURATION else file._replace(mtime_ns=0, ctime_ns=0) for file in files]


def told(environment: Environment, cache: Path) -> str:
    """Everything that a scan returns; the files that it generates are in its cache."""
    return "\n".join(
        [
            *(
                repr(file).replace(str(cache), "CACHE")
                for package in environment.packages
                for file in stable(package.files)
            ),
            *(f"{each.origin} {each.name} {each.version} {each.records}" for each in environment.packages),
            *map(repr, (environment.left_out, environment.findings, environment.needs)),
        ]
    )


@pytest.mark.parametrize("seed", range(6))
def test_cached_scan_equals_a_fresh_scan_after_any_change(prefix: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    copy = tmp_path / "env"
    shutil.copytree(prefix, copy, symlinks=True)
    memory = tmp_path / "memory"
    for module in (copy / SITE / "tool").iterdir():
        os.utime(module, ns=(OLD, OLD))
    scanned(copy, memory)
    for number in range(6):
        folder = copy / SITE / "tool"
        module = chance.choice(sorted(each for each in folder.glob("module*.py")))
        chance.choice(CHANGES)(module, chance)
        if number == 5:
            shutil.rmtree(copy / SITE / "other-1.0.dist-info")
        fresh = tmp_path / f"fresh{number}"
        expected = told(scanned(copy, fresh), fresh)
        assert told(scanned(copy, memory), memory) == expected
        assert told(scanned(copy, memory), memory) == expected
