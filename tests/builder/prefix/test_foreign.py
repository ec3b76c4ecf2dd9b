"""Environments for another machine than this one, as `conda create --platform` and pixi make them."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import BuilderError, NotAnEnvironment
from lamella.builder.layer import layer_set
from lamella.builder.layer.cache import LayerCache
from lamella.builder.prefix import foreign
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from lamella.layers.errors import LayersError
from lamella.layers.exporting.export import export
from lamella.layers.oci.annotations import PACKAGE
from lamella.layers.oci.documents import Platform
from lamella.layers.oci.reference import Reference
from lamella.layers.published import environment as published
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage
from lamella.layers.store.store import Store
from support.conda import SHORT, VERSION, conda_environment, conda_package, for_machine, python_package
from support.installed import install, venv, wheel
from support.projects import editable, project
from support.scanned import SITE, file, findings, package, shipped

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the other machine is arm64: run this on x86-64")

PURE = {
    "site-packages/pure/__init__.py": "def main():\n    return 'pure'\n",
    "site-packages/pure-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pure\nVersion: 1.0\n"
    "Requires-Dist: only-on-arm; platform_machine == 'aarch64'\nRequires-Dist: not-on-arm; platform_machine == 'x86_64'\n",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One environment for this machine, one for arm64, of the same packages."""
    channel = tmp_path_factory.mktemp("foreign") / "channel"
    for subdir in ("linux-64", "linux-aarch64"):
        python_package(channel, subdir, small=True)
    conda_package(channel, "pure", PURE, noarch="python", depends=["python"], entry_points=["pure = pure:main"])
    specs = ["python", "pure"]
    here = conda_environment(channel.parent / "here", channel, specs)
    return here, conda_environment(channel.parent / "arm", channel, specs, "linux-aarch64")


@pytest.mark.slow
def test_an_environment_for_another_machine_is_scanned_without_running_it(made: tuple[Path, Path]) -> None:
    environment = scan(str(made[1]))
    assert environment.platform == Platform("linux", "arm64")
    assert (environment.interpreter.version, environment.interpreter.compiler) == (VERSION, sys.executable)
    assert package(environment, "python").origin == "conda"
    said = [finding.message for finding in findings(environment, "requires")]
    assert said == ["pure 1.0 requires only-on-arm, which is not installed; install it"]


@pytest.mark.slow
def test_nothing_of_this_system_ships_for_another_machine(made: tuple[Path, Path]) -> None:
    assert any(path.startswith("lib/system/") for path in shipped(scan(str(made[0]))))
    assert not any(path.startswith("lib/system/") for path in shipped(scan(str(made[1]))))


@pytest.mark.slow
def test_a_pure_package_is_one_layer_on_every_machine(made: tuple[Path, Path], tmp_path: Path) -> None:
    reference = f"oci:{tmp_path}/layout:v1"
    for prefix in made:
        push(reference, scan(str(prefix)), PushOptions(append=True), cache=LayerCache(str(tmp_path / "cache")))
    place = Reference.parse(reference)
    digests = []
    index = published.read_index(open_storage(place, Trust()), place, Trust())
    for machine in ("amd64", "arm64"):
        found = published.for_platform(index, Platform("linux", machine))
        digests.append({each.descriptor.annotations[PACKAGE]: each.descriptor.digest for each in found.layers})
    assert digests[0].keys() - digests[1].keys() == {"system-libraries"}
    assert digests[0]["pure"] == digests[1]["pure"]
    assert digests[0]["python"] != digests[1]["python"]


def plain(prefix: Path, short: str) -> Path:
    """A prefix as standalone builds have it, with as much of an arm64 interpreter as is looked at."""
    for folder in ("bin", f"lib/python{short}/site-packages", f"include/python{short}"):
        (prefix / folder).mkdir(parents=True)
    with open(sys.executable, "rb") as python:
        # Versions are in it, unless the interpreter's library is a file of its own.
        versionless = re.sub(rb"\0(3\.\d+\.\d+)", lambda found: b"-" * len(found[0]), python.read())
    (prefix / f"bin/python{short}").write_bytes(for_machine(versionless, "linux-aarch64"))
    (prefix / "bin/python").symlink_to(f"python{short}")
    (prefix / f"lib/python{short}/os.py").write_text("")
    (prefix / f"include/python{short}/patchlevel.h").write_text(f'#define PY_VERSION  "{short}.4+"\n')
    return prefix


def test_a_plain_prefix_says_its_version_in_its_headers(tmp_path: Path) -> None:
    prefix = plain(tmp_path / "plain", SHORT)
    assert scan(str(prefix)).interpreter.version == f"{SHORT}.4"
    (prefix / f"include/python{SHORT}/patchlevel.h").unlink()
    with pytest.raises(
        NotAnEnvironment, match=r": built for arm64, and its version is unknown; no such file: .*patchlevel\.h"
    ):
        scan(str(prefix))


def test_without_a_python_of_its_version_modules_ship_as_source(tmp_path: Path) -> None:
    prefix = plain(tmp_path / "plain", "3.99")
    environment = scan(str(prefix))
    assert environment.interpreter.compiler == ""
    (said,) = findings(environment, "compiler")
    assert said.message == (
        "python3.99: not found on this machine to compile modules for linux/arm64; install it, or modules ship as "
        "source and nodes compile them at every import"
    )
    ships = layer_set.shipped(environment, package(environment, "python"), "/opt/env")
    assert ships.entries
    assert not ships.modules


@pytest.mark.slow
def test_a_pure_projects_wheel_ships_to_another_machine_and_a_compiled_ones_is_refused(tmp_path: Path) -> None:
    prefix = plain(tmp_path / "plain", SHORT)
    root = project(tmp_path / "demo", "demo", {"demo.py": ""})
    editable(prefix / f"lib/python{SHORT}/site-packages", root, "demo")
    assert f"lib/python{SHORT}/site-packages/demo.py" in shipped(scan(str(prefix), ScanOptions(wheels=True)))
    (root / "demo-1.0-py3-none-any.whl").rename(root / "demo-1.0-py3-none-linux_x86_64.whl")
    with pytest.raises(
        BuilderError, match=r"demo is compiled, which makes demo-.*\.whl, and the environment is for linux/arm"
    ):
        scan(str(prefix), ScanOptions(wheels=True))


def test_no_wheel_is_built_without_a_python_of_its_version(tmp_path: Path) -> None:
    prefix = plain(tmp_path / "plain", "3.99")
    editable(prefix / "lib/python3.99/site-packages", project(tmp_path / "demo", "demo", {"demo.py": ""}), "demo")
    with pytest.raises(
        BuilderError, match=r"no Python 3\.99 is here to build wheels for linux/arm64: install python3\.99"
    ):
        scan(str(prefix), ScanOptions(wheels=True))


def test_kinds_that_can_not_be_captured_are_refused_for_other_machines_too(tmp_path: Path) -> None:
    prefix = plain(tmp_path / "plain", SHORT)
    data = prefix / f"lib/python{SHORT}/_sysconfigdata__linux_aarch64-linux-gnu.py"
    data.write_text(f"build_time_vars = {json.dumps({'Py_GIL_DISABLED': 1})}\n")
    with pytest.raises(NotAnEnvironment, match="a free-threaded build, which Lamella does not support"):
        scan(str(prefix))


@pytest.mark.slow
def test_this_machine_s_interpreter_is_asked_itself(tmp_path: Path) -> None:
    environment = install(venv(tmp_path / "env"), wheel(tmp_path, "one", "1.0", {"one.py": ""}))
    assert not foreign.is_foreign(os.path.realpath(environment / "bin/python"))
    assert scan(str(environment)).interpreter.compiler == str(environment / "bin/python")


@pytest.mark.slow
def test_a_local_project_ships_as_its_wheel_to_another_machine(made: tuple[Path, Path], tmp_path: Path) -> None:
    prefix = tmp_path / "arm"
    shutil.copytree(made[1], prefix, symlinks=True)
    editable(prefix / SITE, project(tmp_path / "demo", "demo", {"demo/__init__.py": "built\n"}), "demo")
    environment = scan(str(prefix))
    assert file(environment, f"{SITE}/demo/__init__.py").size == len("built\n")
    assert f"{SITE}/demo.pth" not in shipped(environment)


@pytest.mark.slow
def test_local_code_that_is_compiled_for_this_machine_is_reported(made: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    with open(sys.executable, "rb") as any_elf_file:
        (folder / "fast.so").write_bytes(any_elf_file.read())
    (folder / "slow.py").write_text("")
    (said,) = findings(scan(str(made[1]), ScanOptions(local=str(folder))), "machine")
    assert said.message == (
        f"{SITE}/fast.so: built for amd64, cannot be loaded on linux/arm64; ship a wheel for linux/arm64"
    )


def test_a_named_platform_may_add_a_variant_and_nothing_else(made: tuple[Path, Path]) -> None:
    assert scan(str(made[1]), ScanOptions(platform=Platform.parse("linux/arm64/v8"))).platform == Platform(
        "linux", "arm64", "v8"
    )
    with pytest.raises(NotAnEnvironment, match=": for linux/arm64, not linux/amd64; name the folder of an"):
        scan(str(made[1]), ScanOptions(platform=Platform("linux", "amd64")))


@pytest.mark.slow
def test_an_environment_for_another_machine_is_exported_here(made: tuple[Path, Path], tmp_path: Path) -> None:
    reference = f"oci:{tmp_path}/layout:v1"
    push(reference, scan(str(made[1])), cache=LayerCache(str(tmp_path / "cache")))
    store = Store(str(tmp_path / "store"))
    with pytest.raises(LayersError, match="no environment for linux/amd64; use --platform with one of linux/arm64"):
        export(reference, str(tmp_path / "out"), store=store)
    export(reference, str(tmp_path / "out"), platform=Platform("linux", "arm64"), store=store)
    assert foreign.architecture(str(tmp_path / "out/bin/python")) == "arm64"
    assert (tmp_path / "out/bin/pure").read_text().startswith(f"#!{tmp_path}/out/bin/python")
