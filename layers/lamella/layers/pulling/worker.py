"""Processes that unpack layers for a pull: the interpreter's lock would leave some of the machine unused.

The pull keeps connections, credentials and claims, and writes one line of JSON and then the blob's bytes to a worker,
which answers with one line. A worker has its standard input and a folder, and needs neither the store nor a network.
See docs/adr/threads-and-processes.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import IO, TYPE_CHECKING

from lamella.layers import errors
from lamella.layers.errors import LayersError
from lamella.layers.oci.documents import Descriptor, Digest, Layer
from lamella.layers.store.incoming import named, receive
from lamella.layers.tar.unpack import Unpacked

if TYPE_CHECKING:
    from lamella.layers.oci.storage import Reader

_PIECE = 1 << 20
_PIPE = 1 << 20
# The child has the parent's modules and nothing of its environment variables: whatever way Lamella was found is right.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from lamella.layers.pulling.worker import serve; serve()"
)


class Worker:
    """One process that unpacks one layer after another, until `close`; another where an error has ended it."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._closed = False
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, json.dumps([os.path.abspath(path) for path in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # The pull handles Ctrl-C; a worker ends when its input does.
            start_new_session=True,
        )
        assert self._process.stdin
        assert self._process.stdout
        self._input = self._process.stdin
        self._output = self._process.stdout
        self.pid = self._process.pid
        _enlarge(self._input)

    @property
    def exit_code(self) -> int | None:
        """As `subprocess.Popen.returncode`; None while the process is there."""
        return self._process.poll()

    def receive(self, stream: Reader, layer: Layer, path: str, prefix: str = "") -> Unpacked:
        """As `partial.receive`. After an error the process has ended, and writes nothing more to `path`."""
        if self._closed:
            self._start()
        try:
            return self._receive(stream, layer, path, prefix)
        except BaseException:
            self.close()
            raise

    def _receive(self, stream: Reader, layer: Layer, path: str, prefix: str) -> Unpacked:
        job = {"layer": layer.descriptor.to_value(), "diff_id": str(layer.diff_id), "path": path, "prefix": prefix}
        # A broken pipe: it has refused the layer before its end, and says why.
        with contextlib.suppress(BrokenPipeError):
            self._input.write(json.dumps(job).encode() + b"\n")
            while piece := stream.read(_PIECE):
                self._input.write(piece)
            self._input.flush()
        return self._answer(layer)

    def close(self) -> None:
        """End the process, whatever it does."""
        self._closed = True
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        self._output.close()
        self._process.wait()

    def _answer(self, layer: Layer) -> Unpacked:
        line = self._output.readline()
        if not line:
            code = self._process.wait()
            raise LayersError(
                f"the process that unpacked {named(layer)} exited with {code}; check for a lack of memory"
            )
        answer = json.loads(line)
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]), answer["path"])
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["message"])
        return Unpacked(**answer)


def serve() -> None:
    """What a worker does: jobs from standard input, an answer for each to standard output, the end after an error."""
    source, answers = sys.stdin.buffer, sys.stdout.buffer
    while line := source.readline():
        job = json.loads(line)
        layer = Layer(Descriptor.from_value(job["layer"]), Digest.parse(job["diff_id"]))
        answer: dict[str, object]
        try:
            unpacked = receive(_Blob(source, layer.descriptor.size), layer, job["path"], job["prefix"])
            answer = {"entries": unpacked.entries, "bytes": unpacked.bytes}
        except LayersError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        except OSError as error:
            answer = {"errno": error.errno, "path": os.fsdecode(error.filename or "")}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()
        if "entries" not in answer:
            return


class _Blob:
    """The next `size` bytes of a stream."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        piece = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(piece)
        return piece


def _enlarge(pipe: IO[bytes]) -> None:
    import fcntl

    # 64 KiB make two processes take turns; a user's limit may be lower.
    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
