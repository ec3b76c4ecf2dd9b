"""A batch job of SLURM on two nodes, as docs/how-to/slurm-and-ssh.md has it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.distribution import distribution
from support.engines import need
from support.installed import install, venv, wheel
from support.scanned import SITE_ON_NODES
from support.short_folders import short_folder
from support.slurm import slurm

if TYPE_CHECKING:
    from support.once import Lamella

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.root]

GUIDE = Path(__file__).parent.parent.parent / "docs/how-to/slurm-and-ssh.md"
TRAIN = """
import os, sys
print("TASK", os.environ["SLURMD_NODENAME"], os.environ["SLURM_PROCID"], __file__, sys.prefix, flush=True)
"""


def test_each_node_of_a_batch_job_pulls_once_into_its_own_store(tmp_path: Path, lamella: Lamella) -> None:
    prefix = install(venv(tmp_path / "env"), wheel(tmp_path, "train", "1.0", {"train.py": TRAIN}))
    (script,) = re.findall(r"^```sh\n(#!/bin/sh\n#SBATCH.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    with short_folder() as short, distribution() as registry:
        done = lamella("push", "--quiet", f"{registry}/team/envs:v1", prefix)
        assert done.returncode == 0, done.stderr
        # The nodes are one machine: a folder of each node's own stands for its disk.
        job = tmp_path / "job.sh"
        job.write_text(
            script.replace("registry.example.com", registry).replace(
                "/scratch/", f"{tmp_path}/scratch/$SLURMD_NODENAME/"
            )
        )
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with slurm(short) as settings:
            ran = subprocess.run(
                [need("sbatch"), "--wait", f"--output={tmp_path}/output", str(job)],
                check=False,
                capture_output=True,
                text=True,
                cwd=tmp_path,
                timeout=300,
                env=os.environ | settings | {"PATH": path, "USER": "ada"},
            )
        output = (tmp_path / "output").read_text()
    assert ran.returncode == 0, ran.stderr + output
    module = f"/opt/env/{SITE_ON_NODES}/train.py"
    tasks = sorted(re.findall(r"^TASK (.*)$", output, re.MULTILINE))
    assert tasks == [f"node{node} {task} {module} /opt/env" for node, task in ((1, 0), (1, 1), (2, 2), (2, 3))]
    stores = [tmp_path / f"scratch/node{number}/ada/lamella/layers/sha256" for number in (1, 2)]
    assert sorted(os.listdir(stores[0])) == sorted(os.listdir(stores[1])) != []
    # Two tasks began at once on each node, and the second waited for the first one's layers.
    assert output.count("downloaded") <= 2
