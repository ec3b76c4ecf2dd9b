"""`lamella inject`: files and streams, the pinned reference, and messages."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamella.cli.main import main
from lamella.layers import copy
from support.published import publish
from support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator

POD = (
    "apiVersion: v1\r\nkind: Pod\r\nmetadata:\r\n  name: a\r\nspec:\r\n  containers:\r\n  - {name: main, image: b}\r\n"
)
PINNED = f"registry.example.com/team/envs:v1@sha256:{'a' * 64}"
PINNED_ENV = ["--env", PINNED, "--offline"]
IMAGE = ["--image", "registry.example.com/node:1"]


@pytest.fixture
def pod(tmp_path: Path) -> Path:
    path = tmp_path / "pod.yaml"
    path.write_bytes(POD.encode())
    return path


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    simulator = RegistrySimulator()
    with simulator.serving():
        yield simulator


def test_a_file_is_written_to_standard_output_with_its_line_ends(
    pod: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["inject", str(pod), *PINNED_ENV, *IMAGE]) == 0

    out, err = capfdbinary.readouterr()
    assert b"lamella-environment" in out
    assert b"\n" not in out.replace(b"\r\n", b"")
    assert err.decode().splitlines() == [
        "method init: works on every cluster; --kubernetes-version 1.35 or newer chooses image-volume",
        f"Pod a: {PINNED} in main",
    ]
    assert pod.read_bytes() == POD.encode()


def test_standard_input_is_a_post_renderer_s(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(POD.encode())))

    assert main(["inject", "-", "--quiet", *PINNED_ENV, "--method", "image-volume"]) == 0

    out, err = capfdbinary.readouterr()
    assert b"reference: registry.example.com/team/envs:v1@sha256:" in out
    assert err == b""


def test_in_place_and_back_leaves_the_file_its_bytes_and_permissions(pod: Path, tmp_path: Path) -> None:
    pod.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(pod)

    assert main(["inject", str(link), "-i", *PINNED_ENV, *IMAGE]) == 0
    assert b"lamella-environment" in pod.read_bytes()
    assert main(["inject", str(link), "-i", "--remove"]) == 0

    assert pod.read_bytes() == POD.encode()
    assert link.is_symlink()
    assert stat.S_IMODE(pod.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link.yaml", "pod.yaml"]


def test_a_file_that_does_not_change_is_not_written(pod: Path) -> None:
    before = pod.stat()

    assert main(["inject", str(pod), "-i", "--remove"]) == 0

    assert pod.stat() == before


def test_the_output_may_be_a_device(pod: Path) -> None:
    assert main(["inject", str(pod), "-o", "/dev/null", *PINNED_ENV, *IMAGE]) == 0


@pytest.mark.slow
def test_a_tag_is_pinned_and_its_platform_selected(
    pod: Path, tmp_path: Path, registry: RegistrySimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = f"{registry.host}/team/envs:v1"
    copied = copy(publish(tmp_path / "layout", [{"bin/python*": "x"}], glibc="2.31"), reference)

    assert main(["inject", str(pod), "--json", "--env", reference, *IMAGE]) == 0

    document = json.loads(capsys.readouterr().out)
    assert document["reference"] == copied.reference
    assert '"kubernetes.io/arch": ' in document["manifest"] or "kubernetes.io/arch: " in document["manifest"]
    assert "needs = '2.31'" in document["manifest"]
    assert document["pods"][0]["containers"] == ["main"]


@pytest.mark.slow
def test_a_reference_with_its_digest_is_mounted_at_its_own_prefix(
    pod: Path, tmp_path: Path, registry: RegistrySimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    published = publish(tmp_path / "layout", [{"bin/python*": "x"}], prefix="/srv/python")
    pinned = copy(published, f"{registry.host}/team/envs:v1").reference

    assert main(["inject", str(pod), "--env", pinned, "--method", "image-volume"]) == 0

    manifest = capsys.readouterr().out
    assert "subPath: srv/python" in manifest
    assert "kubernetes.io/arch: " in manifest


def test_a_digest_that_the_registry_lacks_is_reported(
    pod: Path, registry: RegistrySimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inject", str(pod), "--env", f"{registry.host}/team/envs@sha256:{'a' * 64}", *IMAGE]) == 3

    assert capsys.readouterr().out == ""


def test_offline_makes_no_request(pod: Path, registry: RegistrySimulator, capsys: pytest.CaptureFixture[str]) -> None:
    reference = f"{registry.host}/team/envs@sha256:{'a' * 64}"

    assert main(["inject", str(pod), "--offline", "--env", reference, *IMAGE]) == 0

    assert registry.requests == []


def test_the_node_image_may_be_a_setting(
    pod: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAMELLA_NODE_IMAGE", "registry.example.com/of-a-setting:1")

    assert main(["inject", str(pod), *PINNED_ENV]) == 0

    assert "registry.example.com/of-a-setting:1" in capsys.readouterr().out


def test_the_version_of_the_cluster_chooses_the_method(pod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inject", str(pod), *PINNED_ENV, "--kubernetes-version", "v1.36.2-gke.1"]) == 0

    assert "method image-volume: Kubernetes v1.36.2-gke.1 has image volumes by default" in capsys.readouterr().err


def test_a_pattern_that_the_agent_would_refuse_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inject", "--daemonset", *IMAGE, "--allow", "https://a"]) == 10

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lamella: --allow https://a: not a registry or repository; use HOST[:PORT]")


def test_the_agent_s_manifest_needs_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inject", "--daemonset", *IMAGE, "--pull", "registry.example.com/team/envs:v1"]) == 0

    assert "kind: DaemonSet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("POD", "inject: missing --env REFERENCE; use lamella inject FILE --env REFERENCE"),
        (f"--env {PINNED}", "inject: missing FILE; name a manifest, or - for standard input"),
        (f"POD --env {PINNED} --remove", "--env: has no effect with --remove; leave one of them out"),
        (f"POD --env {PINNED} --method host --method init", "--method host and init: only one is possible; choose it"),
        ("POD --daemonset", "not used with --daemonset; leave one of them out"),
        (f"- --in-place --env {PINNED}", "--in-place: needs a FILE to write, and no --output"),
        (f"POD -i -o x --env {PINNED}", "--in-place: needs a FILE to write, and no --output"),
        ("POD --env oci:images:v1", "--env oci:images:v1: a folder, which pods can't read; use lamella copy"),
        ("POD --env registry.example.com/a/b:v1 --offline", "has no digest, and --offline asks no registry for it"),
        ("POD --env registry.example.com/a/B:v1", "not a repository; use lower-case letters"),
        (f"BINARY --env {PINNED} --image x", "not text in UTF-8; convert it first"),
        (f"POD --env {PINNED} --offline", "--method init: needs the node image; build one with make node-image"),
        (
            f"POD --env {PINNED} --offline --image x --container mian",
            "--container mian: no such container; did you mean main?",
        ),
        (f"POD --env {PINNED} --kubernetes-version new", "--kubernetes-version new: not a version; use one such as"),
        (
            f"POD --env {PINNED} --offline --image x --method init --kubernetes-version new",
            "--kubernetes-version new: not a version; use one such as",
        ),
        (
            f"POD --env {PINNED} --offline --method image-volume --kubernetes-version v1.32",
            "--method image-volume: needs Kubernetes 1.33 or newer, and the cluster has v1.32; use --method init",
        ),
        (
            f"POD --env {PINNED} --namespace prod",
            "--namespace: has no effect with --env, only with --daemonset; add --daemonset, or leave --namespace out",
        ),
        (f"POD --env {PINNED} --allow a.b", "--allow: has no effect with --env, only with --daemonset"),
        (
            "--daemonset --image x --allow a.b --container c",
            "--container: has no effect with --daemonset, only with --env",
        ),
        ("--daemonset --image x --allow a.b --keep much", "--keep much: "),
        ("--daemonset --image x --allow a.b --namespace My", "--namespace My: not a namespace; use lower-case letters"),
        (f"absent.yaml --env {PINNED}", "absent.yaml: no such file; name a manifest, or - for standard input"),
        (
            f"/usr --env {PINNED}",
            "/usr: a folder; give one manifest at a time, or kustomize build /usr | lamella inject -",
        ),
    ],
)
def test_a_command_line_that_cannot_work_is_reported(
    arguments: str, message: str, pod: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    words = [{"POD": str(pod), "BINARY": str(tmp_path / "binary")}.get(word, word) for word in arguments.split()]

    assert main(["inject", *words]) == 2

    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert pod.read_bytes() == POD.encode()


GUIDE = (Path(__file__).parents[2] / "docs/how-to/kubernetes.md").read_text()
COMMANDS = re.findall(r"^    (?:exec )?((?:\S.*\| )?lamella inject .*)$", GUIDE, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_guide_runs(
    command: str, tmp_path: Path, registry: RegistrySimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(publish(tmp_path / "layout", [{"bin/python*": "x"}]), f"{registry.host}/team/envs:v1")
    found = re.search(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    assert found
    (tmp_path / "pod.yaml").write_text(found[1])
    monkeypatch.setenv("LAMELLA_NODE_IMAGE", "registry.example.com/node:1")
    # Helm and kustomize are not here: the pod is what they would print.
    line = re.sub(r"^(?:helm|kustomize) .*\| |^(?=lamella inject - )", "cat pod.yaml | ", command)
    line = line.replace("registry.example.com", registry.host).replace(
        "lamella ", f"{sys.executable} -m lamella.cli ", 1
    )

    done = subprocess.run(["sh", "-ec", line], check=False, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    written = next((tmp_path / name for name in ("train.yaml", "agent.yaml") if (tmp_path / name).exists()), None)
    assert "lamella-" in (written.read_text() if written else done.stdout)
