"""A cluster of distributed whose processes run in a published environment."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distributed.core import Status
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import SpecCluster

from lamella.builder import PushOptions, ScanOptions, push
from lamella.integrations.dask.hosts import ClusterError, Hosts
from lamella.integrations.dask.processes import Place, Scheduler, Trial, Worker
from lamella.layers import Reference, Trust, inspect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.builder import LayerCache, Pushed
    from lamella.layers import Progress

_NANNY = "distributed.Nanny"
# A worker that never reaches its scheduler is an error, and does not wait for ever.
_DEATH_SECONDS = "60s"


@dataclass(frozen=True, slots=True)
class Source:
    """The environment that a cluster gets, and how it is pushed. By default: this process's, with the code beside it."""

    prefix: str | None = None
    """Folder of the environment; None for the running interpreter's, `sys.prefix`."""
    scan: ScanOptions = ScanOptions(working_directory=True)
    push: PushOptions = PushOptions()
    trust: Trust = Trust()
    cache: LayerCache | None = None
    """Known layers; None for the user's."""
    progress: Progress | None = None
    """None for bars on a terminal and in a notebook."""

    def pushed(self, reference: str) -> Pushed:
        """Push the environment as `reference`; raises what `lamella.builder.push` raises."""
        return push(
            reference,
            self.prefix,
            self.push,
            scan_options=self.scan,
            trust=self.trust,
            cache=self.cache,
            progress=self.progress,
        )


_ELSEWHERE = {
    "n_workers": "name one host for each worker in hosts, or use scale(N)",
    "connect_options": "use Hosts(names, connect), or ~/.ssh/config",
    "remote_python": "hosts need no Python; use Hosts(names, lamella=...) for the program",
    "package_sync": "leave it out: this process's environment is pushed by default",
    "image": "leave it out: hosts run no image",
}
"""What the arguments of other clusters of Dask are here."""


class LamellaCluster(SpecCluster):
    """A scheduler and workers on hosts, in the environment of `reference`.

    This process's environment and the code of its working directory are pushed as `reference` first, as `lamella push`
    does. A reference with a digest is used as it is, and so is a tag with `source=None`. The hosts need Lamella, and no
    Python environment: each process is `lamella run REFERENCE@DIGEST -- python`. `hosts` begins with the scheduler's, as
    in `SSHCluster`, whose `scheduler_options`, `worker_options` and `worker_class` these are. `scale` starts more workers
    on the workers' hosts in turn. Other arguments are those of `SpecCluster`.

    Raises `ClusterError`, and what `lamella.builder.push` raises.
    """

    def __init__(
        self,
        reference: str,
        hosts: Hosts | Sequence[str],
        *,
        source: Source | None = Source(),
        scheduler_options: Mapping[str, Any] | None = None,
        worker_options: Mapping[str, Any] | None = None,
        worker_class: str = _NANNY,
        **options: Any,
    ) -> None:
        _check(reference, hosts, source, options)
        self.hosts = hosts if isinstance(hosts, Hosts) else Hosts(tuple(hosts))
        if not self.hosts.names:
            raise ClusterError("hosts: name the scheduler's host, then one for each worker")
        self.source = source
        self.reference = str(Reference.parse(reference))
        """Where the environment is pushed; with a digest, one environment for the cluster's whole life."""
        self.running = pushed_or_found(self.reference, source)[0]
        """The environment that the cluster runs, with its digest."""
        self._worker = {
            "worker_class": worker_class,
            "options": {"death_timeout": _DEATH_SECONDS, **(worker_options or {})},
        }
        scheduler, *workers = self.hosts.names
        super().__init__(
            workers={number: self._worker_spec(host) for number, host in enumerate(workers)},
            scheduler=self._scheduler_spec(scheduler, dict(scheduler_options or {})),
            worker=self._worker_spec(workers[0] if workers else scheduler),
            name=options.pop("name", "LamellaCluster"),
            **options,
        )
        self._i = len(workers)

    def new_worker_spec(self) -> dict[object, dict[str, Any]]:
        """Return the next worker, on the host whose turn it is."""
        number = self._i
        self._i += 1
        names = self.hosts.names[1:] or self.hosts.names
        return {number: self._worker_spec(names[number % len(names)])}

    async def _start(self) -> None:
        try:
            await super()._start()
        except RuntimeError as error:
            # One sentence, and not two exceptions.
            if isinstance(error.__cause__, ClusterError):
                raise error.__cause__ from None
            raise

    def _place(self, host: str) -> Place:
        return Place(host, self.hosts, self.running)

    def _worker_spec(self, host: str) -> dict[str, Any]:
        return {"cls": Worker, "options": {"place": self._place(host), **self._worker}}

    def _scheduler_spec(self, host: str, options: dict[str, Any]) -> dict[str, Any]:
        return {"cls": Scheduler, "options": {"place": self._place(host), "options": options}}

    async def _move(self, reference: str) -> None:
        """Restart every process in `reference`. Every host tries it first: a failure until then changes nothing."""
        used = {self.hosts.names[0], *(spec["options"]["place"].host for spec in self.worker_spec.values())}
        trials = [Trial(Place(host, self.hosts, reference)).check() for host in sorted(used)]
        for outcome in await asyncio.gather(*trials, return_exceptions=True):
            if isinstance(outcome, ClusterError):
                raise ClusterError(f"{outcome}; the cluster still runs {self.running}") from outcome
            if isinstance(outcome, BaseException):
                raise outcome
        self.running = reference
        for spec in (self.scheduler_spec, self.new_spec, *self.worker_spec.values()):
            options = spec["options"]
            spec["options"] = {**options, "place": replace(options["place"], reference=reference)}
        await self._restart()

    async def _start_lost(self) -> None:
        """Start each worker again whose process has ended."""
        self.workers = {name: worker for name, worker in self.workers.items() if worker.status is Status.running}
        await self._correct_state()

    async def _restart(self) -> None:
        """Replace the scheduler, at the same address, and the workers."""
        await asyncio.gather(*(worker.close() for worker in self.workers.values()))
        self.workers = {}
        await Cluster._close(self)
        # Clients look at it when their connection ends: a closed cluster would close them.
        self.status = Status.created
        scheduler: Scheduler = self.scheduler  # type: ignore[assignment]
        await scheduler.close()
        options = self.scheduler_spec["options"]
        port = int(str(scheduler.address).rpartition(":")[2])
        self.scheduler_spec["options"] = {**options, "options": {**options["options"], "port": port}}
        self.scheduler = None
        await self._start()
        await self._correct_state()


def pushed_or_found(reference: str, source: Source | None) -> tuple[str, Pushed | None]:
    """Push `source` as `reference` unless that has a digest, and return the reference with its digest, and the push."""
    if Reference.parse(reference).digest:
        return reference, None
    if source is None:
        return inspect(reference, compare=False).reference, None
    pushed = source.pushed(reference)
    return pushed.reference, pushed


def _check(reference: object, hosts: object, source: object, options: Mapping[str, Any]) -> None:
    """Raise `ClusterError` for arguments in the wrong place, before anything is pushed."""
    if not isinstance(reference, str):
        raise ClusterError(f"reference: {reference!r} is not a string; use LamellaCluster(reference, hosts)")
    if isinstance(hosts, str):
        raise ClusterError(f"hosts: {hosts!r} is one name; use a list, the scheduler's host first: [{hosts!r}, ...]")
    if source is not None and not isinstance(source, Source):
        raise ClusterError(f"source: {source!r} is not a Source; use Source(prefix={source!r}) for a folder")
    for name in options:
        if name in _ELSEWHERE:
            raise ClusterError(f"{name}: not an argument of LamellaCluster; {_ELSEWHERE[name]}")
