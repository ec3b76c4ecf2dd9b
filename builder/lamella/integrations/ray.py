"""Ray's workers in an environment of Lamella: push it from the driver, pull it on each node before the workers start.

    ray.init("auto", runtime_env=lamella.integrations.ray.runtime_env("registry.example.com/team/envs:v1"))

Each node starts Ray with RAY_RUNTIME_ENV_PLUGINS='[{"class": "lamella.integrations.ray.Plugin"}]'. Requires Ray 2.40 or
newer, in the cluster and in the environment the same version.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shlex
import shutil
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import ray
from ray._private.runtime_env.plugin import RuntimeEnvPlugin

from lamella.builder import Environment, LayerCache, PushOptions, ScanOptions, push, scan
from lamella.layers import (
    InvalidReference,
    LamellaError,
    LayersError,
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

    from lamella.layers import Digest, Mounted, Progress, PublishedEnvironment, Pulled

FIELD = "lamella"
"""The field of a runtime environment that the plugin reads."""
_PACKAGES = ("ray", "ray-core")
"""Ray's package in PyPI, and in conda-forge."""
_RETRIES = (2, 10, 60, 600)
"""Seconds to wait before each try to free what processes use."""
_logger = logging.getLogger(__name__)


def runtime_env(
    reference: str,
    environment: Environment | str | None = None,
    options: PushOptions = PushOptions(),
    *,
    scan_options: ScanOptions = ScanOptions(working_directory=True),
    trust: Trust = Trust(),
    cache: LayerCache | None = None,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Push an environment and return the `runtime_env` that starts Ray's workers in it, pinned by digest.

    The arguments are those of `lamella.builder.push`; the default is the running interpreter's environment with the
    working directory's code. The result also works on nodes without the plugin, whose workers then pull when they start,
    by the program `lamella` on PATH. Raises `Unsupported`, before anything is pushed, unless the environment has the Ray
    and the Python minor version of this process, and what `push` raises.
    """
    if not isinstance(environment, Environment):
        environment = scan(environment, replace(scan_options, image_prefix=options.image_prefix), progress=progress)
    check_versions(
        environment.prefix,
        environment.interpreter.version,
        {package.name: package.version for package in environment.packages},
        "this process",
    )
    pushed = push(reference, environment, options, trust=trust, cache=cache, progress=progress)
    parsed = Reference.parse(pushed.reference).absolute()
    return {FIELD: str(parsed), "py_executable": _run_command("lamella", str(parsed))}


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
        try:
            wanted = _Wanted.of(dict.get(runtime_env, FIELD))
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
            wanted = _Wanted.of(runtime_env[FIELD])
            return await asyncio.to_thread(self._prepare, uri, wanted, given_up, logger) if wanted else 0
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
        if wanted := _Wanted.of(runtime_env[FIELD]):
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

    def _prepare(self, uri: str | None, wanted: _Wanted, given_up: threading.Event, logger: logging.Logger) -> int:
        store = Store()
        with ExitStack() as stack:
            pulled = stack.enter_context(leased(wanted.reference, store=store, trust=self.trust, check=_check))
            logger.info("%r", pulled)
            mounted = _mounted(pulled, wanted, store, self.trust)
            with self._lock:
                self._executables[wanted.key] = (
                    shlex.quote(f"{mounted.target}/bin/python")
                    if mounted
                    else _run_command(_program(), pulled.reference)
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
class _Wanted:
    """The value of the field `lamella`."""

    reference: str
    mount: str
    is_pinned: bool

    @property
    def key(self) -> str:
        """Name it in Ray's cache."""
        return f"{self.reference} at {self.mount}" if self.mount else self.reference

    @classmethod
    def of(cls, value: object) -> _Wanted | None:
        """Parse what a job gives; None without the field. Raises `LayersError`."""
        if value is None:
            return None
        fields = {"reference": value} if isinstance(value, str) else value
        if (
            not isinstance(fields, dict)
            or not {"reference"} <= fields.keys() <= {"reference", "mount"}
            or not all(isinstance(each, str) for each in fields.values())
        ):
            # Without the values: Ray logs the sentence, and one can be a password.
            given = (
                f"a dictionary with {', '.join(map(repr, fields))}"
                if isinstance(fields, dict)
                else type(value).__name__
            )
            raise InvalidReference(
                f"runtime_env field {FIELD}: {given}: neither a reference nor a dictionary with the keys reference and, "
                "if wanted, mount"
            )
        parsed = Reference.parse(fields["reference"])
        folder = fields.get("mount", "")
        if folder and not parsed.digest:
            raise InvalidReference(
                f"runtime_env field {FIELD}: cannot mount {parsed}, whose tag can move; name its digest, as "
                "lamella.integrations.ray.runtime_env returns it"
            )
        if folder and not os.path.isabs(folder):
            raise MountError(f"runtime_env field {FIELD}: mount {folder!r}: not an absolute path")
        return cls(fields["reference"], folder, parsed.digest is not None)


@dataclass(frozen=True, slots=True)
class _Held:
    """An environment that jobs use, or that Ray keeps for the next job."""

    pulled: Pulled
    store: Store
    layers: Mapping[Digest, int]
    """Bytes of each layer on this disk."""
    lease: ExitStack
    mounted: Mounted | None


def check_versions(subject: str, python: str, packages: Mapping[str, str], other: str) -> None:
    """Raise `Unsupported` unless Ray and Python in the environment `subject` are those of this process, called `other`."""
    found = next((packages[name] for name in _PACKAGES if name in packages), "")
    if not found:
        raise Unsupported(f"{subject}: Ray is missing; install ray=={ray.__version__} in the environment, then push it")
    if found != ray.__version__:
        raise Unsupported(
            f"{subject}: has Ray {found}, but {other} has {ray.__version__}; install ray=={ray.__version__} in the "
            "environment, then push it"
        )
    here = platform.python_version()
    if python.split(".")[:2] != here.split(".")[:2]:
        raise Unsupported(
            f"{subject}: has Python {python or 'of an unknown version'}, but {other} has {here}; Ray requires the same "
            "minor version"
        )


def _check(environment: PublishedEnvironment) -> None:
    """Raise `Unsupported` unless Ray's workers can run in the environment on this node."""
    name = str(environment.descriptor.digest)
    packages = {package.name: package.version for package in environment.packages}
    check_versions(f"environment {name}", environment.python, packages, "this cluster")
    if sentence := obstacle(environment):
        raise Unsupported(sentence)


def _mounted(pulled: Pulled, wanted: _Wanted, store: Store, trust: Trust) -> Mounted | None:
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


def _run_command(program: str, reference: str) -> str:
    """A command line for Ray, which has bash run it."""
    return shlex.join([program, "run", reference, "--", "python"])


def _program() -> str:
    """The command `lamella` beside this interpreter, or on PATH."""
    beside = os.path.dirname(sys.executable)
    found = shutil.which("lamella", path=beside) or shutil.which("lamella")
    if not found:
        raise LayersError(
            f"lamella: no such command in {beside} or on PATH; install Lamella with its command on this node"
        )
    return found
