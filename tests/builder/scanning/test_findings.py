"""Findings of a scan: each is reported, and only if it is true."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from lamella.builder.errors import CannotBuild
from lamella.builder.files.read import FileContent
from lamella.builder.installed.distributions import Distribution
from lamella.builder.layer.cache import LayerCache
from lamella.builder.prefix.walk import FoundFile
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.builder.scanning.findings import blocking_findings, unowned
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.ownership import own
from lamella.builder.scanning.scan import scan
from support.conda import SHORT, conda_environment, conda_package, python_package
from support.engines import need, need_root
from support.installed import install, venv, wheel
from support.scanned import SITE, findings, package, paths, reasons, shipped

pytestmark = pytest.mark.slow

BASE = "Metadata-Version: 2.1\nName: {}\nVersion: 1.0\n"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return venv(tmp_path / "env")


@pytest.fixture(scope="module")
def conda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conda-findings") / "channel"
    python_package(folder, small=True)
    metadata = {"site-packages/torch-1.0.dist-info/METADATA": BASE.format("torch")}
    conda_package(folder, "pytorch", {"site-packages/torch/__init__.py": "", **metadata}, noarch="python")
    conda_package(folder, "uses", {}, depends=["pytorch"])
    conda_package(folder, "one", {"share/shared.txt": "one", "share/same.txt": ""})
    conda_package(folder, "two", {"share/other.txt": "two"})
    return conda_environment(folder.parent / "env", folder, ["python", "pytorch", "uses", "one", "two"])


def dist(site: Path, name: str, *files: str, requires: str = "", where: str = "") -> Path:
    """Metadata of a distribution that records `files`."""
    info = site / where / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(BASE.format(name) + (f"Requires-Dist: {requires}\n" if requires else ""))
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    return info


# The prefix


def test_a_file_that_has_the_prefix_compiled_in_is_named_with_its_package(made: Path) -> None:
    site = made / SITE
    (site / "tool.so").write_bytes(b"\0" + os.fsencode(made) + b"/share/data\0\0\0\0")
    dist(site, "tool", "tool.so")
    (found,) = findings(scan(str(made), ScanOptions(image_prefix="/srv/env")), "prefix")
    assert (found.severity, found.subject) == ("warning", "tool")
    assert found.message == (
        f"{SITE}/tool.so: cannot find its data on nodes: {made} is compiled in, without the padding that conda "
        "packages have for another prefix (/srv/env)"
    )


def test_byte_code_and_text_that_name_the_prefix_are_not_findings(made: Path) -> None:
    site = made / SITE
    (site / "alone.pyc").write_bytes(b"\0" + os.fsencode(made) + b"/alone.py\0")
    (site / "config.py").write_text(f"HERE = '{made}'\n")
    assert not findings(scan(str(made)), "prefix")


def test_a_string_of_a_conda_package_without_room_is_found_before_a_push_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "channel"
    python_package(folder, small=True)
    conda_package(folder, "native", {"lib/libnative.so.1": b"text"})
    environment = conda_environment(tmp_path / "e", folder, ["python", "native"])
    string = os.fsencode(environment) + b"/share"
    (environment / "lib" / "libnative.so.1").write_bytes(b"\0" + string + b"\0next")
    long = "/opt/" + "long" * 40
    (found,) = findings(scanned := scan(str(environment), ScanOptions(image_prefix=long)), "prefix")
    assert (found.severity, found.subject) == ("error", "native")
    assert found.message.startswith("lib/libnative.so.1: no room for /opt/longlong")
    assert "choose a shorter image prefix" in found.message
    with pytest.raises(CannotBuild, match="choose a shorter image prefix"):
        push(f"oci:{tmp_path}/out:x", scanned, PushOptions(image_prefix=long), cache=LayerCache(str(tmp_path / "c")))
    assert not findings(scan(str(environment)), "prefix")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (b".wh.data", "in which names that begin with '.wh.' delete files"),
        (b"\xff.bin", "in which names are UTF-8"),
        (b"/".join([b"d"] * 130), "which is less than 128 folders deep"),
    ],
)
def test_a_name_that_an_image_can_t_hold_is_an_error_though_a_package_owns_it(
    made: Path, tmp_path: Path, name: bytes, problem: str
) -> None:
    path = Path(os.fsdecode(os.fsencode(made / SITE) + b"/" + name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    dist(made / SITE, "odd", ".wh.data")
    scanned = scan(str(made))
    (found,) = findings(scanned, "name")
    assert found.severity == "error"
    assert found.message == f"{SITE}/{os.fsdecode(name)}: cannot be in an image, {problem}; rename it or leave it out"
    with pytest.raises(CannotBuild, match="cannot be in an image"):
        push(f"oci:{tmp_path}/out:x", scanned, cache=LayerCache(str(tmp_path / "c")))
    assert not (tmp_path / "out" / "index.json").exists()


# Owners


def test_two_conda_packages_with_one_path_are_a_finding(conda: Path) -> None:
    (record,) = (conda / "conda-meta").glob("two-*.json")
    before = record.read_text()
    said = json.loads(before)
    for name in ("shared", "same"):
        content = (conda / "share" / f"{name}.txt").read_bytes()
        digest = hashlib.sha256(content if name == "same" else b"another").hexdigest()
        entry = {"_path": f"share/{name}.txt", "path_type": "hardlink", "sha256": digest, "sha256_in_prefix": digest}
        said["paths_data"]["paths"].append(entry)
    record.write_text(json.dumps(said))
    scanned = scan(str(conda))
    record.write_text(before)
    assert {(each.severity, each.message) for each in findings(scanned, "owners")} == {
        ("warning", "share/shared.txt: claimed by one and by two; ships with one, whose record matches it"),
        ("note", "share/same.txt: claimed by one and by two; ships with one"),
    }


def test_a_contested_path_that_matches_no_record_is_reported_without_a_match(made: Path) -> None:
    site = made / SITE
    for name, digest in (("one", b"1"), ("two", b"2")):
        info = dist(site, name)
        text = base64.urlsafe_b64encode(hashlib.sha256(digest).digest()).decode().rstrip("=")
        (info / "RECORD").write_text(f"shared.py,sha256={text},1\n")
    (site / "shared.py").write_text("3")
    (found,) = findings(scan(str(made)), "owners")
    assert found.message.endswith("; ships with one")


def test_files_behind_a_recorded_link_to_a_folder_belong_to_its_package(made: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.txt").write_text("x")
    (tmp_path / "data" / "unrecorded.txt").write_text("")
    (made / SITE / "proj").mkdir()
    (made / SITE / "proj" / "out").symlink_to(tmp_path / "data")
    text = base64.urlsafe_b64encode(hashlib.sha256(b"x").digest()).decode().rstrip("=")
    dist(made / SITE, "proj", "proj/out", f"proj/out/x.txt,sha256={text}")
    scanned = scan(str(made))
    assert f"{SITE}/proj/out/x.txt" in paths(package(scanned, "proj"))
    assert f"{SITE}/proj/out/unrecorded.txt" not in shipped(scanned)
    assert not findings(scanned, "missing")
    assert not findings(scanned, "unowned")


def test_debian_s_own_packages_are_not_checked_and_what_pip_put_beside_them_is(tmp_path: Path) -> None:
    entries = {}
    for name in ("debians", "pips"):
        path = f"{SITE}/{name}-1.0.dist-info/METADATA"
        entries[path] = FoundFile(
            path, f"/usr/lib/python3/dist-packages/{name}-1.0.dist-info/METADATA", os.stat(tmp_path)
        )
    found = [
        Distribution("pypi", name, "1.0", f"{SITE}/{name}-1.0.dist-info", {f"{SITE}/gone.py": ""}, installer=installer)
        for name, installer in (("debians", ""), ("pips", "pip"))
    ]
    contents = {entry.source: FileContent("", "", "") for entry in entries.values()}
    said = own(found, entries, contents, lambda _: False).findings
    assert [(each.kind, each.subject) for each in said] == [("missing", "pips")]


# Links


def test_link_to_a_file_of_its_own_project_is_a_note(made: Path, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "data.txt").write_text("")
    (tmp_path / "src" / "data.txt").symlink_to("../data.txt")
    (made / SITE / "app.pth").write_text(f"{tmp_path}/src\n")
    (found,) = findings(scan(str(made)), "links")
    assert (found.severity, found.message) == (
        "note",
        f"{SITE}/data.txt: ships as a copy of the file outside the environment that it links to, {tmp_path}/data.txt",
    )


def test_links_of_installers_into_their_caches_are_not_findings(tmp_path: Path) -> None:
    environment = venv(tmp_path / "env", by="uv")
    alpha = wheel(tmp_path, "alpha", "1.0", {"alpha/__init__.py": ""})
    install(environment, alpha, by="uv", options=["--link-mode", "symlink"])
    assert (environment / SITE / "alpha" / "__init__.py").is_symlink()
    assert not findings(scan(str(environment)), "links")


# Unowned modules


def test_unowned_modules_of_debian_and_easy_install_are_notes() -> None:
    sources = {
        "apt_inst.py": "/usr/lib/python3/dist-packages/apt_inst.py",
        "easy-install.pth": "/srv/env/easy-install.pth",
        "own.py": "/usr/local/lib/python3.11/dist-packages/own.py",
    }
    entries = [FoundFile(f"{SITE}/{name}", source, os.stat(os.curdir)) for name, source in sources.items()]
    severities = {each.subject.rpartition("/")[2]: each.severity for each in unowned(entries, SITE)}
    assert severities == {"apt_inst.py": "note", "easy-install.pth": "note", "own.py": "warning"}


# The interpreter


def test_a_venv_whose_interpreter_became_another_version_is_an_error(made: Path) -> None:
    old = made / "lib" / "python3.7" / "site-packages"
    (made / SITE).parent.rename(old.parent)
    configuration = made / "pyvenv.cfg"
    said = [line for line in configuration.read_text().splitlines() if not line.startswith("version")]
    configuration.write_text("\n".join([*said, "version = 3.7.9"]) + "\n")
    (found,) = findings(scan(str(made)), "interpreter")
    assert found.severity == "error"
    assert f"{made}: made for Python 3.7, but its interpreter is now {SHORT}." in found.message
    assert found.message.endswith(", which imports nothing from lib/python3.7; make the environment again")


def test_a_venv_with_its_original_interpreter_has_no_finding(tmp_path: Path) -> None:
    for by in ("pip", "uv"):
        assert not findings(scan(str(venv(tmp_path / by, by=by))), "interpreter")


# Packages left out on request


def test_a_requirement_on_a_left_out_package_is_a_note(made: Path) -> None:
    dist(made / SITE, "big")
    dist(made / SITE, "needs", requires="Big>=1")
    scanned = scan(str(made), ScanOptions(ignore=("BIG",)))
    (found,) = findings(scanned, "requires")
    assert (found.severity, found.subject) == ("note", "needs")
    assert found.message == "needs 1.0 requires Big>=1, which is left out on request"
    assert not blocking_findings(scanned, "warning")


def test_a_left_out_package_has_no_findings(made: Path) -> None:
    dist(made / SITE, "big", "gone.py", ".netrc", requires="absent")
    (made / SITE / ".netrc").write_text("machine x password y")
    assert {each.kind for each in scan(str(made)).findings} >= {"missing", "requires"}
    assert scan(str(made), ScanOptions(ignore=("big",))).findings == ()


def test_distributions_in_a_left_out_conda_package_are_left_out_too(conda: Path) -> None:
    scanned = scan(str(conda), ScanOptions(ignore=("pytorch",)))
    (found,) = findings(scanned, "requires")
    assert found.message == "uses 1.0 depends on pytorch, which is left out on request"
    assert not [path for path in shipped(scanned) if "torch" in path]


@pytest.mark.root
def test_a_package_that_cannot_be_read_can_be_left_out(made: Path) -> None:
    need_root()
    closed = made / SITE / "closed.py"
    closed.write_text("")
    dist(made / SITE, "closed", "closed.py")
    # No mode closes a file to root; no file of another process's memory opens at its beginning.
    subprocess.run(["mount", "--bind", f"/proc/{os.getpid()}/mem", closed], check=True)
    try:
        with pytest.raises(CannotBuild, match=r"cannot read .*closed\.py"):
            scan(str(made))
        scanned = scan(str(made), ScanOptions(ignore=("closed",)))
    finally:
        subprocess.run(["umount", closed], check=True)
    assert "closed" not in {each.name for each in scanned.packages}
    assert reasons(scanned)[f"{SITE}/closed.py"] == "part of closed, left out on request"


@pytest.mark.parametrize("name", ["python", "unowned", "system-libraries"])
def test_every_package_of_a_scan_can_be_left_out(name: str, made: Path, tmp_path: Path) -> None:
    (made / SITE / "stray.py").write_text("")
    assert name in {each.name for each in scan(str(made)).packages}
    scanned = scan(str(made), ScanOptions(ignore=(name,)))
    assert name not in {each.name for each in scanned.packages}
    assert [each.severity for each in findings(scanned, "ignore")] == (["note"] if name == "python" else [])
    pushed = push(f"oci:{tmp_path}/out:x", scanned, cache=LayerCache(str(tmp_path / "cache")))
    assert pushed.built == len(scanned.packages)


def test_no_system_library_ships_in_the_place_of_one_that_is_left_out(made: Path) -> None:
    site = made / SITE
    (site / "x.c").write_text("int answer(void) { return 42; }\n")
    for name in ("libheld.so.1", "module.so"):
        others = [str(site / "libheld.so.1"), "-Wl,--no-as-needed"] if name == "module.so" else []
        named = f"-Wl,-soname,{name},-rpath,$ORIGIN"
        command = [need("gcc"), "-shared", "-fPIC", "-o", str(site / name), str(site / "x.c"), named]
        subprocess.run([*command, "-Wl,--no-as-needed", *others], check=True)
    (site / "x.c").unlink()
    dist(site, "held", "libheld.so.1")
    dist(site, "uses", "module.so")
    scanned = scan(str(made), ScanOptions(ignore=("held",)))
    assert not [path for path in shipped(scanned) if "libheld" in path]
    (found,) = findings(scanned, "libraries")
    assert (found.severity, found.subject) == ("note", "uses")
    assert found.message == f"libheld.so.1: needed by {SITE}/module.so, but left out on request"


# Which findings forbid a push


def test_all_findings_of_a_strict_package_count_those_of_its_files_too(made: Path) -> None:
    (made / SITE / "one.so").write_bytes(b"\0" + os.fsencode(made) + b"\0")
    dist(made / SITE, "one", "one.so")
    dist(made / SITE, "two", requires="gone")
    scanned = scan(str(made))
    assert [each.kind for each in blocking_findings(scanned, strict=["One"])] == ["prefix"]
    assert [each.kind for each in blocking_findings(scanned, strict=["two"])] == ["requires"]
