"""What others published reaches the terminal escaped, and ends in a sentence, whatever it is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lamella.cli.main import main
from lamella.layers.layout import OciLayout
from lamella.layers.oci import annotations as names
from lamella.layers.oci.documents import LAYER_TAR, Descriptor, Digest
from lamella.layers.oci.referrers import Artifact, attach
from support.published import AMD64, blob, image, package_manifest, push_environment, push_index

if TYPE_CHECKING:
    from pathlib import Path

EVIL = "\x1b]0;evil\x07\x9b2J\u202e\u2028"
SBOM = "application/vnd.cyclonedx+json"
FINDINGS = "application/vnd.lamella.findings.v1+json"


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMELLA_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a verb prints, or the sentence of its error; nothing of it controls a terminal."""
    main(list(arguments))  # an internal error is raised
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert text.replace("\n", "").isprintable(), ascii(text)
    return captured.out + captured.err


def attached(tmp_path: Path, kind: str, content: bytes) -> str:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    index = push_environment(layout, platforms=[AMD64])
    attach(layout, index.descriptor, Artifact(kind, content, {"dev.lamella.platform": "linux/amd64"}))
    return f"oci:{tmp_path}/layout:v1"


def test_a_bill_of_materials_cannot_control_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = {"bomFormat": EVIL, "more": ["\x7f", "ü", "\U000e0041"]}
    content = json.dumps(document, ensure_ascii=False).encode()
    out = shown(capsys, "inspect", attached(tmp_path, SBOM, content), "--sbom")
    assert json.loads(out) == document
    assert "ü" in out


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x1b[2J", b"[]", b"[" * 100_000, b'{"a": "\\ud800"}', b""])
def test_an_attached_document_of_another_kind_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    reference = attached(tmp_path, SBOM, content)
    assert "the bill of materials sha256:" in shown(capsys, "inspect", reference, "--sbom")
    layout = OciLayout(str(tmp_path / "layout"))
    attach(layout, layout.resolve("v1"), Artifact(FINDINGS, content))
    assert "the list of findings sha256:" in shown(capsys, "inspect", reference, "--findings")


def test_findings_cannot_control_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finding = {"severity": "warning", "kind": EVIL, "subject": EVIL, "message": EVIL}
    reference = attached(tmp_path, FINDINGS, json.dumps({"platform": EVIL, "findings": [finding]}).encode())
    assert "\\x1b]0;evil" in shown(capsys, "inspect", reference, "--findings")
    assert "\\u001b]0;evil" in shown(capsys, "inspect", reference, "--json")


def published(tmp_path: Path, needs: dict[str, str], layer: dict[str, str]) -> str:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    packed = blob(b"content", layer).pushed(layout)
    config, manifest = image([packed.descriptor], annotations={names.PREFIX: "/opt/env"} | needs)
    config.pushed(layout)
    push_index(layout, [package_manifest(manifest.pushed(layout).descriptor)], "v1")
    return f"oci:{tmp_path}/layout:v1"


LONG = "9" * 5000


@pytest.mark.parametrize("text", [EVIL, LONG, "\\ud800", "", "-1", "x" * 100_000])
@pytest.mark.parametrize(
    "annotation",
    [
        names.PREFIX, names.PYTHON, names.GLIBC, names.CPU, names.DRIVERS, names.CERTIFICATES,
        names.PACKAGE, names.VERSION, names.ORIGIN, names.KEY, names.UNPACKED,
    ],
)  # fmt: skip
def test_no_annotation_ends_in_an_internal_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], annotation: str, text: str
) -> None:
    of_layer = annotation in (names.PACKAGE, names.VERSION, names.ORIGIN, names.KEY, names.UNPACKED)
    given = {annotation: text}
    reference = published(tmp_path, {} if of_layer else given, given if of_layer else {})
    for verb in (["inspect"], ["inspect", "--json"], ["tags"], ["pull", "--platform", "linux/amd64"]):
        shown(capsys, *verb, reference)


@pytest.mark.parametrize("size", [10**400, (1 << 63) - 1, 1 << 63, 0])
def test_no_size_of_a_layer_ends_in_an_internal_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    large = Descriptor(LAYER_TAR, Digest.of(b"content"), size)
    config, manifest = image(
        [large, replace(large, digest=Digest.of(b"other"))], annotations={names.PREFIX: "/opt/env"}
    )
    config.pushed(layout)
    push_index(layout, [package_manifest(manifest.pushed(layout).descriptor)], "v1")
    for verb in ("inspect", "pull"):
        shown(capsys, verb, f"oci:{tmp_path}/layout:v1")


@pytest.mark.parametrize("tag", [LONG, EVIL, "v²", ""])
def test_no_tag_of_a_layout_ends_in_an_internal_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tag: str
) -> None:
    reference = published(tmp_path, {}, {})
    path = tmp_path / "layout/index.json"
    index = json.loads(path.read_text())
    index["manifests"].append(index["manifests"][0] | {"annotations": {"org.opencontainers.image.ref.name": tag}})
    path.write_text(json.dumps(index))
    for verb in ("inspect", "tags"):
        shown(capsys, verb, reference)
    shown(capsys, "inspect", f"oci:{tmp_path}/layout:missing")
