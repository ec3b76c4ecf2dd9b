"""Files that are read whole, whatever is in their place."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.builder.files import small_file
from lamella.builder.files.small_file import plain_text, read_json, read_small, read_text, read_toml

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_read_whole_or_up_to_a_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = os.urandom(3 << 20)
    path.write_bytes(content)
    assert read_small(str(path)) == content
    assert read_small(str(path), 5) == content[:5]
    assert read_small(str(path), 9 << 20) == content


def test_a_fifo_is_an_error_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "RECORD")
    with pytest.raises(OSError, match="not a regular file"):
        read_small(str(tmp_path / "RECORD"))


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev", "."])
def test_a_device_or_folder_is_an_error(path: str) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        read_small(path)


def test_a_file_of_more_than_the_bound_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_file, "_MOST", 10)
    (tmp_path / "file").write_bytes(b"x" * 10)
    assert read_small(str(tmp_path / "file")) == b"x" * 10
    (tmp_path / "file").write_bytes(b"x" * 11)
    with pytest.raises(OSError, match="larger than") as error:
        read_small(str(tmp_path / "file"))
    assert error.value.errno == errno.EFBIG


def test_text_keeps_every_byte_and_has_one_kind_of_line_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\r\nb\rc\n\xff")
    assert read_text(str(tmp_path / "file")) == "a\nb\nc\n\udcff"


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a":' * 100_000, "{", '"\\ud8"', "9" * 5000 if sys.version_info >= (3, 11) else "{"]
)
def test_json_that_cannot_be_read_is_a_value_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(ValueError, match=r"."):
        read_json(str(tmp_path / "file"))


@pytest.mark.parametrize("content", [b"a=" + b"[" * 100_000, b"a=\xff", b"a"])
def test_toml_that_cannot_be_read_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_toml(str(tmp_path / "file"))


def test_a_value_of_a_record_is_text_that_a_document_can_hold() -> None:
    assert [plain_text(value) for value in ("a", 1, None, [["a"]], {"a": 1}, "a\ud800b")] == [
        "a",
        "1",
        "",
        "",
        "",
        "a?b",
    ]
