from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PUSH = """
import sys
from lamella.cli.main import main

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))

assert main(sys.argv[1:]) != 0
bytearray(12 << 20)  # freed at once: from then on glibc keeps such blocks, unless a limit is set
before = resident()
blocks = [bytearray(12 << 20) for _ in range(5)]
for block in blocks:
    block[::4096] = b"x" * 3072
last = blocks.pop()  # on top of the heap, if they are there
del blocks, block
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize(
    ("command", "kept"),
    [("push oci:images:v1 missing", False), ("export missing out.tar", False), ("scan missing", True)],
)
def test_a_push_and_an_export_give_large_blocks_back(command: str, kept: bool, tmp_path: Path) -> None:
    """Beside another verb, which shows that blocks that stay are seen."""
    pushed = subprocess.run(
        [sys.executable, "-c", PUSH, *command.split()], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True
    )
    assert (int(pushed.stdout) > 20 << 10) == kept
