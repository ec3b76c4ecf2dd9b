"""Libraries' own tests pass from a mount as they do in the source environment."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from support import tars
from support.conda import conda_environment, conda_package, python_of_the_run
from support.engines import need_root
from support.installed import base_python, uv
from support.scanned import SITE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.once import Lamella

pytestmark = pytest.mark.root

# The one pure, with tests in its source distribution; the other compiled, with tests and shared libraries in its wheel.
PURE = "itsdangerous==2.2.0"
PACKAGES = [PURE, "freezegun==1.5.5", "numpy==2.2.6", "pytest==8.4.2", "hypothesis==6.138.0"]


def venv(folder: Path, shared: Path) -> Path:
    prefix = folder / "env"
    subprocess.run([uv(), "venv", "-q", "--python", base_python(), str(prefix)], check=True)
    installed("--python", f"{prefix}/bin/python")
    return prefix


def conda(folder: Path, shared: Path) -> Path:
    """The same packages as conda packages, the compiled one's too, in an environment that rattler installs."""
    target, channel = folder / "target", folder / "channel"
    installed("--python", base_python(), "--target", str(target))
    python_of_the_run(channel, shared, whole=True)
    names = []
    for info in target.glob("*.dist-info"):
        names.append(info.name.partition("-")[0].lower().replace("_", "-"))
        with (info / "RECORD").open(newline="") as rows:
            paths = [row[0] for row in csv.reader(rows) if not row[0].startswith(("..", "bin/"))]
        files = {f"{SITE}/{path}": (target / path).read_bytes() for path in paths if (target / path).is_file()}
        conda_package(channel, names[-1], files, depends=["python"])
    return conda_environment(folder / "env", channel, ["python", *names])


def installed(*options: str) -> None:
    # pip looks for the best version in every index that it is given; uv does so with an option only.
    command = [uv(), "pip", "install", "-q", "--index-strategy", "unsafe-best-match", *options, *PACKAGES]
    subprocess.run(command, check=True)


def suite_of(package: str, folder: Path) -> str:
    """The tests of a source distribution. The library itself, in its `src`, is not on their path."""
    options = ["-q", "--no-deps", "--no-binary", ":all:", "-d", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, package], check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tars.extract(tar, folder)
    return f"{folder}/{archive.name.removesuffix('.tar.gz')}/tests"


def passed(suite: subprocess.CompletedProcess[str]) -> int:
    """Return pytest's number of passed tests. Fails if a test failed."""
    assert suite.returncode == 0, suite.stdout + suite.stderr
    found = re.search(r"(\d+) passed", suite.stdout)
    assert found, suite.stdout
    return int(found[1])


@pytest.mark.parametrize("kind", [venv, conda])
def test_libraries_pass_their_own_tests_from_a_mount(
    lamella: Lamella, tmp_path: Path, shared: Path, kind: Callable[[Path, Path], Path]
) -> None:
    need_root()
    prefix = kind(tmp_path, shared)
    # Without the one test that keeps every core busy for half a minute.
    linalg = ["--pyargs", "numpy.linalg", "-m", "not slow", "-k", "not openblas_threading"]
    suites = ([suite_of(PURE, tmp_path / "source")], linalg)
    commands = [["-m", "pytest", "-q", "-p", "no:cacheprovider", *suite] for suite in suites]
    before = [
        passed(
            subprocess.run(
                [f"{prefix}/bin/python", *command],
                check=False,
                capture_output=True,
                text=True,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
            )
        )
        for command in commands
    ]
    reference = f"oci:{tmp_path}/layout:suites"
    pushed = lamella("push", reference, prefix, "--no-local")
    assert pushed.returncode == 0, pushed.stderr
    # Nothing of the original can be what runs from here on.
    prefix.rename(tmp_path / "gone")
    after = [passed(lamella("run", reference, "--", "python", *command)) for command in commands]
    assert before == after
    assert min(before) > 100
