from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import EnvironmentChanged
from lamella.builder.layer.cache import LayerCache
from lamella.builder.packing.pack import pack
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from lamella.layers.errors import ExportError
from lamella.layers.exporting.target import ExportOptions
from support import tars
from support.engines import need, need_root
from support.installed import install, venv, wheel
from support.processes import forked, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamella.builder.packing.pack import Packed
    from lamella.layers.exporting.target import Format

pytestmark = pytest.mark.slow
SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
NO_LIBRARIES = ExportOptions(system_libraries=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with a package, awkward names, links and a file without an owner, in a folder with a blank."""
    folder = tmp_path_factory.mktemp("made of")
    files = {"greet/__init__.py": "def main(): print('hello')\n", "greet/data.pyx": "x", "greet/ü n.txt": "name"}
    greet = wheel(folder, "greet", files=files, entry_points="[console_scripts]\ngreet = greet:main\n")
    prefix = install(venv(folder / "env"), greet)
    os.link(prefix / SITE / "greet/data.pyx", prefix / SITE / "greet/again.pyx")
    (prefix / SITE / "greet/broken").symlink_to("nowhere")
    (prefix / SITE / "note.txt").write_text(f"at {prefix}\n")
    return prefix


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def packed(made: Path, path: Path | str, cache: str, options: ExportOptions = NO_LIBRARIES) -> Packed:
    scan_options = ScanOptions(cache=cache)
    return pack(str(made), str(path), options, scan_options=scan_options, cache=LayerCache(f"{cache}/layers"))


def unpacked(archive: Path, folder: Path) -> Path:
    folder.mkdir()
    with tarfile.open(archive) as tar:
        tars.extract(tar, folder, trusted=True)
    return folder


def output(*command: object) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def names(archive: Path) -> set[str]:
    with tarfile.open(archive) as tar:
        return set(tar.getnames())


@pytest.mark.parametrize("format", ["tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip"])
def test_the_same_environment_gives_the_same_archive(
    made: Path,
    cache: str,
    tmp_path: Path,
    format: Format,  # noqa: A002
) -> None:
    # bzip2 and xz take their time for a standard library.
    filters = (("exclude", "*"), ("include", f"{SITE}/*"), ("include", "bin/*"))
    one = ExportOptions(format=format, threads=1, filters=filters)  # type: ignore[arg-type] # literals in a tuple
    two = ExportOptions(format=format, threads=3, filters=filters)  # type: ignore[arg-type]

    packed(made, tmp_path / "one", cache, one)
    packed(made, tmp_path / "two", str(tmp_path / "new cache"), two)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_packed_environment_works_where_it_is_unpacked_and_moves_again(
    made: Path, cache: str, tmp_path: Path
) -> None:
    packed(made, tmp_path / "env.tar.gz", cache)
    place = unpacked(tmp_path / "env.tar.gz", tmp_path / "some where")

    output(place / "bin/conda-unpack")
    assert output(place / "bin/greet") == "hello\n"
    assert (place / SITE / "note.txt").read_text() == f"at {place}\n"
    moved = place.rename(tmp_path / "moved")
    output(moved / "bin/conda-unpack")

    assert output(moved / "bin/greet") == "hello\n"
    assert output(moved / "bin/python", "-c", "import sys; print(sys.prefix)") == f"{moved}\n"


def test_packing_an_unpacked_environment_gives_the_same_files(made: Path, cache: str, tmp_path: Path) -> None:
    packed(made, tmp_path / "one.tar", cache)
    place = unpacked(tmp_path / "one.tar", tmp_path / "place")
    output(place / "bin/conda-unpack")

    packed(place, tmp_path / "two.tar", cache)

    assert names(tmp_path / "two.tar") == names(tmp_path / "one.tar")


def test_a_folder_works_in_place(made: Path, cache: str, tmp_path: Path) -> None:
    result = packed(made, tmp_path / "env", cache)

    assert result.prefix == str(tmp_path / "env")
    assert output(tmp_path / "env/bin/greet") == "hello\n"
    assert (tmp_path / "env" / SITE / "greet/ü n.txt").read_text() == "name"


def test_links_of_the_file_system_become_files_and_broken_ones_stay_away(
    made: Path, cache: str, tmp_path: Path
) -> None:
    packed(made, tmp_path / "env.tar", cache)

    with tarfile.open(tmp_path / "env.tar") as tar:
        assert tar.getmember(f"{SITE}/greet/again.pyx").isfile()
        assert not {f"{SITE}/greet/broken"} & set(tar.getnames())


def test_patterns_byte_code_and_a_folder_in_the_archive(made: Path, cache: str, tmp_path: Path) -> None:
    filters = (("exclude", "*.pyx"), ("include", "*/again.pyx"))
    options = ExportOptions(filters=filters, byte_code=False, root="in/side/", system_libraries=False)  # type: ignore[arg-type]

    packed(made, tmp_path / "env.tar.gz", cache, options)

    found = names(tmp_path / "env.tar.gz")
    assert {name.partition("/")[0] for name in found} == {"in"}
    assert f"in/side/{SITE}/greet/again.pyx" in found
    assert f"in/side/{SITE}/greet/data.pyx" not in found
    assert not any(name.endswith(".pyc") for name in found)


def test_a_parcel_names_its_folder_and_its_packages(made: Path, cache: str, tmp_path: Path) -> None:
    packed(made, tmp_path / "envs-1.2-el8.parcel", cache)

    with tarfile.open(tmp_path / "envs-1.2-el8.parcel", "r:gz") as tar:
        read = {name: tar.extractfile(f"envs-1.2/{name}") for name in ("meta/parcel.json", "bin/greet")}
        content = {name: file.read() for name, file in read.items() if file}
    document = json.loads(content["meta/parcel.json"])
    assert (document["name"], document["version"]) == ("envs", "1.2")
    assert {"name": "greet", "version": "1.0"} in document["packages"]
    assert content["bin/greet"].startswith(b"#!/opt/cloudera/parcels/envs-1.2/bin/python\n")


def test_a_stream_is_a_tar_and_a_cut_one_fails(made: Path, cache: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lamella.cli", "export", "--no-system-libraries", str(made), "-"]
    environment = {**os.environ, "LAMELLA_CACHE": cache}
    streamed = subprocess.run(command, check=True, capture_output=True, env=environment)
    (tmp_path / "env.tar").write_bytes(streamed.stdout)
    assert f"{SITE}/greet/__init__.py" in names(tmp_path / "env.tar")

    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, encoding="latin-1") as cut:
        assert cut.stdout
        assert cut.stderr
        cut.stdout.read(10_000)
        cut.stdout.close()
        said = cut.stderr.read()
        cut.wait()
    assert "Traceback" not in said
    assert cut.returncode


def test_a_dry_run_says_what_would_be_packed(made: Path, cache: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lamella.cli", "export", made, tmp_path / "x.tar.gz", "--dry-run", "--json"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "LAMELLA_CACHE": cache},
    )

    document = json.loads(done.stdout)
    assert (document["environment"], document["format"], document["dry_run"]) == (str(made), "tar.gz", True)
    assert {"greet", "python"} <= {each["name"] for each in document["packages"]}
    assert not (tmp_path / "x.tar.gz").exists()


def test_force_replaces_a_file_and_an_export_and_no_other_folder(made: Path, cache: str, tmp_path: Path) -> None:
    force = ExportOptions(force=True, system_libraries=False)
    (tmp_path / "env.tar").write_text("old")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")

    packed(made, tmp_path / "env.tar", cache, force)
    packed(made, tmp_path / "env", cache)
    (tmp_path / "env/left").write_text("over")
    packed(made, tmp_path / "env", cache, force)
    with pytest.raises(ExportError, match="a folder that is not an export"):
        packed(made, tmp_path / "mine", cache, force)

    assert "bin/greet" in names(tmp_path / "env.tar")
    assert not (tmp_path / "env/left").exists()
    assert (tmp_path / "mine/file").read_text() == "mine"


def test_a_prefix_that_may_not_be_written_is_packed(made: Path, cache: str, tmp_path: Path) -> None:
    copy = shutil.copytree(made, tmp_path / "read only", symlinks=True)
    for folder, _, files in os.walk(copy):
        for name in files:
            if not os.path.islink(f"{folder}/{name}"):
                os.chmod(f"{folder}/{name}", 0o444 | (os.stat(f"{folder}/{name}").st_mode & 0o111))
        os.chmod(folder, 0o555)

    packed(copy, tmp_path / "env.tar", cache)

    assert "bin/greet" in names(tmp_path / "env.tar")


@pytest.mark.parametrize("size", [1_000, 200_000])
def test_a_file_that_changes_after_the_scan_is_an_error(made: Path, cache: str, tmp_path: Path, size: int) -> None:
    copy = shutil.copytree(made, tmp_path / "copy", symlinks=True)
    (copy / SITE / "greet/grows.bin").write_bytes(b"a" * size)
    scanned = scan(str(copy), ScanOptions(cache=cache, system_libraries=False))
    (copy / SITE / "greet/grows.bin").write_bytes(b"b" * size)

    with pytest.raises(EnvironmentChanged, match=r"grows\.bin: changed"):
        pack(scanned, str(tmp_path / "env.tar"), cache=LayerCache(f"{cache}/layers"))

    assert not (tmp_path / "env.tar").exists()


def test_a_zip_keeps_modes_and_links(made: Path, cache: str, tmp_path: Path) -> None:
    packed(made, tmp_path / "env.zip", cache)

    with zipfile.ZipFile(tmp_path / "env.zip") as archive:
        assert archive.getinfo("bin/greet").external_attr >> 16 == 0o100755
        assert archive.read("bin/conda-unpack") == b"lamella-unpack"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    need_root()
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run([need("mount"), "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.root
@pytest.mark.engine
@pytest.mark.parametrize("name", ["env.tar", "env.tar.gz", "env.tar.zst", "env.zip", "env", "env.squashfs"])
def test_a_full_disk_is_named_and_nothing_is_left(made: Path, cache: str, small_disk: Path, name: str) -> None:
    if name.endswith("squashfs"):
        need("mksquashfs")

    with pytest.raises(ExportError, match=r"(?i)is full: free space|no space left"):
        packed(made, small_disk / name, cache)

    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("name", ["env.tar.gz", "env.tar.zst", "env"])
def test_an_interrupted_pack_leaves_nothing(made: Path, cache: str, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()

    class Interrupting:
        def begin(self, task: str, total: int | None, unit: str) -> None: ...

        def advance(self, task: str, amount: int) -> None:  # noqa: ARG002 - the interface's
            if task == "export":
                raise KeyboardInterrupt

        def end(self, task: str) -> None: ...

    def interrupted() -> None:
        try:
            pack(
                str(made), str(out / name), NO_LIBRARIES, scan_options=ScanOptions(cache=cache), progress=Interrupting()
            )
        except KeyboardInterrupt:
            os._exit(9)

    with forked(interrupted) as child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    assert list(out.iterdir()) == []
