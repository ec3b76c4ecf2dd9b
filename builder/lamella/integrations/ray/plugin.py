"""Ray's plugin on a node: environments pulled ahead, leased while jobs use them, and freed by Ray's cache."""

from __future__ import annotations

import asyncio
import logging
import shlex
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ray._private.runtime_env.plugin import RuntimeEnvPlugin

from lamella.integrations.ray.field import FIELD, Wanted, misspelt, program_here, run_command
from lamella.integrations.ray.versions import check_versions
from lamella.layers import (
    LamellaError,
    MountError,
    Reference,
    Store,
    Trust,
    Unsupported,
    gc,
    leased,
    mount,
    obstacle,
    stored_environments,
    umount,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ray._private.runtime_env.context import RuntimeEnvContext
    from ray.runtime_env import RuntimeEnv

    from lamella.layers import Digest, Mounted, PublishedEnvironment, Pulled

_RETRIES = (2, 10, 60, 600)
"""Seconds to wait before each try to free what processes use."""
_INTERPRETERS = ("pip", "uv", "conda", "image_uri", "container")
"""Ray's fields that choose an interpreter, which this plugin's would replace without a word."""
_logger = logging.getLogger(__name__)


class Plugin(RuntimeEnvPlugin):
    """Ray's runtime environment `{"lamella": REFERENCE}`: pulled ahead, leased while jobs use it, freed by Ray's cache.

    Instead of REFERENCE, `{"reference": REFERENCE, "mount": FOLDER}` mounts the environment below FOLDER on each node, where
    all workers share it, instead of in a namespace of each worker. `RAY_RUNTIME_ENV_LAMELLA_CACHE_SIZE_GB` bounds the bytes
    that Ray keeps of environments that no job uses. A tag without a digest is asked for by each job; it is neither counted
    nor freed by Ray, since it can name other bytes the next time.
    """

    name = FIELD
    priority = 20
    """Set up behind Ray's own plugins (10): the last to choose the interpreter wins, and `py_executable` is another one."""
    trust: ClassVar[Trust] = Trust()
    """Registries and signatures to trust; a subclass of the cluster's administrator sets it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._executables: dict[str, str] = {}

    def get_uris(self, runtime_env: RuntimeEnv) -> list[str]:
        """Name the environment for Ray's cache; nothing for a tag without a digest."""
        if dict.get(runtime_env, FIELD) is None and (given := misspelt(name for name, _ in runtime_env.plugins())):
            # Ray ignores an unknown field, with a line in a log of the node, and calls `create`, whose errors a job sees,
            # for the plugin's own field alone.
            dict.__setitem__(runtime_env, FIELD, given)
        try:
            wanted = Wanted.of(dict.get(runtime_env, FIELD))
        except LamellaError:
            return []  # `create` reports it: Ray shows nothing of an error that is raised here
        return [wanted.key] if wanted and wanted.is_pinned else []

    async def create(
        self,
        uri: str | None,
        runtime_env: RuntimeEnv,
        context: RuntimeEnvContext,  # noqa: ARG002 # Ray passes it by name
        logger: logging.Logger = _logger,
    ) -> int:
        """Pull and lease the environment; return the bytes that no other leased one has. Raises `LamellaError`."""
        given_up = threading.Event()
        try:
            wanted = Wanted.of(runtime_env[FIELD])
            if not wanted:
                return 0
            _check_alone(runtime_env)
            return await asyncio.to_thread(self._prepare, uri, wanted, given_up, logger)
        except LamellaError as error:
            # Ray shows the job the whole traceback: let it end here.
            raise error.with_traceback(None) from None
        except asyncio.CancelledError:
            # Ray's time is up, and the thread goes on: what it brings helps the next try, but no job uses it.
            given_up.set()
            raise

    def modify_context(
        self,
        uris: list[str],  # noqa: ARG002 # Ray's interface
        runtime_env: RuntimeEnv,
        context: RuntimeEnvContext,
        logger: logging.Logger = _logger,  # noqa: ARG002 # Ray's interface
    ) -> None:
        """Start workers with the environment's Python."""
        if wanted := Wanted.of(runtime_env[FIELD]):
            context.py_executable = self._executables[wanted.key]

    def delete_uri(self, uri: str, logger: logging.Logger = _logger) -> int:
        """End the lease, free what no other environment has, and return the bytes that `create` counted for it.

        What a process or a mount still uses is freed when it ends, within 10 minutes; later, `lamella gc` frees it.
        """
        with self._lock:
            held = self._held.pop(uri, None)
            if held is None:
                return 0
            try:
                if held.mounted:
                    umount(held.mounted.target, store=held.store)
            except MountError as error:
                logger.warning("%s", error)
                self._held[uri] = held
                return 0
            held.lease.close()
            self._executables.pop(uri, None)
            counted = _bytes(held.layers, self._held.values())
        if not self._free(held, uri, logger):
            threading.Thread(target=self._free_later, args=(held, uri, logger), daemon=True).start()
        return counted

    def _free(self, held: _Held, uri: str, logger: logging.Logger) -> bool:
        """Free what no other environment of the store has; return whether nothing of it is in use."""
        try:
            freed = gc(held.store, keep_bytes=0, among=_alone(held.store, held.pulled))
        except LamellaError as error:
            logger.warning("%s: %s", uri, error)
            return True
        logger.info("%s: %r", uri, freed)
        return not freed.in_use

    def _free_later(self, held: _Held, uri: str, logger: logging.Logger) -> None:
        # Ray calls `delete_uri` while the job's last workers, each with a lease of its own, still end. A job that uses the
        # environment again leases it.
        for seconds in _RETRIES:
            threading.Event().wait(seconds)
            if self._free(held, uri, logger):
                return

    def _prepare(self, uri: str | None, wanted: Wanted, given_up: threading.Event, logger: logging.Logger) -> int:
        store = Store()
        with ExitStack() as stack:
            pulled = stack.enter_context(leased(wanted.reference, store=store, trust=self.trust, check=_check))
            logger.info("%r", pulled)
            mounted = _mounted(pulled, wanted, store, self.trust)
            with self._lock:
                self._executables[wanted.key] = (
                    shlex.quote(f"{mounted.target}/bin/python")
                    if mounted
                    else run_command(program_here(), pulled.reference)
                )
                if uri is None or given_up.is_set():
                    return 0
                layers = {layer.diff_id: store.size(layer.diff_id) for layer in pulled.environment.layers}
                before = self._held.pop(uri, None)
                counted = _bytes(layers, self._held.values())
                self._held[uri] = _Held(pulled, store, layers, stack.pop_all(), mounted)
        if before:
            before.lease.close()
        return counted


@dataclass(frozen=True, slots=True)
class _Held:
    """An environment that jobs use, or that Ray keeps for the next job."""

    pulled: Pulled
    store: Store
    layers: Mapping[Digest, int]
    """Bytes of each layer on this disk."""
    lease: ExitStack
    mounted: Mounted | None


def _check_alone(runtime_env: RuntimeEnv) -> None:
    """Raise `Unsupported` for another field that chooses the interpreter: its packages would be missing."""
    # RuntimeEnv's own `get` converts what it returns.
    if others := [name for name in _INTERPRETERS if dict.get(runtime_env, name)]:
        raise Unsupported(
            f"runtime_env fields {FIELD} and {', '.join(others)}: both choose the interpreter; install the packages in the "
            f"environment that is pushed, and leave out {', '.join(others)}"
        )


def _check(environment: PublishedEnvironment) -> None:
    """Raise `Unsupported` unless Ray's workers can run in the environment on this node."""
    name = str(environment.descriptor.digest)
    packages = {package.name: package.version for package in environment.packages}
    check_versions(f"environment {name}", environment.python, packages, "this cluster")
    if sentence := obstacle(environment):
        raise Unsupported(sentence)


def _mounted(pulled: Pulled, wanted: Wanted, store: Store, trust: Trust) -> Mounted | None:
    if not wanted.mount:
        return None
    digest = Reference.parse(pulled.reference).digest
    assert digest, pulled
    return mount(pulled.reference, f"{wanted.mount}/{digest.algorithm}-{digest.hex}", store=store, trust=trust)


def _bytes(layers: Mapping[Digest, int], others: Iterable[_Held]) -> int:
    """Bytes of the layers that none of `others` has: the sum over all is what they take together."""
    shared = {diff_id for held in others for diff_id in held.layers}
    return sum(size for diff_id, size in layers.items() if diff_id not in shared)


def _alone(store: Store, pulled: Pulled) -> set[Digest]:
    """The environment's documents, and its layers that no other environment of the store has."""
    mine = pulled.environment.descriptor.digest
    others: set[Digest] = set()
    for stored in stored_environments(store):
        environment = stored.environment
        if environment.descriptor.digest != mine:
            others.update(layer.diff_id for layer in environment.layers)
            others.update(document.digest for document in environment.documents)
    return set(pulled.keeps) - others
