"""The verbs as processes: stdout, stderr, exit codes, --json and --dry-run."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import Index
from lamella.layers.oci.storage import fetch_document
from support.engines import need_root
from support.installed import install, venv, wheel
from support.processes import started
from support.projects import project

pytestmark = pytest.mark.slow

FILES = {"alpha/__init__.py": "VALUE = 41\n", "alpha/more.py": "import alpha\n" * 500}


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with two small packages."""
    folder = tmp_path_factory.mktemp("verbs")
    alpha = wheel(folder, "alpha", "1.0", FILES, entry_points="[console_scripts]\nalpha = alpha:main\n")
    beta = wheel(folder, "beta", "2.0", {"beta.py": "import alpha\n"}, requires=["alpha>=1"])
    return install(venv(folder / "env", by="uv"), alpha, beta, by="uv")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> dict[str, str]:
    """A store for this module, and the cache of the whole run, so that the interpreter's layer is built once."""
    return {"LAMELLA_STORE": str(tmp_path_factory.mktemp("node") / "store"), "LAMELLA_CACHE": str(shared / "cache")}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry") / "layout"


class Command:
    """Run `lamella` with the module's store and cache."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.settings = settings

    def __call__(
        self, *arguments: object, cwd: Path | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lamella.cli", *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            env=os.environ | self.settings,
            # A folder without code, since local code would ship.
            cwd=cwd or os.path.dirname(self.settings["LAMELLA_STORE"]),
        )

    def json(self, *arguments: object) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def lamella(settings: dict[str, str]) -> Command:
    return Command(settings)


@pytest.fixture(scope="module")
def reference(lamella: Command, prefix: Path, layout: Path) -> str:
    """The environment, pushed to a layout, as the push's own result names it."""
    done = lamella("push", f"oci:{layout}:v1", prefix)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_scan_shows_packages_with_origin_files_and_size_and_the_total(lamella: Command, prefix: Path) -> None:
    done = lamella("scan", prefix)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == str(prefix)
    assert f"cpython {sys.version.split()[0]} on linux/" in lines[1]
    assert lines[3].split() == ["Package", "Version", "Origin", "Files", "Size"]
    words = {line.split()[0]: line.split()[1:4] for line in lines[4:] if line.split()[1:2]}
    assert words["alpha"][:2] == ["1.0", "pypi"]
    assert words["python"][1] == "python"
    assert any(" packages, " in line and " files, " in line for line in lines)


def test_scan_as_json_has_every_package_finding_and_path_left_out(lamella: Command, prefix: Path) -> None:
    document = lamella.json("scan", prefix)
    alpha = next(package for package in document["packages"] if package["name"] == "alpha")
    assert (alpha["version"], alpha["origin"]) == ("1.0", "pypi")
    assert alpha["files"] >= 2
    assert alpha["size"] >= len(FILES["alpha/more.py"])
    assert document["prefix"] == str(prefix)
    assert all(left["reason"] for left in document["left_out"])
    assert isinstance(document["findings"], list)


def test_scan_lists_the_paths_left_out_with_left_out(lamella: Command, prefix: Path) -> None:
    assert "bin/activate" not in lamella("scan", prefix).stdout
    assert "bin/activate" in lamella("scan", prefix, "--left-out").stdout


def test_scan_on_a_terminal_prints_the_same_words_in_colour(
    prefix: Path, settings: dict[str, str], lamella: Command
) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lamella.cli", "scan", str(prefix)]
    environment = os.environ | settings | {"TERM": "xterm-256color", "COLUMNS": "200"}
    shown = b""
    with started(
        command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=environment, cwd=prefix.parent
    ) as process:
        os.close(theirs)
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # the command closed the terminal
                break
            if not chunk:
                break
            shown += chunk
        os.close(ours)
        assert process.wait() == 0
    assert b"\x1b[" in shown
    plain = lamella("scan", prefix).stdout
    for word in plain.split():
        assert word.encode() in shown


def test_push_prints_only_the_pinned_reference_to_stdout(
    lamella: Command, prefix: Path, layout: Path, reference: str
) -> None:
    again = lamella("push", f"oci:{layout}:v1", prefix)
    assert again.stdout == f"{reference}\n"
    assert reference.startswith(f"oci:{layout}:v1@sha256:")
    assert "nothing changed, nothing uploaded" in again.stderr
    assert lamella("push", f"oci:{layout}:v1", prefix, "--quiet").stderr == ""


def test_push_names_the_environment_and_its_python(
    lamella: Command, prefix: Path, layout: Path, reference: str, tmp_path: Path
) -> None:
    version = sys.version.split()[0]
    for named in (prefix, os.path.relpath(prefix)):
        done = lamella("push", f"oci:{layout}:v1", named, cwd=Path.cwd())
        assert f"environment {prefix}: Python {version} on linux/" in done.stderr
    (tmp_path / ".venv").symlink_to(prefix)
    (tmp_path / "deep").mkdir()
    # The package's own environment on PATH is not taken for the project's.
    done = lamella("push", f"oci:{layout}:v1", "--json", "--no-local", cwd=tmp_path / "deep")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["prefix"], document["python"]) == (str(tmp_path / ".venv"), version)


def test_push_dry_run_shows_the_plan_and_changes_nothing(lamella: Command, prefix: Path, tmp_path: Path) -> None:
    done = lamella("push", f"oci:{tmp_path}/new:v1", prefix, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "alpha 1.0" in done.stdout
    assert not (tmp_path / "new").exists()
    document = lamella.json("push", f"oci:{tmp_path}/new:v1", prefix, "--dry-run")
    assert document["dry_run"] is True
    assert document["uploaded"] == {"layers": 0, "bytes": 0}
    assert {layer["action"] for layer in document["layers"]} <= {"build", "upload"}


def test_push_rejects_a_variable_without_a_value(lamella: Command, prefix: Path, layout: Path) -> None:
    done = lamella("push", f"oci:{layout}:v1", prefix, "--env", "NAME")
    assert (done.returncode, done.stderr) == (2, "lamella: --env NAME: not NAME=VALUE\n")


def test_inspect_as_json_has_the_digests_and_sizes_of_every_package(lamella: Command, reference: str) -> None:
    document = lamella.json("inspect", reference)
    assert document["reference"] == reference
    (platform,) = document["platforms"]
    assert platform["prefix"] == "/opt/env"
    assert platform["python"] == sys.version.split()[0]
    packages = {package["name"]: package for package in platform["packages"]}
    assert {"alpha", "beta", "python"} <= set(packages)
    alpha = packages["alpha"]
    assert (alpha["version"], alpha["origin"]) == ("1.0", "pypi")
    assert alpha["digest"].startswith("sha256:")
    assert alpha["diff_id"].startswith("sha256:")
    assert alpha["digest"] != alpha["diff_id"]
    assert 0 < alpha["size"] < alpha["unpacked"]
    assert platform["size"] == sum(package["size"] for package in platform["packages"])


def test_inspect_shows_packages_largest_first(lamella: Command, reference: str) -> None:
    lines = lamella("inspect", reference).stdout.splitlines()
    assert lines[0] == reference
    names = [line.split()[0] for line in lines if " pypi " in line or " python " in line]
    assert names.index("python") < names.index("alpha") < names.index("beta")


def test_inspect_shows_the_other_tags_that_share_a_layer(lamella: Command, reference: str, tmp_path: Path) -> None:
    place = f"oci:{tmp_path}/layout"
    for tag in ("v1", "v2"):
        assert lamella("copy", reference, f"{place}:{tag}").returncode == 0
    lines = lamella("inspect", f"{place}:v1").stdout.splitlines()
    assert any("Also in" in line for line in lines)
    assert "every layer is shared with another tag" in lines
    (environment,) = lamella.json("inspect", f"{place}:v1")["platforms"]
    assert {tuple(package["shared"]) for package in environment["packages"]} == {("v2",)}


def test_pull_downloads_what_its_dry_run_showed_and_nothing_the_second_time(
    lamella: Command, reference: str, tmp_path: Path
) -> None:
    store = ("--store", tmp_path / "store")
    planned = lamella("pull", reference, *store, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "alpha" in planned.stdout
    assert list((tmp_path / "store").glob("layers/*/*")) == []

    first = lamella.json("pull", reference, *store)
    again = lamella.json("pull", reference, *store)
    assert first["reference"] == again["reference"] == reference
    assert first["downloaded"]["layers"] == again["present"]["layers"] > 3
    assert first["downloaded"]["bytes"] > 0
    assert again["downloaded"] == {"layers": 0, "bytes": 0}
    assert lamella("pull", reference, *store).stdout == f"{reference}\n"


def test_run_passes_on_the_commands_input_output_and_exit_code(lamella: Command, reference: str) -> None:
    program = "import alpha, sys; print(alpha.VALUE, sys.stdin.read(), sys.prefix); sys.exit(5)"
    done = lamella("run", reference, "--quiet", "--", "python", "-c", program, stdin="typed")
    assert (done.stdout, done.stderr, done.returncode) == ("41 typed /opt/env\n", "", 5)


def test_run_as_json_leaves_stdout_to_the_command(lamella: Command, reference: str) -> None:
    done = lamella("run", reference, "--json", "--quiet", "--", "python", "-c", "print('mine')")
    assert done.stdout == "mine\n"
    assert json.loads(done.stderr)["exit_code"] == 0


def test_run_without_a_command_is_a_usage_error_with_an_example(lamella: Command, reference: str) -> None:
    done = lamella("run", reference)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == ("lamella: run: missing command; use lamella run REFERENCE -- python script.py\n")


def test_run_of_a_missing_command_exits_with_127(lamella: Command, reference: str) -> None:
    done = lamella("run", reference, "--quiet", "--", "no-such-command")
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr.startswith("lamella: no-such-command: no such command")


@pytest.mark.root
def test_mount_prints_the_folder_and_umount_removes_it(lamella: Command, reference: str, tmp_path: Path) -> None:
    need_root()
    target = tmp_path / "target"
    done = lamella("mount", reference, target, "--explain")
    try:
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == str(target)
        assert "used" in done.stdout
        assert (target / "bin/python").exists()
        assert lamella.json("umount", target, "--dry-run")["reference"] == reference
    finally:
        gone = lamella("umount", target)
    assert gone.returncode == 0, gone.stderr
    assert not target.exists()


def test_umount_of_a_folder_without_an_environment_fails(lamella: Command, tmp_path: Path) -> None:
    done = lamella("umount", tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"lamella: {tmp_path}: no environment of the store {lamella.settings['LAMELLA_STORE']} is mounted here; "
        "lamella ls lists the mounts of a store, and --store names another\n"
    )


def test_project_settings_count_without_a_flag(lamella: Command, prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.lamella]\nimage-prefix = '/srv/here'\n")
    assert lamella("push", "oci:layout:v1", prefix, cwd=tmp_path).returncode == 0
    document = json.loads(lamella("inspect", "oci:layout:v1", "--json", cwd=tmp_path).stdout)
    assert document["platforms"][0]["prefix"] == "/srv/here"


def test_push_fails_if_a_strict_package_is_missing(lamella: Command, prefix: Path, tmp_path: Path) -> None:
    assert lamella("scan", prefix, "--strict", "Alpha").returncode == 0
    done = lamella("push", f"oci:{tmp_path}/layout:v1", prefix, "--strict", "gamma", "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "lamella: nothing pushed: --strict: gamma: not in the environment, and must ship; install it\n"
    )
    assert not (tmp_path / "layout").exists()


def test_scan_fails_if_a_finding_is_as_severe_as_fail_on(lamella: Command, prefix: Path, tmp_path: Path) -> None:
    beta = wheel(tmp_path, "beta", "2.0", {"beta.py": ""}, requires=["alpha>=1"])
    lacking = install(venv(tmp_path / "env", by="uv"), beta, by="uv")
    failed = lamella("scan", lacking, "--fail-on", "warning")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == (
        "lamella: --fail-on warning: 1 error; see above, or all of them with --all"
    )
    assert "beta 2.0 requires alpha>=1, which is not installed; install it" in " ".join(failed.stdout.split())
    assert lamella("scan", prefix, "--fail-on", "warning").returncode == 0


def test_a_requirement_left_out_with_ignore_is_a_note_and_not_a_failure(lamella: Command, prefix: Path) -> None:
    document = lamella.json("scan", prefix, "--ignore", "alpha", "--fail-on", "warning")
    assert "alpha" not in {package["name"] for package in document["packages"]}
    (found,) = document["findings"]
    assert (found["severity"], found["message"]) == (
        "note",
        "beta 2.0 requires alpha>=1, which is left out on request",
    )


def test_scan_shows_the_requirements_on_a_node(lamella: Command, prefix: Path) -> None:
    document = lamella.json("scan", prefix)
    assert document["cpu_level"] in (1, 2, 3, 4)
    assert document["drivers"] == []
    assert f", requires glibc {document['glibc']}" in lamella("scan", prefix).stdout.splitlines()[1]


def test_local_ships_a_folder_and_no_local_does_not(lamella: Command, prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'mine'\nversion = '3'\n")
    (tmp_path / "mine.py").write_text("X = 1\n")
    packages = lamella.json("scan", prefix, "--local", tmp_path)["packages"]
    assert [(package["name"], package["version"]) for package in packages if package["origin"] == "local"] == [
        ("mine", "3")
    ]
    without = lamella.json("scan", prefix, "--local", tmp_path, "--no-local")["packages"]
    assert [package for package in without if package["origin"] == "local"] == []


def test_sbom_of_an_unchanged_environment_is_reported_once(lamella: Command, prefix: Path, tmp_path: Path) -> None:
    place = f"oci:{tmp_path}/layout:v1"
    assert "no C library: for docker run" in lamella("push", place, prefix).stderr
    attached = lamella("push", place, prefix, "--sbom").stderr
    assert re.search(r"nothing changed, attached the bill of materials \(\d.* k?B\); ", attached)
    assert "no C library" not in attached
    again = lamella("push", place, prefix, "--sbom")
    assert "nothing changed, nothing uploaded" in again.stderr
    assert lamella.json("push", place, prefix, "--sbom")["attached"] == []
    changed = lamella("push", place, prefix, "--env", "A=1").stderr
    assert "nothing changed" not in changed
    assert "no C library" not in changed, "said once for each tag"


def test_push_lists_the_findings_that_are_errors(lamella: Command, tmp_path: Path) -> None:
    beta = wheel(tmp_path, "beta", "2.0", {"beta.py": ""}, requires=["alpha>=1"])
    lacking = install(venv(tmp_path / "env", by="uv"), beta, by="uv")
    message = "beta 2.0 requires alpha>=1, which is not installed; install it"
    done = lamella("push", f"oci:{tmp_path}/layout:v1", lacking)
    assert f"error: {message}" in done.stderr.splitlines()
    (error,) = lamella.json("push", f"oci:{tmp_path}/layout:v1", lacking)["errors"]
    assert (error["severity"], error["message"]) == ("error", message)


def test_sbom_attaches_a_bill_of_materials(lamella: Command, prefix: Path, tmp_path: Path) -> None:
    place = f"oci:{tmp_path}/layout:v1"
    assert lamella("push", place, prefix, "--sbom").returncode == 0
    document = json.loads(lamella("inspect", place, "--sbom").stdout)
    assert document["bomFormat"] == "CycloneDX"
    assert "alpha" in {component["name"] for component in document["components"]}
    done = lamella("inspect", place, "--sbom", "--platform", "linux/s390x")
    assert done.returncode == 1
    assert "no environment for linux/s390x" in done.stderr


def test_push_sets_annotations_and_the_creation_time(lamella: Command, prefix: Path, tmp_path: Path) -> None:
    flags = ["--annotation", "org.opencontainers.image.source=https://example.org/x?a=b", "--created", "now"]
    done = lamella("push", f"oci:{tmp_path}/layout:v1", prefix, *flags, "--max-layers", "500")
    assert done.returncode == 0
    assert "--max-layers 500: Docker accepts at most 125 layers" in done.stderr
    layout = OciLayout(f"{tmp_path}/layout")
    annotations = Index.parse(fetch_document(layout, layout.resolve("v1"))).annotations
    assert annotations["org.opencontainers.image.source"] == "https://example.org/x?a=b"
    assert annotations["org.opencontainers.image.created"] > "2026"
    wrong = lamella("push", f"oci:{tmp_path}/layout:v1", prefix, "--annotation", "x")
    assert (wrong.returncode, wrong.stderr) == (2, "lamella: --annotation x: not NAME=VALUE\n")


def test_an_unreadable_signing_key_fails_before_the_push(lamella: Command, prefix: Path, tmp_path: Path) -> None:
    for flags in ([], ["--dry-run"]):
        done = lamella("push", f"oci:{tmp_path}/layout:v1", prefix, "--sign", f"{tmp_path}/none.pem", *flags)
        assert done.returncode == 2
        assert "can't read the key" in done.stderr
    assert not (tmp_path / "layout").exists()


def test_inspect_without_a_bill_of_materials_names_the_option_that_attaches_one(
    lamella: Command, reference: str
) -> None:
    done = lamella("inspect", reference, "--sbom")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"lamella: {reference}: no bill of materials; attach one with lamella push --sbom\n"


def test_inspect_counts_and_shows_the_attached_findings(lamella: Command, tmp_path: Path) -> None:
    beta = wheel(tmp_path, "beta", "2.0", {"beta.py": ""}, requires=["alpha>=1"])
    prefix = install(venv(tmp_path / "env", by="uv"), beta, by="uv")
    place = f"oci:{tmp_path}/layout:v1"
    pushed = lamella("push", place, prefix)
    assert "1 error in this environment; see lamella scan" in pushed.stderr
    assert "1 error: --findings shows them" in lamella("inspect", place).stdout.splitlines()
    shown = lamella("inspect", place, "--findings").stdout
    assert "beta 2.0 requires alpha>=1, which is not installed; install it" in " ".join(shown.split())
    (found,) = lamella.json("inspect", place)["findings"]
    assert (found["platform"], found["severity"], found["kind"]) == (
        lamella.json("scan", prefix)["platform"],
        "error",
        "requires",
    )


def test_inspect_of_an_environment_without_findings_shows_none(lamella: Command, reference: str) -> None:
    assert "no findings attached" in lamella("inspect", reference).stdout.splitlines()
    assert lamella.json("inspect", reference)["findings"] == []


def test_export_writes_the_format_of_the_suffix(lamella: Command, reference: str, tmp_path: Path) -> None:
    done = lamella("export", reference, tmp_path / "copy", "--link")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/copy\n"), done.stderr
    run = subprocess.run([tmp_path / "copy/bin/python", "-c", "import alpha"], check=False, capture_output=True)
    assert run.returncode == 0, run.stderr
    assert lamella("export", reference).returncode == 2


@pytest.mark.parametrize("arguments", [["export", "./vnv", "copy"], ["diff", "/vnv", "."], ["diff", ".", ".vnv"]])
def test_a_folder_that_is_missing_is_not_taken_for_a_reference(lamella: Command, arguments: list[str]) -> None:
    done = lamella(*arguments)
    missing = next(each for each in arguments if "vnv" in each)
    assert done.returncode == 2
    assert done.stderr == (
        f"lamella: {arguments[0]} {missing}: no such folder; name the folder of an environment, such as .venv, or a "
        "reference (oci:FOLDER:TAG for an OCI layout folder)\n"
    )


def test_diff_compares_a_reference_with_the_environment_on_disk(
    lamella: Command, reference: str, prefix: Path, tmp_path: Path
) -> None:
    alike = lamella.json("diff", reference, prefix)
    assert (alike["added"], alike["removed"], alike["changed"], alike["bytes"]) == ([], [], [], 0)
    assert alike["same"] > 2

    place = f"oci:{tmp_path}/layout:v2"
    assert lamella("push", place, prefix, "--ignore", "beta").returncode == 0
    less = lamella.json("diff", reference, place)
    assert [item["name"] for item in less["removed"]] == ["beta"]
    shown = lamella("diff", place, prefix)
    lines = shown.stdout.splitlines()
    assert [line.split()[:2] for line in lines[4:5]] == [["added", "beta"]]
    version = sys.version.split()[0]
    assert lines[0].startswith(f"- {place}@sha256:")
    assert lines[1].startswith(f"+ {prefix} (Python {version} on linux/")
    sides = lamella.json("diff", place, prefix)
    assert sides["before"]["reference"].startswith(place)
    assert (sides["after"]["prefix"], sides["after"]["python"]) == (str(prefix), version)


def test_scan_and_inspect_list_the_files_of_a_package(lamella: Command, prefix: Path, reference: str) -> None:
    shown = lamella("scan", prefix, "--files", "alpha").stdout.splitlines()
    assert shown[0].startswith("alpha 1.0 (pypi): ")
    assert any(line.split()[-1].endswith("site-packages/alpha/more.py") for line in shown)
    assert any(line.endswith("generated") and "RECORD" in line for line in shown)
    packages = {each["name"]: each for each in lamella.json("scan", prefix, "--files", "alpha")["packages"]}
    assert "contents" not in packages["beta"]
    to_come = {file["path"] for file in packages["alpha"]["contents"]}

    (listed,) = lamella.json("inspect", reference, "--files", "alpha")["packages"]
    assert {file["path"] for file in listed["files"]} == to_come
    assert lamella("inspect", reference, "--files", "alpha").stdout.startswith("alpha 1.0 (pypi): ")
    for name in ("Alpha", "ALPHA"):
        assert lamella("scan", prefix, "--files", name).stdout.splitlines() == shown
        assert lamella("inspect", reference, "--files", name).stdout.startswith("alpha 1.0 (pypi): ")
    everything = lamella.json("inspect", reference, "--files")["packages"]
    assert {"alpha", "beta", "python"} <= {each["name"] for each in everything}
    # A reference or folder behind --files is an argument.
    assert lamella.json("inspect", "--files", reference)["packages"] == everything
    scanned = lamella.json("scan", "--files", prefix)["packages"]
    assert {"alpha", "beta", "python"} <= {each["name"] for each in scanned}
    assert lamella.json("diff", "--files", reference, reference)["changed"] == []
    done = lamella("inspect", "--files", reference, "alpha")
    assert (done.returncode, done.stderr) == (
        2,
        "lamella: inspect: too many arguments; name a package directly behind --files: --files alpha\n",
    )


def test_local_code_without_a_version_is_named_alone(lamella: Command, prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/train.py").write_text("x = 1\n")
    local = ("--local", tmp_path / "jobs")
    assert lamella("push", f"oci:{tmp_path}/layout:v1", prefix, *local).returncode == 0
    (tmp_path / "jobs/train.py").write_text("x = 2\n")
    done = lamella("diff", "--files", f"oci:{tmp_path}/layout:v1", prefix, *local)
    assert "jobs: 1 file (1 content)" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("alpah", "did you mean alpha?"),
        ("nothing-like-it", "list them with lamella scan --all"),
        ("lib", "lamella explain lib names the package of a file or folder"),
    ],
)
def test_files_of_an_unknown_package_is_a_usage_error(lamella: Command, prefix: Path, name: str, advice: str) -> None:
    done = lamella("scan", prefix, "--files", name, cwd=prefix)
    assert done.returncode == 2
    assert done.stderr == f"lamella: --files {name}: no such package in {prefix}; {advice}\n"


def test_diff_shows_which_files_changed_and_why(lamella: Command, prefix: Path, tmp_path: Path) -> None:
    place = f"oci:{tmp_path}/layout:v1"
    assert lamella("push", place, prefix).returncode == 0
    changed = prefix.parent / "changed"
    shutil.copytree(prefix, changed, symlinks=True)
    (path,) = changed.glob("lib/python*/site-packages/alpha/more.py")
    path.write_text("patched = True\n")
    shown = lamella("diff", place, changed, "--files").stdout.splitlines()
    assert any(line.split()[:2] == ["changed", "content"] and line.endswith("alpha/more.py") for line in shown)
    document = lamella.json("diff", place, changed, "--files", "Alpha")
    (package,) = document["files"]
    assert package["reasons"]["content"] == 1
    unchanged = lamella("diff", place, changed, "--files", "beta")
    assert unchanged.returncode == 1
    assert "--files beta: the same on both sides, or in neither" in unchanged.stderr


def test_diff_takes_compression_and_prefix_from_the_reference(lamella: Command, prefix: Path, tmp_path: Path) -> None:
    """Both are part of a layer's key, and neither makes a package differ."""
    place = f"oci:{tmp_path}/layout:v1"
    flags = ["--compression", "gzip", "--image-prefix", "/srv/env"]
    assert lamella("push", place, prefix, *flags).returncode == 0
    for sides in ((place, prefix), (prefix, place)):
        found = lamella.json("diff", *sides)
        assert (found["added"], found["removed"], found["changed"], found["bytes"]) == ([], [], [], 0)


def test_push_ships_a_local_projects_wheel_with_wheels(lamella: Command, prefix: Path, tmp_path: Path) -> None:
    root = project(tmp_path / "demo", "demo", {"demo.py": "print('as built')\n"})
    pushed = lamella("push", f"oci:{tmp_path}/layout:v1", prefix, "--local", root, "--wheels", "--json")
    assert pushed.returncode == 0, pushed.stderr
    reference = json.loads(pushed.stdout)["reference"]
    assert lamella("run", reference, "--", "python", "-m", "demo").stdout == "as built\n"
