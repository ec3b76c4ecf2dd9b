"""Another user of the same machine against the real command, run by root: nothing of root's is read, written or stopped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.cli.failures import EXIT_CODES
from support.engines import need_root
from support.people import NOBODY, folder_of, give
from support.published import publish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.root]


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A folder that another user owns and can change."""
    with folder_of(NOBODY) as folder:
        yield folder


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of root's that an attack would change or show."""
    need_root()
    path = tmp_path / "victim"
    path.write_text("untouched-secret\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def reference(tmp_path: Path) -> str:
    return publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\necho right\n"}], tag="v1")


def command(folder: Path, *arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a store of root's own. A verb that hangs fails the test."""
    own = {"LAMELLA_STORE": f"{folder}/store", "LAMELLA_CACHE": f"{folder}/cache", "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", "lamella.cli", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=folder,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **own, **settings},
        timeout=120,
    )


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Assert one sentence with one of `words`."""
    assert done.returncode in {*EXIT_CODES.values(), 125}, done
    assert done.returncode, done
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("lamella: ")]
    assert any(word in line for word in words), line
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("verb", ["pull", "run", "mount", "export"])
@pytest.mark.parametrize("made", ["empty", "filled"])
def test_a_store_of_another_user_is_not_used(
    tmp_path: Path, reference: str, theirs: Path, verb: str, made: str
) -> None:
    """Its layers, replaced by their owner at any time, would be root's programs."""
    store = theirs / "store"
    if made == "filled":
        assert command(tmp_path, "pull", reference).returncode == 0
        shutil.copytree(tmp_path / "store", store, symlinks=True)
        (tool,) = store.glob("layers/*/*/tree/opt/env/bin/tool")
        tool.write_text("#!/bin/sh\necho evil\n")
    else:
        store.mkdir()
    give(store, NOBODY)
    targets: dict[str, list[object]] = {"run": ["--", "tool"], "mount": [tmp_path / "t"], "export": [tmp_path / "t"]}
    options = ["--method", "copies"] if verb == "mount" else []
    done = command(tmp_path, verb, *options, reference, *targets.get(verb, []), LAMELLA_STORE=str(store))
    refused(done, "choose another store with LAMELLA_STORE")
    assert "evil" not in done.stdout


@pytest.mark.parametrize("name", ["index.json", "oci-layout", "blob"])
@pytest.mark.parametrize("trick", ["fifo", "symlink", "folder"])
def test_a_layout_with_tricks_in_place_of_files_is_refused_soon(
    tmp_path: Path, reference: str, theirs: Path, victim: Path, name: str, trick: str
) -> None:
    layout = theirs / "layout"
    shutil.copytree(tmp_path / "layout", layout)
    (blob,) = (layout / "blobs/sha256").glob(reference.rpartition(":")[2])
    path = blob if name == "blob" else layout / name
    path.unlink()
    if trick == "fifo":
        os.mkfifo(path)
    elif trick == "symlink":
        path.symlink_to(victim)
    else:
        path.mkdir()
    give(layout, NOBODY)
    for verb in ("inspect", "pull"):
        refused(command(tmp_path, verb, f"oci:{layout}:v1"), str(layout), "sha256:")
    assert victim.read_text() == "untouched-secret\n"


@pytest.mark.parametrize("name", [".lock", "index.json", "blobs"])
def test_a_copy_into_a_layout_of_another_user_writes_through_no_link(
    tmp_path: Path, reference: str, theirs: Path, victim: Path, name: str
) -> None:
    layout = theirs / "layout"
    other = publish(theirs / "layout", [{"other": ""}], tag="v0")
    assert other
    path = layout / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    aim = victim.parent / "folder" if name == "blobs" else victim
    if name == "blobs":
        aim.mkdir()
    path.symlink_to(aim)
    give(layout, NOBODY)
    command(tmp_path, "copy", reference, f"oci:{layout}:v1")
    assert victim.read_text() == "untouched-secret\n"
    assert victim.stat().st_mode & 0o777 == 0o600
    assert name != "blobs" or os.listdir(aim) == []


def test_a_blob_that_is_a_hard_link_to_a_file_of_root_is_not_written(
    tmp_path: Path, reference: str, theirs: Path, victim: Path
) -> None:
    layout = theirs / "layout"
    shutil.copytree(tmp_path / "layout", layout)
    for blob in (layout / "blobs/sha256").iterdir():
        blob.unlink()
        os.link(victim, blob)
    command(tmp_path, "copy", reference, f"oci:{layout}:v1")
    assert victim.read_text() == "untouched-secret\n"


@pytest.mark.parametrize("form", ["dir", "tar.gz"])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_export_through_a_planted_link_leaves_its_target_unchanged(
    tmp_path: Path, reference: str, theirs: Path, victim: Path, form: str, force: list[str]
) -> None:
    aim = victim.parent / "folder" if form == "dir" else victim
    if form == "dir":
        aim.mkdir()
        (aim / "file").write_text("untouched")
    path = theirs / ("env" if form == "dir" else "env.tar.gz")
    path.symlink_to(aim)
    give(theirs, NOBODY)
    done = command(tmp_path, "export", "--format", form, *force, reference, path)
    assert "Traceback" not in done.stderr
    assert victim.read_text() == "untouched-secret\n"
    if form == "dir":
        assert sorted(os.listdir(aim)) == ["file"]


@pytest.mark.parametrize("path", ["link", "link/inner"])
def test_a_mount_at_a_planted_link_is_refused(
    tmp_path: Path, reference: str, theirs: Path, victim: Path, path: str
) -> None:
    aim = victim.parent / "folder"
    (aim / "inner").mkdir(parents=True)
    (theirs / "link").symlink_to(aim)
    give(theirs, NOBODY)
    done = command(tmp_path, "mount", "--method", "copies", reference, theirs / path)
    refused(done, "link: symlink owned by user nobody; name the folder that it leads to")
    assert sorted(os.listdir(aim)) == ["inner"]
    assert os.listdir(aim / "inner") == []


def test_an_export_below_a_planted_link_is_refused(tmp_path: Path, reference: str, theirs: Path, victim: Path) -> None:
    aim = victim.parent / "folder"
    aim.mkdir()
    (theirs / "link").symlink_to(aim)
    give(theirs, NOBODY)
    for name in ("env", "env.tar.gz"):
        done = command(tmp_path, "export", reference, theirs / "link" / name)
        refused(done, "link: symlink owned by user nobody; name the folder that it leads to")
    assert os.listdir(aim) == []
