"""The working directory's code: what ships of it, where, and what never does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import CannotBuild
from lamella.builder.local import working_directory
from lamella.builder.packing.pack import pack
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from lamella.layers.store.store import Store
from support.installed import install, venv, wheel
from support.projects import editable, project
from support.scanned import SITE, findings, package, paths, reasons, shipped

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("working")
    return install(venv(folder / "env"), wheel(folder, "alpha", "1.0", {"alpha/__init__.py": ""}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "My_App"
    write(root, "app.py", "a/b/c/mod.py", "my-dir/run.py", "templates/page.html", "settings.yaml", "core.so")
    return root


def write(root: Path, *names: str, text: str = "x = 1\n") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def local(made: Path, folder: Path, name: str = "my-app", **more: object) -> set[str]:
    scanned = scan(str(made), ScanOptions(local=str(folder), **more))  # type: ignore[arg-type]
    return {path.removeprefix(SITE + "/") for path in paths(package(scanned, name, "local"))}


@pytest.mark.slow
def test_modules_packages_and_their_data_ship_in_site_packages(made: Path, folder: Path) -> None:
    assert local(made, folder) == {
        "app.py",
        "a/b/c/mod.py",
        "my-dir/run.py",
        "templates/page.html",
        "settings.yaml",
        "core.so",
    }


@pytest.mark.slow
def test_no_local_code_ships_unless_it_is_asked_for(made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert not [each for each in scan(str(made)).packages if each.origin == "local"]


@pytest.mark.slow
def test_name_and_version_are_the_project_s(made: Path, folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[project]\nname = "The.App"\nversion = "3.1"\n')
    assert package(scan(str(made), ScanOptions(local=str(folder))), "the-app").version == "3.1"


def test_environments_vcs_folders_and_tools_own_files_never_ship(made: Path, folder: Path) -> None:
    write(folder, ".git/config", "node_modules/x.js", ".venv/pyvenv.cfg", ".venv/lib/x.py", "venv/pyvenv.cfg")
    write(
        folder, "__pycache__/app.pyc", ".mypy_cache/x.json", "build/lib/app.py", "dist/app.whl", "x.egg-info/PKG-INFO"
    )
    write(folder, "pixi/conda-meta/x.json")
    assert local(made, folder) == local(made, folder) & {
        "app.py",
        "a/b/c/mod.py",
        "my-dir/run.py",
        "templates/page.html",
        "settings.yaml",
        "core.so",
    }


@pytest.mark.slow
def test_caches_and_what_lamella_itself_keeps_and_writes_never_ship(
    made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMELLA_CACHE", str(folder / "cache"))
    write(folder, "pushed/oci-layout", "pushed/blobs/x", "target/CACHEDIR.TAG", "target/x.so")
    Store(str(folder / "store")).prepare()
    write(folder, "store/layers/sha256/x/x.py")
    for name in ("env.zip", "env.tar.zst", "env-1-el8.parcel"):
        pack(str(made), str(folder / name), scan_options=ScanOptions(local=""))
    assert local(made, folder) == {
        "app.py",
        "a/b/c/mod.py",
        "my-dir/run.py",
        "templates/page.html",
        "settings.yaml",
        "core.so",
    }


def test_gitignore_and_lamellaignore_are_followed_in_every_folder(made: Path, folder: Path) -> None:
    write(folder, "data/big.csv", "data/keep.csv", "a/log.txt", "a/b/secret.txt", "notes.md", "module.so", "other.so")
    (folder / ".gitignore").write_text("*.csv\n!keep.csv\n/notes.md\n*.so\n")
    (folder / ".lamellaignore").write_text("other.so\ncore.so\n")
    (folder / "a" / ".gitignore").write_text("log.txt\nb/secret.txt\n")
    found = local(made, folder)
    assert {"data/keep.csv", "module.so"} <= found, "a compiled module ships though git ignores it"
    assert not found & {"data/big.csv", "a/log.txt", "a/b/secret.txt", "notes.md", "other.so", "core.so"}


def test_an_environment_without_records_in_a_project_does_not_ship(made: Path, folder: Path) -> None:
    """As a mount or export of a system's Python is, or an interpreter that was unpacked there."""
    write(folder, "env/bin/python3", "env/lib/python3.11/os.py", "env/lib/python3.11/dist-packages/rich/__init__.py")
    write(folder, "tools/bin/python3", "tools/lib/helpers.py")
    found = local(made, folder)
    assert {"tools/bin/python3", "tools/lib/helpers.py", "app.py"} <= found
    assert not [path for path in found if path.startswith("env/")]
    scanned = scan(str(made), ScanOptions(local=str(folder)))
    assert reasons(scanned)[f"{folder}/env"] == "an environment of its own"


def test_data_beside_no_code_ships_only_when_it_is_included(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "src-only"
    write(root, "pkg/__init__.py", "data/table.csv", "readme.txt")
    write(tmp_path, "elsewhere/model.bin")
    assert local(made, root, "src-only") == {"pkg/__init__.py"}
    found = local(made, root, "src-only", include=["data", str(tmp_path / "elsewhere" / "model.bin")])
    assert found == {"pkg/__init__.py", "data/table.csv", "model.bin"}


def test_an_include_that_is_not_there_is_one_sentence(made: Path, folder: Path) -> None:
    with pytest.raises(CannotBuild, match=r"^--include .*nothing\.csv: no such file or folder"):
        scan(str(made), ScanOptions(local=str(folder), include=("nothing.csv",)))


def test_more_than_the_limit_needs_a_word(made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working_directory, "LIMIT", 1 << 20)
    with (folder / "large.bin").open("wb") as file:
        file.truncate(3 << 20)
    with pytest.raises(CannotBuild, match=r"^local code: 3 MiB, more than 1; .*large\.bin with .*--allow-large"):
        scan(str(made), ScanOptions(local=str(folder)))
    assert "large.bin" in local(made, folder, allow_large=True)


@pytest.mark.parametrize("where", ["an include", "an editable install", "a link"])
@pytest.mark.slow
def test_the_limit_is_of_all_local_files(
    tmp_path: Path, folder: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working_directory, "LIMIT", 1 << 20)
    environment = venv(tmp_path / "env")
    root = project(tmp_path / "demo", "demo", {"demo.py": ""})
    large = root / "src" / "demo" / "large.bin"
    with large.open("wb") as file:
        file.truncate(3 << 20)
    options: dict[str, object] = {"include": [str(large)]}
    if where == "a link":
        (tmp_path / ".git").mkdir()  # one repository: a link out of it would be left out
        (folder / "link").symlink_to(large.parent)
        options = {"local": str(folder)}
    elif where == "an editable install":
        editable(environment / SITE, root, "demo")
        options = {}
    with pytest.raises(CannotBuild, match=r"^local code: 3 MiB, more than 1; .*large\.bin with .*--allow-large"):
        scan(str(environment), ScanOptions(**options))  # type: ignore[arg-type]
    scanned = scan(str(environment), ScanOptions(allow_large=True, **options))  # type: ignore[arg-type]
    assert any(path.endswith("large.bin") for path in shipped(scanned))


def test_a_link_loop_ends(made: Path, folder: Path) -> None:
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "a" / "up").symlink_to("..")
    assert {"a/loop", "a/up", "app.py"} <= local(made, folder)


def test_rules_of_the_repository_count_in_a_folder_of_it(made: Path, folder: Path, tmp_path: Path) -> None:
    write(folder, "app.log")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("*.log\n/My_App/settings.yaml\n")
    assert not local(made, folder) & {"app.log", "settings.yaml"}
    assert "app.py" in local(made, folder)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("~", "more than a project's data"),
        (".git", "never ships: a version control system's folder; leave it out"),
        ("~/.ssh", "never ships: a place for credentials"),
        ("~/.ssh/work", "never ships: a place for credentials"),
        ("link", "never ships: a place for credentials"),
        (".venv", "never ships: an environment of its own"),
        (".", "the folder of the local code itself; ship that with --local"),
    ],
)
def test_an_include_that_must_not_ship_is_refused(
    made: Path, folder: Path, tmp_path: Path, named: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    write(home, ".ssh/work")
    write(folder, ".git/config", ".venv/pyvenv.cfg")
    (folder / "link").symlink_to(home / ".ssh" / "work")
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(CannotBuild, match=message):
        scan(str(made), ScanOptions(local=str(folder), include=(named,)))


def test_an_include_that_is_installed_is_a_finding(made: Path, folder: Path) -> None:
    write(folder, "alpha/__init__.py", "alpha/table.csv")
    scanned = scan(str(made), ScanOptions(local=str(folder), include=("alpha",)))
    assert f"{SITE}/alpha/table.csv" in shipped(scanned)
    assert reasons(scanned)[f"{folder}/alpha/__init__.py"] == "an installed package of that name ships"
    messages = [finding.message for finding in findings(scanned, "shadowed")]
    assert "alpha: 1 file left out, since an installed package has files of these names" in messages[-1]


@pytest.mark.parametrize(
    "name",
    [
        ".netrc",
        ".pypirc",
        ".env",
        ".env.production",
        ".git-credentials",
        "id_rsa",
        "server.key",
        "pip.conf",
        "prod.pem",
    ],
)
def test_no_secret_of_the_working_directory_ships(made: Path, folder: Path, name: str) -> None:
    write(folder, f"a/{name}", text="-----BEGIN PRIVATE KEY-----\nindex-url = https://me:CANARY@host/simple\n")
    scanned = scan(str(made), ScanOptions(local=str(folder), include=("a",)))
    assert not [path for path in shipped(scanned) if path.endswith(name)]
    assert os.path.join(str(folder), "a", name) in reasons(scanned)
    assert [finding.subject for finding in findings(scanned, "secret")] == [os.path.join(str(folder), "a", name)]
    assert "CANARY" not in str(scanned)


@pytest.mark.slow
def test_packages_that_are_to_be_left_out_are_named_and_so_is_who_needs_them(tmp_path: Path) -> None:
    alpha = wheel(tmp_path, "alpha", "1.0", {"alpha.py": ""})
    beta = wheel(tmp_path, "beta", "1.0", {"beta.py": ""}, requires=["alpha"])
    environment = install(venv(tmp_path / "env"), alpha, beta)
    scanned = scan(
        str(environment),
        ScanOptions(
            ignore=(
                "Alpha",
                "nothing",
            )
        ),
    )
    assert f"{SITE}/alpha.py" in reasons(scanned)
    assert f"{SITE}/alpha.py" not in shipped(scanned)
    said = {finding.message for finding in scanned.findings if finding.kind in {"ignore", "requires"}}
    assert said == {
        "beta 1.0 requires alpha, which is left out on request",
        "--ignore nothing: no such package in the environment; correct the name",
    }
