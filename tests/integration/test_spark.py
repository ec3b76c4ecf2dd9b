"""What `spark-submit` runs with an export, and with `lamella run`: real executors, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.engines import missing, need
from support.installed import install, venv, wheel
from support.supervised import supervised

if TYPE_CHECKING:
    from support.once import Lamella

pytestmark = [pytest.mark.slow, pytest.mark.engine]

JOB = """
import json
from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()

def seen(_):
    import os, sys, job
    yield [job.VALUE, job.__file__, sys.prefix, os.path.realpath(sys.executable), os.getcwd()]

found = spark.sparkContext.parallelize(range(2), 2).mapPartitions(seen).collect()
print("FOUND " + json.dumps(found))
spark.stop()
"""


@pytest.fixture
def reference(tmp_path: Path, lamella: Lamella) -> str:
    prefix = install(venv(tmp_path / "env"), wheel(tmp_path, "job", "1.0", {"job.py": "VALUE = 'done'\n"}))
    done = lamella("push", "--quiet", f"oci:{tmp_path}/layout:v1", prefix)
    assert done.returncode == 0, done.stderr
    return f"oci:{tmp_path}/layout:v1"


def submitted(folder: Path, *options: str, **settings: str) -> list[list[Any]]:
    """What a job's two partitions see, on an executor of a local cluster."""
    need("java")
    spec = find_spec("pyspark")
    if not spec or not spec.origin:
        missing("pyspark is not here: install the project with its test extra")
    home = Path(spec.origin).parent
    script = folder / "script.py"
    script.write_text(JOB)
    common = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))}
    environment = common | {
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(folder / "local"),
        "SPARK_WORKER_DIR": str(folder / "work"),
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        # Five virtual machines live for seconds: less is compiled.
        "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        **settings,
    }
    command = [
        need("timeout"),
        "300",
        str(home / "bin/spark-submit"),
        "--master=local-cluster[1,1,1024]",
        "--conf=spark.ui.enabled=false",
        *options,
        str(script),
    ]
    with supervised(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, cwd=folder) as process:
        assert process.stdout
        lines = process.stdout.readlines()
    answers = [line.removeprefix("FOUND ") for line in lines if line.startswith("FOUND ")]
    assert answers, "".join(lines)
    return list(json.loads(answers[0]))


def test_executors_run_the_python_of_the_archive(tmp_path: Path, lamella: Lamella, reference: str) -> None:
    done = lamella("export", "--quiet", reference, tmp_path / "environment.tar.gz")
    assert done.returncode == 0, done.stderr
    found = submitted(
        tmp_path,
        f"--archives={tmp_path}/environment.tar.gz#environment",
        PYSPARK_PYTHON="./environment/bin/python",
    )
    for value, module, prefix, python, folder in found:
        assert value == "done"
        # The archive's own interpreter, in the executor's folder: no link leads back to the machine that pushed it.
        place = os.path.realpath(f"{folder}/environment")
        assert (os.path.realpath(prefix), os.path.commonpath([python, place])) == (place, place)
        assert os.path.realpath(module).startswith(f"{place}/lib/python3")


def test_executors_run_in_a_mount_by_a_script(tmp_path: Path, lamella: Lamella, reference: str) -> None:
    """As docs/how-to/spark.md has it: one file on each node, and one store for its executors."""
    script = tmp_path / "python-in-env"
    command = Path(sys.executable).with_name("lamella")
    script.write_text(f'#!/bin/sh\nexec {command} run --store {tmp_path}/store {reference} -- python "$@"\n')
    script.chmod(0o755)
    found = submitted(tmp_path, f"--conf=spark.pyspark.python={script}", PYSPARK_PYTHON=str(script))
    for value, module, prefix, python, _ in found:
        assert (value, prefix) == ("done", "/opt/env")
        assert module.startswith("/opt/env/lib/python3")
        assert python.startswith("/opt/env/bin/python3")
