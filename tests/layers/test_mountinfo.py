"""Mounts from the text of mountinfo."""

from __future__ import annotations

import os

from lamella.layers.mountinfo import mount_of, mounts, parse

LISTED = b"""\
20 1 8:1 / / rw shared:1 - ext4 /dev/sda rw
30 20 0:50 / /data rw shared:7 master:3 - fuse.sshfs user@host:/a\\040b rw
31 20 0:51 /part /data rw - overlay lamella rw
32 20 0:52 / /with\\040space\\134 rw - tmpfs none rw
"""


def test_spaces_and_backslashes_of_paths_are_unescaped() -> None:
    listed = parse(LISTED)
    assert listed[3].point == "/with space\\"
    assert listed[1].source == "user@host:/a b"


def test_peer_groups_and_types_of_file_systems_are_read() -> None:
    assert parse(LISTED)[1].groups == {"7", "3"}
    assert parse(LISTED)[1].kind == "fuse.sshfs"


def test_a_line_of_another_shape_is_passed_over() -> None:
    assert [each.number for each in parse(b"not a mount\n" + LISTED)] == ["20", "30", "31", "32"]


def test_a_path_is_on_the_deepest_mount_above_it_and_on_the_last_of_several_there() -> None:
    listed = parse(LISTED)
    found = [mount_of(path, listed) for path in ("/data/file", "/database", "/data")]
    assert [each and each.device for each in found] == ["0:51", "8:1", "0:51"]


def test_the_mounts_of_this_process_include_the_root() -> None:
    assert mount_of("/", mounts()) is not None
    assert mounts() == mounts(str(os.getpid()))
