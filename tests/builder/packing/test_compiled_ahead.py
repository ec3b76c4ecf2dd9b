from __future__ import annotations

from lamella.builder.content.bytecode import BLOCK, Module
from lamella.builder.content.entry import Entry
from lamella.builder.packing.contents import byte_code_blocks


def module(size: int) -> Module:
    return Module("opt/env/lib/m.pyc", Entry("opt/env/lib/m.py", 0o644, size, "0" * 64, b""))


def test_few_modules_or_little_source_are_compiled_ahead_at_once() -> None:
    small = [module(1000) for _ in range(2 * BLOCK + 1)]
    large = [module(400_000) for _ in range(7)]
    assert [len(block) for block in byte_code_blocks(small)] == [BLOCK, BLOCK, 1]
    assert [len(block) for block in byte_code_blocks(large)] == [3, 3, 1]
    assert list(byte_code_blocks([])) == []
