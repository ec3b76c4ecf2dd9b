"""What `spark-submit --archives environment.tar.gz#environment` does with an export, without Spark."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from support.installed import install, venv, wheel

if TYPE_CHECKING:
    from pathlib import Path

    from support.once import Lamella

# As pyspark's daemon does: workers are started from the program that runs already.
DAEMON = """
import subprocess, sys
import job
print(job.__file__)
print(subprocess.check_output([sys.executable, "-c", "import job; print(job.WHAT)"], text=True), end="")
"""


def test_an_executors_python_runs_from_where_spark_unpacked_it_without_activation(
    tmp_path: Path, lamella: Lamella
) -> None:
    module = wheel(
        tmp_path, "job", "1.0", {"job.py": "WHAT = 'done'\n"}, entry_points="[console_scripts]\njob = job:run\n"
    )
    prefix = install(venv(tmp_path / "env"), module)
    archive = tmp_path / "environment.tar.gz"
    for arguments in (
        ("push", "--quiet", f"oci:{tmp_path / 'layout'}:v1", prefix),
        ("export", "--quiet", f"oci:{tmp_path / 'layout'}:v1", archive),
    ):
        done = lamella(*arguments)
        assert done.returncode == 0, done.stderr

    # FileUtil.unTar of Hadoop, and the folder's name after the #.
    container = tmp_path / "container"
    place = container / "environment"
    place.mkdir(parents=True)
    subprocess.run(f"gzip -dc '{archive}' | (cd '{place}' && tar -xf -)", shell=True, check=True)
    ran = subprocess.run(
        ["sh", "-c", '"$PYSPARK_PYTHON" -c "$0"', DAEMON],
        check=False,
        capture_output=True,
        text=True,
        cwd=container,
        env={"PYSPARK_PYTHON": "./environment/bin/python", "PATH": "/usr/bin:/bin"},
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    found, said = ran.stdout.splitlines()
    assert found.startswith(f"{place}/lib/python")
    assert said == "done"
