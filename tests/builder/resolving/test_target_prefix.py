"""A prefix for another platform that is kept between pushes follows what the environment has."""

from __future__ import annotations

import hashlib
import platform as machine
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import BuilderError
from lamella.builder.indexes.model import Indexes
from lamella.builder.resolving.installed_packages import installed_packages
from lamella.builder.resolving.model import Artifact, InstalledPackages, Resolution, ResolveOptions, Target
from lamella.builder.resolving.target_prefix import TargetPlan, resolve, target_environment
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from lamella.layers.oci.documents import Platform
from support.conda import SHORT, VERSION
from support.installed import install, venv, wheel
from support.interpreter_images import NAME, TRIPLET, image, library, official
from support.scanned import package, paths

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.environment import Environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(machine.machine() != "x86_64", reason="the other machine is arm64: run this on x86-64"),
]
TAG = f"cp{SHORT.replace('.', '')}"


def artifact(path: Path) -> Artifact:
    name, version = path.name.split("-")[:2]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Artifact("wheel", name, version, path.as_uri(), digest, path.stat().st_size, "")


def laid_out(prefix: Path, python_from: str, cache: Path, *wheels: Path) -> Environment:
    """The environment for arm64 with these wheels."""
    installed = InstalledPackages(str(prefix), VERSION, "linux", "amd64", ())
    target = Target(Platform("linux", "arm64"), VERSION)
    resolution = Resolution(target, tuple(artifact(each) for each in wheels))
    plan = TargetPlan(installed, resolution, ResolveOptions(python_from=python_from), Indexes())
    with target_environment(plan, ScanOptions(cache=str(cache), local="")) as environment:
        return environment


def test_a_wheel_that_is_added_later_gets_its_system_libraries(tmp_path: Path) -> None:
    files = {path: content for path, content in official().items() if "lib-dynload" not in path}
    files[f"usr/lib/{TRIPLET}/libstdc++.so.6"] = library("libstdc++.so.6")
    # A name that the interpreter needs nowhere, as Debian's needs libz.
    files[f"usr/lib/{TRIPLET}/libx.so.1"] = library().replace(b"libz.so.1\0", b"libx.so.1\0")
    reference = image(tmp_path / "image", files)
    pure = wheel(tmp_path, "pure", files={"pure.py": ""})
    content = {"native.so": library("libgcc_s.so.1").replace(b"libc.so.6\0", b"libx.so.1\0")}
    native = wheel(tmp_path, "native", files=content, tag=f"{TAG}-{TAG}-manylinux_2_28_aarch64")
    source, cache = venv(tmp_path / "source"), tmp_path / "cache"
    before = laid_out(source, reference, cache, pure)
    assert "system-libraries" not in {each.name for each in before.packages}
    after = laid_out(source, reference, cache, pure, native)
    assert "lib/system/libx.so.1" in paths(package(after, "system-libraries"))
    fresh = laid_out(source, reference, tmp_path / "another", pure, native)
    assert {each.name: paths(each) for each in after.packages} == {each.name: paths(each) for each in fresh.packages}


def test_what_a_killed_push_left_behind_never_ships(tmp_path: Path) -> None:
    reference = image(tmp_path / "image", official())
    source, cache = venv(tmp_path / "source"), tmp_path / "cache"
    pure, damaged = wheel(tmp_path, "pure", files={"pure.py": ""}), wheel(tmp_path, "damaged")
    laid_out(source, reference, cache, pure)
    damaged.write_bytes(b"not a wheel")
    with pytest.raises(BuilderError):
        laid_out(source, reference, cache, pure, damaged)
    (site,) = cache.glob("targets/*/prefix/lib/python*/site-packages")
    (site / "gone.pth").write_text("/gone/project\n")
    environment = laid_out(source, reference, cache, pure)
    assert f"lib/{NAME}/site-packages/pure.py" in paths(package(environment, "pure"))
    assert not (site / "gone.pth").exists()


def test_an_unchanged_image_is_not_read_again(tmp_path: Path) -> None:
    reference = image(tmp_path / "image", official())
    source, cache = venv(tmp_path / "source"), tmp_path / "cache"
    pure = wheel(tmp_path, "pure", files={"pure.py": ""})
    laid_out(source, reference, cache)
    for blob in (tmp_path / "image/blobs/sha256").iterdir():
        blob.unlink()
    environment = laid_out(source, reference, cache, pure)
    assert f"lib/{NAME}/site-packages/pure.py" in paths(package(environment, "pure"))


def test_a_tag_that_moved_gives_its_new_interpreter(tmp_path: Path) -> None:
    source, cache = venv(tmp_path / "source"), tmp_path / "cache"
    reference = image(tmp_path / "image", official() | {f"usr/local/lib/{NAME}/gone.py": b""})
    assert f"lib/{NAME}/gone.py" in paths(package(laid_out(source, reference, cache), "python"))
    shutil.rmtree(tmp_path / "image")
    assert image(tmp_path / "image", official() | {f"usr/local/lib/{NAME}/new.py": b""}) == reference
    after = paths(package(laid_out(source, reference, cache), "python"))
    assert f"lib/{NAME}/new.py" in after
    assert f"lib/{NAME}/gone.py" not in after


def test_a_folder_that_changed_gives_its_new_interpreter(tmp_path: Path) -> None:
    source, cache, folder = venv(tmp_path / "source"), tmp_path / "cache", tmp_path / "python"
    for path, content in official("").items():
        if isinstance(content, bytes) and not path.startswith(("/usr", "usr", "etc")):
            place = folder / path.strip("/*")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            place.chmod(0o755)
    laid_out(source, str(folder), cache)
    (folder / f"lib/{NAME}/new.py").write_text("")
    assert f"lib/{NAME}/new.py" in paths(package(laid_out(source, str(folder), cache), "python"))


BACKEND = """
import os, shutil

def build_wheel(folder, config_settings=None, metadata_directory=None):
    return os.path.basename(shutil.copy("fork-1.0-py3-none-any.whl", folder))
"""


def git(folder: Path, *arguments: str) -> str:
    named = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", *named, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_package_of_a_repository_ships_as_it_was_at_its_commit(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    settings = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    commits = []
    for value in (1, 2):
        wheel(repository, "fork", files={"fork.py": f"value = {value}\n"})
        (repository / "pyproject.toml").write_text(settings)
        (repository / "backend.py").write_text(BACKEND)
        git(repository, "init", "--quiet")
        git(repository, "add", ".")
        git(repository, "commit", "--quiet", "-m", str(value))
        commits.append(git(repository, "rev-parse", "HEAD"))
    made = install(venv(tmp_path / "source"), f"git+file://{repository}@{commits[0]}", by="pip")
    (fork,) = installed_packages(str(made)).pypi
    assert (fork.source, fork.local) == (f"git+file://{repository}@{commits[0]}", "")
    reference = image(tmp_path / "image", official())
    plan = resolve(str(made), Platform("linux", "arm64"), ResolveOptions(python_from=reference))
    assert (plan.resolution.kept, plan.resolution.artifacts) == (("fork",), ())
    with target_environment(plan, ScanOptions(cache=str(tmp_path / "cache"), local="")) as environment:
        shipped = {file.path: file.digest for file in package(environment, "fork").files}
    there = package(scan(str(made), ScanOptions(cache=str(tmp_path / "cache"), local="")), "fork")
    expected = {file.path: file.digest for file in there.files}
    code = f"lib/{NAME}/site-packages/fork.py"
    assert shipped[code] == expected[code]
    # Without a wheel that is right everywhere, the package is built at the commit.
    (path,) = made.glob("lib/python*/site-packages/fork-1.0.dist-info/WHEEL")
    path.write_text(path.read_text().replace("none-any", f"none-linux_{machine.machine()}"))
    plan = resolve(str(made), Platform("linux", "arm64"), ResolveOptions(python_from=reference))
    assert [each.url for each in plan.resolution.artifacts] == [fork.source]
    with target_environment(plan, ScanOptions(cache=str(tmp_path / "cache"), local="")) as environment:
        assert {file.path: file.digest for file in package(environment, "fork").files}[code] == expected[code]
