"""Clusters of one machine: their processes, and errors that leave no process."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from distributed import Client, LocalCluster

from lamella.integrations.dask.cluster import LamellaCluster
from lamella.integrations.dask.hosts import ClusterError, Hosts
from lamella.integrations.dask.sync import async_sync, sync
from lamella.layers import NotFound
from support.published import publish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

DIGEST = f"sha256:{'0' * 64}"


OTHER = f"localhost:1/team/envs@sha256:{'1' * 64}"


def here(folder: Path, program: str) -> Hosts:
    """Hosts that are this machine, with a shell script as their Lamella."""
    path = folder / "lamella"
    path.write_text(f"#!/bin/sh\n{program}\n")
    path.chmod(0o755)
    return Hosts(("here", "here"), connect=(), lamella=(str(path),))


def cluster(hosts: Hosts, **options: Any) -> LamellaCluster:
    """A cluster in an environment that nothing pushes or pulls."""
    scheduler = {"host": "127.0.0.1", "port": 0, "dashboard": False}
    reference = f"localhost:1/team/envs@{DIGEST}"
    options = {"worker_class": "distributed.Worker", "worker_options": {"nthreads": 1}} | options
    return LamellaCluster(reference, hosts, scheduler_options=scheduler, **options)


def of(client: Client) -> LamellaCluster:
    """The client's cluster."""
    assert isinstance(client.cluster, LamellaCluster)
    return client.cluster


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disk")


@pytest.fixture(scope="module")
def client(disk: Path) -> Iterator[Client]:
    """A client of a cluster that runs in the tests' environment, unless `disk` has a file `full`."""
    program = f'[ ! -e {disk}/full ] || {{ echo "lamella: disk full" >&2; exit 1; }}\n'
    program += f'while [ "$1" != -- ]; do shift; done; shift 2; exec {sys.executable} "$@"'
    with cluster(here(disk, program)) as made, Client(made) as connected:
        yield connected


def test_scaling_starts_workers_on_the_workers_hosts(client: Client) -> None:
    of(client).scale(2)
    client.wait_for_workers(2, timeout=60)
    pids = set(client.run(os.getpid).values())
    assert len(pids) == 2
    assert os.getpid() not in pids
    of(client).scale(1)


def test_sync_without_a_change_keeps_results(client: Client) -> None:
    future = client.submit(sum, [1, 2])
    synced = sync(client, of(client).running)
    assert (future.result(), repr(synced)) == (3, f"<Synced {of(client).running}: 0 B; unchanged>")


def test_a_host_that_cannot_take_the_new_environment_keeps_the_cluster_as_it_was(client: Client, disk: Path) -> None:
    future, before = client.submit(sum, [1, 2]), of(client).running
    (disk / "full").touch()
    try:
        with pytest.raises(ClusterError) as caught:
            sync(client, f"localhost:1/team/envs@sha256:{'2' * 64}")
    finally:
        (disk / "full").unlink()
    assert str(caught.value) == f"python on here: did not start: disk full; the cluster still runs {before}"
    assert future.result() == 3


def test_a_sync_with_a_change_restarts_the_cluster_and_keeps_the_client(client: Client) -> None:
    future = client.submit(sum, [1, 2])
    assert future.result() == 3
    address, before = of(client).scheduler_address, set(client.run(os.getpid).values())
    synced = sync(client, OTHER)
    assert (of(client).running, of(client).scheduler_address, future.status) == (OTHER, address, "cancelled")
    assert not before & set(client.run(os.getpid).values())
    assert client.submit(sum, [3, 4]).result() == 7
    assert repr(synced) == f"<Synced {OTHER}: 0 B; restarted>"


def test_an_asynchronous_cluster_with_a_nanny_starts_and_ends(tmp_path: Path) -> None:
    hosts = here(tmp_path, f'while [ "$1" != -- ]; do shift; done; shift 2; exec {sys.executable} "$@"')

    async def use() -> tuple[int, int, bool]:
        async with (
            cluster(hosts, worker_class="distributed.Nanny", asynchronous=True) as made,
            Client(made, asynchronous=True) as client,
        ):
            with pytest.raises(ClusterError, match="use await async_sync"):
                sync(client)
            unchanged = await async_sync(client)
            (nanny,) = (await client.run(os.getpid, nanny=True)).values()
            return await client.submit(sum, [1, 2]), nanny, unchanged.restarted

    result, nanny, restarted = asyncio.run(use())
    assert (result, restarted) == (3, False)
    with pytest.raises(ProcessLookupError):
        os.kill(nanny, 0)


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("echo 'lamella: localhost:1: cannot connect' >&2; exit 1", "did not start: localhost:1: cannot connect"),
        ("exit 1", "did not start: no output"),
        (
            """printf '\\036{"missing": "distributed"}\\n'""",
            f"localhost:1/team/envs@{DIGEST} lacks distributed; install it",
        ),
        (
            """printf '\\036{"versions": {"python": "2.7"}}\\n'""",
            f"localhost:1/team/envs@{DIGEST} has python 2.7, and this",
        ),
    ],
)
def test_a_scheduler_that_cannot_start_is_one_sentence(tmp_path: Path, program: str, problem: str) -> None:
    with pytest.raises(ClusterError) as caught:
        cluster(here(tmp_path, program))
    assert str(caught.value).startswith(f"scheduler on here: {problem}")


def test_a_missing_program_is_one_sentence() -> None:
    with pytest.raises(ClusterError) as caught:
        cluster(Hosts(("here",), connect=("/nonexistent/ssh", "{host}")))
    assert str(caught.value) == (
        "here: cannot start /nonexistent/ssh: No such file or directory; correct connect or lamella of Hosts"
    )


def test_the_output_of_a_host_is_escaped(tmp_path: Path) -> None:
    with pytest.raises(ClusterError) as caught:
        cluster(here(tmp_path, "printf '\\033[31mred\\n' >&2; exit 1"))
    assert "\033" not in str(caught.value)


def test_a_tag_that_nothing_pushes_must_exist(tmp_path: Path) -> None:
    publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\n"}])
    with pytest.raises(NotFound):
        LamellaCluster(f"oci:{tmp_path}/layout:other", ["head"], source=None)


def test_a_cluster_has_a_host() -> None:
    with pytest.raises(ClusterError, match="name the scheduler's host"):
        LamellaCluster("localhost:1/team/envs", [])


@pytest.mark.parametrize(
    ("arguments", "options", "problem"),
    [
        (("localhost:1/team/envs", "head"), {}, "hosts: 'head' is one name; use a list, the scheduler's host first"),
        (
            (["head"], "localhost:1/team/envs"),
            {},
            "reference: ['head'] is not a string; use LamellaCluster(reference, ",
        ),
        (
            ("localhost:1/team/envs", ["head"]),
            {"source": ".venv"},
            "source: '.venv' is not a Source; use Source(prefix=",
        ),
        (
            ("localhost:1/team/envs", ["head"]),
            {"n_workers": 2},
            "n_workers: not an argument of LamellaCluster; name one",
        ),
    ],
)
def test_an_argument_of_another_cluster_is_one_sentence(
    arguments: tuple[Any, ...], options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ClusterError) as caught:
        LamellaCluster(*arguments, **options)
    assert str(caught.value).startswith(problem)


def test_sync_names_a_cluster_that_it_cannot_restart() -> None:
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as made,
        Client(made) as client,
        pytest.raises(ClusterError, match="the client's cluster is LocalCluster; create it with Client"),
    ):
        sync(client)
