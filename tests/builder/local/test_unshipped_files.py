"""Files beside an installed project that a person may miss on a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.builder.local.exclusion_reason import exclusion_reason
from lamella.builder.local.unshipped_files import beside_installed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    files = (
        "src/demo/__init__.py", "train.py", "run.sh", "conf/a.yaml", "notes/deep/x.ipynb", "README.md", "LICENSE",
        "pyproject.toml", "requirements.txt", "uv.lock", "Dockerfile", "setup.py", "tests/test_a.py", "docs/a.md",
        ".hidden", "build/x", "ignored/x",
    )  # fmt: skip
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    (root / "empty").mkdir()
    (root / ".lamellaignore").write_text("ignored/\n")
    (root / "out").symlink_to("/etc")
    return root


def listed(root: Path, shipped: list[str], include: tuple[str, ...] = ()) -> str:
    note = beside_installed(str(root), shipped, include)
    return note.message.partition(": ")[2].partition(" beside")[0] if note else ""


def test_scripts_configuration_and_data_are_named_scripts_first(root: Path) -> None:
    assert listed(root, [f"{root}/src"]) == "train.py, conf/, notes/, run.sh"
    assert listed(root, [f"{root}/src/demo"]) == "train.py, conf/, notes/, run.sh"


def test_included_ones_are_not(root: Path) -> None:
    assert listed(root, [f"{root}/src"], ("train.py", f"{root}/conf", "notes", "run.sh")) == ""


def test_a_folder_on_python_s_path_ships_its_modules(root: Path) -> None:
    assert listed(root, [str(root)]) == "conf/, notes/, run.sh"


def test_a_folder_within_the_code_ships_whole(root: Path) -> None:
    assert listed(root / "src" / "demo", [f"{root}/src"]) == ""


def test_more_than_a_few_are_counted(root: Path) -> None:
    for number in range(4):
        (root / f"job{number}.py").write_text("")
    assert listed(root, [f"{root}/src"]) == "job0.py, job1.py, job2.py, job3.py and 4 more"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ignored/x", "in {root}/ignored: ignored by .gitignore or .lamellaignore"),
        ("ignored", "ignored by .gitignore or .lamellaignore"),
        (".hidden", "hidden, or a tool's own"),
        ("train.py", ""),
    ],
)
def test_a_reason_names_the_folder_that_it_is_about(root: Path, name: str, reason: str) -> None:
    assert exclusion_reason(str(root / name)) == reason.format(root=root)
