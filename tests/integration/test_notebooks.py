"""The guide's notebook, run by a real kernel whose environment is the one that it pushes."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import lamella
from support.installed import install, venv, wheel

pytestmark = pytest.mark.engine

PAGE = Path(__file__).parent.parent.parent / "docs/how-to/notebooks.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment whose kernel and Lamella are those of the tests, so that little is pushed."""
    folder = tmp_path_factory.mktemp("notebook")
    prefix = install(venv(folder / ".venv", by="uv"), wheel(folder, "alpha", files={"alpha.py": ""}), by="uv")
    paths = [*map(os.path.dirname, lamella.__path__), *(path for path in sys.path if "site-packages" in path)]
    (site,) = prefix.glob("lib/python*/site-packages")
    # Not sitecustomize.py: Debian's Python has its own, which is found first.
    (site / "tests.pth").write_text(f"import sys; sys.path += {paths!r}\n")
    kernel = {"argv": [f"{prefix}/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    specification = folder / "share/kernels/lamella/kernel.json"
    specification.parent.mkdir(parents=True)
    specification.write_text(json.dumps({**kernel, "display_name": "lamella", "language": "python"}))
    return folder


def executed(folder: Path, cells: list[str], monkeypatch: pytest.MonkeyPatch, cache: Path) -> list[Any]:
    """The notebook's cells after their run."""
    # Take a third of a second to import.
    import nbformat
    from nbclient import NotebookClient

    for name, value in {
        "JUPYTER_PATH": str(folder / "share"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
        "LAMELLA_CACHE": str(cache),
    }.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    (folder / "project").mkdir(exist_ok=True)
    client = NotebookClient(
        notebook, kernel_name="lamella", timeout=300, resources={"metadata": {"path": folder / "project"}}
    )
    client.execute()
    return list(notebook.cells)


def html(cell: Any) -> str:
    """The last result of a cell."""
    return str([output["data"]["text/html"] for output in cell.outputs if "text/html" in output.get("data", {})][-1])


def printed(cell: Any) -> str:
    """The text that a cell printed."""
    return "".join(output["text"] for output in cell.outputs if output["output_type"] == "stream")


def test_the_guide_s_notebook_pushes_the_kernel_s_environment_and_shows_tables(
    registry: str, folder: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"^```ipython\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    cells = [block.rstrip().replace("localhost:5000", registry) for block in blocks]
    _, pushed, compared, scanned, again, inspected = executed(folder, cells, monkeypatch, shared / "cache")
    assert f"<b>{registry}/team/envs:notebook@sha256:" in html(pushed)
    assert "alpha 1.0" in html(pushed)
    assert "0 different" in html(compared)
    assert f"{folder}/.venv: cpython" in html(scanned)
    assert printed(again).rstrip().endswith(" True")
    assert "alpha" in printed(inspected)


def test_a_failing_cell_shows_one_sentence_and_stops_the_run(
    registry: str, folder: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient.exceptions import CellExecutionError

    lines = ["%load_ext lamella.integrations.jupyter", f"%lamella inspect {registry}/team/none:v1", "print(1)"]
    with pytest.raises(CellExecutionError) as caught:
        executed(folder, lines, monkeypatch, shared / "cache")
    assert "File " not in caught.value.traceback
    sentence = f"lamella: {registry}/team/none: no tag 'v1'; "
    assert caught.value.traceback.partition(f"%lamella inspect {registry}/team/none:v1")[2].count(sentence) == 1
