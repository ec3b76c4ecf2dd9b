# Runs in the environment's own interpreter, any CPython from 3.8 on, without the site module: it cannot import lamella.
#
# marshal writes an object differently if it is referenced elsewhere, and whether two equal objects are one depends
# on the compiling process. So write code in marshal's version 2, which has no references, load it, and write it as
# Python does. The bytes then depend on the code's value alone, so that byte code from the disk serves as well as a
# compilation, in a tenth of the time. Version 2 has no slices, which are constants from Python 3.14 on: replace them
# by tuples meanwhile.
#
# A fresh child, forked from this process, serves each request. This process compiles nothing: strings interned by one
# compilation would change the next. Windows has no fork: there this process serves one request and ends, and the next
# request starts another one.
#
# Requests on stdin: "R", then 4 bytes of length and that many bytes of JSON: [[name in the code, source path or null,
# length of the source that follows, path of byte code that may exist, whether Python is to check the source], ...].
# Answers on stdout, one for each source: "C" for code, "S" for a source that does not compile, then the source's
# sha256, 4 bytes of length and that many bytes of byte code. If a child dies, this process ends: the child may have
# written a part of an answer, and further ones would be taken for the rest. With the argument --idle, it takes the time
# that other processes leave.
import _imp
import _signal  # type: ignore[import-not-found] # built in; `signal` loads enum, and is missing from a small library
import gc
import hashlib
import json
import marshal
import os
import struct
import sys
import types
import warnings
from importlib.util import MAGIC_NUMBER, source_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Before 3.11, marshal wrote a frozenset in the order of the process's hash seed.
_REUSES = sys.version_info >= (3, 11)
_rename = _imp._fix_co_filename  # type: ignore[attr-defined] # importlib's own way, also for nested code
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_KILLED = 137  # as a shell's
_SLICE = "\0a slice\0"
_HAS_SLICES = sys.version_info >= (3, 14)
_UNCHECKED_HASH, _CHECKED_HASH = b"\1\0\0\0", b"\3\0\0\0"  # PEP 552


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


def _content(path: str) -> "tuple[bytes, os.stat_result]":
    """Content and stat of a file, in half the time of a file object."""
    descriptor = os.open(os.fsencode(path), _READ)
    try:
        stat = os.fstat(descriptor)
        whole = os.read(descriptor, stat.st_size + 1)
        if len(whole) == stat.st_size:
            return whole, stat
        parts = [whole]
        while True:
            parts.append(os.read(descriptor, stat.st_size + 1))
            if not parts[-1]:
                return b"".join(parts), stat
    finally:
        os.close(descriptor)


def _values(code: types.CodeType) -> "bytes | None":
    """Write `code` without references; None if impossible."""
    try:
        return marshal.dumps(code, 2)
    except ValueError:
        pass
    try:
        return marshal.dumps(_packed(code), 2)
    except ValueError:
        return None


def _packed(value: "Any") -> "Any":
    """Replace slices in `value`, a constant or code, by tuples."""
    if isinstance(value, types.CodeType):
        return value.replace(co_consts=tuple(map(_packed, value.co_consts)))
    if isinstance(value, slice):
        return (_SLICE, value.start, value.stop, value.step)
    return tuple(map(_packed, value)) if isinstance(value, tuple) else value


def _unpacked(value: "Any") -> "Any":
    """Undo `_packed`."""
    if isinstance(value, types.CodeType):
        return value.replace(co_consts=tuple(map(_unpacked, value.co_consts)))
    if not isinstance(value, tuple):
        return value
    return slice(*value[1:]) if value[:1] == (_SLICE,) else tuple(map(_unpacked, value))


def _written(values: bytes, name: str) -> bytes:
    """Write code from the result of `_values` in canonical form, with `name` as its file."""
    code = marshal.loads(values)
    return _named(_unpacked(code) if _HAS_SLICES and _SLICE.encode() in values else code, name)


def _named(code: types.CodeType, name: str) -> bytes:
    # If the name is the same already, only the code references it: marshal would write other bytes.
    _rename(code, "")
    _rename(code, name)
    return marshal.dumps(code)


def _installed(path: str, source: bytes, stat: os.stat_result) -> "bytes | None":
    """The values of the byte code at `path`, if Python would use it for `source`."""
    try:
        data, _ = _content(path)
        flags = int.from_bytes(data[4:8], "little")
        if flags & 1:
            expected = source_hash(source)
        else:
            expected = struct.pack("<II", int(stat.st_mtime) & 0xFFFFFFFF, stat.st_size & 0xFFFFFFFF)
        if data[:4] != MAGIC_NUMBER or flags > 3 or data[8:16] != expected:
            return None
        code = marshal.loads(memoryview(data)[16:])
        if not isinstance(code, types.CodeType):
            return None
        was = code.co_filename
        _rename(code, "")
        values = _values(code)
    except (OSError, ValueError, EOFError, TypeError):
        return None
    # Reject code from more than one file: rare, and it would reveal where the environment was.
    return None if values is None or was.encode("utf-8", "surrogatepass") in values else values


def _compiled(source: bytes, name: str) -> bytes:
    # Not with `name`: some versions intern the given name, which shows in the bytes.
    code = compile(source, "?", "exec", 0, True, 0)
    values = _values(code)
    if values is None:
        return _named(code, name)
    del code
    return _written(values, name)


def _serve() -> None:
    for name, path, length, installed, checked in json.loads(_read(*struct.unpack(">I", _read(4)))):
        values = None
        if path is None:
            source = _read(length)
        else:
            try:
                source, stat = _content(path)
                if installed and _REUSES:
                    values = _installed(installed, source, stat)
            except OSError:
                source = b""
        digest = hashlib.sha256(source).digest()
        try:
            code = _compiled(source, name) if values is None else _written(values, name)
        except MemoryError:  # of this process, or of any: it is tried again in another
            os._exit(1)
        except Exception:  # any failure of the compiler on a source: pip skips such files too
            _write(b"S" + digest + struct.pack(">I", 0))
        else:
            made = MAGIC_NUMBER + (_CHECKED_HASH if checked else _UNCHECKED_HASH) + source_hash(source) + code
            _write(b"C" + digest + struct.pack(">I", len(made)))
            _write(made)
            del code, made


def _main() -> None:
    # A process has one string of each such character, and marshal shows whether it is interned. Loaded byte code, whose
    # compiler interned it, would change later output.
    for character in map(chr, range(256)):
        sys.intern(character)
    warnings.simplefilter("ignore")
    gc.disable()
    if sys.platform == "win32":
        import msvcrt

        for stream in (0, 1):
            msvcrt.setmode(stream, os.O_BINARY)
    else:
        # Ignored, as some supervisors leave it to their children, it would take the status that `waitpid` asks for.
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    if "--idle" in sys.argv:
        # A group of its own, with the child, to be ended together; a terminal's interrupt does not reach it.
        os.setpgid(0, 0)
        os.nice(10)
    _write(b"K")
    while os.read(0, 1) == b"R":
        if sys.platform == "win32":
            _serve()
            os._exit(0)
        child = os.fork()
        if not child:
            _serve()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status:
            os._exit(_KILLED if os.WIFSIGNALED(status) and os.WTERMSIG(status) == _signal.SIGKILL else 1)


if __name__ == "__main__":
    _main()
