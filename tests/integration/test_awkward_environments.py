"""Environments at awkward places and with awkward packages run after a push."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from support.installed import install, venv, wheel
from support.scanned import SITE

if TYPE_CHECKING:
    from pathlib import Path

    from support.installed import By
    from support.once import Lamella

NSPKG = (
    "import sys, types, os;has_mfs = sys.version_info > (3, 5);p = os.path.join(sys._getframe(1).f_locals['sitedir'], "
    "*('old',));importlib = has_mfs and __import__('importlib.util');has_mfs and __import__('importlib.machinery');"
    "m = has_mfs and sys.modules.setdefault('old', importlib.util.module_from_spec(importlib.machinery.PathFinder"
    ".find_spec('old', [os.path.dirname(p)])));m = m or sys.modules.setdefault('old', types.ModuleType('old'));"
    "mp = (m or []) and m.__dict__.setdefault('__path__',[]);(p not in mp) and mp.append(p)\n"
)
"""What setuptools writes for `namespace_packages`."""
PKGUTIL = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"


def run(lamella: Lamella, prefix: Path | str, tmp_path: Path, *command: str) -> str:
    """Return the output of `command` in a mount of the environment pushed from `prefix`, which is removed before."""
    reference = f"oci:{tmp_path}/layout:v1"
    pushed = lamella("push", reference, prefix, "--no-local")
    assert pushed.returncode == 0, pushed.stderr
    done = lamella("run", reference, "--", *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("with a space", "pip"),
        ("with a space", "uv"),
        ("100%s %(prefix)s", "pip"),
        ("ünï-é", "uv"),
        ("it's $HOME", "pip"),
    ],
)
def test_a_prefix_with_an_odd_name_is_rewritten_and_runs(lamella: Lamella, tmp_path: Path, name: str, by: By) -> None:
    prefix = venv(tmp_path / name / "env", by=by)
    code = "import sys\ndef main():\n    print(sys.argv[0], sys.prefix)\n"
    tool = wheel(
        tmp_path,
        "tool",
        "1.0",
        {"tool.py": code, "{data}/scripts/plain": "#!python\nimport tool\ntool.main()\n"},
        entry_points="[console_scripts]\ntool = tool:main\n",
    )
    install(prefix, tool, by=by)
    (prefix / SITE / "where.cfg").write_text(f"root={prefix}/share\nquoted='{prefix}'\n")
    show = f"import tool, where_is; print(open('/opt/env/{SITE}/where.cfg').read())"
    (prefix / SITE / "where_is.py").write_text("")
    assert run(lamella, prefix, tmp_path, "python", "-c", show) == "root=/opt/env/share\nquoted='/opt/env'\n\n"
    shutil.rmtree(prefix)
    for script in ("tool", "plain"):
        done = lamella("run", f"oci:{tmp_path}/layout:v1", "--", script)
        assert done.stdout == f"/opt/env/bin/{script} /opt/env\n", done.stderr


def test_a_prefix_that_begins_anothers_name_leaves_the_other_as_it_is(lamella: Lamella, tmp_path: Path) -> None:
    prefix = venv(tmp_path / "env")
    (prefix / SITE / "where.py").write_text(f"A, B, C = '{prefix}', '{prefix}2/lib', '{prefix}.old'\n")
    said = run(lamella, prefix, tmp_path, "python", "-c", "import where; print(where.A, where.B, where.C)")
    assert said == f"/opt/env {prefix}2/lib {prefix}.old\n"


def test_both_names_of_a_prefix_that_is_reached_through_a_link_are_rewritten(lamella: Lamella, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    prefix = venv(tmp_path / "link" / "env")
    (prefix / SITE / "where.py").write_text(f"A, B = '{prefix}/a', '{tmp_path}/real/env/b'\n")
    said = run(lamella, prefix, tmp_path, "python", "-c", "import where; print(where.A, where.B)")
    assert said == "/opt/env/a /opt/env/b\n"


def test_a_relative_virtual_env_is_that_of_the_folder_one_is_in(lamella: Lamella, tmp_path: Path) -> None:
    prefix = venv(tmp_path / "somewhere" / "env")
    (prefix / SITE / "where.py").write_text(f"A = '{prefix}/a'\n")
    reference = f"oci:{tmp_path}/layout:v1"
    pushed = lamella("push", reference, "--no-local", VIRTUAL_ENV="../somewhere/env")
    assert pushed.returncode == 0, pushed.stderr
    done = lamella("run", reference, "--", "python", "-c", "import where; print(where.A)")
    assert done.stdout == "/opt/env/a\n", done.stderr


def test_packages_that_share_a_folder_are_imported_from_their_layers(lamella: Lamella, tmp_path: Path) -> None:
    shared: dict[str, dict[str, str | bytes]] = {
        "pep420-one": {"acme/one.py": "X = 1\n"},
        "pep420-two": {"acme/deep/two.py": "X = 2\n"},
        "nspkg-one": {"old/one.py": "X = 3\n", "nspkg_one-1.0-nspkg.pth": NSPKG},
        "nspkg-two": {"old/two.py": "X = 4\n", "nspkg_two-1.0-nspkg.pth": NSPKG},
        "pkgutil-one": {"ext/__init__.py": PKGUTIL, "ext/one.py": "X = 5\n"},
        "pkgutil-two": {"ext/__init__.py": PKGUTIL, "ext/two.py": "X = 6\n"},
        "nvidia-cublas": {"nvidia/__init__.py": "", "nvidia/cublas/lib/libcublas.so.12": b"one"},
        "nvidia-cudnn": {"nvidia/__init__.py": "", "nvidia/cudnn/lib/libcudnn.so.9": b"two"},
    }
    prefix = venv(tmp_path / "env")
    install(prefix, *(wheel(tmp_path, name, "1.0", files) for name, files in shared.items()))
    scanned = json.loads(lamella("scan", prefix, "--no-local", "--json").stdout)
    assert set(shared) <= {package["name"] for package in scanned["packages"]}
    kinds = {(each["severity"], each["kind"]) for each in scanned["findings"]}
    assert kinds == {("note", "owners")}, "that two bring the same __init__.py is worth a note"
    code = (
        "import acme.one, acme.deep.two, old.one, old.two, ext.one, ext.two, nvidia, os;"
        "print(acme.one.X, acme.deep.two.X, old.one.X, old.two.X, ext.one.X, ext.two.X,"
        "*sorted(os.listdir(os.path.dirname(nvidia.__file__))))"
    )
    said = run(lamella, prefix, tmp_path, "python", "-B", "-c", code)
    assert said.split() == ["1", "2", "3", "4", "5", "6", "__init__.py", "__pycache__", "cublas", "cudnn"]
    layers = lamella("inspect", f"oci:{tmp_path}/layout:v1", "--json").stdout
    assert set(shared) <= {each["name"] for each in json.loads(layers)["platforms"][0]["packages"]}


def test_a_distribution_without_a_name_is_an_environment_all_the_same(lamella: Lamella, tmp_path: Path) -> None:
    prefix = install(venv(tmp_path / "env"), wheel(tmp_path, "alpha", "1.0", {"alpha.py": "X = 1\n"}))
    for folder in ("-1.0.dist-info", "named-1.0.dist-info", ".dist-info"):
        info = prefix / SITE / folder
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName:\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{folder.strip('.-')}.py,,\n")
        (prefix / SITE / f"{folder.strip('.-')}.py").write_text("")
    assert run(lamella, prefix, tmp_path, "python", "-c", "import alpha; print(alpha.X)") == "1\n"
    scanned = json.loads(lamella("scan", prefix, "--no-local", "--json").stdout)
    names = {package["name"] for package in scanned["packages"]}
    assert names >= {"alpha", "named", "unowned"}
    assert "" not in names
    said = [each["message"] for each in scanned["findings"] if each["kind"] == "record"]
    advice = "names no project; its files count as unowned; reinstall it"
    assert said == [f"{SITE}/-1.0.dist-info: {advice}", f"{SITE}/.dist-info: {advice}"]
