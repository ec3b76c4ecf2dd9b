"""Files attached to an environment: any storage, any name, and nothing that a name or a changed byte can do."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from lamella.layers.attaching.attach import FetchOptions, attach, fetch
from lamella.layers.attaching.listing import artifacts
from lamella.layers.errors import ExportError, InvalidContent, NotFound, NotSigned
from lamella.layers.oci import referrers
from lamella.layers.oci.annotations import TITLE
from lamella.layers.oci.documents import EMPTY, LAYER_GZIP, Descriptor, Digest, Index, Manifest
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.published.copy import copy
from lamella.layers.published.validate import verify_reference
from lamella.layers.settings.trust import Trust
from lamella.layers.signing.keys import read_private_key
from lamella.layers.storages import open_storage
from support.distribution import distribution
from support.keys import key_pair
from support.published import AMD64, ARM64, Blob, push_environment
from support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator

REPORT = "application/vnd.example.report"


@pytest.fixture
def simulator() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as running:
        yield running


@pytest.fixture
def layout(tmp_path: Path) -> str:
    return published(f"oci:{tmp_path}/layout:v1")


@pytest.fixture(autouse=True)
def no_request_of_oras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything goes through a storage: a request by oras itself would escape policy, retries and digest checks."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("oras made a request by itself")

    monkeypatch.setattr(requests.Session, "request", refuse)


def published(reference: str) -> str:
    with closing(open_storage(Reference.parse(reference), Trust(), create=True)) as storage:
        push_environment(storage, "v1", [AMD64, ARM64])
    return reference


def written(folder: Path, **files: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    return [str(folder / name.replace("_", ".")) for name in files]


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Every file and link below a folder."""
    return {
        str(path.relative_to(folder)): f"-> {path.readlink()}" if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }


def attached_by_hand(reference: str, *names: str, content: bytes = b"content", kind: str = "text/plain") -> Digest:
    """An artifact whose files have these names, as someone else's client may write it."""
    with closing(open_storage(Reference.parse(reference), Trust())) as storage:
        blobs = [Blob(Descriptor.of(kind, content, {TITLE: name} if name else {}), content) for name in names]
        config = Blob(Descriptor.of(EMPTY, b"{}"), b"{}").pushed(storage)
        manifest = Manifest(
            config.descriptor, tuple(each.pushed(storage).descriptor for each in blobs), {}, artifact_type=REPORT
        )
        return referrers.attach_manifest(storage, storage.resolve("v1"), manifest).digest


@pytest.fixture(params=["api", "no api", "layout", pytest.param("distribution", marks=pytest.mark.engine)])
def reference(request: pytest.FixtureRequest, tmp_path: Path, simulator: RegistrySimulator) -> Iterator[str]:
    """An environment on each kind of storage."""
    if request.param == "distribution":
        with distribution() as host:
            yield published(f"{host}/team/envs:v1")
    elif request.param == "layout":
        yield published(f"oci:{tmp_path}/layout:v1")
    else:
        simulator.referrers_api = request.param == "api"
        yield published(f"{simulator.host}/team/envs:v1")


def test_attached_files_are_listed_and_fetched_as_they_were(reference: str, tmp_path: Path) -> None:
    files = written(tmp_path / "in", report_html="<p>", uv_lock="version = 1")
    attached = attach(reference, files, REPORT, annotations={"org.example.author": "Ada"})
    (found,) = artifacts(reference)
    assert (found.artifact_type, str(found.digest), found.platform, found.error) == (
        REPORT,
        attached.artifact.rpartition("@")[2],
        "",
        "",
    )
    assert [(file.name, file.media_type) for file in found.files] == [
        ("report.html", "text/html"),
        ("uv.lock", "application/octet-stream"),
    ]
    assert found.annotations == {"org.example.author": "Ada"}
    assert artifacts(reference, "application/vnd.example.other") == ()
    fetched = fetch(reference, str(tmp_path / "out"), REPORT)
    assert [file.path for file in fetched] == [f"{tmp_path}/out/report.html", f"{tmp_path}/out/uv.lock"]
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "in")
    # The environment is unchanged, and whole with its artifact.
    assert verify_reference(reference, deep=True).faults == ()


def test_attaching_again_changes_nothing(reference: str, tmp_path: Path) -> None:
    files = written(tmp_path / "in", report_html="<p>")
    assert attach(reference, files, REPORT) == attach(reference, files, REPORT)
    assert len(artifacts(reference)) == 1


def test_the_manifest_follows_the_specification(layout: str, tmp_path: Path) -> None:
    attached = attach(layout, written(tmp_path / "in", a_txt="a"), REPORT)
    with closing(open_storage(Reference.parse(layout), Trust())) as storage:
        root = storage.resolve("v1")
        descriptor = storage.resolve(attached.artifact.rpartition("@")[2])
        document = json.loads(fetch_document(storage, descriptor))
        # image-spec v1.1, manifest.md, "Guidelines for Artifact Usage"; distribution-spec, "Referrers Tag Schema".
        assert document["artifactType"] == REPORT
        assert document["config"]["mediaType"] == EMPTY
        assert document["subject"] == {"mediaType": root.media_type, "digest": str(root.digest), "size": root.size}
        listed = Index.parse(fetch_document(storage, storage.resolve(f"sha256-{root.digest.hex}")))
        assert [(entry.digest, entry.artifact_type) for entry in listed.manifests] == [(descriptor.digest, REPORT)]


def test_copy_carries_artifacts_along(layout: str, simulator: RegistrySimulator, tmp_path: Path) -> None:
    attach(layout, written(tmp_path / "in", a_txt="a"), REPORT)
    copy(layout, f"{simulator.host}/team/other:v2")
    fetch(f"{simulator.host}/team/other:v2", str(tmp_path / "out"), REPORT)
    assert snapshot(tmp_path / "out") == {"a.txt": b"a"}


@pytest.mark.parametrize(
    "name",
    [
        "../out", "..", ".", "/etc/lamella-test", "a/../../out", "a//b", "a/", "./a", "a\\..\\b", "a\nb", "\x1b[31m",
        "a\u202eb", "x" * 256, "/".join("a" * 17), "é" * 128,
    ],
)  # fmt: skip
def test_a_name_that_leaves_the_folder_or_hides_is_refused_before_anything_is_written(
    layout: str, tmp_path: Path, name: str
) -> None:
    attached_by_hand(layout, "good.txt", name)
    (tmp_path / "in").mkdir()
    before = snapshot(tmp_path)
    with pytest.raises(InvalidContent, match="not the name of a file inside a folder; refused") as error:
        fetch(layout, f"{tmp_path}/in/folder", REPORT)
    assert str(error.value).isprintable()
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "in/folder").exists()


def test_a_link_in_the_folder_is_not_followed(layout: str, tmp_path: Path) -> None:
    attached_by_hand(layout, "sub/a.txt")
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sub").symlink_to(tmp_path / "outside")
    with pytest.raises(ExportError, match="link is where a folder should be"):
        fetch(layout, str(tmp_path / "out"), REPORT, options=FetchOptions(force=True))
    assert list((tmp_path / "outside").iterdir()) == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sub"]


def test_a_file_is_replaced_only_with_force_and_a_link_never_written_through(layout: str, tmp_path: Path) -> None:
    attached_by_hand(layout, "a.txt", "deep/er/b.txt")
    (tmp_path / "mine").write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.txt").symlink_to(tmp_path / "mine")
    with pytest.raises(ExportError, match=r"a\.txt: already exists; .* --force"):
        fetch(layout, str(out), REPORT)
    assert (out / "a.txt").is_symlink()
    fetch(layout, str(out), REPORT, options=FetchOptions(force=True))
    assert snapshot(out) == {"a.txt": b"content", "deep/er/b.txt": b"content"}
    assert (tmp_path / "mine").read_text() == "mine"
    (out / "a.txt").unlink()
    (out / "a.txt").mkdir()
    with pytest.raises(ExportError, match=r"a\.txt: is a folder"):
        fetch(layout, str(out), REPORT, options=FetchOptions(force=True))


def test_content_that_is_not_its_digest_is_never_written(simulator: RegistrySimulator, tmp_path: Path) -> None:
    reference = published(f"{simulator.host}/team/envs:v1")
    attach(reference, written(tmp_path / "in", a_txt="a", b_txt="good"), REPORT)
    simulator.blobs["team/envs"][str(Digest.of(b"good"))] = b"evil"
    with pytest.raises(InvalidContent, match="has other content"):
        fetch(reference, str(tmp_path / "out"), REPORT)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_archive_is_written_and_not_unpacked(layout: str, tmp_path: Path) -> None:
    attached_by_hand(layout, "folder", content=b"an archive", kind=LAYER_GZIP)
    fetch(layout, str(tmp_path / "out"), REPORT)
    assert snapshot(tmp_path / "out") == {"folder": b"an archive"}


def test_a_file_without_a_name_gets_its_digest(layout: str, tmp_path: Path) -> None:
    attached_by_hand(layout, "")
    fetch(layout, str(tmp_path / "out"), REPORT)
    assert snapshot(tmp_path / "out") == {Digest.of(b"content").hex: b"content"}


def test_more_bytes_than_the_limit_are_refused_before_the_download(
    simulator: RegistrySimulator, tmp_path: Path
) -> None:
    reference = published(f"{simulator.host}/team/envs:v1")
    attach(reference, written(tmp_path / "in", a_txt="a" * 1000, b_txt="b" * 1000), REPORT)
    simulator.requests.clear()
    with pytest.raises(InvalidContent, match=r"2\.0 kB in 2 files: more than 1\.5 kB; use --limit"):
        fetch(reference, str(tmp_path / "out"), REPORT, options=FetchOptions(limit=1500))
    assert not simulator.asked("GET .*/blobs/")


def test_two_artifacts_with_one_file_name_are_told_apart_by_digest(layout: str, tmp_path: Path) -> None:
    for content in ("one", "two"):
        last = attach(layout, written(tmp_path / content, a_txt=content), REPORT)
    with pytest.raises(InvalidContent, match=r"a\.txt: in sha256:.* and sha256:.*; choose one with --digest"):
        fetch(layout, str(tmp_path / "out"), REPORT)
    fetch(layout, str(tmp_path / "out"), REPORT, options=FetchOptions(last.artifact.rpartition("@")[2]))
    assert snapshot(tmp_path / "out") == {"a.txt": b"two"}


def test_a_required_signature_is_required_of_each_artifact(layout: str, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    files = written(tmp_path / "in", a_txt="a")
    unsigned = attach(layout, files, REPORT, annotations={"org.example.by": "a stranger"})
    with pytest.raises(NotSigned, match="not signed"):
        fetch(layout, str(tmp_path / "out"), REPORT, trust=Trust(required_key=public))
    assert not (tmp_path / "out").exists()
    signed = attach(layout, files, REPORT, signing_key=read_private_key(private))
    assert signed.artifact != unsigned.artifact
    digest = signed.artifact.rpartition("@")[2]
    fetch(layout, str(tmp_path / "out"), REPORT, options=FetchOptions(digest), trust=Trust(required_key=public))
    assert snapshot(tmp_path / "out") == {"a.txt": b"a"}


def test_an_artifact_of_an_image_is_listed_with_its_platform_and_a_damaged_one_with_the_reason(layout: str) -> None:
    storage = open_storage(Reference.parse(layout), Trust())
    image = Index.parse(fetch_document(storage, storage.resolve("v1"))).manifests[0]
    scan = referrers.attach(storage, image, referrers.Artifact("application/vnd.example.scan", b"{}"))
    lost = attached_by_hand(layout, "a.txt")
    Path(layout.split(":")[1], "blobs/sha256", lost.hex).unlink()
    by_digest = {each.digest: each for each in artifacts(layout)}
    assert by_digest[scan.digest].platform == "linux/amd64"
    assert "not in the layout" in by_digest[lost].error
    with pytest.raises(InvalidContent, match="check it with lamella verify"):
        fetch(layout, "out", REPORT)
    storage.close()


def test_a_dry_run_names_the_files_and_writes_nothing(simulator: RegistrySimulator, tmp_path: Path) -> None:
    reference = published(f"{simulator.host}/team/envs:v1")
    files = written(tmp_path / "in", a_txt="a")
    simulator.requests.clear()
    would = attach(reference, files, REPORT, dry_run=True)
    assert not simulator.asked("PUT|POST|PATCH")
    assert would == attach(reference, files, REPORT)
    planned = fetch(reference, str(tmp_path / "out"), REPORT, dry_run=True)
    assert not (tmp_path / "out").exists()
    assert planned == fetch(reference, str(tmp_path / "out"), REPORT)


def test_unfit_files_types_and_annotations_are_refused(layout: str, tmp_path: Path) -> None:
    (file,) = written(tmp_path / "one", a_txt="a")
    (namesake,) = written(tmp_path / "two", a_txt="b")
    os.mkfifo(tmp_path / "pipe")
    for files, problem in (
        ([str(tmp_path)], "a folder; attach an archive of it"),
        ([f"{tmp_path}/none"], "No such file or directory; name a file that can be read"),
        ([f"{tmp_path}/pipe"], "not a regular file"),
        ([file, namesake], "the same name as"),
        ([], "no file to attach"),
    ):
        with pytest.raises((ExportError, InvalidContent), match=problem):
            attach(layout, files, REPORT)
    for refused in (
        lambda: attach(layout, [file], "report"),
        lambda: fetch(layout, str(tmp_path / "out"), "report"),
        lambda: artifacts(layout, "report"),
    ):
        with pytest.raises(InvalidContent, match=r"^--type report: not a media type; write it as") as raised:
            refused()
        assert raised.value.code == "invalid"
    with pytest.raises(InvalidContent, match="not an annotation"):
        attach(layout, [file], REPORT, annotations={"a": "\ud800"})
    assert artifacts(layout) == ()


def test_a_missing_artifact_is_named_with_the_command_that_lists_others(layout: str) -> None:
    with pytest.raises(NotFound, match=rf"no artifact of type {REPORT}; list .* with lamella artifacts oci:"):
        fetch(layout, "out", REPORT)


def test_a_file_whose_name_looks_like_a_path_with_a_type_is_itself(layout: str, tmp_path: Path) -> None:
    # oras takes NAME:TYPE for a file NAME of the type TYPE.
    (tmp_path / "a").write_text("wrong")
    (tmp_path / "a:b").write_text("right")
    attach(layout, [f"{tmp_path}/a:b"], REPORT)
    fetch(layout, str(tmp_path / "out"), REPORT)
    assert snapshot(tmp_path / "out") == {"a:b": b"right"}
