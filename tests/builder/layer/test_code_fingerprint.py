from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import lamella
from lamella.builder.layer.cache import LayerCache
from lamella.builder.layer.code_fingerprint import Remembered, code_fingerprint, sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDERS = tuple(lamella.__path__)
# A folder may be in the namespace's path twice.
DECIDING = sorted(
    {os.path.relpath(path, folder) for path in sources(FOLDERS) for folder in FOLDERS if path.startswith(f"{folder}/")}
)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the project, as an installation has them."""
    made = tmp_path_factory.mktemp("sources") / "lamella"
    for folder in FOLDERS:
        shutil.copytree(folder, made, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return made


@pytest.fixture
def copy(copied: Path) -> Iterator[Path]:
    """The module's copy of the sources; what a test changes in it is undone."""
    before = contents(copied)
    yield copied
    for path, content in contents(copied).items():
        if path not in before:
            path.unlink()
        elif content != before[path]:
            path.write_bytes(before[path])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def cache(tmp_path: Path) -> LayerCache:
    return LayerCache(str(tmp_path / "cache"))


def found(cache: LayerCache, *folders: Path) -> bytes | None:
    """The answer to a question, as code in `folders` finds it."""
    return Remembered(cache, [str(folder) for folder in folders]).note("question")


def fingerprint(cache: LayerCache, folder: Path) -> str:
    return code_fingerprint(cache, [str(folder)])


def test_the_code_that_decides_bytes_is_the_room_content_and_what_it_imports() -> None:
    room = {f"builder/content/{path.name}" for folder in FOLDERS for path in Path(folder).glob("builder/content/*.py")}
    assert room <= set(DECIDING)
    assert "builder/content/_compile_worker.py" in room
    assert {"builder/urls.py", "builder/installed/conda_specs.py", "builder/files/prefix_pattern.py"} <= set(DECIDING)
    others = {path for path in DECIDING if not path.startswith("builder/content/")}
    assert not [path for path in others if path.split("/")[1] in ("layer", "scanning", "pushing", "image", "local")]


@pytest.mark.parametrize("module", DECIDING)
@pytest.mark.slow
def test_answers_are_forgotten_when_a_byte_of_code_that_decides_bytes_changes(
    module: str, copy: Path, cache: LayerCache
) -> None:
    Remembered(cache, [str(copy)]).keep_note("question", b"answer")
    with (copy / module).open("ab") as file:
        file.write(b"#")
    assert found(cache, copy) is None


@pytest.mark.slow
def test_answers_stay_when_no_code_changes(copy: Path, cache: LayerCache) -> None:
    Remembered(cache, [str(copy)]).keep_note("question", b"answer")
    assert found(cache, copy) == b"answer"


@pytest.mark.parametrize(
    "module", ["builder/layer/code_fingerprint.py", "builder/scanning/scan.py", "layers/pulling/pull.py"]
)
@pytest.mark.slow
def test_answers_stay_when_other_code_changes(module: str, copy: Path, cache: LayerCache, tmp_path: Path) -> None:
    before = fingerprint(cache, copy)
    with (copy / module).open("ab") as file:
        file.write(b"#")
    assert fingerprint(cache, copy) == before == fingerprint(LayerCache(str(tmp_path / "other")), copy)


@pytest.mark.slow
def test_code_that_is_imported_from_now_on_counts(copy: Path, cache: LayerCache) -> None:
    module = copy / "builder/local/ignore.py"
    fingerprint(cache, copy)
    with (copy / "builder/urls.py").open("a") as file:
        file.write("\ndef late() -> None:\n    from lamella.builder.local import ignore\n")
    before = fingerprint(cache, copy)
    with module.open("ab") as file:
        file.write(b"#")
    assert fingerprint(cache, copy) != before


@pytest.mark.slow
def test_a_new_module_of_the_room_counts(copy: Path, cache: LayerCache) -> None:
    before = fingerprint(cache, copy)
    (copy / "builder/content/more.py").write_text("")
    assert fingerprint(cache, copy) != before


@pytest.mark.slow
def test_imports_for_annotations_alone_do_not_count(copy: Path, cache: LayerCache) -> None:
    with (copy / "builder/urls.py").open("a") as file:
        file.write("\nif TYPE_CHECKING:\n    from lamella.builder.local import ignore\n")
    before = fingerprint(cache, copy)
    with (copy / "builder/local/ignore.py").open("ab") as file:
        file.write(b"#")
    assert fingerprint(cache, copy) == before


@pytest.mark.slow
def test_one_code_in_two_places_has_one_name(copy: Path, cache: LayerCache) -> None:
    def name(folders: Sequence[str]) -> str:
        return code_fingerprint(cache, folders)

    assert name([str(copy)]) == name(FOLDERS)
