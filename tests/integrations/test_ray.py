"""Ray's plugin and `runtime_env` without a cluster: what they check, count and free. Clusters are in tests/integration."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamella.builder import ScanOptions
from lamella.layers import InvalidReference, LamellaError, Store, Unsupported, gc
from support.installed import install, venv, wheel
from support.published import publish

if sys.version_info >= (3, 14):
    pytest.skip("Ray has no release for this Python", allow_module_level=True)

import ray  # after the skip
from ray._private.runtime_env.context import RuntimeEnvContext
from ray.runtime_env import RuntimeEnv

from lamella.integrations.ray import Plugin, runtime_env

if TYPE_CHECKING:
    from support.tars import Files

# Importing Ray takes a second.
pytestmark = pytest.mark.slow

HERE = f"{sys.version_info.major}.{sys.version_info.minor}.9"
SHARED: Files = {"lib/shared.py": "X = 1\n" * 1000}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LAMELLA_STORE", str(tmp_path / "store"))
    return Store()


def pushed(tmp_path: Path, name: str, *, python: str = HERE, version: str = ray.__version__) -> str:
    """An environment that shares a layer with every other, and has one of its own; pinned."""
    layers: list[Files] = [SHARED, {f"lib/{name}.py": "Y = 1\n" * 500, "bin/python*": "#!/bin/sh\n"}]
    return publish(tmp_path / name, layers, python=python, packages={"ray": version} if version else {})


def create(plugin: Plugin, reference: object) -> tuple[int, str]:
    """What Ray's agent does for a job: the bytes that it counts, and the command line of the job's workers."""
    wanted = RuntimeEnv(lamella=reference)
    context = RuntimeEnvContext()
    uris = plugin.get_uris(wanted)
    counted = asyncio.run(plugin.create(uris[0] if uris else None, wanted, context))
    plugin.modify_context(uris, wanted, context)
    return counted, context.py_executable


def test_a_worker_runs_in_the_environment_of_the_digest(tmp_path: Path) -> None:
    pinned = pushed(tmp_path, "one")
    assert create(Plugin(), pinned)[1].endswith(f"lamella run {pinned} -- python")
    # A tag is resolved once for all workers of a job.
    assert create(Plugin(), pinned.partition("@")[0])[1].endswith(f"lamella run {pinned} -- python")


def test_a_tag_that_moved_is_pulled_by_the_next_job(tmp_path: Path) -> None:
    plugin = Plugin()
    tag = pushed(tmp_path, "one").partition("@")[0]
    first = create(plugin, tag)
    pushed(tmp_path, "one", python=f"{HERE}9")
    assert create(plugin, tag)[1] != first[1]
    assert plugin.get_uris(RuntimeEnv(lamella=tag)) == []


def test_bytes_of_shared_layers_count_once_and_are_freed_with_the_last_environment(
    tmp_path: Path, store: Store
) -> None:
    plugin = Plugin()
    one, two = pushed(tmp_path, "one"), pushed(tmp_path, "two")
    bytes_of_one, bytes_of_two = create(plugin, one)[0], create(plugin, two)[0]
    assert bytes_of_one > bytes_of_two > 0
    assert len(list(store.layers())) == 3

    assert plugin.delete_uri(one) + plugin.delete_uri(two) == bytes_of_one + bytes_of_two
    assert list(store.layers()) == []
    assert plugin.delete_uri(two) == 0


def test_a_layer_of_an_environment_that_ray_does_not_use_stays(tmp_path: Path, store: Store) -> None:
    plugin = Plugin()
    one, two = pushed(tmp_path, "one"), pushed(tmp_path, "two")
    create(Plugin(), two)  # that plugin's lease ends with it
    counted, _ = create(plugin, one)
    assert plugin.delete_uri(one) == counted
    assert len(list(store.layers())) == 2


def test_gc_keeps_what_jobs_use(tmp_path: Path, store: Store) -> None:
    plugin = Plugin()
    pinned = pushed(tmp_path, "one")
    create(plugin, pinned)
    assert gc(store, keep_bytes=0).layers == ()
    plugin.delete_uri(pinned)
    assert list(store.layers()) == []


def test_workers_share_a_mount_if_the_job_names_a_folder(tmp_path: Path, store: Store) -> None:
    plugin = Plugin()
    pinned = pushed(tmp_path, "one")
    wanted = {"reference": pinned, "mount": str(tmp_path / "environments")}
    counted, python = create(plugin, wanted)
    target = tmp_path / "environments" / pinned.rpartition("@")[2].replace(":", "-")
    assert python == f"{target}/bin/python"
    assert Path(python).read_text() == "#!/bin/sh\n"

    (uri,) = plugin.get_uris(RuntimeEnv(lamella=wanted))
    assert plugin.delete_uri(uri) == counted
    assert not target.exists()
    assert list(store.layers()) == []


@pytest.mark.parametrize(
    ("python", "version", "message"),
    [
        (
            "3.8.1",
            ray.__version__,
            r"has Python 3\.8\.1, but this cluster has 3\.\d+\.\d+; Ray requires the same minor",
        ),
        (HERE, "2.1.0", rf"has Ray 2\.1\.0, but this cluster has {ray.__version__}; install ray=={ray.__version__} in"),
        (HERE, "", rf"Ray is missing; install ray=={ray.__version__} in the environment, then push it"),
    ],
)
def test_another_ray_or_python_is_refused_before_a_download(
    tmp_path: Path, store: Store, python: str, version: str, message: str
) -> None:
    with pytest.raises(Unsupported, match=message):
        create(Plugin(), pushed(tmp_path, "one", python=python, version=version))
    assert list(store.layers()) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, "neither a reference nor a dictionary"),
        ({"mount": "/srv"}, "neither a reference nor a dictionary"),
        ({"reference": "oci:x:v1", "folder": "/srv"}, "neither a reference nor a dictionary"),
        ({"reference": "oci:x:v1", "mount": "/srv"}, "whose tag can move; name its digest"),
        ({"reference": f"oci:x:v1@sha256:{64 * '0'}", "mount": "srv"}, "'srv': not an absolute path"),
        ("https://localhost/x", "a URL"),
    ],
)
def test_an_invalid_value_is_reported_by_create_alone(value: object, message: str) -> None:
    # Ray shows the job an error of `create`, and hides one of `get_uris`.
    assert Plugin().get_uris(RuntimeEnv(lamella=value)) == []
    with pytest.raises(LamellaError, match=message):
        create(Plugin(), value)


def test_a_message_about_an_invalid_value_holds_none_of_its_words() -> None:
    with pytest.raises(LamellaError, match="a dictionary with 'reference', 'password': neither") as raised:
        create(Plugin(), {"reference": "oci:x:v1", "password": "correct horse"})
    assert "correct horse" not in str(raised.value)


def test_a_second_choice_of_the_interpreter_is_refused_before_a_download(store: Store) -> None:
    wanted = RuntimeEnv(lamella=f"localhost:1/team/envs@sha256:{64 * '0'}", pip=["six"])
    with pytest.raises(
        Unsupported, match="fields lamella and pip: both choose the interpreter; install the packages in"
    ):
        asyncio.run(Plugin().create(None, wanted, RuntimeEnvContext()))
    assert list(store.layers()) == []


def test_an_environment_without_the_field_has_no_uri() -> None:
    for wanted in (RuntimeEnv(env_vars={"A": "b"}), RuntimeEnv(llama="x"), RuntimeEnv(parallel="x")):
        assert Plugin().get_uris(wanted) == []
        assert "lamella" not in wanted


@pytest.mark.parametrize("name", ["lamela", "Lamella", "lamellla", "lamella_env"])
def test_a_misspelt_field_is_reported_by_create(name: str) -> None:
    # Ray gives both methods the same object.
    wanted, plugin = RuntimeEnv(), Plugin()
    wanted.set(name, "oci:x:v1")
    assert plugin.get_uris(wanted) == []
    with pytest.raises(InvalidReference, match=f"runtime_env field '{name}': unknown; did you mean lamella"):
        asyncio.run(plugin.create(None, wanted, RuntimeEnvContext()))


def test_the_callers_environment_must_hold_this_ray(tmp_path: Path) -> None:
    prefix = venv(tmp_path / "env")
    reference = f"oci:{tmp_path}/layout:v1"
    with pytest.raises(Unsupported, match=f"Ray is missing; install ray=={ray.__version__}"):
        runtime_env(reference, str(prefix), scan_options=ScanOptions())
    install(prefix, wheel(tmp_path, "ray", "1.2.3"))
    with pytest.raises(Unsupported, match=r"has Ray 1\.2\.3, but this process has"):
        runtime_env(reference, str(prefix), scan_options=ScanOptions())
    assert not (tmp_path / "layout").exists()


def test_a_reference_in_a_dictionary_must_be_a_string() -> None:
    with pytest.raises(InvalidReference, match="neither a reference"):
        create(Plugin(), {"reference": None})
