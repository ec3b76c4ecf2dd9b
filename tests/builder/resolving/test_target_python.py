"""An interpreter for another platform, from an image, a folder or the repository; nothing of it runs."""

from __future__ import annotations

import io
import os
import platform as machine
import tarfile
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import NotAnEnvironment
from lamella.builder.layer.cache import LayerCache
from lamella.builder.prefix.foreign import own_version
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.builder.resolving.model import ResolveOptions, Target
from lamella.builder.resolving.target_python import lacks_libraries, place_python
from lamella.builder.scanning.scan import scan
from lamella.layers.errors import InvalidContent
from lamella.layers.oci.documents import Platform
from support.conda import SHORT, VERSION
from support.installed import base_python
from support.interpreter_images import ARM, NAME, TRIPLET, image, interpreter, library, official, tar
from support.other_systems import ignore_case
from support.scanned import findings, package, paths, reasons
from support.tars import extract

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(machine.machine() != "x86_64", reason="the other machine is arm64: run this on x86-64")

TARGET = Target(ARM, VERSION)


def placed(prefix: Path) -> set[str]:
    return {
        os.path.relpath(os.path.join(folder, name), prefix)
        for folder, _, names in os.walk(prefix)
        for name in names
    }  # fmt: skip


@pytest.mark.slow
def test_an_image_gives_its_interpreter_and_the_libraries_that_it_needs(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    found = place_python(str(prefix), TARGET, ResolveOptions(python_from=image(tmp_path / "image", official())))
    assert (found.version, found.findings) == (VERSION, ())
    assert placed(prefix) == {
        f"bin/{NAME}", "bin/python", "bin/python3", f"lib/{NAME}/os.py", f"lib/{NAME}/site.py",
        f"lib/{NAME}/json/__init__.py", f"lib/{NAME}/lib-dynload/zlib.cpython-{TRIPLET}.so",
        f"include/{NAME}/patchlevel.h", "lib/system/libgcc_s.so.1",
    }  # fmt: skip
    assert os.stat(prefix / f"bin/{NAME}").st_mode & 0o7777 == 0o755


@pytest.mark.slow
def test_a_scan_takes_the_libraries_of_the_image_as_those_of_a_system(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    place_python(str(prefix), TARGET, ResolveOptions(python_from=image(tmp_path / "image", official())))
    (prefix / "lib/system/libextra.so.1").write_bytes(library())
    environment = scan(str(prefix))
    assert environment.platform == ARM
    assert {each.name for each in environment.packages} == {"python", "system-libraries"}
    assert paths(package(environment, "system-libraries")) == {"lib/system/libgcc_s.so.1"}
    assert reasons(environment)["lib/system/libextra.so.1"] == "a system's library that no file here needs"
    assert findings(environment, "unowned") == []


@pytest.mark.slow
def test_descriptions_of_terminals_that_the_disk_would_merge_are_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, prefix = "opt/python/share/terminfo", tmp_path / "prefix"
    files = official("opt/python") | {f"{folder}/X/X-hpterm": b"hp", f"{folder}/x/xterm": b"x"}
    reference = image(tmp_path / "image", files)
    with monkeypatch.context() as patched:
        ignore_case(patched)
        found = place_python(str(prefix), TARGET, ResolveOptions(python_from=reference))
    assert [each for each in placed(prefix) if "terminfo" in each] == ["share/terminfo/x/xterm"]
    (warning,) = found.findings
    assert (warning.severity, warning.kind) == ("warning", "disk")
    assert "1 file left out, such as share/terminfo/X/X-hpterm beside share/terminfo/x" in warning.message


@pytest.mark.slow
def test_files_that_a_later_layer_removes_are_not_taken(tmp_path: Path) -> None:
    later = {
        f"usr/local/lib/{NAME}/json/.wh..wh..opq": b"",
        f"usr/local/lib/{NAME}/json/tool.py": b"",
        f"lib/{TRIPLET}/.wh.libgcc_s.so.1": b"",
        f"usr/local/lib/{NAME}/os.py": b"later = 1\n",
    }
    prefix = tmp_path / "prefix"
    place_python(str(prefix), TARGET, ResolveOptions(python_from=image(tmp_path / "image", official(), later)))
    assert f"lib/{NAME}/json/tool.py" in placed(prefix)
    assert not {f"lib/{NAME}/json/__init__.py", "lib/system/libgcc_s.so.1"} & placed(prefix)
    assert (prefix / f"lib/{NAME}/os.py").read_text() == "later = 1\n"


@pytest.mark.slow
def test_wheels_in_the_prefix_get_the_libraries_that_they_need_from_the_image(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    wheel = prefix / f"lib/{NAME}/site-packages/some"
    wheel.mkdir(parents=True)
    (wheel / "native.so").write_bytes(library("libstdc++.so.6"))
    files = {path: content for path, content in official().items() if "lib-dynload" not in path}
    files[f"usr/lib/{TRIPLET}/libstdc++.so.6"] = library("libstdc++.so.6")
    place_python(str(prefix), TARGET, ResolveOptions(python_from=image(tmp_path / "image", files)))
    assert {"lib/system/libgcc_s.so.1", "lib/system/libstdc++.so.6"} <= placed(prefix)


@pytest.mark.slow
def test_debian_s_python_reads_site_packages_through_its_own_folder(tmp_path: Path) -> None:
    files = official("usr")
    del files[f"usr/include/{NAME}/patchlevel.h"]
    files[f"usr/lib/{NAME}/site.py"] = b"# dist-packages\n"
    files[f"usr/bin/{NAME}*"] = interpreter() + b"\0" + VERSION.encode() + b"\0"
    files["usr/lib/python3/dist-packages/apt.py"] = b""
    prefix = tmp_path / "prefix"
    place_python(str(prefix), TARGET, ResolveOptions(python_from=image(tmp_path / "image", files)))
    assert os.readlink(prefix / f"lib/{NAME}/dist-packages") == "site-packages"
    site = prefix / f"lib/{NAME}/site-packages"
    (site / "some-1.0.dist-info").mkdir()
    (site / "some-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: some\nVersion: 1.0\n")
    (site / "some-1.0.dist-info/RECORD").write_text("some.py,,\nsome-1.0.dist-info/METADATA,,\n")
    (site / "some.py").write_text("")
    environment = scan(str(prefix))
    assert environment.interpreter.version == VERSION
    assert f"lib/{NAME}/site-packages/some.py" in paths(package(environment, "some"))
    assert f"lib/{NAME}/dist-packages" in paths(package(environment, "python"))
    assert not any("apt.py" in path for path in placed(prefix))


@pytest.mark.slow
def test_a_folder_gives_its_interpreter(tmp_path: Path) -> None:
    prefix, folder = tmp_path / "prefix", tmp_path / "folder"
    with tarfile.open(fileobj=io.BytesIO(tar({k: v for k, v in official("x").items() if k[:2] == "x/"}))) as archive:
        extract(archive, tmp_path, [each for each in archive if not each.isdev()], trusted=True)
    (tmp_path / "x").rename(folder)
    found = place_python(str(prefix), TARGET, ResolveOptions(python_from=str(folder)))
    assert found.source == f"--python-from {folder}"
    assert {f"bin/{NAME}", f"lib/{NAME}/os.py"} <= placed(prefix)


@pytest.mark.slow
def test_an_environment_in_the_repository_gives_the_interpreter(tmp_path: Path) -> None:
    first = tmp_path / "first"
    place_python(str(first), TARGET, ResolveOptions(python_from=image(tmp_path / "image", official())))
    reference = f"oci:{tmp_path}/team:v1"
    cache = LayerCache(str(tmp_path / "cache"))
    pushed = push(reference, scan(str(first)), PushOptions(), cache=cache)
    second = tmp_path / "second"
    found = place_python(str(second), TARGET, ResolveOptions(), f"oci:{tmp_path}/team:v2")
    assert (found.version, found.source) == (VERSION, f"oci:{tmp_path}/team:v1")
    again = push(f"oci:{tmp_path}/team:v2", scan(str(second)), PushOptions(), cache=cache)
    assert (again.built, again.uploaded) == (0, 0)
    assert again.reference.rpartition("@")[2] == pushed.reference.rpartition("@")[2]


def test_without_an_interpreter_the_message_says_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NotAnEnvironment) as refused:
        place_python(str(tmp_path / "prefix"), TARGET, ResolveOptions(), f"oci:{tmp_path}/none:v1")
    assert str(refused.value) == (
        f"oci:{tmp_path}/none:v1: no environment for linux/arm64 with Python {SHORT} in its repository; "
        f"name a folder or an image, such as --python-from python:{SHORT}-slim"
    )


def test_an_image_of_another_minor_version_is_refused(tmp_path: Path) -> None:
    reference = image(tmp_path / "image", {"usr/local/bin/python3.99*": b"", "usr/local/lib/python3.99/os.py": b""})
    with pytest.raises(NotAnEnvironment) as refused:
        place_python(str(tmp_path / "prefix"), TARGET, ResolveOptions(python_from=reference))
    assert str(refused.value) == (
        f"--python-from {reference}: no Python {SHORT} for linux/arm64; name an image or folder that has it, such as "
        f"--python-from python:{SHORT}-slim"
    )
    assert not (tmp_path / "prefix").exists()


@pytest.mark.slow
def test_an_image_for_another_machine_is_refused(tmp_path: Path) -> None:
    with open(base_python(), "rb") as file:
        files = {**official(), f"usr/local/bin/{NAME}*": file.read()}
    with pytest.raises(NotAnEnvironment, match=rf"its {NAME} is not for linux/arm64"):
        place_python(str(tmp_path / "prefix"), TARGET, ResolveOptions(python_from=image(tmp_path / "image", files)))
    reference = image(tmp_path / "amd64", official(), platform=Platform("linux", "amd64"))
    with pytest.raises(InvalidContent, match=r"--python-from .*: no image for linux/arm64; available: linux/amd64"):
        place_python(str(tmp_path / "prefix"), TARGET, ResolveOptions(python_from=reference))


@pytest.mark.slow
def test_another_patch_version_is_a_finding(tmp_path: Path) -> None:
    target = Target(ARM, f"{SHORT}.99")
    reference = image(tmp_path / "image", official())
    found = place_python(str(tmp_path / "prefix"), target, ResolveOptions(python_from=reference))
    (said,) = found.findings
    assert said.message == f"python {SHORT}.99 here, {VERSION} for linux/arm64 from --python-from {reference}"


@pytest.mark.slow
def test_a_damaged_layer_is_refused_and_nothing_is_placed(tmp_path: Path) -> None:
    reference = image(tmp_path / "image", official())
    blobs = sorted((tmp_path / "image/blobs/sha256").iterdir(), key=lambda blob: blob.stat().st_size)
    content = bytearray(blobs[-1].read_bytes())
    content[1000] ^= 1
    blobs[-1].write_bytes(content)
    with pytest.raises(InvalidContent, match="has other content"):
        place_python(str(tmp_path / "prefix"), TARGET, ResolveOptions(python_from=reference))
    assert not (tmp_path / "prefix").exists()


@pytest.mark.slow
def test_links_in_a_circle_and_out_of_the_image_lead_nowhere(tmp_path: Path) -> None:
    files = {path: content for path, content in official().items() if "libgcc_s" not in path}
    files |= {
        f"usr/lib/{TRIPLET}/libgcc_s.so.1": "->libgcc_s.so.1",
        "usr/lib/libgcc_s.so.1": "->../../../../../etc/passwd",
    }
    prefix = tmp_path / "prefix"
    place_python(str(prefix), TARGET, ResolveOptions(python_from=image(tmp_path / "image", files)))
    assert not (prefix / "lib/system").exists()


def test_an_interpreter_without_headers_states_its_version_in_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "python").write_bytes(b"\x7fELF\0 3.1.2 \0003.11.2\0%.80s")
    assert own_version(str(tmp_path / "none"), str(tmp_path / "python")) == "3.11.2"
    assert own_version(str(tmp_path / "none")) == ""


@pytest.mark.slow
def test_an_interpreter_that_is_placed_again_is_left_alone_and_replaces_what_differs(tmp_path: Path) -> None:
    prefix, options = tmp_path / "prefix", ResolveOptions(python_from=image(tmp_path / "image", official()))
    first = place_python(str(prefix), TARGET, options)
    assert placed(prefix) == {*first.files}
    before = {path: os.lstat(prefix / path).st_ino for path in first.files}
    assert place_python(str(prefix), TARGET, options) == first
    assert {path: os.lstat(prefix / path).st_ino for path in first.files} == before
    changed = prefix / f"lib/{NAME}/json/__init__.py"
    changed.write_text("another\n")
    shared = tmp_path / "shared"
    os.link(changed, shared)
    place_python(str(prefix), TARGET, options)
    assert (changed.read_text(), shared.read_text()) == ("value = 1\n", "another\n")


@pytest.mark.slow
def test_a_wheel_that_comes_later_lacks_libraries_unless_they_are_placed_or_its_own(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    first = place_python(str(prefix), TARGET, ResolveOptions(python_from=image(tmp_path / "image", official())))
    assert not lacks_libraries(str(prefix), first.libraries)
    wheel = prefix / f"lib/{NAME}/site-packages/some"
    wheel.mkdir(parents=True)
    (wheel / "known.so").write_bytes(library("libstdc++.so.6"))  # needs libgcc_s, which is placed
    assert not lacks_libraries(str(prefix), first.libraries)
    assert lacks_libraries(str(prefix), set(first.libraries) - {"libgcc_s.so.1"})


def test_an_image_built_for_musl_is_refused(tmp_path: Path) -> None:
    musl = interpreter().replace(b"libc.so.6\0", b"libc.musl-", 1)
    assert b"libc.musl-" in musl
    reference = image(tmp_path / "image", {**official(), f"usr/local/bin/{NAME}*": musl})
    with pytest.raises(NotAnEnvironment) as refused:
        place_python(str(tmp_path / "prefix"), TARGET, ResolveOptions(python_from=reference))
    assert str(refused.value) == (
        f"--python-from {reference}: its {NAME} is built for musl; name another image, such as "
        f"--python-from python:{SHORT}-slim"
    )
    assert not (tmp_path / "prefix").exists()


@pytest.mark.parametrize("mark", ["conda-meta/python-3.json", "info/index.json"])
def test_a_conda_interpreter_is_refused(tmp_path: Path, mark: str) -> None:
    reference = image(tmp_path / "image", {**official("opt/conda"), f"opt/conda/{mark}": b"{}"})
    with pytest.raises(NotAnEnvironment) as refused:
        place_python(str(tmp_path / "prefix"), TARGET, ResolveOptions(python_from=reference))
    assert str(refused.value) == (
        f"--python-from {reference}: its {NAME} is conda's, which needs other packages; name another image, such as "
        f"--python-from python:{SHORT}-slim"
    )
    assert not (tmp_path / "prefix").exists()


@pytest.mark.slow
def test_an_image_with_conda_beside_a_plain_interpreter_gives_the_plain_one(tmp_path: Path) -> None:
    files = {**official("opt/conda"), **official(), "opt/conda/conda-meta/python-3.json": b"{}"}
    reference = image(tmp_path / "image", files, env="PATH=/opt/conda/bin:/usr/local/bin")
    found = place_python(str(tmp_path / "prefix"), TARGET, ResolveOptions(python_from=reference))
    assert found.version == VERSION
