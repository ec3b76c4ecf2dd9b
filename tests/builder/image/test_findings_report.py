"""The findings attached to a push, without paths of this machine."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lamella.builder.image import findings_report
from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.builder.scanning.scan import scan
from lamella.layers.errors import InvalidContent
from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import Descriptor, Platform
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.referrers import Artifact, attach
from lamella.layers.published import findings
from lamella.layers.published.copy import copy
from lamella.layers.published.findings import Finding
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage
from support.installed import venv
from support.packages import SITE, environment, package
from support.published import push_environment
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lamella.builder.environment import Environment
    from lamella.layers.oci.storage import Storage

PATCHED = Finding("warning", "patched", "p", "p.py: changed since p 1.0 was installed; ships as it is")
MISSING = Finding("error", "requires", "p", "p 1.0 requires q, which is not installed; install it")
NOTE = Finding("note", "unowned", "x", "x: belongs to no package; ships with the unowned files")


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as simulator:
        yield simulator


@pytest.fixture
def cache(tmp_path: Path) -> LayerCache:
    return LayerCache(str(tmp_path / "cache"))


def one(prefix: Path, *found: Finding) -> Environment:
    return replace(environment(prefix, package(prefix, "p", {f"{SITE}/p.py": "p = 1\n"})), findings=found)


def opened(reference: str) -> tuple[Storage, Descriptor]:
    place = Reference.parse(reference)
    storage = open_storage(place, Trust())
    return storage, storage.resolve(str(place.digest) if place.digest else place.tag)


def attached(reference: str) -> Sequence[tuple[str, Finding]]:
    storage, subject = opened(reference)
    with closing(storage):
        return findings.attached(storage, subject)


def messages(reference: str) -> list[str]:
    return [finding.message for _, finding in attached(reference)]


def told(env: Environment) -> str:
    artifact = findings_report.artifact(env, "/opt/env")
    return artifact.content.decode() if artifact else ""


def test_findings_are_attached_to_the_index_the_worst_first(tmp_path: Path, cache: LayerCache) -> None:
    env = one(tmp_path / "env", NOTE, PATCHED, MISSING)
    pushed = push(f"oci:{tmp_path}/out:x", env, cache=cache)
    assert attached(pushed.reference) == [(str(env.platform), each) for each in (MISSING, PATCHED, NOTE)]


@pytest.mark.slow
def test_notes_alone_are_attached_and_without_findings_there_is_no_attachment(
    tmp_path: Path, cache: LayerCache
) -> None:
    noted, clean = one(tmp_path / "a", NOTE), one(tmp_path / "b")
    assert messages(push(f"oci:{tmp_path}/one:x", noted, cache=cache).reference)
    assert not messages(push(f"oci:{tmp_path}/two:x", clean, cache=cache).reference)


def test_the_same_findings_are_the_same_bytes_from_any_prefix_and_in_any_order(tmp_path: Path) -> None:
    def found(prefix: Path, *, backwards: bool) -> str:
        moved = Finding("warning", "moved", str(prefix), f"{prefix} was made elsewhere")
        every = [PATCHED, NOTE, moved]
        return told(one(prefix, *(reversed(every) if backwards else every)))

    first = found(tmp_path / "here" / "env", backwards=False)
    assert first == found(tmp_path / "there" / "of another" / "env", backwards=True)
    assert json.loads(first)["counts"] == {"error": 0, "warning": 2, "note": 1}
    assert "/opt/env was made elsewhere" in first


@pytest.mark.parametrize(
    "text",
    [
        "x: ships as a copy of {home}/CANARY/data, outside the environment",
        "x: ships as a copy of {home}/with space CANARY/data, outside",
        "x: left out, a broken link to ../../../../home/CANARY/data",
        "x names ~CANARY/project, a home folder",
        "'/srv/CANARY' is gone",
        "file:///srv/CANARY is gone",
        "PYTHONPATH=/srv/CANARY:/x",
        "{prefix}/../CANARY is gone",
        "{prefix}2/CANARY is another environment",
        "glued{home}/CANARY",
    ],
)
def test_paths_of_this_machine_are_hidden(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home of a stranger"
    monkeypatch.setenv("HOME", str(home))
    said = text.format(home=home, prefix=tmp_path / "env")
    content = told(one(tmp_path / "env", Finding("note", "links", said, said)))
    assert "CANARY" not in content
    assert "stranger" not in content
    assert str(tmp_path) not in content
    assert content.count(findings_report.HIDDEN) == 2


@pytest.mark.slow
def test_findings_of_a_real_scan_hide_the_folders_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "CANARY of a home"
    (home / "data").mkdir(parents=True)
    (home / "file.txt").write_text("")
    monkeypatch.setenv("HOME", str(home))
    prefix = venv(home / "projects" / "env")
    site = prefix / SITE
    (site / "data").symlink_to(home / "data")
    (home / "data" / "x.txt").write_text("")
    (site / "file.txt").symlink_to(home / "file.txt")
    (site / "relative").symlink_to(os.path.relpath(home / "gone", site))
    (site / "home.pth").write_text(f"{home}\n{home}/gone\n")
    (site / "odd.so").write_bytes(b"\0" + os.fsencode(prefix) + b"\0")
    (site / ".netrc").write_text("machine CANARY password CANARY")
    scanned = scan(str(prefix))
    assert {each.kind for each in scanned.findings} >= {"links", "editable", "unowned", "prefix", "secret"}
    assert "CANARY" in str(scanned.findings)
    content = told(scanned)
    assert "CANARY" not in content
    assert str(tmp_path) not in content
    assert f"{SITE}/odd.so: cannot find its data on nodes: /opt/env is compiled in" in content


@pytest.mark.parametrize(
    "text", ["lib/x.so and/or lib/y.so is needed", "a / b", f"{SITE}/x (2 files)", "p requires q<3,>=2 ~= 1"]
)
def test_text_without_paths_of_this_machine_is_unchanged(text: str, tmp_path: Path) -> None:
    (found,) = json.loads(told(one(tmp_path, Finding("note", "k", "s", text))))["findings"]
    assert found["message"] == text


def test_a_name_that_is_not_utf_8_is_shown_with_escapes(tmp_path: Path) -> None:
    name = os.fsdecode(b"lib/\xff.py")
    assert r"lib/\\udcff.py" in told(one(tmp_path, Finding("note", "unowned", name, name)))


@pytest.mark.slow
def test_as_many_findings_as_a_registry_takes_are_attached_the_worst_first_and_all_are_counted(tmp_path: Path) -> None:
    many = [Finding("note", "unowned", str(number), "x" * 1000) for number in range(5000)]
    content = told(one(tmp_path, *many, MISSING))
    assert len(content) < 4 << 20
    said = json.loads(content)
    assert said["findings"][0]["message"] == MISSING.message
    assert said["counts"]["note"] == 5000


@pytest.mark.parametrize("api", [True, False])
@pytest.mark.slow
def test_pushing_again_lists_attached_findings_and_sends_no_blob(
    api: bool, tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    registry.referrers_api = api
    env = one(tmp_path / "env", PATCHED)
    reference = push(f"{registry.host}/team/envs:x", env, cache=cache).reference
    assert messages(reference) == [PATCHED.message]
    registry.requests.clear()
    again = push(f"{registry.host}/team/envs:x", env, cache=cache)
    assert again.plan.unchanged
    assert not registry.asked("POST|PATCH|PUT .*/blobs/")
    assert len(registry.requests) == 4
    assert messages(reference) == [PATCHED.message]


@pytest.mark.slow
def test_new_findings_are_attached_though_no_layer_changed(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    push(f"{registry.host}/team/envs:x", one(tmp_path / "env", PATCHED), cache=cache)
    again = push(f"{registry.host}/team/envs:x", one(tmp_path / "env", PATCHED, NOTE), cache=cache)
    assert again.plan.unchanged
    assert messages(again.reference) == [PATCHED.message, NOTE.message]


def test_a_dry_run_attaches_nothing(tmp_path: Path, registry: RegistrySimulator, cache: LayerCache) -> None:
    push(f"{registry.host}/team/envs:x", one(tmp_path / "env"), cache=cache)
    registry.requests.clear()
    for name in ("x", "y"):
        push(
            f"{registry.host}/team/envs:{name}", one(tmp_path / "env", PATCHED), PushOptions(dry_run=True), cache=cache
        )
    assert not registry.asked("POST|PUT|PATCH")


@pytest.mark.parametrize("api", [True, False])
@pytest.mark.slow
def test_a_copy_takes_the_findings_along(
    api: bool, tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    registry.referrers_api = api
    pushed = push(f"oci:{tmp_path}/out:x", one(tmp_path / "env", PATCHED), cache=cache)
    assert messages(copy(pushed.reference, f"{registry.host}/team/envs:x").reference) == [PATCHED.message]


def test_the_findings_of_other_platforms_stay_with_the_tag(tmp_path: Path, cache: LayerCache) -> None:
    amd64 = one(tmp_path / "env", PATCHED)
    arm64 = replace(amd64, platform=Platform("linux", "arm64"), findings=(NOTE,))
    for env in (amd64, arm64):
        pushed = push(f"oci:{tmp_path}/out:x", env, PushOptions(append=True), cache=cache)
    assert attached(pushed.reference) == [("linux/amd64", PATCHED), ("linux/arm64", NOTE)]
    again = push(f"oci:{tmp_path}/out:x", replace(arm64, findings=(MISSING,)), cache=cache)
    assert attached(again.reference) == [("linux/arm64", MISSING)]


@pytest.mark.slow
def test_without_artifacts_in_a_registry_the_push_succeeds_and_reports_why_no_findings(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    push(f"{registry.host}/team/envs:x", one(tmp_path / "env"), cache=cache)
    registry.faults.append(Fault("PUT .*/manifests/", status=400, times=99))
    pushed = push(f"{registry.host}/team/envs:x", one(tmp_path / "env", PATCHED), cache=cache)
    assert "400" in pushed.unattached
    assert not messages(pushed.reference)


@pytest.mark.slow
def test_tags_of_attachments_are_not_searched_for_layers(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    registry.referrers_api = False
    push(f"{registry.host}/team/envs:x", one(tmp_path / "env", PATCHED), cache=cache)
    (schema,) = [tag for tag in registry.tags["team/envs"] if tag != "x"]
    registry.requests.clear()
    other = LayerCache(str(tmp_path / "other"))
    assert push(f"{registry.host}/team/envs:y", one(tmp_path / "b"), cache=other).built == 0
    assert not registry.asked(f"manifests/{schema}$")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"findings": []}', "'platform' is missing"),
        (b'{"platform": "linux/amd64"}', "'findings' is missing"),
        (b'{"platform": "linux/amd64", "findings": [{"severity": "worst"}]}', "'severity' is not error"),
        (b'{"platform": "linux/amd64", "findings": [5]}', "a finding is not a JSON object"),
    ],
)
def test_a_document_other_than_a_list_of_findings_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    storage = OciLayout(str(tmp_path / "out"), create=True)
    subject = push_environment(storage).descriptor
    attach(storage, subject, Artifact(findings.MEDIA_TYPE, content))
    with pytest.raises(InvalidContent, match=f"the list of findings sha256:.*: {problem}"):
        findings.attached(storage, subject)
