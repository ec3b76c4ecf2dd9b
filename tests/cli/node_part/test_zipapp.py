"""One file runs a node's verbs with a Python that has nothing installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.push import push
from node_part import zipapp
from node_part.part import ABSENT, REQUIRED
from support.engines import need, need_root
from support.installed import install, venv, wheel
from support.node_part import node_file
from test_boundaries import imports, modules

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def file(shared: Path) -> Path:
    return node_file(shared)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> str:
    """An environment whose program prints ada."""
    folder = tmp_path_factory.mktemp("environment")
    prefix = install(venv(folder / "env"), wheel(folder, "ada", "1.0", {"ada.py": "print('ada')\n"}))
    reference = f"oci:{folder}/images:v1"
    push(reference, str(prefix), cache=LayerCache(str(shared / "cache")))
    return reference


def run(
    file: Path, *arguments: object, store: Path | str = "/nonexistent", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run the file by a Python without site-packages, HOME or temporary folder."""
    return subprocess.run(
        [sys.executable, "-I", "-S", file, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env={"LAMELLA_STORE": str(store)} | settings,
        cwd="/",
        stdin=subprocess.DEVNULL,
    )


def test_command_runs_in_an_environment(file: Path, layout: str, tmp_path: Path) -> None:
    done = run(file, "run", layout, "--", "python", "-m", "ada", store=tmp_path / "store")

    assert (done.returncode, done.stdout) == (0, "ada\n"), done.stderr


def test_environment_is_pulled_verified_mounted_exported_and_freed(file: Path, layout: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    verbs = [
        ("pull", layout),
        ("df",),
        ("verify",),
        ("mount", "--method", "hardlinks", layout, target),
        ("umount", target),
        ("export", layout, tmp_path / "env.tar.zst"),
        ("gc", "--all", "--yes"),
    ]
    for words in verbs:
        done = run(file, *words, store=tmp_path / "store")
        assert done.returncode == 0, (words, done.stderr)


def test_packages_of_the_same_names_elsewhere_are_not_imported(file: Path, tmp_path: Path) -> None:
    for name in ("lamella", "zstandard", "urllib3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('another {name}')\n")
    done = subprocess.run(
        [sys.executable, file, "ls"],
        check=False,
        capture_output=True,
        text=True,
        env={"LAMELLA_STORE": str(tmp_path / "store"), "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "no environments" in done.stdout


def test_same_sources_make_the_same_bytes(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("TZ", "America/New_York")
    again = tmp_path / "dist" / "lamella-node.pyz"
    zipapp.write(str(again), zipapp.files())

    assert again.read_bytes() == file.read_bytes()
    assert os.access(again, os.X_OK)


def test_file_is_small_and_has_the_licences_of_what_it_holds(file: Path) -> None:
    assert file.stat().st_size < 6_000_000
    with zipfile.ZipFile(file) as archive:
        licences = [name.partition("-")[0] for name in archive.namelist() if "/licenses/LICEN" in name]
    assert set(licences) >= {"lamella", "urllib3", "cachetools", "tomli", "zstandard"}


@pytest.mark.parametrize("name", ["lamella/cli/main.py", "lamella/layers/store/store.py"])
def test_damaged_file_is_reported_in_one_sentence(file: Path, tmp_path: Path, name: str) -> None:
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        entry = archive.getinfo(name)
    middle = entry.header_offset + 60 + entry.compress_size // 2
    content[middle : middle + 20] = bytes(20)
    damaged = tmp_path / "lamella-node.pyz"
    damaged.write_bytes(content)

    done = run(damaged, "ls", store=tmp_path / "store")

    assert done.returncode == 1
    assert done.stderr == (
        "lamella-node.pyz: damaged; copy it here again, and compare its sha256 with the original's\n"
    )


def test_truncated_file_is_refused_by_python_as_documented(file: Path, tmp_path: Path) -> None:
    truncated = tmp_path / "lamella-node.pyz"
    truncated.write_bytes(file.read_bytes()[:100_000])

    done = run(truncated, "ls")

    assert done.returncode == 1
    assert "SyntaxError: " in done.stderr


@pytest.mark.parametrize(
    "words",
    [("push", "localhost:1/envs:v1"), ("scan",), ("export", "/usr", "/nonexistent"), ("completion", "bash")],
    ids=" ".join,
)
def test_verb_of_the_laptop_is_refused_with_the_way_to_install(file: Path, words: tuple[str, ...]) -> None:
    done = run(file, *words)

    assert done.returncode == 11
    assert done.stderr.startswith("lamella: this command is not in the node's part of Lamella")
    assert "install all of it" in done.stderr
    assert done.stderr.count("\n") == 1


def test_every_import_of_a_node_is_in_the_file_or_has_a_stand_in() -> None:
    optional = {"rich", "cryptography", "zlib_ng", "IPython", "argparse_manpage"}
    packaged = {*REQUIRED, "zstandard", "lamella", *(name for name in ABSENT if "/" not in name)}
    found = {name.partition(".")[0] for room in ("layers", "cli") for path in modules(room) for name in imports(path)}

    assert found - packaged - optional - sys.stdlib_module_names == set()


def test_shared_library_is_loaded_from_disk_if_memory_files_are_refused(file: Path, tmp_path: Path) -> None:
    program = (
        "import errno, os, sys\n"
        "def refuse(*_): raise OSError(errno.ENOSYS, 'refused')\n"
        "os.memfd_create = refuse\n"
        f"sys.path.insert(0, {str(file)!r})\n"
        "import zstandard\n"
        "print(zstandard.ZstdCompressor, zstandard.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        check=False,
        capture_output=True,
        text=True,
        env={"TMPDIR": str(tmp_path)},
    )

    assert "zstandard.backend_c" in done.stdout or "ZstdCompressor" in done.stdout, done.stderr
    assert f"{file}/zstandard/__init__.py" in done.stdout
    assert os.listdir(tmp_path) == [], "nothing stays behind"


@pytest.mark.engine
@pytest.mark.root
def test_minimal_debian_with_python_needs_no_home_and_writes_only_to_the_store(
    file: Path, layout: str, tmp_path: Path
) -> None:
    need_root()
    root = tmp_path / "root"
    debian = [
        need("mmdebstrap"),
        "--quiet",
        "--variant=extract",
        "--include=python3,dash,coreutils",
        "bookworm",
        str(root),
    ]
    subprocess.run(debian, check=True, stdin=subprocess.DEVNULL)
    (root / "tmp").rmdir()
    folder = layout.removeprefix("oci:").rpartition(":")[0]
    # In a mount namespace of its own, whose mounts end with the command.
    script = f"""
        set -e
        cd {root}
        mkdir -p proc opt file images
        mount --bind -o ro . .
        cd {root}
        mount -t proc none proc
        mount -t tmpfs -o uid=12345 none opt
        mount --bind {file.parent} file
        mount --bind {folder} images
        exec chroot --userspec 12345:12345 {root} sh -c '
            python3 -I -S /file/{file.name} mount --method hardlinks oci:/images:v1 /opt/env
            exec /opt/env/bin/python -m ada'
    """
    done = subprocess.run(
        [need("unshare"), "--mount", "sh", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LAMELLA_STORE": "/opt/store"},
        stdin=subprocess.DEVNULL,
    )

    assert done.stdout == "/opt/env\nada\n", done.stderr
