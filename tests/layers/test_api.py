"""The public API of `lamella.layers`: every name loads on first use, and says what it does and which errors it raises."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import lamella.layers
from lamella.layers import (
    Inspection,
    LamellaError,
    LayersError,
    MountOptions,
    NotFound,
    NotSigned,
    Platform,
    Store,
    Trust,
    Unsupported,
    export,
    gc,
    published_environment,
    pull,
    sbom,
    sign,
    tags,
    umount,
    unmet_needs,
    verify,
)
from support.keys import key_pair
from support.published import publish

FUNCTIONS = [name for name in lamella.layers.__all__ if inspect.isfunction(getattr(lamella.layers, name))]
ERRORS = [
    name
    for name in lamella.layers.__all__
    if isinstance(value := getattr(lamella.layers, name), type) and issubclass(value, Exception)
]


def in_a_fresh_process(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize("name", lamella.layers.__all__)
def test_every_public_name_loads_by_itself(name: str) -> None:
    value = getattr(importlib.import_module("lamella.layers"), name)
    assert isinstance(value, str) or getattr(value, "__name__", "") == name or get_args(value)


def test_type_checkers_see_the_names_that_are_loaded_lazily() -> None:
    tree = ast.parse(Path(lamella.layers.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen | {"__version__"} == set(lamella.layers.__all__)
    assert set(lamella.layers.__all__) <= set(dir(lamella.layers))
    assert lamella.layers.__all__ == sorted(lamella.layers.__all__)


def test_importing_the_package_loads_none_of_its_modules() -> None:
    program = "import sys, lamella.layers; print([name for name in sys.modules if name.startswith('lamella.layers.')])"
    assert in_a_fresh_process(program) == "[]"


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'lamella\.layers' has no attribute 'pul'"):
        getattr(lamella.layers, "pul")  # noqa: B009 # mypy would refuse the attribute


def test_no_public_name_hides_a_room_or_module_of_the_package() -> None:
    folder = Path(lamella.layers.__file__).parent
    assert {path.stem for path in folder.iterdir()} & set(lamella.layers.__all__) == set()
    program = (
        "import lamella.layers as api; api.tags, api.pull, api.copy, api.inspect, api.Store;"
        "import lamella.layers.tar.reader, lamella.layers.store.store; print(lamella.layers.tar.reader.BLOCK)"
    )
    assert in_a_fresh_process(program) == "512"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_documents_its_errors(name: str) -> None:
    assert "Raises " in " ".join((getattr(lamella.layers, name).__doc__ or "").split())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_public_function_has_more_than_seven_parameters(name: str) -> None:
    assert len(inspect.signature(getattr(lamella.layers, name)).parameters) <= 7


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_has_one_root(name: str) -> None:
    assert issubclass(getattr(lamella.layers, name), LamellaError)


def test_the_version_is_the_distribution_s() -> None:
    assert lamella.layers.__version__.count(".") >= 2


@pytest.fixture
def reference(tmp_path: Path) -> str:
    return publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\n"}, {"lib/data": "1"}])


def test_the_result_of_every_function_is_shown_in_one_short_line(tmp_path: Path, reference: str) -> None:
    store = Store(str(tmp_path / "store"))
    results = [
        lamella.layers.inspect(reference),
        pull(reference, store=store, dry_run=True).plan,
        pull(reference, store=store),
        export(reference, str(tmp_path / "copy"), store=store),
        lamella.layers.copy(reference, f"oci:{tmp_path}/other:v1"),
        published_environment(reference),
        verify(store),
        gc(store, keep_bytes=0),
        store,
        Trust(),
    ]
    for each in results:
        assert type(each).__name__ in repr(each)
        assert "\n" not in repr(each)
        assert len(repr(each)) < 200 + 2 * len(str(tmp_path))


def test_inspect_gives_packages_findings_and_what_other_tags_share(tmp_path: Path, reference: str) -> None:
    found = lamella.layers.inspect(reference)
    assert isinstance(found, Inspection)
    (environment,) = found.environments
    assert found.reference == reference
    assert found.reference.endswith(f"@{found.digest}")
    assert len(environment.packages) == len(environment.layers) == 2
    assert all(package.size == package.layer.descriptor.size for package in environment.packages)
    assert (found.findings, found.findings_error) == ((), "")
    assert found.shared
    assert found.shared.compared == ()
    assert lamella.layers.inspect(reference, compare=False).shared is None
    with pytest.raises(LayersError, match="no environment for linux/s390x"):
        lamella.layers.inspect(reference, platform=Platform("linux", "s390x"))


def test_nothing_unsigned_is_read_if_trust_requires_a_key(tmp_path: Path, reference: str) -> None:
    private, public = key_pair(tmp_path)
    trust = Trust(required_key=public)
    for read in (lamella.layers.inspect, published_environment, pull, sbom):
        with pytest.raises(NotSigned, match="not signed"):
            read(reference, trust=trust)
    assert sign(reference, private) == reference
    assert lamella.layers.inspect(reference, trust=trust).environments


def test_a_bill_of_materials_that_is_missing_is_not_found(reference: str) -> None:
    with pytest.raises(NotFound, match="no bill of materials; attach one with lamella push --sbom"):
        sbom(reference)


def test_unmet_needs_begin_with_the_reason_that_an_environment_cannot_run(tmp_path: Path) -> None:
    needy = publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\n"}], glibc="99.0")
    first, *_ = unmet_needs(published_environment(needy))
    assert "needs glibc 99.0 or newer" in first


@pytest.mark.slow
def test_environment_that_runs_elsewhere_is_mounted_whatever_c_library_is_here(tmp_path: Path) -> None:
    needy = publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\n"}], glibc="99.0", drivers="libnone.so.1")
    store, target = Store(str(tmp_path / "store")), str(tmp_path / "target")
    here = MountOptions(method="hardlinks")
    with pytest.raises(Unsupported):
        lamella.layers.mount(needy, target, options=here, store=store)
    heard: list[str] = []
    elsewhere = MountOptions(method="hardlinks", elsewhere=True)
    lamella.layers.mount(needy, target, options=elsewhere, store=store, notify=heard.append)
    umount(target, store=store)
    assert heard == []
    assert unmet_needs(published_environment(needy), elsewhere=True) == ()


def test_cpu_is_compared_wherever_an_environment_runs(tmp_path: Path) -> None:
    files = [{"bin/tool*": "#!/bin/sh\n"}]
    by_cpu = published_environment(publish(tmp_path / "cpu", files, cpu="4"))
    by_both = published_environment(publish(tmp_path / "both", files, cpu="4", glibc="99.0"))
    assert unmet_needs(by_both, elsewhere=True) == unmet_needs(by_cpu)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts need Linux")
def test_a_dry_run_of_umount_changes_nothing(tmp_path: Path, reference: str) -> None:
    store = Store(str(tmp_path / "store"))
    target = str(tmp_path / "target")
    made = lamella.layers.mount(reference, target, options=MountOptions(method="hardlinks"), store=store)
    assert umount(target, store=store, dry_run=True) == made
    assert lamella.layers.mounts(store) == (made,)
    assert umount(target, store=store) == made
    assert lamella.layers.mounts(store) == ()


def test_tags_lists_pushed_tags(reference: str) -> None:
    assert tags(reference.partition("@")[0].rpartition(":")[0]) == ["latest"]
