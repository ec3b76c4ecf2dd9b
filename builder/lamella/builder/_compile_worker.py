# Runs in the environment's own interpreter, any CPython from 3.8 on, without the site module: it can't import lamella.
#
# marshal writes a string that others refer to differently from one that nobody else holds, and interned strings of one
# compilation are still there in the next: so every request is served by a child forked from this process, which has
# compiled nothing, and bytes depend on the request alone.
#
# Requests on stdin: "R", then 4 bytes of length and as much JSON: [[name in the code, source path or null, length of the
# source that follows], ...]. Answers on stdout, one for each source: "C" for code, "S" for a source that does not
# compile, then the source's sha256, 4 bytes of length and as much byte code; "X" when the child died instead.
import gc
import hashlib
import json
import os
import struct
import warnings
from importlib._bootstrap_external import _code_to_hash_pyc  # type: ignore[attr-defined] # py_compile's own way
from importlib.util import source_hash


def _read(size: int) -> bytes:
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _serve() -> None:
    for name, path, length in json.loads(_read(*struct.unpack(">I", _read(4)))):
        if path is None:
            source = _read(length)
        else:
            try:
                with open(os.fsencode(path), "rb", buffering=0) as stream:
                    source = stream.readall()
            except OSError:
                source = b""
        digest = hashlib.sha256(source).digest()
        try:
            code = compile(source, name, "exec", 0, True, 0)
            made = bytes(_code_to_hash_pyc(code, source_hash(source), False))
        except Exception:  # whatever a source can do to the compiler: pip passes over such files too
            _write(b"S" + digest + struct.pack(">I", 0))
        else:
            _write(b"C" + digest + struct.pack(">I", len(made)))
            _write(made)
            del code, made


def _main() -> None:
    warnings.simplefilter("ignore")
    gc.disable()
    _write(b"K")
    while os.read(0, 1) == b"R":
        child = os.fork()
        if not child:
            _serve()
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            _write(b"X")


if __name__ == "__main__":
    _main()
