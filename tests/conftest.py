"""What every test gets: marks by folder, and none of the caller's settings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from lamella.layers.settings import homes, policy
from support import engines, installed, processes
from support.distribution import distribution
from support.short_folders import short_folder
from support.spread_folders import spread_folders

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

INTEGRATION = Path(__file__).parent / "integration"
LONGEST = (
    "test_agent_pods", "test_kubernetes_guide", "test_node_image", "test_acceptance_engines", "test_acceptance_environment",
    "test_compare", "test_compare_conda", "test_ray", "test_spark", "test_dask", "test_own_suites", "test_store_processes",
    "test_runs_on_another_platform", "test_push_registry", "test_push_installers",
)  # fmt: skip
"""Modules with which a worker begins: none ends with one of them while the others have nothing left to do."""

# Property tests have no deadline, since the machine may be busy.
settings.register_profile("lamella", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# `make fuzz` runs the same tests for longer.
settings.register_profile(
    "fuzz", settings.get_profile("lamella"), max_examples=int(os.environ.get("EXAMPLES", "20000"))
)
settings.load_profile("lamella")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `make stress`."""
    parser.addoption("--stress", action="store_true", help="more kills, processes and rounds")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Read no integration test if none would run: all are slow."""
    return True if collection_path == INTEGRATION and "not slow" in config.getoption("markexpr") else None


@pytest.hookimpl(tryfirst=True)  # before pytest's own, which deselects by -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every integration test `slow`, and put the longest ones first."""
    for item in items:
        if INTEGRATION in item.path.parents:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether a test passed, for its folder."""
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Remove the folder of a slow test that passed: a run would keep 20 GB until its end."""
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    result = yield
    if folder and item.stash.get(PASSED, False) and item.get_closest_marker("slow"):
        # Never through a mount, which a test may have left; pytest's own removal would go on.
        subprocess.run(["rm", "-rf", "--one-file-system", folder], check=False, stderr=subprocess.DEVNULL)
    return result


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let `need` and `need_root` check the marks of the test that calls them."""
    engines.running(item)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of one run share, for files that are made once (see `support.once`)."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(autouse=True, scope="session")
def spread_tests(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> None:
    """Put the folders of tests apart."""
    for folder in (shared, tmp_path_factory.getbasetemp()):
        spread_folders(folder)


@pytest.fixture(autouse=True, scope="session")
def small_interpreter(shared: Path) -> None:
    """Make virtual environments of an interpreter with a part of the standard library."""
    installed.share_python(shared)


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """Debian's registry for a module of tests, as host:port."""
    with distribution() as address:
        yield address


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Provide a folder as `tmp_path` does, with a path that leaves room for sockets."""
    with short_folder() as folder:
        yield folder


@pytest.fixture(autouse=True, scope="session")
def no_ignored_signals() -> None:
    """Start tests' processes with the default signals, also under nohup or as a shell's background job."""
    processes.stop_ignoring_signals()


@pytest.fixture(autouse=True)
def no_waits_for_the_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a quick test's files without fsync, as git's own tests do: it loses no power. It takes a quarter of their time."""
    if not any(map(request.node.get_closest_marker, ("slow", "engine", "root"))):
        # Refuses the same descriptors, but those of O_PATH.
        monkeypatch.setattr(os, "fsync", os.fstat)


@pytest.fixture(autouse=True)
def no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove LAMELLA_* variables, activated environments, the user's settings file and the machine's policy."""
    if os.path.exists(os.path.join(homes.config_folder(), "lamella")):
        monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")
    monkeypatch.setattr(policy, "PATH", "/nonexistent/lamella/config.toml")
    for name in list(os.environ):
        if name.startswith("LAMELLA_") or name in {"VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV"}:
            monkeypatch.delenv(name)
