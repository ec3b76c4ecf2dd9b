"""Scans of a virtual environment."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from lamella.builder.scanning.scan import scan
from support.installed import By, base_python, install, venv, wheel
from support.scanned import SITE, file, package, paths, reasons

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamella.builder.environment import Environment

pytestmark = pytest.mark.slow

ALPHA = {
    "alpha/__init__.py": "VALUE = 1\n",
    "alpha/data/table.csv": "a,b\n",
    "alpha/with, comma.txt": "quoted in RECORD\n",
    "{data}/scripts/alpha-tool": "#!python\nprint('tool')\n",
    "{data}/data/share/alpha/page.html": "<p>\n",
    "{data}/headers/alpha.h": "int alpha;\n",
}


def unaccounted(environment: Environment) -> list[str]:
    """Files below the prefix and the borrowed standard library that the scan lists never or twice."""
    shipped: dict[str, int] = {}
    for each in environment.packages:
        for shipped_file in each.files:
            shipped[shipped_file.path] = shipped.get(shipped_file.path, 0) + 1
    left_out = {item.path for item in environment.left_out}
    wrong = [path for path, count in shipped.items() if count > 1]
    stdlib = os.path.join(environment.interpreter.base_prefix, environment.interpreter.stdlib)
    roots = [(environment.prefix, "")]
    if environment.interpreter.base_prefix != environment.prefix:
        roots.append((stdlib, environment.interpreter.stdlib))
    for root, under in roots:
        for folder, folders, names in os.walk(root):
            # A folder that is left out stands for all that is below it.
            folders[:] = [name for name in folders if os.path.join(folder, name) not in left_out or not under]
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in (*names, *links):
                source = os.path.join(folder, name)
                path = os.path.normpath(os.path.join(under, os.path.relpath(source, root)))
                covered = source if under else path
                reasons = 0
                while covered and covered != "/":
                    reasons += covered in left_out
                    covered = os.path.dirname(covered)
                if reasons + (path in shipped) != 1:
                    wrong.append(source)
    return wrong


@pytest.fixture(scope="module", params=["pip", "uv"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    by: By = "uv" if request.param == "uv" else "pip"
    folder = tmp_path_factory.mktemp(by)
    alpha = wheel(folder, "Alpha", "1.0", ALPHA, entry_points="[console_scripts]\nalpha = alpha:main\n")
    beta = wheel(folder, "Beta.Two", "2.0", {"beta.py": "import alpha\n"}, requires=["alpha>=1"])
    return install(venv(folder / "env", by=by, python=base_python()), alpha, beta, by=by)


@pytest.fixture
def environment(installed: Path) -> Iterator[Path]:
    """The module's environment; what a test adds to it goes with the test."""
    before = set(installed.rglob("*"))
    yield installed
    for path in sorted(set(installed.rglob("*")) - before, reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def test_every_file_is_in_one_package_or_left_out_with_a_reason(environment: Path) -> None:
    (environment / "notes.txt").write_text("mine")
    (environment / SITE / "loose.py").write_text("X = 1\n")
    scanned = scan(str(environment))
    assert unaccounted(scanned) == []
    assert all(item.reason for item in scanned.left_out)


def test_each_distribution_is_a_package_by_its_normalised_name(environment: Path) -> None:
    scanned = scan(str(environment))
    pypi = [(each.name, each.version, each.records) for each in scanned.packages if each.origin == "pypi"]
    assert pypi == [
        ("alpha", "1.0", f"{SITE}/Alpha-1.0.dist-info"),
        ("beta-two", "2.0", pypi[1][2]),
    ]
    assert pypi[1][2].endswith(".dist-info")


def test_a_package_has_what_its_record_names_outside_of_site_packages_too(environment: Path) -> None:
    found = paths(package(scan(str(environment)), "alpha"))
    assert {"bin/alpha", "bin/alpha-tool", "share/alpha/page.html", f"{SITE}/alpha/with, comma.txt"} <= found
    assert any(path.endswith("/alpha.h") for path in found)


def test_unowned_files_are_one_package(environment: Path) -> None:
    (environment / SITE / "loose.py").write_text("X = 1\n")
    (environment / "etc").mkdir()
    (environment / "etc" / "settings.ini").write_text("[a]\n")
    unowned = package(scan(str(environment)), "unowned")
    assert (unowned.origin, paths(unowned)) == ("unowned", {f"{SITE}/loose.py", "etc/settings.ini"})


def test_the_interpreter_ships_as_a_prefix_of_its_own(environment: Path) -> None:
    scanned = scan(str(environment))
    python = package(scanned, "python")
    short = ".".join(python.version.split(".")[:2])
    assert {f"bin/python{short}", f"lib/python{short}/os.py", f"lib/python{short}/ssl.py"} <= paths(python)
    executable = file(scanned, f"bin/python{short}")
    assert (executable.source, executable.mode, executable.target) == (base_python(), 0o755, None)
    assert [file(scanned, f"bin/{name}").target for name in ("python", "python3")] == [f"python{short}"] * 2
    assert not [path for path in paths(python) if "site-packages/" in path or path.endswith((".pyc", ".a"))]
    assert not [path for path in paths(python) if path.startswith(f"lib/python{short}/test/")]


def test_files_of_the_venv_itself_do_not_ship(environment: Path) -> None:
    scanned = scan(str(environment))
    assert {"bin/activate", "bin/activate.fish"} <= set(reasons(scanned))
    assert "bin/activate" not in {path for each in scanned.packages for path in paths(each)}


def test_a_file_is_marked_with_the_prefix_only_if_it_contains_it(environment: Path) -> None:
    (environment / SITE / "alpha" / "near.txt").write_text(f"{environment}2/bin and {environment}.old")
    (environment / SITE / "alpha" / "text.txt").write_text(f"prefix={environment}")
    (environment / SITE / "alpha" / "binary.bin").write_bytes(b"\0" + os.fsencode(environment) + b"/lib\0\0")
    scanned = scan(str(environment))
    held = {name: file(scanned, f"{SITE}/alpha/{name}").holds for name in ("near.txt", "text.txt", "binary.bin")}
    assert held == {"near.txt": "", "text.txt": "text", "binary.bin": "binary"}
    assert file(scanned, "bin/alpha-tool").holds == "text"


def test_a_large_file_is_searched_across_the_chunks_of_its_read(environment: Path) -> None:
    edge = b"x" * ((1 << 20) - 7) + b"\n" + os.fsencode(environment) + b"\n" + b"x" * (1 << 20)
    (environment / SITE / "edge.txt").write_bytes(edge)
    assert file(scan(str(environment)), f"{SITE}/edge.txt").holds == "text"


def test_modes_follow_the_owner_s_permissions(environment: Path) -> None:
    (environment / "a").write_text("")
    (environment / "a").chmod(0o600)
    (environment / "b").write_text("")
    (environment / "b").chmod(0o4711 & ~stat.S_ISUID)
    scanned = scan(str(environment))
    assert (file(scanned, "a").mode, file(scanned, "b").mode) == (0o644, 0o755)


def test_byte_code_without_its_source_is_a_file_like_any_other(environment: Path) -> None:
    (environment / SITE / "only.pyc").write_bytes(b"code")
    (environment / SITE / "both.pyc").write_bytes(b"code")
    (environment / SITE / "both.py").write_text("")
    unowned = paths(package(scan(str(environment)), "unowned"))
    assert unowned == {f"{SITE}/only.pyc", f"{SITE}/both.py"}
