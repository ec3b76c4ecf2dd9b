"""Every kind of environment, pushed and pulled: its files come back as they were, and no secret goes with them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamella.builder.content.package import entries
from lamella.builder.content.rpath import patchelf
from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.push import push
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from lamella.layers.pulling.pull import pull
from lamella.layers.store.store import Store
from support.conda import PLACEHOLDER, SHORT, conda_environment, conda_package, python_of_the_run
from support.engines import need
from support.installed import install, venv, wheel
from support.scanned import SITE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.builder.environment import Environment, File

STDLIB = SITE.rpartition("/")[0]
# Written anew in one form, so that every installer's layer is the same; see docs/reference/layer-format.md.
HOLD = ["lib/libnative.la", "lib/pkgconfig/native.pc", "lib/cmake/native.cmake", f"{STDLIB}/_sysconfigdata_native.py"]
"""What a build writes its prefix into, besides programs."""
RUN_PATHS = {"relative": "$ORIGIN/../lib", "both": f"{PLACEHOLDER}/lib:$ORIGIN/../lib"}
CANONICAL = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}


@pytest.fixture(scope="module")
def conda(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    folder = tmp_path_factory.mktemp("kinds") / "channel"
    python_of_the_run(folder, shared)
    pure = {
        "site-packages/pure/__init__.py": "def main():\n    print('pure')\n",
        "site-packages/pure-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pure\nVersion: 1.0\n",
        "site-packages/pure-1.0.dist-info/RECORD": "pure/__init__.py,,\n",
        "site-packages/pure-1.0.dist-info/INSTALLER": "conda\n",
    }
    conda_package(folder, "pure", pure, noarch="python", depends=["python"], entry_points=["pure-tool = pure:main"])
    native: dict[str, str | bytes] = {
        "lib/native.cfg": f"prefix={PLACEHOLDER}\n",
        "share/native/data.bin": b"\0\1\2",
        "ssl/cacert.pem": "-----BEGIN CERTIFICATE-----\n",
        "bin/.native-post-link.sh": '#!/bin/sh\necho "$PREFIX" > "$PREFIX/share/native/cache"\n',
        **dict.fromkeys(HOLD, f"of {PLACEHOLDER}/lib\n"),
        **{f"lib/lib{name}.so": library(folder.parent, name, path) for name, path in RUN_PATHS.items()},
        "bin/native-script": f"#!{PLACEHOLDER}/bin/python{SHORT} -E\nprint()\n",
        "bin/native-tool": library(folder.parent, "tool", RUN_PATHS["both"]),
    }
    links = {"share/native/link": "data.bin", "ssl/cert.pem": "cacert.pem"}
    conda_package(folder, "native", native, links=links, executables=["bin/.native-post-link.sh"])
    return conda_environment(folder.parent / "env", folder, ["python", "pure", "native"])


def library(folder: Path, name: str, run_path: str) -> bytes:
    """A shared library with a DT_RPATH, as conda-build leaves them."""
    source, made = folder / "x.c", folder / f"lib{name}.so"
    source.write_text("int x;\n")
    command = [need("gcc"), "-shared", str(source), "-o", str(made), f"-Wl,--disable-new-dtags,-rpath,{run_path}"]
    subprocess.run(command, check=True)
    return made.read_bytes()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, shared: Path) -> None:
    """Build the layer of each interpreter once a run."""
    monkeypatch.setenv("LAMELLA_CACHE", str(shared / "cache"))


def pushed(environment: Environment, tmp_path: Path) -> str:
    return push(f"oci:{tmp_path / 'layout'}:v1", environment, cache=LayerCache()).reference


def unpacked(reference: str, tmp_path: Path) -> dict[str, str]:
    """Where in the store each path of the environment is."""
    store = Store(str(tmp_path / "store"))
    pulled = pull(reference, store=store)
    found: dict[str, str] = {}
    for layer in pulled.environment.layers:
        root = os.path.join(store.layer_path(layer.diff_id), "opt", "env")
        for folder, folders, names in os.walk(root):
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in (*names, *links):
                path = os.path.join(folder, name)
                found[os.path.relpath(path, root)] = path
    return found


def changed(file: File, path: str) -> bool:
    """Whether the unpacked file at `path` differs from the scanned one."""
    if file.target is not None:
        return os.readlink(path) != file.target
    with open(path, "rb") as opened:
        digest = hashlib.sha256(opened.read()).hexdigest()
    return digest != file.digest or os.stat(path).st_mode & 0o777 != file.mode


def compare(environment: Environment, found: dict[str, str]) -> Iterator[str]:
    """The files that did not come back as they were, but for those that are rewritten on purpose."""
    for package in environment.packages:
        for file in package.files:
            name = os.path.basename(file.path)
            if name in CANONICAL or (file.path.startswith("bin/") and file.target is None) or file.holds:
                continue
            if package.origin == "conda" and file.path.startswith("conda-meta/"):
                continue
            if file.path.startswith("lib/libpython") or "/lib-dynload/" in file.path:
                continue  # absolute RUNPATHs go
            if file.path not in found or changed(file, found[file.path]):
                yield file.path


def test_a_conda_environment_comes_back_as_it_was(conda: Path, tmp_path: Path) -> None:
    environment = scan(str(conda))
    found = unpacked(pushed(environment, tmp_path), tmp_path)
    assert list(compare(environment, found)) == []
    with open(found["lib/native.cfg"], encoding="utf-8") as file:
        assert file.read() == "prefix=/opt/env\n"
    assert os.readlink(found["share/native/link"]) == "data.bin"


def test_files_that_a_build_wrote_hold_the_image_prefix(conda: Path, tmp_path: Path) -> None:
    """libtool's, pkg-config's and CMake's files, Python's build configuration, and run paths."""
    found = unpacked(pushed(scan(str(conda)), tmp_path), tmp_path)
    for name in HOLD:
        with open(found[name], encoding="utf-8") as file:
            assert file.read() == "of /opt/env/lib\n"
    for name, path in (("relative", "$ORIGIN/../lib"), ("both", "/opt/env/lib:$ORIGIN/../lib")):
        command = [patchelf(), "--print-rpath", found[f"lib/lib{name}.so"]]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == f"{path}\n"
    with open(found["lib/librelative.so"], "rb") as shipped:
        assert shipped.read() == (conda / "lib" / "librelative.so").read_bytes()


def test_certificates_and_what_a_post_link_script_made_ship(conda: Path, tmp_path: Path) -> None:
    environment = scan(str(conda))
    found = unpacked(pushed(environment, tmp_path), tmp_path)
    assert os.readlink(found["ssl/cert.pem"]) == "cacert.pem"
    with open(found["ssl/cacert.pem"], encoding="utf-8") as file:
        assert file.read() == "-----BEGIN CERTIFICATE-----\n"
    # The package `conda-meta` holds what conda knows of this environment alone.
    (unowned,) = [each for each in environment.packages if each.origin == "unowned" and each.name != "conda-meta"]
    assert "share/native/cache" in {file.path for file in unowned.files}
    with open(found["share/native/cache"], encoding="utf-8") as file:
        assert file.read() == "/opt/env\n"


def test_hard_links_into_a_package_cache_are_never_written(conda: Path, tmp_path: Path) -> None:
    cache = conda.parent / "cache"
    files = [path for path in cache.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in files if path.stat().st_nlink > 1]

    def state() -> dict[Path, tuple[int, int, str]]:
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in files
        }

    before = state()
    unpacked(pushed(scan(str(conda)), tmp_path), tmp_path)
    assert state() == before


def as_conda_writes_it(prefix: Path) -> None:
    """Records and scripts of the environment, which rattler made, as conda has them: the same packages."""
    for path in (prefix / "conda-meta").glob("*.json"):
        said = json.loads(path.read_text())
        url = f"https://mirror.corp/t/token/conda-forge/{path.stem}.tar.bz2"
        said |= {"channel": "https://mirror.corp/t/token/conda-forge", "url": url, "fn": f"{path.stem}.tar.bz2"}
        said |= {"arch": None, "platform": None, "timestamp": 1, "size": 1, "md5": "0", "requested_spec": "None"}
        said |= {"subdir": "linux-64", "track_features": "", "features": "", "license_family": "Other"}
        for item in said["paths_data"]["paths"]:
            if item["path_type"] == "hardlink":
                content = (prefix / item["_path"]).read_bytes()
                item["sha256_in_prefix"] = hashlib.sha256(content).hexdigest()
                # Of a noarch package, the path in the archive.
                item["_path"] = item["_path"].removeprefix(f"{STDLIB}/") if said.get("noarch") else item["_path"]
        path.write_text(json.dumps(said, indent=2))
    script = prefix / "bin" / "pure-tool"
    text = script.read_text()
    assert "\n\tsys" in text
    script.unlink()  # it may be a hard link
    script.write_text(text.replace("\t", "    "))
    script.chmod(0o755)


def contents(prefix: Path) -> dict[str, tuple[tuple[str, int, str, str | None], ...]]:
    """What each package's layer holds, without the one of conda's knowledge of this environment alone."""
    environment = scan(str(prefix))
    return {
        f"{package.origin} {package.name}": tuple(
            (entry.path, entry.mode, entry.digest, entry.target) for entry in entries(environment, package, "/opt/env")
        )
        for package in environment.packages
        if package.name != "conda-meta"
    }


@pytest.mark.slow
def test_a_conda_package_s_layer_is_the_same_from_any_prefix_by_any_tool(conda: Path) -> None:
    """A program's run path holds the prefix as well, whose length decides the room that another one has."""
    made = []
    with tempfile.TemporaryDirectory(prefix="", dir="/tmp") as folder:
        for length in (10, 40, 120):
            # Ten characters are `/tmp/` and five more.
            prefix = Path(f"{folder}/".ljust(length, "x") if length > 10 else f"/tmp/{os.urandom(3).hex()[:5]}")
            assert len(str(prefix)) == length
            try:
                conda_environment(prefix, conda.parent / "channel", ["python", "pure", "native"])
                made.append(contents(prefix))
                as_conda_writes_it(prefix)
                made.append(contents(prefix))
            finally:
                shutil.rmtree(prefix)
    assert {"conda python", "conda pure", "conda native"} <= made[0].keys()
    differ = [entry for other in made for name in made[0] for entry in set(made[0][name]) ^ set(other.get(name, ()))]
    assert not differ


def test_a_venv_with_editable_and_local_code_comes_back_as_it_was(tmp_path: Path) -> None:
    project = tmp_path / "project" / "src" / "demo"
    project.mkdir(parents=True)
    (project / "__init__.py").write_text("VALUE = 1\n")
    (project / "_core.so").write_bytes(b"compiled\0")
    folder = tmp_path / "work"
    (folder / "templates").mkdir(parents=True)
    (folder / "app.py").write_text("import demo\n")
    (folder / "templates" / "page.html").write_text("<p>")
    environment = install(venv(tmp_path / "env"), wheel(tmp_path, "alpha", "1.0", {"alpha/__init__.py": ""}))
    (environment / SITE / "demo.pth").write_text(f"{project.parent}\n")
    scanned = scan(str(environment), ScanOptions(local=str(folder)))
    found = unpacked(pushed(scanned, tmp_path), tmp_path)
    assert list(compare(scanned, found)) == []
    local = {f"{SITE}/{name}" for name in ("demo/__init__.py", "demo/_core.so", "app.py", "templates/page.html")}
    assert local <= set(found)
    assert f"{SITE}/demo.pth" not in found


def test_the_layer_does_not_change_with_a_password(tmp_path: Path) -> None:
    references = []
    for number, password in enumerate(("one", "another")):
        environment = install(venv(tmp_path / str(number) / "env"), wheel(tmp_path, "direct", "1.0", {"direct.py": ""}))
        info = environment / SITE / "direct-1.0.dist-info"
        said = {"url": f"https://me:{password}@host/x.whl", "archive_info": {}}
        (info / "direct_url.json").write_text(json.dumps(said))
        references.append(pushed(scan(str(environment)), tmp_path / str(number)).partition("@")[2])
    assert references[0] == references[1]
