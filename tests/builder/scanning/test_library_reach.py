"""Libraries that are found here: nodes find them too, or a finding names them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.builder.content.entry import read_entry
from lamella.builder.content.package import entries
from lamella.builder.content.rpath import patchelf
from lamella.builder.scanning.scan import scan
from support.engines import need
from support.installed import venv
from support.scanned import SITE, findings, package, shipped

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.environment import Environment

OLD, NEW = "-Wl,--disable-new-dtags", "-Wl,--enable-new-dtags"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return venv(tmp_path_factory.mktemp("reach") / "env")


@pytest.fixture
def site(made: Path) -> Path:
    for path in sorted((made / SITE).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return made / SITE


def built(path: Path, *needs: Path, soname: str = "", run_path: str = "", options: tuple[str, ...] = ()) -> Path:
    """A real shared library, or a program, at `path` that needs others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".c")
    others = "".join(f"int {_name(each)}(void);\n" for each in needs)
    sums = " + ".join(["40", *(f"{_name(each)}()" for each in needs)])
    program = ".so" not in path.name
    source.write_text(f"{others}int {'main' if program else _name(path)}(void) {{ return {sums}; }}\n")
    kind = [] if program else ["-shared", "-fPIC", f"-Wl,-soname,{soname or path.name}"]
    ran = [f"-Wl,-rpath,{run_path}"] if run_path else []
    # Not the needs of the needs, which programs could be linked without.
    command = [need("gcc"), "-o", str(path), str(source), *kind, *map(str, needs), *ran, *options]
    command.append("-Wl,--allow-shlib-undefined")
    subprocess.run(command, check=True)
    source.unlink()
    return path


def _name(path: Path) -> str:
    return path.name.partition(".")[0].replace("-", "_")


def distribution(site: Path, name: str, *files: Path, requires: tuple[str, ...] = ()) -> None:
    """Metadata of a distribution that has `files`."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    required = "".join(f"Requires-Dist: {each}\n" for each in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{required}")
    (info / "RECORD").write_text("".join(f"{os.path.relpath(path, site)},,\n" for path in files))


def unpacked(scanned: Environment, folder: Path) -> Path:
    """The environment as it is on a node, without byte code and without its interpreter, at `folder`."""
    for each in scanned.packages:
        for entry in entries(scanned, each, "/opt/env") if each.origin != "python" else ():
            path = folder / entry.path.removeprefix("opt/env/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if entry.target is not None:
                path.symlink_to(entry.target)
            else:
                path.write_bytes(b"".join(read_entry(entry)))
                path.chmod(entry.mode)
    return folder


def run_path(path: Path) -> str:
    command = [patchelf(), "--print-rpath", str(path)]
    return str(subprocess.run(command, check=True, capture_output=True, text=True).stdout).strip()


def answer(library: Path, name: str) -> int:
    """What the function of a library says in a process that loads it alone."""
    program = f"import ctypes, sys; sys.exit(ctypes.CDLL({str(library)!r}).{name}())"
    return subprocess.run([sys.executable, "-c", program], check=False).returncode


@pytest.mark.parametrize("tag", [OLD, NEW])
@pytest.mark.slow
def test_a_run_path_into_the_environment_becomes_relative(made: Path, site: Path, tmp_path: Path, tag: str) -> None:
    near = built(made / "lib/near/libnear.so.1")
    far = built(site / "far/lib/libfar.so.1")
    folders = f"{near.parent}:$ORIGIN/x:{far.parent}:lib"
    module = built(site / "pkg/module.so", near, far, run_path=folders, options=(tag,))
    distribution(site, "pkg", module)
    scanned = scan(str(made))
    assert not findings(scanned, "libraries")
    assert not [each for each in findings(scanned, "prefix") if "module.so" in each.message]
    node = unpacked(scanned, tmp_path / "node")
    near.unlink()
    assert run_path(node / SITE / "pkg/module.so") == "$ORIGIN/../../../near:$ORIGIN/x:$ORIGIN/../far/lib"
    shown = subprocess.run(
        [need("readelf"), "-d", node / SITE / "pkg/module.so"], check=True, capture_output=True, text=True
    ).stdout
    assert ("(RPATH)" if tag == OLD else "(RUNPATH)") in shown
    assert answer(node / SITE / "pkg/module.so", "module") == 120
    (near.parent / "libnear.so.1").unlink(missing_ok=True)


@pytest.mark.parametrize("tag", [OLD, NEW])
@pytest.mark.slow
def test_a_run_path_out_of_the_environment_leads_to_what_ships_from_there(
    made: Path, site: Path, tmp_path: Path, tag: str
) -> None:
    """The shipped libraries have such run paths as well."""
    deep = built(tmp_path / "opt/private/libdeep.so.1")
    near = built(tmp_path / "opt/lib/libnear.so.1", deep, run_path=str(deep.parent), options=(tag,))
    module = built(site / "pkg/module.so", near, run_path=str(near.parent), options=(tag,))
    distribution(site, "pkg", module)
    scanned = scan(str(made))
    assert {"lib/system/libnear.so.1", "lib/system/libdeep.so.1"} <= shipped(scanned)
    assert not findings(scanned, "libraries")
    node = unpacked(scanned, tmp_path / "node")
    (tmp_path / "opt").rename(tmp_path / "gone")
    assert run_path(node / SITE / "pkg/module.so") == "$ORIGIN/../../..:$ORIGIN/../../../system"
    assert run_path(node / "lib/system/libnear.so.1") == "$ORIGIN/..:$ORIGIN"
    assert answer(node / SITE / "pkg/module.so", "module") == 120


def test_a_file_with_a_relative_run_path_ships_unchanged(made: Path, site: Path) -> None:
    own = built(site / "pkg/lib/libown.so.1")
    module = built(site / "pkg/module.so", own, run_path="$ORIGIN/lib:${ORIGIN}/x")
    distribution(site, "pkg", own, module)
    scanned = scan(str(made))
    assert [each.path for each in package(scanned, "pkg").files if each.run_path] == []


@pytest.mark.slow
def test_a_library_that_is_found_by_a_variable_of_this_machine_alone_is_a_finding(
    made: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = built(site / "pkg/lib/libown.so.1")
    module = built(site / "pkg/module.so", own)
    distribution(site, "pkg", own, module)
    assert not findings(scan(str(made)), "libraries"), "its package loads it first"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(own.parent))
    (found,) = findings(scan(str(made)), "libraries")
    assert (found.severity, found.subject) == ("warning", "pkg")
    assert found.message == (
        f"libown.so.1: needed by {SITE}/pkg/module.so, and found in {SITE}/pkg/lib only by LD_LIBRARY_PATH or ld.so.conf of "
        "this machine: set LD_LIBRARY_PATH on nodes, or build it with a run path"
    )


@pytest.mark.slow
def test_a_library_that_is_needed_by_its_path_is_a_finding(made: Path, site: Path) -> None:
    own = built(site / "pkg/lib/libown.so.1")
    module = built(site / "pkg/module.so", own)
    subprocess.run([patchelf(), "--replace-needed", own.name, own, module], check=True)
    distribution(site, "pkg", own, module)
    (found,) = findings(scan(str(made)), "libraries")
    assert found.message == (
        f"{own}: needed by {SITE}/pkg/module.so at this path, which nodes do not have: install it there, or use its name "
        "alone: patchelf --replace-needed PATH NAME FILE"
    )


@pytest.mark.slow
def test_a_library_from_the_system_that_is_needed_by_its_path_is_a_finding_without_a_variable_that_does_not_help(
    made: Path, site: Path, tmp_path: Path
) -> None:
    system = built(tmp_path / "system/libsystem.so.1")
    other = built(tmp_path / "system/libother.so.1")
    module = built(site / "pkg/module.so", system, other, run_path=str(system.parent))
    subprocess.run([patchelf(), "--replace-needed", system.name, system, module], check=True)
    distribution(site, "pkg", module)
    (found,) = findings(scan(str(made)), "libraries")
    assert (found.severity, found.subject) == ("warning", "pkg")
    assert found.message == (
        f"{system}: needed by {SITE}/pkg/module.so at this path, which nodes do not have: install it there, or use its name "
        "alone: patchelf --replace-needed PATH NAME FILE"
    )


@pytest.mark.parametrize("run_path", ["", "$ORIGIN/nothing", "$ORIGIN/../../../../../beside"])
@pytest.mark.slow
def test_a_program_of_a_wheel_that_does_not_find_a_library_from_the_system_is_a_finding(
    made: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_path: str
) -> None:
    system = built(tmp_path / "system/libsystem.so.1")
    program = built(site / "driver/node", system, run_path=run_path, options=(OLD,))
    module = built(site / "driver/module.so", system)
    distribution(site, "driver", program, module)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(system.parent))
    scanned = scan(str(made))
    assert "lib/system/libsystem.so.1" in shipped(scanned)
    (found,) = findings(scanned, "libraries")
    assert (found.severity, found.subject) == ("warning", "driver")
    assert found.message == (
        f"libsystem.so.1: ships in lib/system, where {SITE}/driver/node never looks: install it on nodes, or set "
        "LD_LIBRARY_PATH for that program"
    )


@pytest.mark.slow
def test_a_program_with_a_runpath_finds_a_link_to_a_library_from_the_system(
    made: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = built(tmp_path / "system/libsystem.so.1")
    program = built(site / "driver/node", system, run_path="$ORIGIN/lib", options=(NEW,))
    distribution(site, "driver", program)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(system.parent))
    scanned = scan(str(made))
    assert not findings(scanned, "libraries")
    monkeypatch.delenv("LD_LIBRARY_PATH")
    node = unpacked(scanned, tmp_path / "node")
    system.unlink()
    assert subprocess.run([node / SITE / "driver/node"], check=False).returncode == 80


def test_a_program_that_needs_the_compiler_s_libraries_alone_is_a_note(made: Path, site: Path) -> None:
    """ruff and cmake; nearly every node has these libraries."""
    source = site / "tool.c"
    source.write_text("int main(void) { return 0; }\n")
    program = site / "tool"
    subprocess.run([need("gcc"), source, "-o", program, "-Wl,--no-as-needed", "-lgcc_s", "-lstdc++"], check=True)
    source.unlink()
    other = program.with_name("other")
    other.write_bytes(program.read_bytes())
    distribution(site, "tool", program, other)
    (found,) = findings(scan(str(made)), "libraries")
    assert (found.severity, found.subject) == ("note", "tool")
    assert found.message.startswith(
        f"libgcc_s.so.1, libstdc++.so.6: ships in lib/system, where {SITE}/other and 1 more never look: "
    )


def cuda(tmp_path: Path, site: Path) -> tuple[Path, Path]:
    """A toolkit on this machine, and a wheel with the same libraries; gives the folders of both."""
    for folder in (tmp_path / "cuda/lib64", site / "nvidia/blas/lib"):
        near = built(folder / "libblaslt.so.12")
        built(folder / "libblas.so.12", near, run_path="$ORIGIN")
    wheels = site / "nvidia/blas/lib"
    distribution(site, "nvidia-blas", *wheels.iterdir())
    return tmp_path / "cuda/lib64", wheels


@pytest.mark.slow
def test_a_library_that_a_package_brings_does_not_ship_from_a_toolkit_of_this_machine(
    made: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolkit, wheels = cuda(tmp_path, site)
    other = built(toolkit / "libother.so.1", toolkit / "libblas.so.12")
    modules = [built(site / "cupy/core.so", toolkit / "libblas.so.12", toolkit / "libblaslt.so.12")]
    modules.append(built(site / "cupy/more.so", other))
    distribution(site, "cupy", *modules)
    torch = built(site / "torch/core.so", wheels / "libblas.so.12", run_path="$ORIGIN/../nvidia/blas/lib")
    distribution(site, "torch", torch)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(toolkit))
    scanned = scan(str(made))
    system = {os.path.basename(path) for path in shipped(scanned) if path.startswith("lib/system/")}
    assert "libother.so.1" in system, "no package has it"
    (found,) = [each for each in findings(scanned, "libraries") if each.subject == "cupy"]
    assert (found.severity, found.message) == (
        "note",
        "libblas.so.12 and 1 more: needed by cupy; nvidia-blas has them, so that this system's do not ship",
    )
    assert not [each for each in findings(scanned, "libraries") if each.subject == "torch"]


@pytest.mark.parametrize(
    ("holder", "requires"), [("Holder", ()), ("Holder", ("between>=1",)), ("nvidia-holder-cu13", ())]
)
@pytest.mark.slow
def test_a_library_of_the_distribution_ships_unless_a_required_package_or_one_of_nvidia_brings_it(
    made: Path, site: Path, holder: str, requires: tuple[str, ...]
) -> None:
    """Another package's private copy is not loaded for it; cupy loads NCCL from NVIDIA's package, which it does not require."""
    held = site / "holder/libstdc++.so.6"
    built(site / "holder/held.so", soname=held.name).rename(held)
    distribution(site, holder, held)
    distribution(site, "between", requires=("holder[extra] >=1 ; extra == 'x'",))
    module = built(site / "user/module.so", options=("-Wl,--no-as-needed", "-lstdc++"))
    distribution(site, "user", module, requires=requires)
    scanned = scan(str(made))
    loaded = bool(requires) or holder.startswith("nvidia-")
    assert ("lib/system/libstdc++.so.6" in shipped(scanned)) is not loaded
    notes = [each.message for each in findings(scanned, "libraries") if each.subject == "user"]
    assert notes == (
        [f"libstdc++.so.6: needed by user; {holder.lower()} has it, so that this system's does not ship"]
        if loaded
        else []
    )


@pytest.mark.slow
def test_a_library_in_the_environment_s_lib_folder_ships_once(made: Path, site: Path, tmp_path: Path) -> None:
    """Such as conda's libpython, for an extension that was built with another one's folder as its run path."""
    own = built(made / "lib/libown.so.1")
    other = built(tmp_path / "other/libown.so.1")
    module = built(site / "pkg/module.so", other, run_path=str(other.parent), options=(NEW,))
    distribution(site, "pkg", module)
    scanned = scan(str(made))
    node = unpacked(scanned, tmp_path / "node")
    own.unlink()
    other.unlink()
    assert "lib/system/libown.so.1" not in shipped(scanned)
    assert [each.severity for each in findings(scanned, "libraries")] == ["note"]
    assert answer(node / SITE / "pkg/module.so", "module") == 80


def test_the_distribution_s_copy_of_a_library_in_the_lib_folder_does_not_ship(made: Path, site: Path) -> None:
    """conda's libstdc++, for an extension whose run path names the system's folder."""
    own = made / "lib/libstdc++.so.6"
    built(made / "lib/held.so", soname=own.name).rename(own)
    command = [need("gcc"), "-print-file-name=libstdc++.so.6"]
    system = os.path.realpath(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    options = (NEW, "-Wl,--no-as-needed", "-lstdc++")
    folder = os.path.dirname(system)
    distribution(site, "pkg", built(site / "pkg/module.so", run_path=folder, options=options))
    scanned = scan(str(made))
    own.unlink()
    assert "lib/system/libstdc++.so.6" not in shipped(scanned)


@pytest.mark.slow
def test_what_only_a_library_of_a_toolkit_needs_does_not_ship_when_that_does_not(
    made: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolkit, _ = cuda(tmp_path, site)
    deep = built(toolkit / "libdeep.so.1")
    built(toolkit / "libblas.so.12", deep)
    distribution(site, "cupy", built(site / "cupy/core.so", toolkit / "libblas.so.12"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(toolkit))
    system = {os.path.basename(path) for path in shipped(scan(str(made))) if path.startswith("lib/system/")}
    assert not system & {"libdeep.so.1", "libblas.so.12"}
