"""Fetches layers into the store, several at once."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections import deque
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

from lamella.layers.errors import FalseMirror, StoreError
from lamella.layers.store import locks
from lamella.layers.store.incoming import Claim, claim, commit, lock_path, named, receive, remove

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from queue import SimpleQueue

    from lamella.layers.oci.documents import Layer
    from lamella.layers.oci.storage import Fetcher, Reader
    from lamella.layers.progress.display import Progress
    from lamella.layers.pulling.worker import Worker
    from lamella.layers.store.store import Store

_TASK = "pull"
LARGE = 64 << 20
"""Bytes of blobs from which on workers save more than the tenth of a second that they take to start."""
_SMALL = 4 << 20
"""Bytes of a blob that is fetched before it waits for a worker."""
_CONNECTIONS = 8
"""Blobs that are fetched at once: most are small, and far away each takes as long as its answer is on the way."""
_MAX_WORKERS = 4
"""Each has 20 MB; a disk seldom takes more files than these make."""
_SIGN_OF_LIFE = 1.0
"""Seconds between two signs for processes that wait for this one's layers."""


def fetch(layers: Sequence[Layer], fetcher: Fetcher, store: Store, progress: Progress, prefix: str = "") -> int:
    """Bring each of `layers` into the store, in about this order; bytes of blobs that were moved.

    Layers that another process is fetching come last, and are waited for. The first error stops all; layers
    committed by then stay. `prefix`: the image prefix, which no layer must leave.
    """
    store.prepare()
    total = sum(layer.descriptor.size for layer in layers)
    # Before the threads: if an import fails in one, for too few open files, another finds a module without content.
    if layers:
        importlib.import_module("zstandard")
    with ExitStack() as stack:
        run = _Run(layers, fetcher, store, progress, _workers(stack) if total >= LARGE else None, prefix=prefix)
        progress.begin(_TASK, total, "B")
        threads = [
            threading.Thread(target=run.work, name=f"lamella-pull-{number}", daemon=True)
            for number in range(min(len(layers), _CONNECTIONS))
        ]
        try:
            _start(threads)
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        except BaseException:
            run.stop()
            raise
        finally:
            for thread in threads:
                if thread.is_alive():
                    thread.join()
            run.close()
            progress.end(_TASK)
    if run.error:
        raise run.error
    return run.moved


def _start(threads: Sequence[threading.Thread]) -> None:
    """As many of them as this process may have: each can do all of the work."""
    for thread in threads:
        try:
            thread.start()
        except RuntimeError as error:
            if thread is threads[0]:
                raise StoreError(
                    "cannot start a thread to pull; raise the limits on processes and memory (ulimit -u, -v)"
                ) from error
            return


def _workers(stack: ExitStack) -> SimpleQueue[Worker] | None:
    """Processes to unpack in, which end with `stack`; None where one processor is all, or no process can be started."""
    processors = len(os.sched_getaffinity(0))
    if processors == 1 or not sys.executable:
        return None
    from queue import SimpleQueue

    from lamella.layers.pulling.worker import Worker

    workers: SimpleQueue[Worker] = SimpleQueue()
    # With a limit on processes, this one does all the work.
    with suppress(OSError):
        for _ in range(min(processors, _MAX_WORKERS)):
            workers.put(stack.enter_context(closing(Worker())))
    return None if workers.empty() else workers


class _Stopped(Exception):
    """Another layer has failed: this one is given up."""


class _Run:
    """What the threads of one fetch share."""

    def __init__(
        self,
        layers: Sequence[Layer],
        fetcher: Fetcher,
        store: Store,
        progress: Progress,
        workers: SimpleQueue[Worker] | None,
        *,
        prefix: str,
    ) -> None:
        self._fetcher = fetcher
        self._store = store
        self._progress = progress
        self._prefix = prefix
        self._workers = workers
        self._todo = deque((layer, False) for layer in layers)
        self._claims: list[Claim] = []
        self._unpacked: list[Claim] = []
        self._signed = 0.0
        self._lock = threading.Lock()
        self._committing = threading.Lock()
        self._stopped = threading.Event()
        self.error: BaseException | None = None
        self.moved = 0

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        for claimed in self._unpacked:
            self._close(claimed)

    def _close(self, claimed: Claim) -> None:
        with self._lock:
            self._claims.remove(claimed)
        claimed.close()

    def work(self) -> None:
        try:
            while (task := self._take()) is not None:
                layer, elsewhere = task
                claimed = self._claim(layer, elsewhere=elsewhere)
                if claimed is None:
                    self._todo.append((layer, True))
                    continue
                self._claims.append(claimed)
                if self._receive(layer, claimed):
                    self._commit(claimed)
        except _Stopped:
            return
        except BaseException as error:
            with self._lock:
                self.error = self.error or error
            self.stop()

    def _take(self) -> tuple[Layer, bool] | None:
        if self._stopped.is_set():
            return None
        try:
            return self._todo.popleft()
        except IndexError:
            return None

    def _claim(self, layer: Layer, *, elsewhere: bool) -> Claim | None:
        if not elsewhere:
            return claim(self._store, layer.diff_id)
        return locks.patiently(
            lambda: claim(self._store, layer.diff_id),
            f"layer {named(layer)}",
            lambda: locks.holder(lock_path(self._store, layer.diff_id)),
            pause=self._pause,
        )

    def _pause(self, duration: float) -> None:
        if self._stopped.wait(duration):
            raise _Stopped

    def _receive(self, layer: Layer, claimed: Claim) -> bool:
        """Whether there is something to commit now; the claim is closed if not."""
        received = False
        try:
            if self._store.has(layer.diff_id):
                self._progress.advance(_TASK, layer.descriptor.size)
            else:
                with self._store.explained():
                    self._bring(layer, claimed.path)
                received = True
        finally:
            if not received:
                self._close(claimed)
        return received

    def _bring(self, layer: Layer, path: str) -> None:
        while True:
            try:
                self._unpack(layer, path)
                return
            except FalseMirror:
                # The storage asks that mirror no more, and there are only so many.
                remove(path)

    def _unpack(self, layer: Layer, path: str) -> None:
        if self._workers is None:
            with self._fetched(layer) as stream:
                receive(stream, layer, path, self._prefix)
        elif layer.descriptor.size > _SMALL:
            # No connection is opened that would then wait for a worker.
            with self._worker(self._workers) as worker, self._fetched(layer) as stream:
                worker.receive(stream, layer, path, self._prefix)
        else:
            with self._fetched(layer) as stream:
                blob = BytesIO(b"".join(iter(partial(stream.read, _SMALL), b"")))
            with self._worker(self._workers) as worker:
                worker.receive(blob, layer, path, self._prefix)

    @contextmanager
    def _fetched(self, layer: Layer) -> Iterator[Reader]:
        with self._fetcher.fetch(layer.descriptor) as stream:
            yield _Counted(stream, self)

    @contextmanager
    def _worker(self, workers: SimpleQueue[Worker]) -> Iterator[Worker]:
        worker = workers.get()
        try:
            # What another thread gave back after an error is of no use.
            if self._stopped.is_set():
                raise _Stopped
            yield worker
        except FalseMirror:
            # The layer comes once more.
            raise
        except BaseException:
            self.stop()
            raise
        finally:
            workers.put(worker)

    def _commit(self, claimed: Claim) -> None:
        with self._lock:
            self._unpacked.append(claimed)
        # The committing thread includes the layers that others finish meanwhile: one wait for the disk serves many.
        while self._unpacked and self._committing.acquire(blocking=False):
            try:
                with self._lock:
                    batch, self._unpacked = self._unpacked, []
                try:
                    commit(self._store, batch)
                finally:
                    for each in batch:
                        self._close(each)
            finally:
                self._committing.release()

    def count(self, size: int) -> None:
        if self._stopped.is_set():
            raise _Stopped
        with self._lock:
            self.moved += size
            if time.monotonic() - self._signed > _SIGN_OF_LIFE:
                self._signed = time.monotonic()
                # Also those that wait for a worker or for the disk: their turn comes.
                for claimed in self._claims:
                    claimed.touch()
        self._progress.advance(_TASK, size)


class _Counted:
    """Count the bytes that are read, and raise `_Stopped` when the run was stopped."""

    def __init__(self, stream: Reader, run: _Run) -> None:
        self._stream = stream
        self._run = run

    def read(self, size: int = -1, /) -> bytes:
        piece = self._stream.read(size)
        self._run.count(len(piece))
        return piece
