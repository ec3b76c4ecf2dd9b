"""conda environments, made by rattler as conda, mamba and pixi make them, and with records in conda's own manner."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.builder.installed.conda import conda_packages
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from support.conda import PLACEHOLDER, SHORT, VERSION, conda_environment, conda_package, python_of_the_run
from support.installed import install, is_debians, venv, wheel
from support.scanned import SITE, file, findings, package, paths, reasons, shipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PURE = {
    "site-packages/pure/__init__.py": "def main(): pass\n",
    "site-packages/pure-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pure\nVersion: 1.0\n",
    "site-packages/pure-1.0.dist-info/RECORD": "pure/__init__.py,,\n",
    "site-packages/pure-1.0.dist-info/INSTALLER": "conda\n",
}
NATIVE: dict[str, str | bytes] = {
    "lib/libnative.so.1": b"\x7fNOT-ELF\0" + PLACEHOLDER.encode() + b"/share\0\0",
    "lib/pkgconfig/native.pc": f"prefix={PLACEHOLDER}\n",
    "etc/conda/activate.d/native.sh": "export NATIVE=1\n",
}


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    folder = tmp_path_factory.mktemp("conda") / "channel"
    python_of_the_run(folder, shared)
    conda_package(folder, "pure", PURE, noarch="python", depends=["python"], entry_points=["pure-tool = pure:main"])
    conda_package(folder, "native", NATIVE, links={"lib/libnative.so": "libnative.so.1"})
    conda_package(folder, "meta", {}, depends=["native"])
    return folder


@pytest.fixture(scope="module")
def made(channel: Path) -> Path:
    return conda_environment(channel.parent / "env", channel, ["python", "pure", "meta"])


@pytest.fixture
def environment(made: Path, tmp_path: Path) -> Iterator[Path]:
    """The module's environment; what a test does outside of the standard library is undone after it."""
    kept = tmp_path / "kept"
    names = ("conda-meta", "etc", SITE, "lib/pkgconfig", "bin")
    for name in names:
        shutil.copytree(made / name, kept / name, symlinks=True)
    before = set(made.iterdir())
    yield made
    for name in names:
        shutil.rmtree(made / name)
        shutil.copytree(kept / name, made / name, symlinks=True)
    for added in set(made.iterdir()) - before:
        shutil.rmtree(added)


def record(environment: Path, name: str) -> Path:
    (found,) = (environment / "conda-meta").glob(f"{name}-*.json")
    return found


@pytest.mark.slow
def test_each_record_is_a_package_with_its_files_and_its_record(environment: Path) -> None:
    scanned = scan(str(environment))
    conda = {(each.name, each.version, each.build) for each in scanned.packages if each.origin == "conda"}
    assert conda == {("python", VERSION, "0"), ("pure", "1.0", "0"), ("native", "1.0", "0"), ("meta", "1.0", "0")}
    others = {(each.origin, each.name) for each in scanned.packages if each.origin in {"pypi", "python", "unowned"}}
    assert others == {("unowned", "conda-meta")}
    assert paths(package(scanned, "conda-meta")) == {".lamella/conda.json"}
    assert paths(package(scanned, "meta")) == {"conda-meta/meta-1.0-0.json"}
    assert paths(package(scanned, "native")) == {
        "conda-meta/native-1.0-0.json",
        *NATIVE,
        "lib/libnative.so",
    }


@pytest.mark.slow
def test_a_noarch_package_has_its_remapped_files_and_the_entry_points_made_at_link_time(environment: Path) -> None:
    pure = paths(package(scan(str(environment)), "pure"))
    assert {"bin/pure-tool", f"{SITE}/pure/__init__.py", f"{SITE}/pure-1.0.dist-info/METADATA"} <= pure


@pytest.mark.slow
def test_links_of_a_package_stay_links(environment: Path) -> None:
    scanned = scan(str(environment))
    assert file(scanned, "lib/python3.1").target == f"python{SHORT}"
    assert file(scanned, "lib/libnative.so").target == "libnative.so.1"


@pytest.mark.slow
def test_files_with_the_prefix_are_found_by_their_bytes(environment: Path) -> None:
    scanned = scan(str(environment))
    held = {path: file(scanned, path).holds for path in ("lib/libnative.so.1", "lib/pkgconfig/native.pc")}
    assert held == {"lib/libnative.so.1": "binary", "lib/pkgconfig/native.pc": "text"}
    assert file(scanned, "bin/pure-tool").holds == "text"


def test_the_interpreter_s_library_ships_once(environment: Path) -> None:
    """Not also as the archive for programs that embed Python, which is the same code again."""
    folder = environment / "lib" / f"python{SHORT}" / "config-3-x86_64-linux-gnu"
    folder.mkdir()
    (folder / "libpython3.a").write_bytes(b"!<arch>\n")
    (folder / "Makefile").write_text("")
    try:
        scanned = scan(str(environment))
    finally:
        shutil.rmtree(folder)
    path = f"lib/python{SHORT}/{folder.name}/libpython3.a"
    assert reasons(scanned)[path] == "only needed to build programs that embed Python"
    assert {each for each in shipped(scanned) if "config-3-" in each} == {f"lib/python{SHORT}/{folder.name}/Makefile"}


@pytest.mark.slow
def test_the_link_by_which_debians_python_reads_site_packages_is_the_package_s_that_records_it(
    environment: Path, tmp_path: Path
) -> None:
    link, module = (environment / f"lib/python{SHORT}" / name for name in ("dist-packages", "site.py"))
    if not is_debians():
        shutil.copy(module, tmp_path)
        module.write_text(f"# dist-packages\n{module.read_text()}")
        link.symlink_to("site-packages")
        (environment / "conda-meta/link-1.0-0.json").write_text(
            json.dumps({"name": "link", "version": "1.0", "build": "0", "files": [str(link.relative_to(environment))]})
        )
    try:
        scanned = scan(str(environment))
    finally:
        if not is_debians():
            link.unlink()
            shutil.copy(tmp_path / "site.py", module)
    assert findings(scanned, "missing") == []
    assert package(scanned, "python").origin == "conda"


@pytest.mark.slow
def test_no_history_and_no_package_cache_are_needed(environment: Path, channel: Path) -> None:
    (environment / "conda-meta" / "history").unlink(missing_ok=True)
    assert "meta" in {each.name for each in scan(str(environment)).packages if each.origin == "conda"}


@pytest.mark.slow
def test_pip_packages_stand_beside_conda_packages(environment: Path, tmp_path: Path) -> None:
    install(environment, wheel(tmp_path, "extra", "1.0", {"extra.py": ""}), by="pip")
    scanned = scan(str(environment))
    assert package(scanned, "extra").origin == "pypi"
    assert not findings(scanned, "replaced")


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.slow
def test_files_that_pip_replaced_ship_as_pip_s_and_the_stale_record_is_a_finding(
    environment: Path, tmp_path: Path, version: str
) -> None:
    # pip removes only packages with a list of files; conda's have one that pip follows.
    newer = wheel(tmp_path, "pure", version, {"pure/__init__.py": f"V = {version}\n", "pure/new.py": ""})
    install(environment, newer, by="pip", options=["--force-reinstall"])
    scanned = scan(str(environment))
    ours = package(scanned, "pure", "pypi")
    assert ours.version == version
    assert {f"{SITE}/pure/__init__.py", f"{SITE}/pure/new.py"} <= paths(ours)
    assert not paths(ours) & paths(package(scanned, "pure", "conda"))
    (found,) = findings(scanned, "replaced")
    assert f"pure {version}: installed by pip over conda's pure 1.0" in found.message


@pytest.mark.slow
def test_records_in_conda_s_own_manner_count_as_rattler_s(environment: Path) -> None:
    path = record(environment, "native")
    said = json.loads(path.read_text())
    for item in said["paths_data"]["paths"]:
        if item["path_type"] == "hardlink":
            content = (environment / item["_path"]).read_bytes()
            item["sha256_in_prefix"] = hashlib.sha256(content).hexdigest()
    said["files"].append("lib/cache.pyc")
    said["paths_data"]["paths"].append({"_path": "lib/cache.pyc", "path_type": "pyc_file"})
    path.write_text(json.dumps(said))
    assert not [finding for finding in scan(str(environment)).findings if finding.subject == "native"]
    (environment / "lib" / "pkgconfig" / "native.pc").write_text("by hand")
    (found,) = findings(scan(str(environment)), "patched")
    assert found.message == "lib/pkgconfig/native.pc: changed since native 1.0 was installed; ships as it is"


def test_the_older_record_with_names_alone_is_enough(environment: Path) -> None:
    path = record(environment, "native")
    said = json.loads(path.read_text())
    del said["paths_data"]
    path.write_text(json.dumps(said))
    assert set(NATIVE) <= paths(package(scan(str(environment)), "native"))


@pytest.mark.slow
def test_a_file_that_a_record_names_and_that_is_gone_is_a_finding(environment: Path) -> None:
    (environment / "etc" / "conda" / "activate.d" / "native.sh").unlink()
    (found,) = findings(scan(str(environment)), "missing")
    assert found.message == ("etc/conda/activate.d/native.sh: missing, though native 1.0 records it; reinstall native")


@pytest.mark.parametrize("text", ["{", "[]", '{"name": ""}', '{"name": "x", "paths_data": {"paths": [{}]}}', "\0"])
@pytest.mark.slow
def test_a_broken_record_is_that_package_s_finding_and_no_crash(environment: Path, text: str) -> None:
    (environment / "conda-meta" / "broken-1-0.json").write_text(text)
    (found,) = findings(scan(str(environment)), "record")
    assert found.subject == "conda-meta/broken-1-0.json"


@pytest.mark.slow
def test_a_package_may_have_three_names_and_is_one(environment: Path, tmp_path: Path) -> None:
    # As conda's py-opencv has it, which is opencv-python to pip and cv2 to Python.
    info = environment / SITE / "opencv_python-4.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: opencv-python\nVersion: 4.0\n")
    (info / "INSTALLER").write_text("conda\n")
    (environment / SITE / "cv2.py").write_text("")
    brought = [f"{SITE}/cv2.py", *(f"{SITE}/{info.name}/{name}" for name in ("METADATA", "INSTALLER"))]
    record = {"name": "py-opencv", "version": "4.0", "build": "h0", "files": brought, "depends": []}
    (environment / "conda-meta" / "py-opencv-4.0-h0.json").write_text(json.dumps(record))
    needs = ["OpenCV.Python>=4", "py-opencv"]
    install(environment, wheel(tmp_path, "uses", "1.0", {"uses.py": "import cv2\n"}, requires=needs))
    scanned = scan(str(environment))
    assert {each.name for each in scanned.packages} & {"py-opencv", "opencv-python", "cv2"} == {"py-opencv"}
    assert set(brought) <= paths(package(scanned, "py-opencv"))
    assert not findings(scanned, "requires")
    (found,) = findings(scan(str(environment), ScanOptions(ignore=("py-opencv",))), "requires")[:1]
    assert found.message == "uses 1.0 requires OpenCV.Python>=4, which is left out on request"


def test_tokens_and_passwords_of_channels_are_nowhere_in_what_the_scan_says(environment: Path) -> None:
    path = record(environment, "native")
    said = json.loads(path.read_text())
    said |= {"url": "https://me:pw@host/t/SECRET/chan/linux-64/native.conda", "channel": "https://host/t//chan"}
    path.write_text(json.dumps(said))
    scanned = scan(str(environment))
    assert package(scanned, "native").source == "https://host/chan/linux-64/native.conda"


@pytest.mark.parametrize("channel_said", ["<unknown>", "", "conda-forge", None])
def test_an_empty_channel_is_not_a_source(environment: Path, channel_said: str | None) -> None:
    path = record(environment, "native")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"url": "", "channel": channel_said}))
    assert package(scan(str(environment)), "native").source == ""


def test_the_base_environment_ships_without_its_package_cache_and_other_environments(environment: Path) -> None:
    for name in ("pkgs/a-1.0-0/info", "envs/other/conda-meta"):
        (environment / name).mkdir(parents=True)
        (environment / name / "file").write_text("x")
    scanned = scan(str(environment))
    assert {"pkgs", "envs"} <= set(reasons(scanned))
    assert not [path for path in shipped(scanned) if path.startswith(("pkgs", "envs"))]


def test_conda_s_log_of_commands_does_not_ship(environment: Path) -> None:
    (environment / "conda-meta" / "history").write_text("# cmd: conda install -c https://host/t/SECRET/chan x\n")
    scanned = scan(str(environment))
    assert "conda-meta/history" in reasons(scanned)
    assert "conda-meta/history" not in shipped(scanned)


def test_variables_that_an_environment_sets_ship_unless_one_is_a_secret(environment: Path) -> None:
    state = environment / "conda-meta" / "state"
    state.write_text('{"env_vars": {"MODE": "fast"}}')
    assert "conda-meta/state" in shipped(scan(str(environment)))
    state.write_text('{"env_vars": {"API_TOKEN": "CANARY"}}')
    assert "conda-meta/state" not in shipped(scan(str(environment)))


def test_activation_scripts_ship_with_their_package(environment: Path) -> None:
    assert "etc/conda/activate.d/native.sh" in paths(package(scan(str(environment)), "native"))


def test_a_dependency_that_is_not_installed_is_a_finding(environment: Path) -> None:
    record(environment, "native").unlink()
    (found,) = findings(scan(str(environment)), "requires")
    assert found.message == "meta 1.0 depends on native, which is not installed; install it"


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ("native >=1.0,<2.0a0", True),
        ("native >=1.1", False),
        ("native 1.0.* 0", True),
        ("native 1.0.* *_cp311", False),
        ("channel::native[version='!=1.0']", False),
        ("native >=,,<", True),
        ("__glibc >=99", True),
    ],
)
def test_a_dependency_of_another_version_or_build_is_a_finding(environment: Path, spec: str, fits: bool) -> None:
    meta = record(environment, "meta")
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"depends": [spec]}))
    said = [f"meta 1.0 depends on {spec}, but native 1.0 0 is installed; update one of them"]
    assert [finding.message for finding in findings(scan(str(environment)), "inconsistent")] == ([] if fits else said)


@pytest.mark.parametrize(("spec", "fits"), [("native >=1.0", True), ("native >=2", False), ("gone >=1", True)])
def test_a_package_that_goes_only_with_another_version_is_a_finding(environment: Path, spec: str, fits: bool) -> None:
    meta = record(environment, "meta")
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"constrains": [spec]}))
    said = [f"meta 1.0 constrains {spec}, but native 1.0 0 is installed; update one of them"]
    assert [finding.message for finding in findings(scan(str(environment)), "inconsistent")] == ([] if fits else said)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("__glibc >=2.0", ""),
        ("__glibc >=0", ""),
        ("__glibc >=99.1,<100", "nodes are checked for glibc "),
        ("__cuda >=12.0", "nodes are checked for the driver's libraries, but not their version"),
        ("__archspec 1.* *x86_64_v4", "nodes are checked for CPU level 1, which its files are marked with"),
        ("__archspec 1 x86_64", ""),
        ("__unix", ""),
    ],
)
def test_needs_of_the_system_beyond_the_checks_on_nodes_are_a_note(environment: Path, spec: str, said: str) -> None:
    """Whatever this machine has: it is not the one that runs."""
    meta = record(environment, "meta")
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"depends": ["native", spec]}))
    notes = [finding for finding in findings(scan(str(environment)), "requires") if finding.severity == "note"]
    expected = [f"meta 1.0 depends on {spec}, but {said}"] if said else []
    assert [finding.message[: len(start)] for finding, start in zip(notes, expected, strict=True)] == expected


def test_a_channel_s_token_in_a_dependency_is_not_shown(environment: Path) -> None:
    meta = record(environment, "meta")
    depends = ["https://me:CANARY@host/t/CANARY/c::native >=9", "gone[url='https://CANARY@host/gone.conda']"]
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"depends": depends}))
    said = findings(scan(str(environment)), "inconsistent") + findings(scan(str(environment)), "requires")
    assert [finding.message.partition(",")[0] for finding in said] == [
        "meta 1.0 depends on native >=9",
        "meta 1.0 depends on gone",
    ]


@pytest.mark.parametrize("name", ["initial-state.explicit.txt", "pinned", "a-tool's-own/file.txt"])
def test_of_conda_s_own_folder_only_records_and_variables_ship(environment: Path, name: str) -> None:
    path = environment / "conda-meta" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("https://host/t/CANARY/c::x")
    assert not [path for path in shipped(scan(str(environment))) if path.startswith(f"conda-meta/{name}")]


def test_records_of_missing_packages_do_not_ship(environment: Path) -> None:
    shutil.copy(record(environment, "native"), environment / "conda-meta" / "native-0.9-0.json")
    (environment / "conda-meta" / "broken-1-0.json").write_text('{"url": "https://me:CANARY@host/x", ')
    scanned = scan(str(environment))
    records = {path for path in shipped(scanned) if path.startswith("conda-meta/native") or "broken" in path}
    assert len(records) == 1
    reason = "a conda record of a package that is not installed"
    assert [path for path, why in reasons(scanned).items() if why == reason] == [
        "conda-meta/broken-1-0.json",
        *({"conda-meta/native-0.9-0.json", "conda-meta/native-1.0-0.json"} - records),
    ]


def test_without_rattler_the_names_of_dependencies_are_still_checked(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = record(environment, "meta")
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"depends": ["native >=9", "gone >=1"]}))
    monkeypatch.setattr("lamella.builder.installed.conda_specs.available", lambda: False)
    scanned = scan(str(environment))
    assert [finding.message for finding in findings(scanned, "requires")] == [
        "meta 1.0 depends on gone >=1, which is not installed; install it"
    ]
    assert not findings(scanned, "inconsistent")


def test_record_of_a_noarch_package_as_conda_writes_it_misses_no_file(environment: Path) -> None:
    path = record(environment, "pure")
    content = json.loads(path.read_text())
    for item in content["paths_data"]["paths"]:
        at = item["_path"].find("site-packages/")
        item["_path"] = item["_path"][max(at, 0) :]
    path.write_text(json.dumps(content))
    (found,) = [each for each in conda_packages(str(environment))[0] if each.name == "pure"]
    assert not [name for name in found.files or () if name.startswith("site-packages/")]
    scanned = scan(str(environment))
    assert not findings(scanned, "missing")
    assert not findings(scanned, "patched")


def test_two_records_of_one_package_are_one_package(environment: Path) -> None:
    shutil.copy(record(environment, "native"), environment / "conda-meta" / "native-0.9-0.json")
    packages, said = conda_packages(str(environment))
    assert [each.name for each in packages].count("native") == 1
    assert [finding.kind for finding in said] == ["duplicate"]


def test_a_package_whose_files_are_links_into_the_cache_ships_their_bytes(environment: Path, tmp_path: Path) -> None:
    path = environment / "lib" / "pkgconfig" / "native.pc"
    shutil.move(path, tmp_path / "native.pc")
    path.symlink_to(tmp_path / "native.pc")
    found = file(scan(str(environment)), "lib/pkgconfig/native.pc")
    assert (found.target, found.source) == (None, str(tmp_path / "native.pc"))


def test_the_interpreter_of_a_conda_environment_is_conda_s_package(environment: Path) -> None:
    scanned = scan(str(environment))
    assert f"bin/python{SHORT}" in paths(package(scanned, "python", "conda"))
    assert scanned.interpreter.base_prefix == str(environment)
    assert sys.version_info[:2] == tuple(map(int, SHORT.split(".")))


@pytest.mark.slow
def test_a_venv_over_conda_ships_conda_s_libraries_and_not_the_system_s(environment: Path, tmp_path: Path) -> None:
    over = str(venv(tmp_path / "env", python=str(environment / "bin" / "python")))
    of_system = {each.path: each.source for each in package(scan(over), "system-libraries").files}
    path, source = next(iter(of_system.items()))
    conda_s = environment / "lib" / path.rpartition("/")[2]
    shutil.copy(source, conda_s)
    scanned = scan(over)
    conda_s.unlink()
    assert file(scanned, path).source == str(conda_s)
    assert {each.path for each in package(scanned, "system-libraries").files} == set(of_system)
    assert package(scanned, "python").origin == "python"
