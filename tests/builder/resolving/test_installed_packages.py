"""Reading what an environment has on macOS, Windows and Linux, without running any of it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import NotAnEnvironment
from lamella.builder.prefix.systems import System
from lamella.builder.resolving.installed_packages import installed_packages
from lamella.builder.resolving.target_prefix import needs_resolving
from lamella.builder.scanning.scan import scan
from lamella.layers.oci.documents import Platform
from support import foreign_trees as trees
from support.installed import wheel
from support.projects import editable, project

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.resolving.model import InstalledDistribution, InstalledPackages

KINDS: tuple[trees.Kind, ...] = ("macos", "windows")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "cache"))


def of(found: InstalledPackages, name: str) -> InstalledDistribution:
    (distribution,) = [each for each in found.pypi if each.name == name]
    return distribution


@pytest.mark.parametrize("kind", KINDS)
def test_distributions_are_read_as_pip_leaves_them(kind: trees.Kind, tmp_path: Path) -> None:
    made = trees.venv(tmp_path / "env", kind)
    tool = wheel(
        tmp_path,
        "Tool_Box",
        "1.2",
        {"tool_box.py": ""},
        requires=["dep>=1"],
        entry_points="[console_scripts]\ntool = tool_box:main\n",
    )
    trees.install(made, kind, tool, wheel(tmp_path, "dep"), requested=["Tool_Box"])
    found = installed_packages(str(made))
    assert [each.name for each in found.pypi] == ["dep", "tool-box"]
    assert (of(found, "tool-box").version, of(found, "tool-box").requires) == ("1.2", ("dep>=1",))
    assert [each.requested for each in found.pypi] == [False, True]
    assert all(each.pure and each.folder for each in found.pypi)
    assert found.findings == ()


@pytest.mark.parametrize(("kind", "expected"), [("macos", ("darwin", "arm64")), ("windows", ("windows", "amd64"))])
def test_the_system_and_the_version_come_from_files(
    kind: trees.Kind, expected: tuple[str, str], tmp_path: Path
) -> None:
    found = installed_packages(str(trees.venv(tmp_path / "env", kind)))
    assert (found.system, found.architecture) == expected
    assert found.python == trees.VERSION


def test_an_interpreter_that_is_a_script_is_of_the_system_here(tmp_path: Path) -> None:
    made = trees.venv(tmp_path / "env", "macos")
    (made / "bin" / "python").write_text("#!/bin/sh\n")
    found = installed_packages(str(made), System("darwin", "amd64"))
    assert (found.system, found.architecture) == ("darwin", "amd64")


@pytest.mark.parametrize(("here", "expected"), [("amd64", "amd64"), ("arm64", "arm64")])
def test_a_universal_program_is_for_the_machine_here(here: str, expected: str, tmp_path: Path) -> None:
    made = trees.venv(tmp_path / "env", "macos")
    architectures = b"".join(cpu.to_bytes(4, "big") + bytes(16) for cpu in (0x01000007, 0x0100000C))
    (made / "bin" / "python").write_bytes(b"\xca\xfe\xba\xbe" + (2).to_bytes(4, "big") + architectures)
    assert installed_packages(str(made), System("darwin", here)).architecture == expected


@pytest.mark.parametrize(("kind", "subdir"), [("macos", "osx-arm64"), ("windows", "win-64")])
def test_conda_packages_are_read_with_their_channel_and_without_its_token(
    kind: trees.Kind, subdir: str, tmp_path: Path
) -> None:
    made = trees.conda(tmp_path / "env", kind)
    trees.record(made, "tool", "1.0", subdir)
    trees.record(made, "data", "2.0", "noarch")
    found = installed_packages(str(made))
    assert [(each.name, each.subdir) for each in found.conda] == [
        ("data", "noarch"),
        ("python", subdir),
        ("tool", subdir),
    ]
    assert {each.channel for each in found.conda} == {"https://conda.example.com/main"}
    assert [each.requested for each in found.conda] == ["", "python", "tool >=1"]
    assert "secret" not in repr(found)


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_inside_a_conda_package_is_not_a_distribution_of_pip(kind: trees.Kind, tmp_path: Path) -> None:
    made = trees.conda(tmp_path / "env", kind)
    site = trees.site_of(made, kind)
    trees.install(made, kind, wheel(tmp_path, "inside"), wheel(tmp_path, "beside"))
    (site / "inside-1.0.dist-info" / "INSTALLER").write_text("conda\n")
    files = [path.relative_to(made).as_posix() for path in (site / "inside-1.0.dist-info").iterdir()]
    trees.record(made, "inside", "1.0", "noarch", files=files)
    assert [each.name for each in installed_packages(str(made)).pypi] == ["beside"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_editable_project_is_local(kind: trees.Kind, tmp_path: Path) -> None:
    made = trees.venv(tmp_path / "env", kind)
    root = project(tmp_path / "code", "mine", {"mine/__init__.py": ""})
    editable(trees.site_of(made, kind), root, "mine")
    found = of(installed_packages(str(made)), "mine")
    assert (found.editable, found.local, found.pure) == (True, str(root), False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_repository_is_a_source_without_its_password(kind: trees.Kind, tmp_path: Path) -> None:
    made = trees.venv(tmp_path / "env", kind)
    trees.install(made, kind, wheel(tmp_path, "fork"))
    commit = "0123456789" * 4
    url = {"url": "https://me:pw@git.example.com/fork", "vcs_info": {"vcs": "git", "commit_id": commit}}
    (trees.site_of(made, kind) / "fork-1.0.dist-info" / "direct_url.json").write_text(json.dumps(url))
    found = of(installed_packages(str(made)), "fork")
    assert (found.source, found.local) == (f"git+https://git.example.com/fork@{commit}", "")


def test_packages_of_the_base_interpreter_count_if_the_environment_sees_them(tmp_path: Path) -> None:
    base = trees.venv(tmp_path / "base", "macos")
    made = trees.venv(tmp_path / "env", "macos")
    trees.install(base, "macos", wheel(tmp_path, "below"), wheel(tmp_path, "both", "2.0"))
    trees.install(made, "macos", wheel(tmp_path, "both", "1.0"))
    settings = f"home = {base}/bin\nversion_info = {trees.VERSION}\ninclude-system-site-packages = "
    (made / "pyvenv.cfg").write_text(f"{settings}false\n")
    assert [each.name for each in installed_packages(str(made)).pypi] == ["both"]
    (made / "pyvenv.cfg").write_text(f"{settings}true\n")
    assert [(each.name, each.version) for each in installed_packages(str(made)).pypi] == [
        ("below", "1.0"),
        ("both", "1.0"),
    ]


def test_a_version_that_no_file_states_is_one_sentence(tmp_path: Path) -> None:
    made = trees.venv(tmp_path / "env", "windows")
    (made / "pyvenv.cfg").unlink()
    with pytest.raises(NotAnEnvironment, match=r"python.exe: does not run here, and no file states its version"):
        installed_packages(str(made))


@pytest.mark.parametrize(("kind", "system"), [("macos", "darwin/arm64"), ("windows", "windows/amd64")])
def test_a_scan_for_linux_names_the_flag_for_another_system(kind: trees.Kind, system: str, tmp_path: Path) -> None:
    made = trees.venv(tmp_path / "env", kind)
    with pytest.raises(NotAnEnvironment, match=f"env: for {system}, and nodes run Linux; add --platform linux/amd64"):
        scan(str(made))


def test_an_environment_of_linux_is_resolved_for_other_machines_alone() -> None:
    here = Platform.here()
    other = "arm64" if here.architecture == "amd64" else "amd64"
    assert not needs_resolving(sys.prefix, here)
    assert not needs_resolving(sys.prefix, Platform("linux", here.architecture, "v8"))
    assert needs_resolving(sys.prefix, Platform("linux", other))


@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        ({"hashes": {"sha256": "A" * 64}}, "a" * 64),
        ({"hash": f"sha256={'b' * 64}"}, "b" * 64),
        ({"hashes": {"sha512": "c" * 128}}, ""),
        ({"hash": "sha256"}, ""),
        ({"hashes": 3}, ""),
        ({}, ""),
    ],
)
def test_recorded_hash_of_an_installed_archive_is_read(
    archive: dict[str, object], expected: str, tmp_path: Path
) -> None:
    made = trees.venv(tmp_path / "env", "macos")
    trees.install(made, "macos", wheel(tmp_path, "direct"))
    url = {"url": "https://files.example/direct-1.0-py3-none-any.whl", "archive_info": archive}
    (trees.site_of(made, "macos") / "direct-1.0.dist-info" / "direct_url.json").write_text(json.dumps(url))
    assert of(installed_packages(str(made)), "direct").sha256 == expected
