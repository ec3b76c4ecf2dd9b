"""Locks beside a project say where packages came from; the lock of what shipped installs the same again."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING, Literal

import pytest

from lamella.builder.errors import BuilderError
from lamella.builder.indexes.model import Indexes
from lamella.builder.layer.layer_set import layers
from lamella.builder.resolving.fetch import fetch
from lamella.builder.resolving.locks import lock_document, locked, outdated
from lamella.builder.resolving.model import (
    Artifact,
    InstalledDistribution,
    InstalledPackages,
    Resolution,
    ResolveOptions,
    Target,
)
from lamella.builder.resolving.offered import offers
from lamella.builder.resolving.pypi import resolve_distributions
from lamella.builder.resolving.wheels import install_wheels
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from lamella.layers.oci.documents import Platform
from lamella.layers.progress.display import Silent
from support.index import Index, serve_index
from support.installed import uv, venv, wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamella.builder.resolving.locks import Locked

PYTHON = ".".join(map(str, sys.version_info[:3]))
TARGET = Target(Platform("linux", Platform.here().architecture), PYTHON)
UV_LOCK = """
version = 1
[[package]]
name = "mine"
version = "{version}"
source = {{ registry = "{index}" }}
wheels = [{{ url = "{index}/mine-1.0-py3-none-any.whl", hash = "sha256:{sha256}" }}]
"""
PYLOCK = """
lock-version = "1.0"
created-by = "tests"
[[packages]]
name = "mine"
version = "{version}"
index = "{index}"
wheels = [{{ name = "mine-1.0-py3-none-any.whl", url = "x", hashes = {{ sha256 = "{sha256}" }} }}]
"""
REQUIREMENTS = "mine=={version} \\\n    --hash=sha256:{sha256}\n"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    (tmp_path / "wheels").mkdir()
    with serve_index(Index(tmp_path / "wheels")) as served:
        yield served


def installed(*names: str) -> InstalledPackages:
    pypi = tuple(InstalledDistribution(name, "1.0", requested=True) for name in names)
    return InstalledPackages("/env", PYTHON, "darwin", "arm64", pypi)


def resolve(index: Index, locks: dict[str, Locked] | None = None, *names: str) -> Resolution:
    indexes = Indexes((index.index(),))
    return resolve_distributions(installed(*names), TARGET, ResolveOptions(), indexes, locks=locks)


@pytest.mark.parametrize(("name", "text"), [("uv.lock", UV_LOCK), ("pylock.toml", PYLOCK)])
def test_lock_names_the_index_and_the_hash_of_an_installed_version(tmp_path: Path, name: str, text: str) -> None:
    url = "https://packages.example/simple"
    (tmp_path / name).write_text(text.format(version="1.0", index=f"{url}/", sha256="a" * 64))
    found = locked(str(tmp_path), installed("mine"))["mine"]
    assert (found.index, dict(found.files)) == (url, {"mine-1.0-py3-none-any.whl": "a" * 64})


def test_lock_of_another_version_than_the_installed_one_is_left_aside_with_a_finding(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text(UV_LOCK.format(version="2.0", index="https://x.example", sha256="a" * 64))
    (finding,) = outdated(str(tmp_path), installed("mine"))
    assert finding.message == "uv.lock has other versions, which are not used: mine 2.0 (1.0 is installed)"
    (tmp_path / "uv.lock").write_text(UV_LOCK.format(version="1.0", index="https://x.example", sha256="a" * 64))
    assert list(outdated(str(tmp_path), installed("mine"))) == []


def test_lock_with_the_installed_version_goes_before_one_with_another(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text(UV_LOCK.format(version="2.0", index="https://x.example", sha256="a" * 64))
    (tmp_path / "pylock.toml").write_text(PYLOCK.format(version="1.0", index="https://y.example", sha256="b" * 64))
    assert locked(str(tmp_path), installed("mine"))["mine"].index == "https://y.example"


def test_damaged_lock_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "uv.lock"
    for text in ("[[package]\n", "package = 3\n", '[[package]]\nversion = "1.0"\n', 'x = "https://me:hunter2@host\n'):
        path.write_text(text)
        with pytest.raises(BuilderError) as refused:
            locked(str(tmp_path), installed("mine"))
        assert str(refused.value) == f"{path}: not a lock file; lock the project again, or remove it"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_package_of_a_private_index_in_a_lock_is_not_looked_for_on_another(
    index: Index, tmp_path: Path, version: str
) -> None:
    wheel(index.folder, "mine", metadata="Summary: hostile")
    (tmp_path / "private").mkdir()
    path = wheel(tmp_path / "private", "mine")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with serve_index(Index(tmp_path / "private")) as private:
        (tmp_path / "uv.lock").write_text(UV_LOCK.format(version=version, index=private.url, sha256=digest))
        found = resolve(index, locked(str(tmp_path), installed("mine")), "mine")
    assert [(each.index, each.sha256) for each in found.artifacts] == [(private.url, digest)]
    assert index.requests == []
    assert [(finding.kind, finding.subject) for finding in found.findings] == [("index", "mine")]


@pytest.mark.slow
def test_file_that_was_replaced_since_it_was_locked_is_refused(index: Index, tmp_path: Path) -> None:
    wheel(index.folder, "mine")
    (tmp_path / "uv.lock").write_text(UV_LOCK.format(version="1.0", index=index.url, sha256="a" * 64))
    with pytest.raises(
        BuilderError, match=r"mine 1\.0: mine-1\.0-py3-none-any\.whl on \S+ has another sha256 than in uv"
    ):
        resolve(index, locked(str(tmp_path), installed("mine")), "mine")


@pytest.mark.slow
def test_hash_that_requirements_lack_is_a_finding(index: Index, tmp_path: Path) -> None:
    wheel(index.folder, "mine")
    (tmp_path / "requirements.txt").write_text(REQUIREMENTS.format(version="1.0", sha256="a" * 64))
    found = resolve(index, locked(str(tmp_path), installed("mine")), "mine")
    assert [finding.kind for finding in found.findings] == ["unverified"]


def keys(prefix: Path, cache: Path) -> dict[str, str]:
    environment = scan(str(prefix), ScanOptions(cache=str(cache)))
    made = layers(environment, image_prefix="/opt/env", compression="zstd", image_layers=100)
    return {one.package.name: one.wanted.key for one in made.packages}


@pytest.mark.slow
def test_installing_from_the_lock_gives_the_same_layers(index: Index, tmp_path: Path) -> None:
    wheel(index.folder, "mine", files={"mine.py": "", "{data}/scripts/x": "#!python\n"}, requires=["lib"])
    wheel(index.folder, "lib", files={"lib.py": ""}, entry_points="[console_scripts]\nlib = lib:main\n")
    index.digests["lib-1.0-py3-none-any.whl"] = ""
    resolution = resolve(index, None, "mine", "lib")
    paths = fetch(resolution.artifacts, TARGET, Indexes((index.index(),)), str(tmp_path / "cache"), Silent())
    lock = lock_document(resolution, paths)
    assert lock == lock_document(resolution, paths)
    (tmp_path / "pylock.toml").write_bytes(lock)
    laid_out = venv(tmp_path / "laid-out")
    install_wheels(paths.values(), str(laid_out), PYTHON, Silent())
    again = venv(tmp_path / "again")
    command = [
        uv(),
        "pip",
        "install",
        "--quiet",
        "--python",
        str(again / "bin/python"),
        "-r",
        str(tmp_path / "pylock.toml"),
    ]
    subprocess.run(command, check=True)
    assert keys(again, tmp_path / "cache") == keys(laid_out, tmp_path / "cache")


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", "x86_64"), ("arm64", "aarch64")])
def test_lock_states_the_machine_that_its_wheels_are_for(architecture: str, machine: str) -> None:
    target = Target(Platform("linux", architecture), "3.11.7")
    stated = f"sys_platform == 'linux' and platform_machine == '{machine}' and python_version == '3.11'"
    assert f'"{stated}"' in lock_document(Resolution(target, ()), {}).decode()


def test_lock_names_no_file_of_this_disk(tmp_path: Path) -> None:
    path = tmp_path / "mine-1.0-py3-none-any.whl"
    artifact = Artifact("wheel", "mine", "1.0", path.as_uri(), "0" * 64, 1, "")
    assert b"mine" not in lock_document(Resolution(TARGET, (artifact,)), {artifact: str(path)})


@pytest.mark.slow
@pytest.mark.parametrize("resolver", ["uv", "pip"])
def test_signature_in_a_files_url_is_sent_and_never_kept(
    index: Index, tmp_path: Path, resolver: Literal["uv", "pip"]
) -> None:
    wheel(index.folder, "mine", files={"mine.py": ""})
    index.query = "Expires=1&Signature=s3cret"
    indexes = Indexes((index.index(),))
    resolution = resolve_distributions(installed("mine"), TARGET, ResolveOptions(), indexes, resolver)
    paths = fetch(resolution.artifacts, TARGET, indexes, str(tmp_path / "cache"), Silent())
    assert index.downloads()
    assert "s3cret" not in f"{resolution!r} {paths!r} {lock_document(resolution, paths).decode()}"


@pytest.mark.slow
def test_signature_in_a_url_of_a_page_is_never_kept(index: Index, tmp_path: Path) -> None:
    wheel(index.folder, "mine", files={"mine.py": ""})
    index.query = "Signature=s3cret"
    (offer,) = offers(["mine"], Indexes((index.index(),))).values()
    found = offer.wheel("1.0", TARGET)
    assert found is not None
    assert found.query == "Signature=s3cret"
    assert "s3cret" not in f"{found!r}{found.url}"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "text"), [("uv.lock", UV_LOCK), ("pylock.toml", PYLOCK)])
def test_file_that_a_lock_does_not_name_is_a_finding(index: Index, tmp_path: Path, name: str, text: str) -> None:
    filename = wheel(index.folder, "mine", tag="py2.py3-none-any").name
    (tmp_path / name).write_text(text.format(version="1.0", index=index.url, sha256="a" * 64))
    found = resolve(index, locked(str(tmp_path), installed("mine")), "mine")
    assert [(finding.kind, finding.message) for finding in found.findings] == [
        ("unverified", f"{filename} of mine 1.0 is not among the hashes of {name}")
    ]


@pytest.mark.slow
def test_source_distribution_that_a_lock_does_not_name_is_a_finding(index: Index, tmp_path: Path) -> None:
    (index.folder / "mine-1.0.tar.gz").write_bytes(b"not read")
    (tmp_path / "uv.lock").write_text(UV_LOCK.format(version="1.0", index=index.url, sha256="a" * 64))
    found = resolve(index, locked(str(tmp_path), installed("mine")), "mine")
    assert [finding.kind for finding in found.findings] == ["unverified"]


@pytest.mark.slow
def test_hash_of_a_lock_is_checked_if_the_index_states_none(index: Index, tmp_path: Path) -> None:
    index.digests["mine-1.0.tar.gz"] = ""
    (index.folder / "mine-1.0.tar.gz").write_bytes(b"not read")
    lock = UV_LOCK.replace("-py3-none-any.whl", ".tar.gz")
    (tmp_path / "uv.lock").write_text(lock.format(version="1.0", index=index.url, sha256="a" * 64))
    found = resolve(index, locked(str(tmp_path), installed("mine")), "mine")
    assert found.findings == ()
    with pytest.raises(BuilderError, match=rf"but the index or a lock states {'a' * 64}; nothing was used"):
        fetch(found.artifacts, TARGET, Indexes((index.index(),)), str(tmp_path / "cache"), Silent())


@pytest.mark.parametrize(("name", "text"), [("uv.lock", UV_LOCK), ("pylock.toml", PYLOCK)])
@pytest.mark.parametrize(("version", "sha256"), [("1.0", ""), ("1.0", "abc"), ("one", "a" * 64)])
def test_lock_with_an_invalid_hash_or_version_is_reported(
    tmp_path: Path, name: str, text: str, version: str, sha256: str
) -> None:
    path = tmp_path / name
    path.write_text(text.format(version=version, index="https://x.example", sha256=sha256))
    with pytest.raises(BuilderError) as refused:
        locked(str(tmp_path), installed("mine"))
    assert str(refused.value) == f"{path}: not a lock file; lock the project again, or remove it"


@pytest.mark.parametrize(
    "artifact",
    [
        Artifact("wheel", "odd", "2004d-custom", "https://x.example/odd-1.whl", "a" * 64, 1, "https://x.example"),
        Artifact("wheel", "odd", "1.0", "https://x.example/odd-1.0.tar.gz", "", 1, "https://x.example"),
    ],
)
def test_lock_leaves_out_what_its_format_cannot_state(artifact: Artifact) -> None:
    assert b"odd" not in lock_document(Resolution(TARGET, (artifact,)), {})


def test_wheel_of_a_url_without_a_recorded_hash_is_a_finding() -> None:
    url = "https://files.example/mine-1.0-py3-none-any.whl"
    packages = InstalledPackages("/env", PYTHON, "darwin", "arm64", (InstalledDistribution("mine", "1.0", source=url),))
    found = resolve_distributions(packages, TARGET, ResolveOptions(), Indexes(()))
    assert [(each.kind, each.message) for each in found.findings] == [
        ("unverified", f"{url}: its installer recorded no sha256 of it")
    ]
