from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lamella.comparison.errors import StepFailed
from lamella.comparison.measuring.disk import disk_usage
from lamella.comparison.programs.commands import Commands
from lamella.comparison.programs.index import normalised
from lamella.comparison.subject import code
from lamella.comparison.subject.changes import copy_environment, move_environment, upgrade
from lamella.comparison.subject.distributions import distributions, path_of, record, top_modules
from lamella.comparison.subject.wheels import make_wheel

SITE = "lib/python3.11/site-packages"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An environment with one distribution: a module, byte code, a script of an entry point and one of its own."""
    prefix = tmp_path / "env"
    files = {
        f"{SITE}/pack/__init__.py": "VALUE = 1\n",
        f"{SITE}/pack/__pycache__/__init__.cpython-311.pyc": "code",
        f"{SITE}/my_pack-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: My.Pack\nVersion: 1.0\n\nVersion: text\n",
        f"{SITE}/my_pack-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{SITE}/my_pack-1.0.dist-info/entry_points.txt": "[console_scripts]\ntool = pack:main\n",
        f"{SITE}/my_pack-1.0.dist-info/INSTALLER": "pip\n",
        "bin/tool": f"#!{prefix}/bin/python\nimport pack\n",
        "bin/own": f"#!{prefix}/bin/python\nprint('own')\n",
    }
    for name, text in files.items():
        path = prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    rows = [name.removeprefix(f"{SITE}/") if name.startswith("lib") else f"../../../{name}" for name in files]
    (prefix / SITE / "my_pack-1.0.dist-info/RECORD").write_text(
        "".join(f"{row},,\n" for row in [*rows, "my_pack-1.0.dist-info/RECORD"])
    )
    return prefix


def test_an_upgrade_changes_version_record_and_one_module_of_the_copy_alone(prefix: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_environment(str(prefix), str(copy), linked=True)
    before = {path: path.read_bytes() for path in prefix.rglob("*") if path.is_file()}
    (found,) = distributions(str(copy))
    new = upgrade(found, 2)
    assert {path: path.read_bytes() for path in prefix.rglob("*") if path.is_file()} == before
    assert distributions(str(copy)) == (new,)
    assert (new.name, new.version) == ("My.Pack", "1.0+compare.2")
    assert Path(new.info).name == "my_pack-1.0+compare.2.dist-info"
    metadata = Path(new.info, "METADATA").read_text()
    assert "Version: 1.0+compare.2\n" in metadata
    assert metadata.endswith("\nVersion: text\n")
    assert (copy / SITE / "pack/__init__.py").read_text() == "VALUE = 1\n\n# compare 2\n"
    assert not (copy / SITE / "pack/__pycache__/__init__.cpython-311.pyc").exists()
    rows = {row[0]: row for row in record(new)}
    assert not any("my_pack-1.0.dist-info" in name for name in rows)
    data = Path(path_of(new, rows["pack/__init__.py"])).read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    assert rows["pack/__init__.py"][1:] == [f"sha256={digest}", str(len(data))]


def test_an_upgraded_package_can_be_upgraded_again(prefix: Path) -> None:
    (found,) = distributions(str(prefix))
    assert upgrade(upgrade(found, 1), 2).version == "1.0+compare.2"


def test_a_moved_environment_s_scripts_name_its_new_place(prefix: Path) -> None:
    move_environment(str(prefix), str(prefix), "/new/place")
    assert (prefix / "bin/own").read_text() == "#!/new/place/bin/python\nprint('own')\n"


def test_a_wheel_of_an_installed_distribution_leaves_out_what_installers_write(prefix: Path, tmp_path: Path) -> None:
    (found,) = distributions(str(prefix))
    path = make_wheel(found, str(prefix), str(tmp_path))
    assert Path(path).name == "My_Pack-1.0-py3-none-any.whl"
    assert normalised(Path(path).name) == "my-pack" == found.normalised
    with zipfile.ZipFile(path) as wheel:
        assert sorted(wheel.namelist()) == [
            "My_Pack-1.0.data/scripts/own",
            "My_Pack-1.0.dist-info/METADATA",
            "My_Pack-1.0.dist-info/RECORD",
            "My_Pack-1.0.dist-info/WHEEL",
            "My_Pack-1.0.dist-info/entry_points.txt",
            "pack/__init__.py",
        ]
        assert wheel.read("My_Pack-1.0.data/scripts/own") == b"#!python\nprint('own')\n"


def test_a_wheel_has_every_tag_that_it_was_installed_with(prefix: Path, tmp_path: Path) -> None:
    wheel = prefix / SITE / "my_pack-1.0.dist-info/WHEEL"
    wheel.write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py2-none-any\nTag: py3-none-any\n")
    (found,) = distributions(str(prefix))
    assert Path(make_wheel(found, str(prefix), str(tmp_path))).name == "My_Pack-1.0-py2.py3-none-any.whl"


def test_a_failed_command_s_error_line_is_its_reason(tmp_path: Path) -> None:
    script = "import sys; sys.exit('#10 1.2 error: no wheel of bcdoc\\n---\\nexecutor failed')"
    with pytest.raises(StepFailed, match=r"ended with 1: #10 1.2 error: no wheel of bcdoc$"):
        Commands(str(tmp_path)).run([sys.executable, "-c", script])


def test_top_modules_are_names_that_can_be_imported(prefix: Path) -> None:
    (found,) = distributions(str(prefix))
    assert top_modules(found) == ("pack",)


def test_local_code_tells_its_edits_apart(tmp_path: Path) -> None:
    code.make_code(str(tmp_path))
    code.edit(str(tmp_path), 3)
    program = f"import {code.PACKAGE} as found, {code.PACKAGE}.module_1; print(found.EDIT)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == "3\n"


def test_the_disk_counts_each_inode_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 100_000)
    before = disk_usage(str(tmp_path))
    assert before >= 100_000
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    assert disk_usage(str(tmp_path)) < before + 50_000
    assert disk_usage(str(tmp_path / "absent")) == 0
