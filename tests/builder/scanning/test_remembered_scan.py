"""A scan that is read back equals one that is computed, whatever changed since; and an unchanged one is read back."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import struct
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lamella.builder.environment import LeftOut
from lamella.builder.files import content_cache
from lamella.builder.installed.record import Record
from lamella.builder.layer import layer_set
from lamella.builder.layer.cache import LayerCache
from lamella.builder.layer.code_fingerprint import Remembered
from lamella.builder.local.code_roots import LocalCode
from lamella.builder.prefix.interpreter import prefix_of
from lamella.builder.prefix.locate import locate
from lamella.builder.scanning import ld_so, remembered
from lamella.builder.scanning.collect import collect
from lamella.builder.scanning.disk import Disk
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.remembered import code_identity, scan_key
from lamella.builder.scanning.scan import scan
from lamella.layers.oci.documents import Platform
from lamella.layers.published.findings import Finding
from support.engines import need
from support.installed import install, venv, wheel
from support.scanned import SITE, package, shipped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lamella.builder.environment import Environment
    from lamella.builder.installed.inventory import Inventory
    from lamella.builder.layer.layer_set import LayerSet
    from lamella.builder.layer.plan import WantedLayer
    from lamella.builder.prefix.interpreter import Prefix

pytestmark = pytest.mark.slow

OLD = 1_600_000_000_000_000_000
TOOL = f"{SITE}/tool"
INFO = f"{SITE}/tool-1.0.dist-info"


class Reads:
    """Counts the tasks in which files are read."""

    def __init__(self) -> None:
        self.tasks = 0

    def begin(self, task: str, total: int | None, unit: str) -> None:  # noqa: ARG002
        self.tasks += task == "reading files"

    def advance(self, task: str, amount: int) -> None:
        pass

    def end(self, task: str) -> None:
        pass


class Scans:
    """Scans of one environment with one cache."""

    def __init__(self, prefix: Path, cache: Path) -> None:
        self.prefix = prefix
        self.options = ScanOptions(cache=str(cache), working_directory=False)
        self.database = cache / "hashes.sqlite"

    def scan(self) -> Environment:
        return scan(str(self.prefix), self.options)

    def computed(self) -> Environment:
        """A scan without the memory of scans, and with that of files."""
        self.execute("DELETE FROM scan")
        return self.scan()

    def is_read_back(self) -> bool:
        """Whether a scan needs no content of a file."""
        for table in ("content", "listing"):
            self.execute(f"DELETE FROM {table}_{content_cache.VERSION}")
        reads = Reads()
        scan(str(self.prefix), self.options, progress=reads)
        return not reads.tasks

    def kept(self) -> list[bytes]:
        return [value for (value,) in self.execute("SELECT value FROM scan ORDER BY name")]

    def execute(self, statement: str, *values: object) -> list[tuple[bytes]]:
        with contextlib.closing(sqlite3.connect(self.database)) as database, database:
            return database.execute(statement, values).fetchall()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remembered")
    modules = {f"tool/module{number}.py": f"value = {number}\n" for number in range(10)}
    quoted = {"tool/with, comma.txt": "quoted in RECORD"}
    return install(
        venv(folder / "env"),
        wheel(folder, "tool", "1.0", modules | quoted, requires=["other>=1"]),
        wheel(folder, "other", "1.0", {"other.py": "", "other/data.bin": b"\0" * 50}),
    )


@pytest.fixture
def scans(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scans:
    """Scans of a copy. Files count as old, since ctime cannot be set."""
    monkeypatch.setattr(content_cache, "_RACY", (-(10**12),) * 2)
    shutil.copytree(made, tmp_path / "env", symlinks=True)
    (tmp_path / "env" / TOOL / "link.py").symlink_to("module1.py")
    # Its finding names the image prefix.
    (tmp_path / "env" / TOOL / "where.bin").write_bytes(b"\0" + os.fsencode(tmp_path / "env") + b"/lib\0")
    return Scans(tmp_path / "env", tmp_path / "cache")


def test_an_unchanged_environment_is_read_back_whole(scans: Scans) -> None:
    computed = scans.scan()
    assert scans.is_read_back()
    assert scans.scan() == computed
    assert len(package(computed, "tool").files) > 10


def test_an_unchanged_environment_writes_nothing(scans: Scans) -> None:
    scans.scan()
    before = scans.kept()
    scans.scan()
    assert scans.kept() == before
    assert len(before) == 1


def edit(prefix: Path) -> None:
    """Change bytes alone, and neither size nor mtime."""
    path = prefix / TOOL / "module3.py"
    seen = path.stat()
    path.write_text("value = x\n")
    os.utime(path, ns=(seen.st_mtime_ns, seen.st_mtime_ns))


def retarget(prefix: Path) -> None:
    (prefix / TOOL / "link.py").unlink()
    (prefix / TOOL / "link.py").symlink_to("module2.py")


def rename(prefix: Path) -> None:
    (prefix / TOOL / "module3.py").rename(prefix / TOOL / "module99.py")


def drop_row(prefix: Path) -> None:
    """Drop a row of RECORD, and keep its size and mtime."""
    path = prefix / INFO / "RECORD"
    seen = path.stat()
    text = path.read_text()
    row = next(row for row in text.splitlines(keepends=True) if "module4" in row)
    path.write_text(text.replace(row, "x" * (len(row) - 1) + "\n"))
    os.utime(path, ns=(seen.st_mtime_ns, seen.st_mtime_ns))


def require(prefix: Path) -> None:
    metadata = prefix / INFO / "METADATA"
    metadata.write_text(metadata.read_text().replace("other>=1", "other>=2"))


def add_secret(prefix: Path) -> None:
    (prefix / TOOL / ".netrc").write_text("machine a password b")


def from_elsewhere(prefix: Path) -> None:
    (prefix / INFO / "direct_url.json").write_text('{"url": "https://example.com/tool.whl", "archive_info": {}}')


CHANGES: list[Callable[[Path], object]] = [
    edit,
    retarget,
    rename,
    drop_row,
    require,
    add_secret,
    from_elsewhere,
    lambda prefix: (prefix / TOOL / "module3.py").chmod(0o755),
    lambda prefix: (prefix / TOOL / "module3.py").unlink(),
    lambda prefix: (prefix / "bin" / "new").write_text("#!/bin/sh\n"),
    lambda prefix: (prefix / SITE / "loose.pth").write_text(f"{prefix}/share\n"),
    lambda prefix: shutil.rmtree(prefix / SITE / "other-1.0.dist-info"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_environment_is_noticed(scans: Scans, change: Callable[[Path], object]) -> None:
    before = scans.scan()
    change(scans.prefix)
    found = scans.scan()
    assert found == scans.computed()
    assert found != before
    assert scans.scan() == found


@pytest.mark.parametrize("options", [{"ignore": ("tool",)}, {"image_prefix": "/opt/other"}])
def test_a_scan_with_other_options_is_another_scan(scans: Scans, options: dict[str, object]) -> None:
    before = scans.scan()
    plain, scans.options = scans.options, replace(scans.options, **options)  # type: ignore[arg-type]
    found = scans.scan()
    assert found == scans.scan() == scans.computed()
    assert found != before
    scans.options = plain
    assert scans.scan() == before


def test_scans_with_other_options_are_remembered_beside_each_other(scans: Scans) -> None:
    scans.scan()
    plain, scans.options = scans.options, replace(scans.options, ignore=("other",))
    scans.scan()
    assert len(scans.kept()) == 2
    scans.options = plain
    assert scans.is_read_back()


def test_only_the_last_scans_of_an_environment_are_kept(scans: Scans) -> None:
    for number in range(6):
        scans.options = replace(scans.options, image_prefix=f"/opt/{number}")
        scans.scan()
    assert len(scans.kept()) == 4
    assert scans.is_read_back()


def test_a_file_that_changed_just_now_keeps_a_scan_from_being_remembered(
    scans: Scans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_cache, "_RACY", (3_600_000_000_000,) * 2)
    for path in scans.prefix.rglob("*"):
        if not path.is_symlink():
            os.utime(path, ns=(OLD, OLD))
    environment = scans.scan()  # mtimes are old, ctimes are not
    assert scans.kept() == []
    assert not environment.digest


FUTURE = 4_000_000_000_000_000_000
"""A time of change that no clock has reached: its file counts as just changed."""


def test_any_file_of_the_environment_keeps_a_scan_from_being_remembered(scans: Scans) -> None:
    os.utime(scans.prefix / TOOL / "module1.py", ns=(FUTURE, FUTURE))
    assert not scans.scan().digest
    assert scans.kept() == []


def test_a_module_of_lamella_keeps_a_scan_from_being_remembered(
    scans: Scans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module.py").touch()
    os.utime(tmp_path / "module.py", ns=(FUTURE, FUTURE))
    code = code_identity([str(tmp_path)], [])
    monkeypatch.setattr(remembered, "_code", lambda: code)
    assert not scans.scan().digest


@pytest.fixture
def inputs(scans: Scans) -> tuple[Prefix, Inventory]:
    """An environment with its inventory, in which no part is empty."""
    with contextlib.closing(content_cache.ContentCache(str(scans.database))) as hashes:
        prefix = prefix_of(locate(str(scans.prefix)), hashes, None)
        found = collect(prefix, LocalCode("", (), False), str(scans.database.parent))
    return (
        prefix,
        found._replace(
            conda=found.pip[:1],
            findings=[Finding("note", "kind", "subject", "message")],
            left_out=[LeftOut("path", "reason")],
            expected={"path": frozenset({"digest"})},
        ),
    )


def elsewhere(found: Inventory) -> Inventory:
    path, entry = next(iter(found.entries.items()))
    return found._replace(entries=found.entries | {path: entry._replace(source="/elsewhere")})


def other_record(found: Inventory) -> Inventory:
    first, *rest = found.pip
    assert isinstance(first.files, Record)
    return found._replace(pip=[replace(first, files=replace(first.files, content=b"x,,\n")), *rest])


@pytest.mark.parametrize(
    "change",
    [
        elsewhere,
        lambda found: found._replace(entries=dict(list(found.entries.items())[1:])),
        lambda found: found._replace(places=found.places[1:]),
        lambda found: found._replace(python=frozenset()),
        lambda found: found._replace(left_out=[]),
        lambda found: found._replace(findings=[]),
        lambda found: found._replace(expected={}),
        lambda found: found._replace(conda=[]),
        lambda found: found._replace(pip=found.pip[1:]),
        lambda found: found._replace(pip=[replace(found.pip[0], version="0"), *found.pip[1:]]),
        other_record,
    ],
)
def test_every_part_of_the_inventory_is_in_the_key(
    inputs: tuple[Prefix, Inventory], change: Callable[[Inventory], Inventory]
) -> None:
    prefix, found = inputs
    assert scan_key(prefix, ScanOptions(), change(found)) != scan_key(prefix, ScanOptions(), found)


def test_mode_of_a_file_is_in_the_key(inputs: tuple[Prefix, Inventory]) -> None:
    prefix, found = inputs
    path, entry = next((path, entry) for path, entry in found.entries.items() if entry.target is None)
    times = {name: getattr(entry.seen, name) for name in ("st_mtime_ns", "st_ctime_ns")}
    seen = os.stat_result((entry.seen.st_mode ^ 0o111, *entry.seen[1:]), times)
    changed = found._replace(entries=found.entries | {path: entry._replace(seen=seen)})
    assert scan_key(prefix, ScanOptions(), changed) != scan_key(prefix, ScanOptions(), found)


def test_environment_options_code_and_machine_are_in_the_key(
    inputs: tuple[Prefix, Inventory], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, found = inputs

    def digest(of: Prefix = prefix, options: ScanOptions = ScanOptions()) -> bytes:
        key = scan_key(of, options, found)
        assert key
        return key.inputs

    before = digest()
    assert digest(replace(prefix, executable="/other/bin/python")) != before
    assert digest(options=ScanOptions(image_prefix="/opt/other")) != before
    for name, value in (
        ("_code", lambda: code_identity([os.path.dirname(__file__)], [])),
        ("conda_specs.available", lambda: "other"),
        ("Platform.here", lambda: Platform("linux", "riscv64")),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"lamella.builder.scanning.remembered.{name}", value)
            assert digest() != before, name


@pytest.mark.parametrize("at", [0, 40, 200, -1])
def test_a_damaged_memory_is_as_good_as_none(scans: Scans, at: int) -> None:
    computed = scans.scan()
    (value,) = scans.kept()
    damaged = bytearray(value)
    damaged[at] ^= 1
    scans.execute("UPDATE scan SET value = ?", bytes(damaged))
    assert scans.scan() == computed
    assert scans.is_read_back()


@pytest.mark.parametrize("value", [b"", b"x" * 10, "text", 5, None])
def test_a_foreign_value_is_as_good_as_none(scans: Scans, value: object) -> None:
    computed = scans.scan()
    scans.execute("UPDATE scan SET value = ?", value)
    assert scans.scan() == computed


def test_code_is_identified_by_its_modules(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    module = tmp_path / "room" / "scan.py"
    module.write_text("x = 1\n")
    before = remembered.code_identity([str(tmp_path)], [])
    (tmp_path / "room" / "notes.txt").write_text("not code")
    assert before == remembered.code_identity([str(tmp_path)], [])
    seen = module.stat()
    module.write_text("x = 2\n")
    os.utime(module, ns=(seen.st_mtime_ns, seen.st_mtime_ns))
    after = remembered.code_identity([str(tmp_path)], [])
    assert before
    assert after
    assert before.digest != after.digest


def test_code_is_identified_by_the_folders_of_its_libraries(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "scan.py").touch()
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    before = remembered.code_identity([str(tmp_path / "code")], [str(libraries), "gone"])
    (libraries / "packaging-99.dist-info").mkdir()
    after = remembered.code_identity([str(tmp_path / "code")], [str(libraries), "gone"])
    assert before
    assert after
    assert before.digest != after.digest


def test_code_in_a_zip_file_is_not_identified(tmp_path: Path) -> None:
    assert remembered.code_identity([str(tmp_path / "lamella.pyz" / "lamella")], [str(tmp_path)]) is None


def layers(environment: Environment, notes: Remembered, answers: Sequence[WantedLayer | None] | None) -> LayerSet:
    return layer_set.layers(
        environment, image_prefix="/opt/env", compression="zstd", image_layers=100, notes=notes, answers=answers
    )


def test_the_layers_of_an_unchanged_environment_are_read_back(scans: Scans, tmp_path: Path) -> None:
    notes = Remembered(LayerCache(str(tmp_path / "layers")))
    first = scans.scan()
    assert layer_set.recall(first, "/opt/env", "zstd", notes) is None
    computed = layers(first, notes, None)
    layer_set.remember(first, "/opt/env", "zstd", notes, computed)
    again = scans.scan()
    answers = layer_set.recall(again, "/opt/env", "zstd", notes)
    assert answers
    assert layers(again, notes, answers) == computed
    assert layer_set.recall(again, "/opt/other", "zstd", notes) is None
    assert layer_set.recall(again, "/opt/env", "gzip", notes) is None
    edit(scans.prefix)
    assert layer_set.recall(scans.scan(), "/opt/env", "zstd", notes) is None


def test_an_environment_made_of_a_scanned_one_is_not_taken_for_it(scans: Scans, tmp_path: Path) -> None:
    notes = Remembered(LayerCache(str(tmp_path / "layers")))
    scanned = scans.scan()
    layer_set.remember(scanned, "/opt/env", "zstd", notes, layers(scanned, notes, None))
    made = replace(scanned, packages=scanned.packages[1:])
    assert scanned.digest
    assert not made.digest
    assert layer_set.recall(made, "/opt/env", "zstd", notes) is None


@pytest.mark.parametrize("content", [b"", b"[", b"[]", b"{}", b"5", b'[["x"]]'])
def test_damaged_layers_are_as_good_as_none(scans: Scans, tmp_path: Path, content: bytes) -> None:
    notes = Remembered(LayerCache(str(tmp_path / "layers")))
    scanned = scans.scan()
    notes.keep_note(layer_set._scan_question(scanned, "/opt/env", "zstd"), content)
    assert layer_set.recall(scanned, "/opt/env", "zstd", notes) is None


class Libraries:
    """A module that needs a library of the system, in a folder of LD_LIBRARY_PATH."""

    def __init__(self, scans: Scans, folder: Path) -> None:
        self.folder = folder
        self.deep = self._compiled(folder / "libdeep.so.1")
        self.near = self._compiled(folder / "libnear.so.2", self.deep)
        self._compiled(scans.prefix / SITE / "module.so", self.near)

    def _compiled(self, path: Path, *needs: Path, text: str = "42") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        source = path.with_suffix(".c")
        source.write_text(f'#include <stdio.h>\nint answer(void) {{ return puts("{text}"); }}\n')
        command = [need("gcc"), "-shared", "-fPIC", "-o", str(path), str(source), "-Wl,--no-as-needed"]
        subprocess.run([*command, f"-Wl,-soname,{path.name}", *map(str, needs)], check=True)
        source.unlink()
        return path

    def other_bytes(self) -> None:
        self._compiled(self.deep, text="43")

    def other_file(self) -> None:
        """Name another file by a link, and keep the first."""
        other = self._compiled(self.folder / "other" / "libdeep.so.1")
        self.deep.unlink()
        self.deep.symlink_to(other)


@pytest.fixture
def libraries(scans: Scans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Libraries:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "system"))
    return Libraries(scans, tmp_path / "system")


@pytest.mark.parametrize(
    "change",
    [
        Libraries.other_bytes,
        Libraries.other_file,
        lambda libraries: libraries.deep.unlink(),
        lambda libraries: libraries.near.unlink(),
    ],
)
def test_a_change_of_a_system_library_is_noticed(
    scans: Scans, libraries: Libraries, change: Callable[[Libraries], object]
) -> None:
    before = scans.scan()
    assert "lib/system/libdeep.so.1" in shipped(before)
    assert scans.is_read_back()
    change(libraries)
    found = scans.scan()
    assert found == scans.computed()
    assert found != before
    assert found.digest != before.digest


def test_a_system_library_that_changed_just_now_keeps_a_scan_from_being_remembered(
    scans: Scans, libraries: Libraries
) -> None:
    os.utime(libraries.deep, ns=(FUTURE, FUTURE))
    assert not scans.scan().digest


def test_a_system_library_that_appears_is_noticed(scans: Scans, libraries: Libraries) -> None:
    libraries.deep.rename(libraries.folder / "gone")
    before = scans.scan()
    (libraries.folder / "gone").rename(libraries.deep)
    found = scans.scan()
    assert found == scans.computed() != before


def test_another_library_path_is_noticed(
    scans: Scans, libraries: Libraries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = scans.scan()
    shutil.copytree(libraries.folder, tmp_path / "copy")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "copy"))
    found = scans.scan()
    assert found == scans.computed() != before


def loader_cache(path: Path, library: Path) -> None:
    """Write a cache of ld.so that has `library`. Source: glibc's dl-cache.h."""
    name, value = os.fsencode(library.name) + b"\0", os.fsencode(library) + b"\0"
    flags = ld_so._FLAGS.get(Platform.here().architecture, 0)
    strings = 48 + 24
    header = b"glibc-ld.so.cache1.1" + struct.pack("<I", 1)
    entry = struct.pack("<iIIIQ", flags, strings, strings + len(name), 0, 0)
    path.write_bytes(header.ljust(48, b"\0") + entry + name + value)


def test_another_cache_of_the_loader_is_noticed(
    scans: Scans, libraries: Libraries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH")
    monkeypatch.setattr(ld_so, "_CACHE", str(tmp_path / "ld.so.cache"))
    before = scans.scan()
    loader_cache(tmp_path / "ld.so.cache", libraries.near)
    found = scans.scan()
    assert found == scans.computed() != before


@pytest.mark.parametrize("kind", ["export", "mount"])
def test_the_lists_of_a_moved_export_or_mount_are_noticed(scans: Scans, kind: str) -> None:
    lists = scans.prefix / ".lamella" / "relocate"
    lists.mkdir(parents=True)
    if kind == "export":
        (scans.prefix / ".lamella" / "prefix").write_text("/opt/env")
    (scans.prefix / TOOL / "module5.py").write_text("patched")
    before = scans.scan()
    (lists / "pypi-tool.json").write_text(f'{{"files": [{{"path": "{TOOL}/module5.py"}}]}}')
    found = scans.scan()
    assert found == scans.computed() != before
    (lists / "pypi-tool.json").write_text('{"files": []}')
    assert scans.scan() == scans.computed() == before


def test_a_recorded_path_through_a_link_outside_the_environment_is_noticed(scans: Scans, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(scans.prefix / TOOL)
    record = scans.prefix / INFO / "RECORD"
    record.write_text(record.read_text().replace("tool/module6.py", f"{tmp_path}/link/module6.py"))
    before = scans.scan()
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path)
    found = scans.scan()
    assert found == scans.computed() != before


def test_the_first_scan_of_a_settled_environment_is_remembered_though_it_generates_a_file(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push of it hashes no file again, and the next one reads the scan back."""
    shutil.copytree(made, tmp_path / "env", symlinks=True)
    new = time.time_ns()

    def is_old(seen: os.stat_result, _: int) -> bool:
        return seen.st_mtime_ns < new

    monkeypatch.setattr(Disk, "is_settled", lambda _: True)
    monkeypatch.setattr(remembered, "is_settled", is_old)
    monkeypatch.setattr(content_cache, "is_settled", is_old)
    first = Scans(tmp_path / "env", tmp_path / "cache")
    assert first.scan().digest
    (generated,) = (tmp_path / "cache/generated").rglob("pyvenv.cfg")
    assert generated.stat().st_mtime_ns >= new
    assert first.is_read_back()
    # A file of the environment itself that is as new could change again.
    os.utime(tmp_path / "env" / TOOL / "module1.py")
    assert not Scans(tmp_path / "env", tmp_path / "other").scan().digest
