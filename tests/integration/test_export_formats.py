from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import ExportError
from lamella.layers.exporting.export import export
from lamella.layers.exporting.target import FORMATS, ExportOptions, format_of
from lamella.layers.pulling.pull import pull
from lamella.layers.store.store import Store
from support.disks import another_file_system
from support.engines import need, need_root
from support.processes import forked
from support.published import publish
from support.trees import content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamella.layers.exporting.target import Format

SHELLS = ["bash", "dash", "zsh"]


def listing(*paths: str) -> str:
    return json.dumps({"prefix": "/opt/env", "files": [{"path": path, "kind": "text"} for path in paths]})


TOOL = {
    "bin/tool*": "#!/opt/env/bin/python\nimport sys; print('tool', sys.argv[1:])\n",
    "bin/also": "->tool",
    "share/where": "/opt/env\n",
    "lib/empty": "",
    "lib/ü": "a name",
    ".lamella/relocate/pypi-tool.json": listing("bin/tool", "share/where"),
}
# Stands for the environment's interpreter: these tests are about everything around it.
PYTHON = {"bin/python*": f'#!/bin/sh\nexec {sys.executable} "$@"\n'}
CONDA = {
    "conda-meta/state": '{"env_vars": {"GREETING": "it\'s $HOME"}}',
    "etc/conda/activate.d/a.sh": "export ACTIVE=$CONDA_PREFIX\n",
    "etc/conda/deactivate.d/a.sh": "unset ACTIVE\n",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def reference(tmp_path: Path) -> str:
    return publish(tmp_path / "layout", [PYTHON, TOOL])


def unpack(archive: Path, folder: Path, format: Format) -> Path:  # noqa: A002
    """`archive` unpacked by the program that people have."""
    folder.mkdir(parents=True)
    if format == "tar.zst":
        # GNU tar asks for the zstd program, which not every machine has.
        import zstandard

        with archive.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            subprocess.run(["tar", "-x", "-C", folder], check=True, input=stream.read())
    elif format == "tar.gz":
        subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    elif format == "zip":
        subprocess.run([need("unzip"), "-q", archive, "-d", folder], check=True)
    else:
        subprocess.run([need("unsquashfs"), "-q", "-no-progress", "-f", "-d", folder, archive], check=True, stdout=-3)
    return folder


def sh(shell: str, script: str) -> str:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root"}
    ran = subprocess.run([need(shell), "-c", script], check=False, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_exported_folder_works_in_place(store: Store, reference: str, tmp_path: Path) -> None:
    made = export(reference, str(tmp_path / "env"), store=store)

    assert made.prefix == made.path == f"{tmp_path}/env"
    assert sh("sh", f"{tmp_path}/env/bin/tool 1 && cat {tmp_path}/env/share/where") == f"tool ['1']\n{tmp_path}/env\n"
    assert (tmp_path / "env/lib/ü").read_text() == "a name"


def test_a_linked_folder_takes_no_bytes_but_for_what_names_its_place(
    store: Store, reference: str, tmp_path: Path
) -> None:
    export(reference, str(tmp_path / "env"), store=store, options=ExportOptions(link=True))

    assert (tmp_path / "env/lib/ü").stat().st_nlink > 1
    assert (tmp_path / "env/bin/tool").stat().st_nlink == 1
    [stored] = (tmp_path / "store").glob("layers/*/*/tree/opt/env/bin/tool")
    assert stored.read_text() == TOOL["bin/tool*"]


@pytest.mark.engine
@pytest.mark.parametrize("format", ["tar.gz", "tar.zst", "zip"])
def test_an_archive_works_wherever_it_is_unpacked(
    store: Store,
    reference: str,
    tmp_path: Path,
    format: Format,  # noqa: A002
) -> None:
    made = export(reference, str(tmp_path / f"env.{format}"), store=store)
    place = unpack(tmp_path / f"env.{format}", tmp_path / "some where", format)

    assert made.format == format
    assert sh("bash", f". '{place}/bin/activate' && tool 'a b' && also") == "tool ['a b']\ntool []\n"
    assert (place / "share/where").read_text() == f"{place}\n"


@pytest.mark.engine
def test_an_archive_can_be_made_for_a_place_that_is_known(store: Store, reference: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    export(reference, str(tmp_path / "env.tar.gz"), store=store, options=ExportOptions(prefix=str(place)))

    unpack(tmp_path / "env.tar.gz", place, "tar.gz")

    assert sh("sh", f"{place}/bin/tool 1; cat {place}/share/where") == f"tool ['1']\n{place}\n"
    assert sh("bash", f". {place}/bin/activate && tool") == "tool []\n"


@pytest.mark.engine
@pytest.mark.parametrize("format", ["tar.gz", "tar.zst", "zip", "squashfs"])
def test_an_archive_is_the_same_every_time(
    store: Store,
    reference: str,
    tmp_path: Path,
    format: Format,  # noqa: A002
) -> None:
    if format == "squashfs":
        need("mksquashfs")
    for name in ("one", "two"):
        export(
            reference, str(tmp_path / name), store=Store(f"{store.path}-{name}"), options=ExportOptions(format=format)
        )

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("shell", SHELLS)
def test_activating_and_leaving_changes_back_what_it_changed(store: Store, tmp_path: Path, shell: str) -> None:
    place = tmp_path / "env"
    export(publish(tmp_path / "layout", [PYTHON, TOOL, CONDA]), str(place), store=store)

    shown = sh(
        shell,
        f"""before=$(export -p); . '{place}/bin/activate'
        echo "$CONDA_PREFIX|$ACTIVE|$GREETING|$(command -v tool)"
        deactivate; [ "$before" = "$(export -p)" ] && echo same""",
    )

    assert shown == f"{place}|{place}|it's $HOME|{place}/bin/tool\nsame\n"


def test_a_program_called_deactivate_is_not_taken_for_another_environment(
    store: Store, reference: str, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "deactivate").write_text("#!/bin/sh\necho called; exit 1\n")
    (programs / "deactivate").chmod(0o755)
    folder = export(reference, str(tmp_path / "env"), store=store).path
    assert (
        sh("bash", f'PATH={programs}:$PATH; set -e; . {folder}/bin/activate; echo "${{PATH%%:*}}"') == f"{folder}/bin\n"
    )


def test_moved_environment_can_be_moved_again(store: Store, reference: str, tmp_path: Path) -> None:
    export(reference, str(tmp_path / "first"), store=store)

    for name in ("second", "a third place", "4"):
        [place] = [folder for folder in tmp_path.iterdir() if (folder / "bin/tool").exists()]
        place = place.rename(tmp_path / name)
        assert sh("sh", f"'{place}/bin/lamella-unpack' && '{place}/bin/tool'") == "tool []\n"
        assert (place / "share/where").read_text() == f"{place}\n"


@pytest.mark.engine
def test_relative_use_needs_no_activation(store: Store, reference: str, tmp_path: Path) -> None:
    export(reference, str(tmp_path / "env.tar.gz"), store=store)
    unpack(tmp_path / "env.tar.gz", tmp_path / "work" / "environment", "tar.gz")

    assert sh("sh", f"cd {tmp_path}/work && ./environment/bin/python -c 'print(1)'") == "1\n"


def test_a_read_only_folder_still_activates_and_reports_the_reason(
    store: Store, reference: str, tmp_path: Path
) -> None:
    export(reference, str(tmp_path / "env"), store=store)
    place = (tmp_path / "env").rename(tmp_path / "it$moved")

    shown = sh("bash", f". '{place}/bin/activate' 2>&1; command -v tool")

    assert "lamella: scripts of" in shown
    assert shown.endswith(f"{place}/bin/tool\n")


@pytest.mark.engine
@pytest.mark.root
def test_a_squashfs_image_is_made_for_the_path_at_which_it_is_mounted(
    store: Store, reference: str, tmp_path: Path
) -> None:
    need_root()
    need("mksquashfs")
    export(reference, str(tmp_path / "env.squashfs"), store=store, options=ExportOptions(prefix=f"{tmp_path}/m"))
    (tmp_path / "m").mkdir()
    mounted = subprocess.run(
        ["mount", "-o", "loop,ro", tmp_path / "env.squashfs", tmp_path / "m"], check=False, capture_output=True
    )
    if mounted.returncode:
        unpack(tmp_path / "env.squashfs", tmp_path / "m", "squashfs")
    try:
        assert sh("sh", f"{tmp_path}/m/bin/tool") == "tool []\n"
    finally:
        subprocess.run(["umount", tmp_path / "m"], check=not mounted.returncode, capture_output=True)


@pytest.mark.parametrize("format", [each for each in FORMATS if each != "parcel"])
def test_existing_content_is_left_alone(
    store: Store,
    reference: str,
    tmp_path: Path,
    format: Format,  # noqa: A002
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")

    with pytest.raises(ExportError, match="already exists; remove it, or use another name"):
        export(reference, str(tmp_path / "mine"), store=store, options=ExportOptions(format=format))

    assert content(tmp_path / "mine") == {"file": "mine"}


@pytest.mark.parametrize("format", ["dir", "tar.gz", "squashfs"])
def test_an_export_that_fails_leaves_nothing(
    store: Store,
    tmp_path: Path,
    format: Format,  # noqa: A002
) -> None:
    layers = [
        PYTHON,
        {"x.so": "/opt/env\0", ".lamella/relocate/conda-x.json": listing("x.so").replace("text", "binary")},
    ]
    reference = publish(tmp_path / "layout", layers)
    (tmp_path / "out").mkdir()
    where = "out/env" if format != "tar.gz" else "layout/index.json/env"

    with pytest.raises(
        ExportError, match=r"x\.so holds the prefix in 8 bytes|can't be written: \S+/index\.json is not a directory"
    ):
        export(
            reference,
            str(tmp_path / where),
            store=store,
            options=ExportOptions(format=format, prefix="/longer/than/that"),
        )

    assert os.listdir(tmp_path / "out") == []


def test_without_mksquashfs_the_message_says_what_to_install(
    store: Store, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ExportError, match="mksquashfs: not found on PATH; install squashfs-tools"):
        export(reference, str(tmp_path / "env"), store=store, options=ExportOptions(format="squashfs"))


@pytest.mark.parametrize("name", ["env.tar.lzma", "env.TBZ", "env.7z", "env.tar.lz4", "env.gz"])
def test_unsupported_archive_suffix_is_refused(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match=r": \.\S+ archives are not supported; use .tar.gz, .tar.zst, .zip"):
        export("oci:nowhere:v1", str(tmp_path / name), store=store)


def test_a_folder_of_such_a_name_is_made_where_it_was_asked_for(store: Store, reference: str, tmp_path: Path) -> None:
    assert (
        export(reference, str(tmp_path / "env.tar.xz"), store=store, options=ExportOptions(format="dir")).format
        == "dir"
    )


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than the store's."""
    with another_file_system(tmp_path) as folder:
        yield folder


def test_links_that_can_not_be_made_are_not_made_copies_in_silence(
    store: Store, reference: str, tmp_path: Path, memory: Path
) -> None:
    with pytest.raises(
        ExportError, match="hard links cannot lead to another file system than the store's: leave out --link"
    ):
        export(reference, str(memory / "env"), store=store, options=ExportOptions(link=True))
    assert os.listdir(memory) == []

    assert export(reference, str(memory / "env"), store=store).files

    with pytest.raises(ExportError, match=r"only a folder can hold links, not tar\.gz; remove --link"):
        export(reference, str(tmp_path / "env.tar.gz"), store=store, options=ExportOptions(link=True))


@pytest.mark.root
@pytest.mark.parametrize("format", ["dir", "tar.gz"])
def test_full_disk_is_reported_with_the_requested_path(
    store: Store,
    tmp_path: Path,
    format: Format,  # noqa: A002
) -> None:
    need_root()
    reference = publish(tmp_path / "layout", [PYTHON, {"large": os.urandom(3 << 20)}])
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "lamella-test", small], check=True)
    try:
        with pytest.raises(ExportError) as failed:
            export(reference, str(small / "env"), store=store, options=ExportOptions(format=format))
        left = os.listdir(small)
    finally:
        subprocess.run(["umount", small], check=True)

    assert str(failed.value) == (
        f"{small}/env can't be written: the disk of {small} is full: free space, or export to another one"
    )
    assert left == []


def test_an_empty_folder_that_is_there_stays_the_folder_that_it_is(
    store: Store, reference: str, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir(mode=0o700)

    # As a person in a shell does, whose working directory it is before and after.
    shown = sh(
        "sh",
        f"""cd {tmp_path}/work && PYTHONPATH={":".join(sys.path)} LAMELLA_STORE={store.path} \
        {sys.executable} -m lamella.cli export --quiet {reference} . && bin/tool a; pwd -P""",
    )

    assert shown == f"{tmp_path}/work\ntool ['a']\n{tmp_path}/work\n"
    assert (tmp_path / "work").stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(tmp_path / "work")) == [".lamella", "bin", "lib", "share"]


@pytest.mark.engine
@pytest.mark.parametrize(("format", "there"), [("dir", False), ("dir", True), ("tar.gz", False), ("squashfs", False)])
def test_next_export_removes_the_remains_of_a_killed_one(
    store: Store,
    reference: str,
    tmp_path: Path,
    format: Format,  # noqa: A002
    there: bool,
) -> None:
    if format == "squashfs":
        need("mksquashfs")
    (tmp_path / "out").mkdir()
    if there:
        (tmp_path / "out/env").mkdir()

    pull(reference, store=store)

    rename = os.rename

    def rename_or_die(source: str, target: str) -> None:
        if ".lamella-export-" in source:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    def export_and_die() -> None:
        os.rename = rename_or_die  # type: ignore[assignment] # in this process alone
        export(reference, str(tmp_path / "out/env"), store=store, options=ExportOptions(format=format))

    with forked(export_and_die) as child:
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert list((tmp_path / "out").rglob(".lamella-export-*"))

    export(reference, str(tmp_path / "out/env"), store=store, options=ExportOptions(format=format))

    assert list((tmp_path / "out").rglob(".lamella-export-*")) == []


def test_files_of_another_running_export_stay(store: Store, reference: str, tmp_path: Path) -> None:
    beside = tmp_path / ".lamella-export-12345678"
    beside.mkdir()
    folder = os.open(beside, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        export(reference, str(tmp_path / "env"), store=store)
        assert beside.exists()
    finally:
        os.close(folder)

    export(reference, str(tmp_path / "env.zip"), store=store)
    assert not beside.exists()


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("rel/x", "use an absolute path"),
        ("/tmp/a/../b", "use an absolute path"),
        ("/usr", "a folder of the environment's own"),
    ],
)
def test_a_prefix_that_can_not_be_one_is_refused_before_anything_is_pulled(
    store: Store, tmp_path: Path, prefix: str, message: str
) -> None:
    for name in ("env", "env.tar.gz", "env.squashfs"):
        with pytest.raises(ExportError, match=message):
            export("oci:nowhere:v1", str(tmp_path / name), store=store, options=ExportOptions(prefix=prefix))


def test_a_slash_at_a_prefixs_end_is_ignored(store: Store, reference: str, tmp_path: Path) -> None:
    assert (
        export(reference, str(tmp_path / "env.zip"), store=store, options=ExportOptions(prefix="/srv/env/")).prefix
        == "/srv/env"
    )


@pytest.mark.engine
def test_everybody_may_read_an_images_folders_whatever_the_umask(store: Store, reference: str, tmp_path: Path) -> None:
    need("mksquashfs")
    before = os.umask(0o077)
    try:
        export(reference, str(tmp_path / "env.squashfs"), store=store)
        export(reference, str(tmp_path / "env"), store=store)
    finally:
        os.umask(before)
    listed = subprocess.run(
        [need("unsquashfs"), "-lls", tmp_path / "env.squashfs"], check=True, capture_output=True, text=True
    ).stdout

    modes = {line.split()[0] for line in listed.splitlines() if line.startswith("d")}
    assert modes == {"drwxr-xr-x"}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "env").rglob("*") if path.is_dir()} == {0o755}


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("env", "dir"),
        ("a.tgz", "tar.gz"),
        ("a.tar.gz", "tar.gz"),
        ("a.tar.zst", "tar.zst"),
        ("a.sqfs", "squashfs"),
        ("a.tar", "tar"),
        ("a.tar.bz2", "tar.bz2"),
        ("a.tbz2", "tar.bz2"),
        ("a.tar.xz", "tar.xz"),
        ("a.TXZ", "tar.xz"),
        ("a-1-el7.parcel", "parcel"),
        ("-", "tar"),
    ],
)
def test_the_name_says_the_format(name: str, format: Format) -> None:  # noqa: A002
    assert format_of(name) == format


def test_archives_hold_modes_and_links_and_no_owner(store: Store, reference: str, tmp_path: Path) -> None:
    export(reference, str(tmp_path / "env.tar.gz"), store=store)
    export(reference, str(tmp_path / "env.zip"), store=store)

    with tarfile.open(tmp_path / "env.tar.gz") as tar:
        tool, also = tar.getmember("bin/tool"), tar.getmember("bin/also")
        assert (tool.mode, tool.uid, tool.gid, tool.uname, tool.mtime) == (0o755, 0, 0, "", 315619200)
        assert also.linkname == "tool"
    with zipfile.ZipFile(tmp_path / "env.zip") as archive:
        assert archive.getinfo("bin/tool").external_attr >> 16 == 0o100755
        assert archive.read("bin/also") == b"tool"
