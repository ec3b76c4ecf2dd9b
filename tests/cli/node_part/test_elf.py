"""Shared libraries of other machines lose what only debuggers read."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from node_part.elf import stripped

SPEC = find_spec("zstandard.backend_c")
assert SPEC
assert SPEC.origin
LIBRARY = Path(SPEC.origin)


@pytest.mark.slow
def test_stripped_library_is_smaller_and_works(tmp_path: Path) -> None:
    library = tmp_path / "backend_c.so"
    library.write_bytes(stripped(LIBRARY.read_bytes()))

    program = f"""
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
loader = ExtensionFileLoader("zstandard.backend_c", {str(library)!r})
module = module_from_spec(ModuleSpec("zstandard.backend_c", loader, origin={str(library)!r}))
loader.exec_module(module)
print(module.ZstdDecompressor().decompress(module.ZstdCompressor().compress(b"content")))
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], check=False, capture_output=True, text=True)
    assert done.stdout == "b'content'\n", done.stderr
    assert library.stat().st_size < LIBRARY.stat().st_size / 5


def test_file_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="not a 64-bit little-endian ELF file"):
        stripped(b"\x7fELF\x01\x02" + bytes(64))
