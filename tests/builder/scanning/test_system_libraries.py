"""Shared libraries: those of the system that ship, and the needs of the environment on a node."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from lamella.builder.files import elf
from lamella.builder.scanning.findings import blocking_findings
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from support.engines import need
from support.installed import venv
from support.scanned import SITE, file, findings, package, shipped

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return venv(tmp_path_factory.mktemp("libraries") / "env")


@pytest.fixture
def site(made: Path) -> Path:
    for path in sorted((made / SITE).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return made / SITE


def library(path: Path, *needs: Path, soname: str = "", options: tuple[str, ...] = ()) -> Path:
    """A real shared library at `path` that needs others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".c")
    source.write_text('#include <stdio.h>\nint answer(void) { return puts("42"); }\n')
    named = [f"-Wl,-soname,{soname or path.name}", "-Wl,--no-as-needed"]
    others = [str(each) for each in needs]
    subprocess.run(
        [need("gcc"), "-shared", "-fPIC", "-o", str(path), str(source), *named, *others, *options], check=True
    )
    source.unlink()
    return path


@pytest.mark.slow
def test_a_module_s_system_libraries_ship_with_their_own_libraries(
    made: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = library(tmp_path / "system" / "libdeep.so.1")
    near = library(tmp_path / "system" / "libnear.so.2", deep)
    library(site / "module.so", near)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "system"))
    scanned = scan(str(made))
    assert file(scanned, "lib/system/libnear.so.2").source == str(near)
    assert file(scanned, "lib/system/libdeep.so.1").source == str(deep)
    assert package(scanned, "system-libraries").origin == "system"


@pytest.mark.slow
def test_a_library_under_another_name_ships_under_the_name_that_is_needed(
    made: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = library(tmp_path / "system" / "libreal.so.1.2.3", soname="libreal.so.1")
    (tmp_path / "system" / "libreal.so.1").symlink_to(real.name)
    library(site / "module.so", real)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "system"))
    found = file(scan(str(made)), "lib/system/libreal.so.1")
    assert (found.source, found.target) == (str(real), None)


@pytest.mark.slow
def test_a_module_with_a_runpath_finds_shipped_libraries_beside_itself(
    made: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = library(tmp_path / "system" / "libfar.so.1")
    library(site / "pkg" / "module.so", far, options=("-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN"))
    library(site / "plain.so", far)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "system"))
    scanned = scan(str(made))
    link = file(scanned, f"{SITE}/pkg/libfar.so.1")
    assert link in package(scanned, "system-libraries").files
    assert os.path.normpath(f"{SITE}/pkg/{link.target}") == "lib/system/libfar.so.1"
    assert f"{SITE}/libfar.so.1" not in shipped(scanned)


def test_glibc_and_the_loader_never_ship(made: Path, site: Path) -> None:
    library(site / "module.so", options=("-lm", "-lpthread"))
    names = {os.path.basename(path) for path in shipped(scan(str(made))) if path.startswith("lib/system/")}
    assert not names & {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2"}


@pytest.mark.parametrize("kind", ["--enable-new-dtags", "--disable-new-dtags"])
@pytest.mark.slow
def test_a_wheel_s_own_libraries_are_found_by_its_rpath_or_runpath(made: Path, site: Path, kind: str) -> None:
    own = library(site / "pkg.libs" / "libown.so.1")
    library(site / "pkg" / "module.so", own, options=(f"-Wl,{kind}", "-Wl,-rpath,$ORIGIN/../pkg.libs"))
    scanned = scan(str(made))
    assert "lib/system/libown.so.1" not in shipped(scanned)
    assert not findings(scanned, "libraries")


def test_a_library_that_another_package_loads_before_is_not_missing(made: Path, site: Path) -> None:
    held = library(site / "nvidia" / "lib" / "libheld.so.12")
    library(site / "torch" / "module.so", held)
    assert not findings(scan(str(made)), "libraries")


@pytest.mark.slow
def test_a_library_that_is_nowhere_is_a_finding(made: Path, site: Path, tmp_path: Path) -> None:
    gone = library(tmp_path / "libgone.so.1")
    library(site / "module.so", gone)
    gone.unlink()
    (found,) = findings(scan(str(made)), "libraries")
    assert found.message == (
        f"libgone.so.1: needed by {SITE}/module.so, but neither in the environment nor on this system"
    )


@pytest.mark.slow
def test_a_driver_s_library_is_a_need_of_the_node(
    made: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(site / "module.so", library(tmp_path / "libcuda.so.1"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    scanned = scan(str(made))
    assert scanned.needs.drivers == ("libcuda.so.1",)
    assert "lib/system/libcuda.so.1" not in shipped(scanned)


@pytest.mark.slow
def test_a_driver_s_library_in_a_wheel_is_not_needed_from_the_node(made: Path, site: Path) -> None:
    bundled = library(site / "torch" / "lib" / "libamdhip64.so.6")
    library(site / "torch" / "lib" / "module.so", bundled, options=("-Wl,-rpath,$ORIGIN",))
    assert scan(str(made)).needs.drivers == ()


@pytest.mark.slow
def test_a_driver_s_stub_library_does_not_count_as_a_driver(made: Path, site: Path) -> None:
    stub = library(site / "cuda" / "stubs" / "libcuda.so.1")
    library(site / "cuda" / "module.so", stub, options=("-Wl,-rpath,$ORIGIN/stubs",))
    assert scan(str(made)).needs.drivers == ("libcuda.so.1",)


@pytest.mark.slow
def test_the_package_that_lacks_a_library_is_the_one_that_is_named(made: Path, site: Path, tmp_path: Path) -> None:
    gone = library(tmp_path / "libgone.so.1")
    for name in ("torch", "other"):
        library(site / name / "module.so", gone)
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{name}/module.so,,\n")
    gone.unlink()
    scanned = scan(str(made))
    assert [finding.subject for finding in findings(scanned, "libraries")] == ["other", "torch"]
    assert len(blocking_findings(scanned, strict=["torch"])) == 1


def test_system_libraries_stay_where_they_are_on_request(
    made: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(site / "module.so", library(tmp_path / "libown.so.1"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    scanned = scan(str(made), ScanOptions(system_libraries=False))
    assert not [path for path in shipped(scanned) if path.startswith("lib/system/")]


def test_the_interpreter_s_own_libraries_are_found(made: Path, site: Path) -> None:
    # Every interpreter has a module for TLS; on a bare system its libssl is missing unless it is built in.
    ssl = next(path for path in shipped(scan(str(made))) if "lib-dynload/_ssl." in path)
    facts = elf_of(file(scan(str(made)), ssl).source)
    missing = {name for name in facts.needed if name.startswith(("libssl", "libcrypto"))}
    assert {f"lib/system/{name}" for name in missing} <= shipped(scan(str(made)))


def test_a_node_needs_the_newest_glibc_and_the_highest_level(made: Path, site: Path) -> None:
    before = scan(str(made)).needs
    library(site / "module.so", options=("-Wl,-z,x86-64-v3",))
    needs = scan(str(made)).needs
    assert tuple(map(int, needs.glibc.split("."))) >= tuple(map(int, before.glibc.split("."))) >= (2, 2)
    assert needs.level == (3 if os.uname().machine == "x86_64" else 1)


def elf_of(path: str) -> elf.Elf:
    with open(path, "rb") as file:
        found = elf.read_elf(file.fileno())
    assert found
    return found


def test_the_reader_agrees_with_readelf(made: Path) -> None:
    readelf = need("readelf")
    folder = os.path.join(os.path.dirname(os.__file__), "lib-dynload")
    for name in sorted(os.listdir(folder))[:25]:
        path = os.path.join(folder, name)
        said = subprocess.run([readelf, "-dV", path], capture_output=True, text=True, check=True).stdout
        lines = [line for line in said.splitlines() if "(NEEDED)" in line]
        assert elf_of(path).needed == tuple(line.partition("[")[2].rstrip("]") for line in lines)
        versions = {word[6:] for word in said.split() if word.startswith("GLIBC_") and word[6:7].isdigit()}
        newest = max((tuple(map(int, version.split("."))) for version in versions), default=())
        assert elf_of(path).glibc == newest
        assert elf.Elf.load(elf_of(path).dump()) == elf_of(path)


@pytest.mark.slow
def test_a_damaged_elf_file_has_no_facts(tmp_path: Path) -> None:
    good = library(tmp_path / "libgood.so").read_bytes()
    for cut in [*range(64), *range(64, len(good), max(1, len(good) // 60))]:
        path = tmp_path / "cut.so"
        path.write_bytes(good[:cut] or b"\0")
        with path.open("rb") as file:
            elf.read_elf(file.fileno())
        path.write_bytes(good[:cut] + b"\xff" * 40 + good[cut + 40 :])
        with path.open("rb") as file:
            elf.read_elf(file.fileno())
