"""A real SLURM on this machine: a controller and two nodes, on loopback ports of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from support.engines import need, need_root
from support.supervised import supervised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_CONFIG = """\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SelectType=select/cons_tres
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=node1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 State=UNKNOWN
NodeName=node2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
PartitionName=all Nodes=node1,node2 Default=YES State=UP
"""


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start the cluster; yields the variables by which `sbatch` finds it. `folder` holds its sockets: keep its path short."""
    need_root()
    munged, controller, node = need("munged"), need("slurmctld"), need("slurmd")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    config = folder / "slurm.conf"
    config.write_text(_CONFIG.format(folder=folder, ports=ports))
    settings = {"SLURM_CONF": str(config)}
    paths = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={folder}/munge.{ending}" for option, ending in paths.items()]
    environment = os.environ | settings
    with ExitStack() as stack:
        for command in (
            [munged, "--foreground", "--force", *options],
            [controller, "-D", "-i"],
            [node, "-D", "-N", "node1"],
            [node, "-D", "-N", "node2"],
        ):
            with open(folder / "daemons.log", "a", encoding="utf-8") as log:
                stack.enter_context(supervised(command, env=environment, stdout=log, stderr=log))
            if command[0] == munged:
                _wait_until((folder / "munge.socket").exists, folder)
        _wait_until(lambda: _idle(environment) == 2, folder)
        yield settings


def _idle(environment: dict[str, str]) -> int:
    done = subprocess.run(
        [need("sinfo"), "--noheader", "--Node", "--states=idle"],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    return len(done.stdout.splitlines())


def _wait_until(condition: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, (folder / "daemons.log").read_text()
        threading.Event().wait(0.1)
