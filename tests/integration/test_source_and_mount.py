"""Every file of an environment is in its mount, as it is on the disk: for each kind of environment that people have."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.conda import PLACEHOLDER, conda_environment, conda_package, python_of_the_run
from support.engines import missing
from support.installed import base_python, install, venv, wheel
from support.projects import editable, project
from support.scanned import SITE
from support.source_trees import Disk, differences, roots_of_base

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from support.installed import By
    from support.once import Lamella

SYSTEM_PYTHON = "/usr/bin/python3"
FACTS = """
import json, sys, sysconfig
print(json.dumps({"base": sys.base_prefix, "short": "%d.%d" % sys.version_info[:2],
    "stdlib": sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}),
    "include": sysconfig.get_path("include", vars={"installed_base": sys.base_prefix})}))
"""
ALPHA: dict[str, str | bytes] = {
    "alpha/__init__.py": "def main():\n    print('alpha')\n",
    "alpha/data/empty.txt": "",
    "alpha/data/ünï cödé.txt": "text",
    "alpha/data/.hidden": "dot",
    "alpha/native.so": b"\x7fELF\0not quite",
    "{data}/scripts/alpha-script": "#!python\nprint('script')\n",
    "{data}/data/share/man/man1/alpha.1": ".TH alpha\n",
    "{data}/data/etc/alpha.cfg": "[alpha]\n",
}
POINTS = "[console_scripts]\nalpha = alpha:main\n[gui_scripts]\nalpha-gui = alpha:main\n"


def facts_of(python: str) -> dict[str, str]:
    said = subprocess.run([python, "-I", "-c", FACTS], capture_output=True, text=True, check=True).stdout
    return dict(json.loads(said))


def names_of(prefix: Path, python: str) -> list[str]:
    """Every name of the environment's prefixes, the longest first."""
    base = facts_of(python)["base"]
    names = {str(prefix), os.path.realpath(prefix), base, os.path.realpath(base)} - {"/usr", "/usr/local"}
    return sorted(names, key=len, reverse=True)


def over(prefix: Path, *more: tuple[str, str], left_out: Sequence[str] = ()) -> Disk:
    """A virtual environment, with the interpreter that it borrows."""
    python = f"{prefix}/bin/python"
    facts = facts_of(python)
    inside = [f"{facts['stdlib']}/{name}" for name in ("site-packages", "dist-packages")]
    return Disk(
        [*more, (str(prefix), ""), *roots_of_base(facts)], names_of(prefix, python), left_out=left_out, skipped=inside
    )


def fill(prefix: Path, folder: Path, by: By = "uv") -> Path:
    """Install packages with a file of every kind; add an unowned file and links."""
    alpha = wheel(folder, "alpha", "1.0", ALPHA, entry_points=POINTS)
    beta = wheel(folder, "beta", "2.0", {"beta.py": "import alpha\n"}, requires=["alpha"])
    install(prefix, alpha, beta, by=by)
    site = next(prefix.glob("lib/python3*/site-packages"))
    (site / "stray.py").write_text(f"HERE = '{prefix}/share'\n")
    (site / "link.py").symlink_to("stray.py")
    (site / "outside.txt").symlink_to("/usr/lib/os-release")
    return prefix


def compared(lamella: Lamella, prefix: Path | str, disk: Disk, tmp_path: Path) -> list[str]:
    """Differences between the disk and a mount of the pushed environment, copied out by a command in it."""
    reference = f"oci:{tmp_path}/layout:v1"
    pushed = lamella("push", reference, prefix, "--no-local")
    assert pushed.returncode == 0, pushed.stderr
    out = tmp_path / "out"
    copied = lamella("run", reference, "--", "/bin/cp", "-a", "/opt/env", out)
    assert copied.returncode == 0, copied.stderr
    found = list(differences(disk, out))
    print(*found, sep="\n")
    return found


@pytest.mark.parametrize("by", ["pip", "uv"])
def test_a_venv(lamella: Lamella, tmp_path: Path, by: By) -> None:
    prefix = fill(venv(tmp_path / "env", by=by), tmp_path, by)
    assert compared(lamella, prefix, over(prefix), tmp_path) == []


def test_a_venv_with_pip_itself(lamella: Lamella, tmp_path: Path) -> None:
    subprocess.run([base_python(), "-m", "venv", str(tmp_path / "env")], check=True)
    prefix = tmp_path / "env"
    assert compared(lamella, prefix, over(prefix), tmp_path) == []


def test_an_editable_install(lamella: Lamella, tmp_path: Path) -> None:
    prefix = fill(venv(tmp_path / "env"), tmp_path)
    files: dict[str, str | bytes] = {"demo/__init__.py": ""}
    root = project(tmp_path / "project", "demo", files)
    code = root / "src" / "demo"
    (code / "inner").mkdir()
    (code / "inner" / "settings.yaml").write_text("a: 1\n")
    (code / "inner" / "mod.py").write_text(f"HERE = '{prefix}'\n")
    (code / "_core.so").write_bytes(b"compiled\0")
    (root / "src" / "single.py").write_text("")
    editable(prefix / SITE, root, "demo")
    disk = over(prefix, (str(root / "src"), SITE), left_out=[r".*/site-packages/demo\.pth"])
    assert compared(lamella, prefix, disk, tmp_path) == []


def conda(folder: Path, shared: Path) -> Path:
    channel = folder / "channel"
    python_of_the_run(channel, shared)
    pure = {
        "site-packages/pure/__init__.py": "def main():\n    print('pure')\n",
        "site-packages/pure-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pure\nVersion: 1.0\n",
        "site-packages/pure-1.0.dist-info/RECORD": "pure/__init__.py,,\n",
        "site-packages/pure-1.0.dist-info/INSTALLER": "conda\n",
    }
    conda_package(channel, "pure", pure, noarch="python", depends=["python"], entry_points=["pure-tool = pure:main"])
    native: dict[str, str | bytes] = {
        "lib/native.cfg": f"prefix={PLACEHOLDER}\n",
        "lib/libnative.so.1": b"\x7fNOT-ELF\0" + PLACEHOLDER.encode() + b"/share:" + PLACEHOLDER.encode() + b"\0\0",
        "lib/pkgconfig/native.pc": f"prefix={PLACEHOLDER}\nlibdir=${{prefix}}/lib\n",
        "share/native/data.bin": b"\0\1\2",
        "etc/conda/activate.d/native.sh": f"export NATIVE={PLACEHOLDER}\n",
    }
    links = {"lib/libnative.so": "libnative.so.1", "share/native/link": "data.bin", "share/native/folder": "../../etc"}
    conda_package(channel, "native", native, links=links)
    return conda_environment(folder / "env", channel, ["python", "pure", "native"])


def test_a_conda_environment(lamella: Lamella, tmp_path: Path, shared: Path) -> None:
    prefix = conda(tmp_path, shared)
    assert compared(lamella, prefix, Disk([(str(prefix), "")], [str(prefix)], conda=True), tmp_path) == []


def test_a_conda_environment_with_what_pip_put_over_it(lamella: Lamella, tmp_path: Path, shared: Path) -> None:
    prefix = fill(conda(tmp_path, shared), tmp_path, "pip")
    changed: dict[str, str | bytes] = {"pure/__init__.py": "NEW = 1\n", "pure/more.py": ""}
    install(prefix, wheel(tmp_path, "pure", "2.0", changed), by="pip", options=["--ignore-installed"])
    disk = Disk([(str(prefix), "")], [str(prefix)], conda=True)
    assert compared(lamella, prefix, disk, tmp_path) == []


def system_disk(facts: dict[str, str], *roots: tuple[str, str], prefixes: Sequence[str] = ()) -> Disk:
    """What the system's Python imports, in the order of its sys.path; `roots` come before it."""
    short, site = facts["short"], f"lib/python{facts['short']}/site-packages"
    folders = [f"/usr/local/lib/python{short}", "/usr/lib/python3", f"/usr/lib/python{short}"]
    sites = [(f"{folder}/dist-packages", site) for folder in folders if os.path.isdir(f"{folder}/dist-packages")]
    inside = [f"{facts['stdlib']}/{name}" for name in ("site-packages", "dist-packages")]
    return Disk([*roots, *sites, *roots_of_base(facts)], prefixes, elsewhere="/usr", skipped=inside)


def debian() -> dict[str, str]:
    if not os.path.isdir("/usr/lib/python3/dist-packages"):
        missing(f"{SYSTEM_PYTHON} is not Debian's: apt-get install python3")
    return facts_of(SYSTEM_PYTHON)


@pytest.fixture
def nobodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path / "user"))


@pytest.mark.usefixtures("nobodys_home")
def test_the_system_s_python(lamella: Lamella, tmp_path: Path) -> None:
    assert compared(lamella, "/usr", system_disk(debian()), tmp_path) == []


@pytest.mark.usefixtures("nobodys_home")
def test_a_venv_with_the_system_s_packages(lamella: Lamella, tmp_path: Path) -> None:
    facts = debian()
    prefix = fill(venv(tmp_path / "env", python=SYSTEM_PYTHON, options=["--system-site-packages"]), tmp_path)
    disk = system_disk(facts, (str(prefix), ""), prefixes=names_of(prefix, SYSTEM_PYTHON))
    assert compared(lamella, prefix, disk, tmp_path) == []
