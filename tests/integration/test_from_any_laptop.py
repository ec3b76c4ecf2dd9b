"""Environments of macOS and Windows, pushed for Linux from an index on loopback, beside a push on Linux itself."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.builder.resolving.model import ResolveOptions
from lamella.builder.resolving.target_prefix import resolve, target_environment
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from lamella.cli.main import main
from lamella.layers.oci.documents import Platform
from lamella.layers.oci.reference import Reference
from lamella.layers.published.environment import read_index
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage
from support import foreign_trees as trees
from support.index import Index, serve_index
from support.installed import install, venv, venv_python, wheel
from support.projects import editable, project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamella.builder.environment import Environment

pytestmark = pytest.mark.slow

TAG = f"cp{trees.SHORT.replace('.', '')}-cp{trees.SHORT.replace('.', '')}"
HERE = Platform.here()
MACHINE = os.uname().machine
POINTS = "[console_scripts]\ntool = tool:main\n"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "cache"))
    for name in ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    (tmp_path / "wheels").mkdir()
    with serve_index(Index(tmp_path / "wheels")) as served:
        monkeypatch.setenv("UV_DEFAULT_INDEX", served.url)
        monkeypatch.setenv("PIP_INDEX_URL", served.url)
        yield served


def wheels(folder: Path, tag: str) -> list[Path]:
    """A package with a program, which requires a compiled one and, on macOS alone, another."""
    requires = ["fast==1.0", 'appnope; sys_platform == "darwin"', 'onlinux; sys_platform == "linux"']
    return [
        wheel(
            folder,
            "tool",
            files={"tool.py": "def main():\n    print('made of', 2)\n"},
            requires=requires,
            entry_points=POINTS,
        ),
        wheel(folder, "fast", files={"fast/__init__.py": f"BUILT = {tag!r}\n"}, tag=tag),
    ]


def laptop(tmp_path: Path, kind: trees.Kind) -> Path:
    """An environment of that system, with a local project and a package that no index has."""
    made = trees.venv(tmp_path / kind, kind)
    tag = f"{TAG}-macosx_11_0_arm64" if kind == "macos" else f"{TAG}-win_amd64"
    installed = [*wheels(tmp_path / "from" / kind, tag), fork(tmp_path / "from" / kind)]
    if kind == "macos":
        installed.append(wheel(tmp_path / "from" / kind, "appnope", files={"appnope.py": ""}))
    trees.install(made, kind, *installed, requested=["tool", "fork"])
    commit = f'"vcs_info": {{"vcs": "git", "commit_id": "{"0" * 40}"}}'
    info = trees.site_of(made, kind) / "fork-1.0.dist-info"
    (info / "direct_url.json").write_text(f'{{"url": "https://git.example.com/fork", {commit}}}')
    with (info / "RECORD").open("a") as record:
        record.write(f"{info.name}/direct_url.json,,\n")
    editable(trees.site_of(made, kind), local_project(tmp_path), "mine")
    return made


def python_from() -> str:
    """The prefix of an interpreter for the target."""
    return os.path.dirname(os.path.dirname(venv_python()))


def fork(folder: Path) -> Path:
    return wheel(folder, "fork", files={"fork.py": "WHO = 'me'\n"})


def local_project(tmp_path: Path) -> Path:
    root = tmp_path / "mine"
    if not root.exists():
        project(root, "mine", {"mine/__init__.py": "import fast\n"})
    return root


def native(tmp_path: Path, linux: list[Path]) -> Environment:
    """The same packages installed on this machine, scanned."""
    made = venv(tmp_path / "native")
    install(made, *linux, fork(tmp_path / "from" / "native"))
    site = next(made.glob("lib/python*/site-packages"))
    commit = f'"vcs_info": {{"vcs": "git", "commit_id": "{"0" * 40}"}}'
    info = site / "fork-1.0.dist-info"
    (info / "direct_url.json").write_text(f'{{"url": "https://git.example.com/fork", {commit}}}')
    editable(site, local_project(tmp_path), "mine")
    return scan(str(made), ScanOptions(wheels=True))


def layers(reference: str) -> dict[str, str]:
    """Digest of each package's layer."""
    parsed = Reference.parse(reference)
    storage = open_storage(parsed, Trust())
    (environment,) = read_index(storage, parsed, Trust(), HERE).environments
    return {each.name: str(each.layer.descriptor.digest) for each in environment.packages}


@pytest.mark.parametrize("kind", ["macos", "windows"])
def test_layers_are_those_of_a_push_on_the_platform_itself(kind: trees.Kind, index: Index, tmp_path: Path) -> None:
    linux = [
        *wheels(index.folder, f"{TAG}-manylinux_2_17_{MACHINE}"),
        wheel(index.folder, "onlinux", files={"onlinux.py": ""}),
    ]
    made = laptop(tmp_path, kind)
    plan = resolve(str(made), HERE, ResolveOptions(python_from=python_from()))
    changes = [(each.name, each.change) for each in plan.resolution.moved]
    assert changes == [*([("appnope", "dropped")] if kind == "macos" else []), ("onlinux", "added")]
    assert plan.resolution.kept == ("fork",)
    cache = LayerCache(str(tmp_path / "cache" / "layers"))
    with target_environment(plan, ScanOptions()) as environment:
        elsewhere = push(f"oci:{tmp_path}/layout:elsewhere", environment, cache=cache).reference
    other = LayerCache(str(tmp_path / "other"))
    here = push(f"oci:{tmp_path}/layout-here:v1", native(tmp_path, linux), cache=other).reference
    made_here, made_elsewhere = layers(here), layers(elsewhere)
    apart = {"python", "system-libraries"}
    assert {name: made_elsewhere.get(name) for name in made_here.keys() - apart} == {
        name: digest for name, digest in made_here.items() if name not in apart
    }
    assert made_elsewhere.keys() - apart == made_here.keys() - apart


def test_a_second_push_downloads_nothing_and_changes_nothing(index: Index, tmp_path: Path) -> None:
    wheels(index.folder, f"{TAG}-manylinux_2_17_{MACHINE}")
    wheel(index.folder, "onlinux")
    made = laptop(tmp_path, "macos")
    command = [
        "push",
        "--no-local",
        "--platform",
        str(HERE),
        "--python-from",
        python_from(),
        f"oci:{tmp_path}/layout:v1",
        str(made),
    ]
    assert main(command) == 0
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "cache" / "downloads").rglob("*"))
    first = (tmp_path / "layout" / "index.json").read_bytes()
    assert main(command) == 0
    after = sorted(path.stat().st_mtime_ns for path in (tmp_path / "cache" / "downloads").rglob("*"))
    assert before
    assert after == before
    assert (tmp_path / "layout" / "index.json").read_bytes() == first


def test_what_the_platform_lacks_is_named_before_anything_is_downloaded(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel(index.folder, "tool", requires=["fast==1.0"])
    wheel(index.folder, "onlinux")
    made = laptop(tmp_path, "macos")
    assert main(["push", "--no-local", "--platform", str(HERE), f"oci:{tmp_path}/layout:v1", str(made)]) == 1
    assert "fast 1.0" in capsys.readouterr().err
    assert not (tmp_path / "cache" / "downloads").exists()
    assert not (tmp_path / "layout").exists()


def test_a_dry_run_shows_what_differs_and_downloads_nothing(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheels(index.folder, f"{TAG}-manylinux_2_17_{MACHINE}")
    wheel(index.folder, "onlinux")
    made = laptop(tmp_path, "macos")
    assert (
        main(["push", "--dry-run", "--no-local", "--platform", str(HERE), f"oci:{tmp_path}/layout:v1", str(made)]) == 0
    )
    shown = capsys.readouterr().out
    assert "appnope" in shown
    assert "onlinux" in shown
    assert not (tmp_path / "cache" / "downloads").exists()


@pytest.mark.parametrize("flags", [["--fail-on", "warning"], ["--strict", "fast"]])
@pytest.mark.parametrize("verb", ["scan", "push --dry-run", "push"])
def test_another_version_is_refused_before_anything_is_downloaded(
    verb: str, flags: list[str], index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = trees.venv(tmp_path / "macos", "macos")
    trees.install(made, "macos", wheel(tmp_path / "from", "fast"), requested=["fast"])
    wheel(index.folder, "fast", version="1.0.1")
    line = [*verb.split(), "--no-local", "--platform", str(HERE), "--python-from", python_from()]
    if verb != "scan":
        line.append(f"oci:{tmp_path}/layout:v1")
    for output in ([], ["--json"]):
        assert main([*line, str(made), *flags, *output]) == 1
        assert f"{HERE}: {flags[0]}" in capsys.readouterr().err
    assert not (tmp_path / "cache" / "downloads").exists()
    assert main([*line, str(made)]) == 0


def test_two_platforms_are_under_one_tag_and_an_unnamed_one_goes(index: Index, tmp_path: Path) -> None:
    other = Platform("linux", "arm64" if HERE.architecture == "amd64" else "amd64")
    environment = scan(str(install(venv(tmp_path / "env"), wheel(tmp_path, "pure", files={"pure.py": ""}))))
    reference = f"oci:{tmp_path}/layout:v1"
    cache = LayerCache(str(tmp_path / "cache" / "layers"))

    def platforms() -> set[Platform]:
        parsed = Reference.parse(reference)
        return {each.platform for each in read_index(open_storage(parsed, Trust()), parsed, Trust()).environments}

    stale = Platform("linux", "riscv64")
    for platform, options in (
        (stale, PushOptions()),
        (HERE, PushOptions(append=True)),
        (other, PushOptions(append=True, keep=(HERE,))),
    ):
        push(reference, replace(environment, platform=platform), options, cache=cache)
        assert platform in platforms()
    assert platforms() == {HERE, other}
