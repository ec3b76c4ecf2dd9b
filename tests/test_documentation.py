"""Pages are true: commands and programs run, links and names resolve, the reference comes from the parsers."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lamella
from lamella.builder.content.key import FORMAT
from lamella.cli.main import main
from lamella.cli.reference import markdown
from lamella.cli.verbs import VERBS
from lamella.layers import copy
from support.installed import install, venv, wheel
from support.published import publish
from test_boundaries import FLOORS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(layers|builder|cli|tests|docs)/[\w./-]+")
_NAME = re.compile(r"(?<![\w./-])lamella\.(?:layers|builder|cli)(?:\.\w+)*")
_LINK = re.compile(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(page: Path) -> list[str]:
    """The lines of a page's console blocks that a person would type."""
    lines = [line for block in _BLOCK.findall(page.read_text()) for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's `.venv`."""
    folder = tmp_path_factory.mktemp("documented")
    return install(venv(folder / ".venv", by="uv"), wheel(folder, "alpha", "1.0", {"alpha.py": "X = 1\n"}), by="uv")


@pytest.mark.engine
@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page) or _PYTHON.search(page.read_text())], ids=named
)
def test_every_documented_command_and_program_runs(
    page: Path, registry: str, prefix: Path, tmp_path: Path, shared: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "CONDA_PREFIX"}} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LAMELLA_CACHE": str(shared / "cache"),
        "LAMELLA_STORE": str(prefix.parent / "store"),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "REGISTRY_PASSWORD": "open sesame",
    }
    project = tmp_path / "project"
    project.mkdir()
    (project / ".venv").symlink_to(prefix)
    # Guides begin where an environment was pushed already.
    lines = ["lamella push --quiet localhost:5000/team/envs:v1", *commands(page)]
    if program := "\n".join(_PYTHON.findall(page.read_text())):
        # The project's own interpreter, whose environment a program pushes. It imports Lamella from here, and not by
        # PYTHONPATH, whose folders would ship as local code.
        paths = [*map(os.path.dirname, lamella.__path__), *(path for path in sys.path if "site-packages" in path)]
        lines.append(f".venv/bin/python - <<'PROGRAM'\nimport sys; sys.path += {paths!r}\n{program}\nPROGRAM")
    script = "\n".join(["set -euo pipefail", *lines]).replace("localhost:5000", registry)
    done = subprocess.run(
        ["bash", "-x", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=project,
        env=environment,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.engine
def test_the_error_that_the_readme_shows_is_the_one_that_the_command_prints(
    registry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Other pages push other tags to team/envs.
    for tag in ("v1", "v2"):
        copy(publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\n"}]), f"{registry}/shown/envs:{tag}")
    main(["pull", "--store", str(tmp_path / "store"), f"{registry}/shown/envs:v3"])
    printed = capsys.readouterr().err.replace(f"{registry}/shown", "localhost:5000/team")
    assert f"    {printed}" in (ROOT / "README.md").read_text()


def test_the_readme_shows_every_verb() -> None:
    shown = {line.split()[1] for line in commands(ROOT / "README.md") if line.startswith("lamella ")}
    page = (ROOT / "README.md").read_text()
    assert {verb for verb in VERBS if verb not in shown and f"`{verb}`" not in page} == set()


def test_the_reference_of_the_command_line_comes_from_the_parsers() -> None:
    assert (ROOT / "docs/reference/cli.md").read_text() == markdown(), "run: make docs"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_documented(verb: str) -> None:
    assert f"\n## lamella {verb}\n" in (ROOT / "docs/reference/cli.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    assert [link for link, _ in _LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_to_a_heading_has_its_heading(page: Path) -> None:
    links = [
        (page.parent / link if link else page, anchor) for link, anchor in _LINK.findall(page.read_text()) if anchor
    ]
    assert [link for link in links if link[1] not in anchors(link[0])] == []


def installed_by_name(text: str) -> list[str]:
    """The arguments of installers in `text` that name Lamella on an index."""
    arguments = re.findall(r"\b(?:(?:pip|pipx|conda|mamba|uv tool) install|uvx|pipx run) ([^\n`]*)", text)
    return [word for line in arguments for word in line.split() if re.fullmatch(r"['\"]?lamella\b[^./@]*", word)]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_page_installs_lamella_from_an_index_by_its_name(page: Path) -> None:
    # It is not published: the first to register the name would run beside a registry's password.
    assert installed_by_name("python -m pip install -q lamella[sign] && uvx lamella scan") == [
        "lamella[sign]",
        "lamella",
    ]
    assert installed_by_name(page.read_text()) == []


def test_every_decision_is_in_the_index_and_has_each_section() -> None:
    index = (ROOT / "docs/adr/README.md").read_text()
    for page in ROOT.glob("docs/adr/*.md"):
        if page.name != "README.md":
            assert f"({page.name})" in index, page
            headings = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
            assert [heading for heading in ("Context", "Decision", "Consequences") if heading not in headings] == [], (
                page
            )
            assert any("rejected" in heading.lower() for heading in headings), page


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md", ROOT / "CHANGELOG.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [page.parent / link for link, _ in _LINK.findall(page.read_text())]
    assert set(PAGES) - reached == set()


def exists(path: str) -> bool:
    """Whether a page may name `path`: from the repository's root, or short for `layers/lamella/layers/...`."""
    package, _, rest = path.partition("/")
    return (ROOT / path).exists() or (ROOT / package / "lamella" / package / rest).exists()


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them: lower case, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def resolves(name: str) -> bool:
    """Whether `name` is a module, or an attribute of one."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return module.count(".") > 0 and resolves(module) and hasattr(importlib.import_module(module), attribute)
    return True


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_path_and_module_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    paths = [code for code in _CODE.findall(text) if _PATH.fullmatch(code)]
    assert [path for path in paths if not exists(path)] == []
    assert [name for name in _NAME.findall(text) if not resolves(name)] == []


def test_the_page_of_the_layer_format_names_the_version_of_the_code() -> None:
    page = (ROOT / "docs/reference/layer-format.md").read_text()
    assert page.startswith(f"# Layer format, version {FORMAT}\n")
    assert f"`format` ({FORMAT})" in page


@pytest.mark.parametrize("package", FLOORS)
def test_the_map_of_rooms_has_a_line_for_each_room_from_the_top_floor_down(package: str) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    section = page.partition(f"**[{package}/lamella/{package}]")[2].partition("**[")[0]
    mapped = re.findall(r"^\| (\d+) \| `(\w+)(?:/|\.py)` \|", section, re.MULTILINE)
    floors = {room: str(number) for number, rooms in enumerate(FLOORS[package], 1) for room in rooms}
    assert sorted((room, floor) for floor, room in mapped) == sorted(floors.items())
    assert [int(floor) for floor, _ in mapped] == sorted((int(floor) for floor, _ in mapped), reverse=True)
