"""Wheels are unpacked whole, each file checked against its hash; damaged ones are one sentence."""

from __future__ import annotations

import base64
import hashlib
import random
import zipfile
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import BuilderError
from lamella.builder.wheels.unpack import unpack
from support.installed import wheel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SITE = "lib/python3.12/site-packages"
LARGE = random.Random(1).randbytes(3 << 20)


def unpacked(path: Path, folder: Path) -> dict[str, bytes]:
    """Content by path."""
    folder.mkdir()
    written = unpack(str(path), str(folder), short="3.12", prefix="/opt/env")
    assert list(written) == sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())
    return {each: (folder / each).read_bytes() for each in written}


def rewritten(
    path: Path, change: Callable[[dict[str, bytes]], object], compression: int = zipfile.ZIP_DEFLATED
) -> Path:
    """The wheel with other members, compressed in another way."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def record_of(members: dict[str, bytes]) -> str:
    return next(name for name in members if name.endswith("/RECORD"))


def with_hashes(algorithm: str) -> Callable[[dict[str, bytes]], None]:
    """A change of RECORD to hashes by another algorithm."""

    def change(members: dict[str, bytes]) -> None:
        record = record_of(members)
        rows = [f"{record},,"]
        for name, content in members.items():
            if name != record:
                digest = base64.urlsafe_b64encode(hashlib.new(algorithm, content).digest()).decode().rstrip("=")
                rows.append(f"{name},{algorithm}={digest},{len(content)}")
        members[record] = "\n".join(rows).encode()

    return change


@pytest.mark.slow
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_of_any_size_and_compression_are_unpacked(tmp_path: Path, compression: int) -> None:
    files = {"demo/large.bin": LARGE, "demo/empty.py": b"", "demo/text.txt": b"text\n" * 9000}
    path = wheel(tmp_path, "demo", files=files)
    found = unpacked(rewritten(path, lambda _: None, compression), tmp_path / "target")
    assert {
        name.removeprefix(f"{SITE}/"): content for name, content in found.items() if "dist-info" not in name
    } == files


@pytest.mark.parametrize("algorithm", ["sha384", "sha512", "blake2b"])
def test_hashes_of_any_strong_algorithm_are_checked(tmp_path: Path, algorithm: str) -> None:
    path = rewritten(wheel(tmp_path, "demo", files={"demo.py": "right"}), with_hashes(algorithm))
    assert unpacked(path, tmp_path / "target")[f"{SITE}/demo.py"] == b"right"
    rewritten(path, lambda members: members.update({"demo.py": b"wrong"}))
    with pytest.raises(BuilderError, match=r"Hash mismatch for file 'demo\.py'; correct the project's build"):
        unpacked(path, tmp_path / "other")


def cut(content: bytes) -> bytes:
    """The archive with bytes of a member changed behind its header."""
    at = content.index(b"demo/text.txt") + 40
    return content[:at] + bytes(20) + content[at + 20 :]


def encrypted(content: bytes) -> bytes:
    """The archive with the flag of an encrypted member."""
    header = content.rindex(b"PK\1\2", 0, content.rindex(b"demo/text.txt"))
    return content[: header + 8] + b"\1" + content[header + 9 :]


def misplaced(content: bytes) -> bytes:
    """The archive with another offset of a member."""
    header = content.rindex(b"PK\1\2", 0, content.rindex(b"demo/text.txt"))
    return content[: header + 42] + b"\7" + content[header + 43 :]


@pytest.mark.parametrize("damage", [cut, encrypted, misplaced])
def test_a_damaged_wheel_is_one_sentence(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = wheel(tmp_path, "demo", files={"demo/first.txt": "1", "demo/text.txt": "text " * 90})
    rewritten(path, lambda _: None)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BuilderError, match=r"^wheel demo-1\.0-py3-none-any\.whl: [^\n]*; correct the project's build"):
        unpacked(path, tmp_path / "target")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda members: members.pop(record_of(members)), "Missing demo-1.0.dist-info/RECORD file"),
        (lambda members: members.update({"more.py": b""}), "No hash found for file 'more.py'"),
        (with_hashes("md5"), "Weak hash algorithm (md5)"),
        (
            lambda members: members.update({record_of(members): b"demo.py,crc=00,1\n"}),
            "Unsupported hash algorithm: crc",
        ),
    ],
)
def test_a_wheel_whose_files_cannot_be_checked_is_refused(
    tmp_path: Path, change: Callable[[dict[str, bytes]], object], problem: str
) -> None:
    path = rewritten(wheel(tmp_path, "demo", files={"demo.py": ""}), change)
    with pytest.raises(BuilderError) as refused:
        unpacked(path, tmp_path / "target")
    assert problem in str(refused.value)


def test_a_file_name_that_no_disk_holds_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, "demo", files={f"demo/{'n' * 300}.py": ""})
    with pytest.raises(BuilderError, match=r"this disk cannot hold lib/.*n… by that name; set LAMELLA_CACHE"):
        unpacked(path, tmp_path / "target")
