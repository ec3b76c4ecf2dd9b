"""The image below the interpreter: one layer, the same bytes from the same files."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from lamella.builder import ImageSettings, LayerCache, PushOptions, push
from lamella.layers import inspect
from node_part.base_image import BaseImage, write
from node_part.debian import base_files
from support.installed import venv

if TYPE_CHECKING:
    from pathlib import Path

FILES: dict[str, bytes | str] = {
    "usr/lib/libexample.so.1": b"library",
    "etc/passwd": b"root:x:0:0::/:/sbin/nologin\n",
    "bin": "usr/bin",
}


def images(*architectures: str) -> tuple[BaseImage, ...]:
    return tuple(BaseImage(each, FILES, {"User": "65532", "Env": ["LANG=C"]}) for each in architectures)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_layer_has_fixed_owners_times_and_modes(tmp_path: Path, compression: str) -> None:
    write(tmp_path / "layout", "base", images("amd64"), compression)

    blobs = [path.read_bytes() for path in (tmp_path / "layout/blobs/sha256").iterdir()]
    (layer,) = (blob for blob in blobs if not blob.startswith(b"{"))
    if compression == "zstd":
        layer = zstandard.ZstdDecompressor().decompress(layer)
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        entries = {entry.name: entry for entry in archive}
    assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in entries.values()} == {(0, 0, "", 315619200)}
    modes = {name: oct(entry.mode) for name, entry in entries.items()}
    assert modes == {
        "bin": "0o777",
        "etc": "0o755",
        "etc/passwd": "0o644",
        "tmp": "0o1777",
        "usr": "0o755",
        "usr/lib": "0o755",
        "usr/lib/libexample.so.1": "0o755",
    }
    assert list(entries) == sorted(entries)
    assert entries["bin"].linkname == "usr/bin"


def test_same_files_make_the_same_layout(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, "base", images("amd64", "arm64"), "zstd")

    assert (tmp_path / "one/index.json").read_bytes() == (tmp_path / "two/index.json").read_bytes()
    (entry,) = json.loads((tmp_path / "one/index.json").read_bytes())["manifests"]
    index = json.loads((tmp_path / "one/blobs" / entry["digest"].replace(":", "/")).read_bytes())
    assert [each["platform"]["architecture"] for each in index["manifests"]] == ["amd64", "arm64"]


@pytest.mark.slow
def test_image_is_a_base_that_an_environment_is_pushed_on(tmp_path: Path, shared: Path) -> None:
    write(tmp_path / "base", "base", images("amd64", "arm64"), "zstd")
    options = PushOptions(base=f"oci:{tmp_path}/base:base", image=ImageSettings(entrypoint=("tool",)))

    pushed = push(
        f"oci:{tmp_path}/layout:v1", str(venv(tmp_path / "env")), options, cache=LayerCache(str(shared / "cache"))
    )

    assert inspect(pushed.reference).environments


def test_base_is_libraries_licences_certificates_and_users(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in (
        "lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib/x86_64-linux-gnu/libssl.so.3",
        "usr/lib/x86_64-linux-gnu/gconv/UTF-16.so",
        "usr/bin/openssl",
        "usr/share/doc/libc6/copyright",
        "usr/share/doc/libc6/changelog.Debian.gz",
        "usr/share/ca-certificates/mozilla/B.crt",
        "usr/share/ca-certificates/mozilla/A.crt",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name}\n")
    (root / "lib64").mkdir()
    (root / "lib64/ld-linux-x86-64.so.2").symlink_to("/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")

    found = base_files(root)

    assert found.keys() == {
        "etc/group",
        "etc/nsswitch.conf",
        "etc/passwd",
        "etc/ssl/certs/ca-certificates.crt",
        "lib/x86_64-linux-gnu/libc.so.6",
        "lib64/ld-linux-x86-64.so.2",
        "usr/lib/ssl/cert.pem",
        "usr/lib/x86_64-linux-gnu/libssl.so.3",
        "usr/share/doc/libc6/copyright",
    }
    authorities = found["etc/ssl/certs/ca-certificates.crt"]
    assert authorities == b"usr/share/ca-certificates/mozilla/A.crt\nusr/share/ca-certificates/mozilla/B.crt\n"
    assert found["lib64/ld-linux-x86-64.so.2"] == "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
