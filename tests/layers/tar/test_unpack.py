"""Unsafe layers are refused with a sentence, and nothing is written outside the layer's folder."""

from __future__ import annotations

import gzip
import os
import re
import stat
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
import zstandard

from lamella.layers.errors import InvalidContent, LayersError, StoreError, UnsafeLayer
from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import LAYER_GZIP, LAYER_TAR, LAYER_ZSTD, Descriptor, Digest, Layer
from lamella.layers.progress.display import Silent
from lamella.layers.pulling.fetch import fetch
from lamella.layers.pulling.pull import pull
from lamella.layers.pulling.worker import Worker
from lamella.layers.store.incoming import receive, remove
from lamella.layers.store.store import Store
from lamella.layers.tar.decompress import MAX_WINDOW
from support import tars
from support.engines import need_root
from support.published import publish_layers
from support.tars import END, file, folder, hardlink, header, pax, symlink


def changed(tar: bytes, at: int, content: bytes) -> bytes:
    """`tar` with other bytes in its first header, and a right checksum."""
    block = bytearray(tar[:512])
    block[at : at + len(content)] = content
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 0x20 + sum(block[156:]))
    return bytes(block) + tar[512:]


DEEP = b"/".join([b"d"] * 140)
LONG = b"/".join([b"n" * 250] * 17)

REFUSED = {
    # Paths
    "a path with '..'": (file(b"a/../../outside", b"x"), "'a/../../outside' is refused: its path leaves its folder"),
    "an absolute path": (file(b"/outside", b"x"), "'/outside' is refused: its path is absolute"),
    "a path over PATH_MAX": (pax({b"path": LONG}) + file(b"short"), "and 4095 is the most that Linux takes"),
    "a component over 255 bytes": (
        pax({b"path": b"d/" + b"n" * 256}) + file(b"short"),
        "a part of its path is longer than 255 bytes",
    ),
    "a path deeper than descriptors reach": (pax({b"path": DEEP}) + file(b"short"), "more than 128 folders deep"),
    "NUL in a PAX path": (
        pax({b"path": b"good\0evil"}) + file(b"short"),
        "a PAX record 'path' is empty or holds a NUL",
    ),
    "a path that is not UTF-8": (file(b"caf\xe9"), "its name is not UTF-8"),
    "a path with an empty part": (file(b"a//b"), "its path has an empty part or a '.' in it"),
    "a path with '.' inside": (file(b"a/./b"), "its path has an empty part or a '.' in it"),
    "an entry without a name": (file(b""), "its path has an empty part"),
    "a file whose name ends in a slash": (file(b"a/", b"x"), "its path has an empty part"),
    # Links
    "a symlink named .": (symlink(b".", b"/etc"), "'.' is refused"),
    "a symlink named /": (symlink(b"/", b"/etc"), "'/' is refused: its path is absolute"),
    "a write through a symlink": (
        symlink(b"lib", b"../../outside") + file(b"lib/evil", b"x"),
        "'lib/evil' is refused: its parent 'lib' is not a folder",
    ),
    "a write through an absolute symlink": (
        folder(b"opt") + symlink(b"opt/env", b"/tmp") + folder(b"opt/env/lib"),
        "'opt/env/lib' is refused: its parent 'opt/env' is not a folder",
    ),
    "a write through a file": (file(b"lib", b"x") + file(b"lib/evil"), "its parent 'lib' is not a folder"),
    "a symlink in the place of a folder": (folder(b"lib") + symlink(b"lib", b"/etc"), "'lib' is in the tar twice"),
    "a file in the place of a symlink": (symlink(b"lib", b"/etc/x") + file(b"lib", b"x"), "'lib' is in the tar twice"),
    "chmod through a symlink": (
        symlink(b"lib", b"../../outside") + folder(b"lib", 0o700),
        "'lib' is in the tar twice",
    ),
    "a symlink without a target": (symlink(b"lib", b""), "is a symlink to ''"),
    "a hardlink to a symlink": (
        symlink(b"one", b"../../outside/canary") + hardlink(b"two", b"one"),
        "'two' is a hardlink to 'one', which is not a file that came before it",
    ),
    "a hardlink through a symlink": (
        symlink(b"one", b"../../outside") + hardlink(b"two", b"one/canary"),
        "'two' is a hardlink to 'one/canary', which is not a file that came before it",
    ),
    "a hardlink to the outside": (hardlink(b"two", b"../../outside/canary"), "its path leaves its folder with '..'"),
    "a hardlink to an absolute path": (hardlink(b"two", b"/etc/passwd"), "its path is absolute"),
    "a hardlink to a later entry": (
        hardlink(b"two", b"one") + file(b"one", b"x"),
        "'two' is a hardlink to 'one', which is not a file that came before it",
    ),
    "a hardlink to a folder": (folder(b"one") + hardlink(b"two", b"one"), "which is not a file that came before it"),
    # Two readings of one tar
    "a PAX size that is not the header's": (
        pax({b"size": b"3"}) + header(b"f", size=1024) + bytes(1024),
        "'f' has two sizes, 1024 in its header and 3 in its PAX record",
    ),
    "a PAX size where the header has none": (
        pax({b"size": b"512"}) + header(b"f") + bytes(512),
        "'f' has two sizes, 0 in its header and 512 in its PAX record",
    ),
    "a negative PAX size": (pax({b"size": b"-1"}) + header(b"f"), "has the PAX size '-1', which is not a whole number"),
    "a GNU long name": (
        header(b"././@LongLink", flag=b"L", size=5, magic=tars.GNU) + tars.padded(b"evil\0") + file(b"good"),
        "only POSIX (ustar and PAX) archives are unpacked",
    ),
    "a GNU long name under POSIX magic": (
        header(b"././@LongLink", flag=b"L", size=5) + tars.padded(b"evil\0") + file(b"good"),
        "'././@LongLink' is a GNU long name: no environment needs one",
    ),
    "a GNU long name that PAX overrides": (
        pax({b"path": b"good"}) + header(b"././@LongLink", flag=b"L", size=5) + tars.padded(b"evil\0") + file(b"f"),
        "'good' is a GNU long name",
    ),
    "a negative base-256 size": (header(b"f", size=b"\xff" * 12), "the size of 'f' is"),
    "a positive base-256 size": (header(b"f", size=b"\x80" + bytes(10) + b"\x05"), "which is not in octal digits"),
    "a size with a sign": (header(b"f", size=b"-0000000001\0"), "which is not in octal digits"),
    "a size with an underscore": (header(b"f", size=b"0000000_001\0"), "which is not in octal digits"),
    "two entries of one path": (file(b"f", b"one") + file(b"f", b"two"), "'f' is in the tar twice"),
    "two folders of one path": (folder(b"d") + folder(b"d"), "'d' is in the tar twice"),
    "a file before its own folder": (file(b"d/f") + folder(b"d"), "'d' is in the tar twice"),
    "one path in two spellings": (file(b"f", b"one") + file(b"./f", b"two"), "'f' is in the tar twice"),
    "bytes after the end marker": (file(b"f") + END + file(b"g"), "bytes follow the end of the tar: only zeros may"),
    "zeros without end after the end marker": (
        file(b"f") + END + bytes(2 << 20),
        "more than 1 MiB of zeros end the tar",
    ),
    "one zero block in the middle": (file(b"f") + bytes(512) + file(b"g"), "bytes follow the end of the tar"),
    "bytes in a file's padding": (
        header(b"f", size=1) + b"x" + b"hidden".ljust(511, b"\0"),
        "bytes are hidden behind the end of a file",
    ),
    "a folder with content": (header(b"d", flag=b"5", size=512) + file(b"f"), "is a folder with 512 bytes of content"),
    "a symlink with content": (
        header(b"s", flag=b"2", size=512, link=b"t") + file(b"f"),
        "is a symlink with 512 bytes",
    ),
    "a file with a link's target": (pax({b"linkpath": b"x"}) + file(b"f"), "'f' is a file with a link's target"),
    "a global PAX header": (pax({b"path": b"f"}, flag=b"g") + file(b"x"), "is a global PAX header"),
    "two PAX headers": (pax({b"mtime": b"1"}) + pax({b"path": b"f"}) + file(b"x"), "is of type b'x'"),
    "one PAX record twice": (pax(tars.record(b"path", b"a") + tars.record(b"path", b"b")) + file(b"x"), "'path' twice"),
    "a PAX record longer than its header": (pax(b"99 path=a\n") + file(b"x"), "a PAX record is malformed"),
    "a PAX record of length 0": (pax(b"0 path=a\n") + file(b"x"), "a PAX record is malformed"),
    "a PAX record with a signed length": (pax(b"+9 path=a\n") + file(b"x"), "a PAX record is malformed"),
    "a PAX header of 1 MiB": (pax({b"comment": b"x" * (1 << 20)}) + file(b"x"), "at most 16384"),
    "a PAX sparse file": (pax({b"GNU.sparse.size": b"1"}) + file(b"x"), "a PAX record 'GNU.sparse.size' is refused"),
    "a user that is not a number": (changed(file(b"f"), 108, b"evil"), "the owner or device of 'f' is not a number"),
    "a group of spaces": (changed(file(b"f"), 116, b" " * 8), "the owner or device of 'f' is not a number"),
    "a device that is not a number": (changed(file(b"f"), 329, b"-000001"), "the owner or device of 'f' is not"),
    "bytes behind the end of a name": (file(b"good\0evil"), "bytes are hidden in the header of 'good'"),
    "bytes behind the end of a target": (symlink(b"s", b"good\0evil"), "bytes are hidden in the header of 's'"),
    "bytes behind the end of a user's name": (
        changed(file(b"f"), 265, b"a\0b"),
        "bytes are hidden in the header of 'f'",
    ),
    "bytes behind the end of the prefix": (header(b"f", prefix=b"a\0b"), "bytes are hidden in the header of 'f'"),
    "bytes where a header has none": (changed(file(b"f"), 500, b"x"), "bytes are hidden in the header of 'f'"),
    "bytes in a PAX header's own header": (
        changed(pax({b"path": b"f"}), 500, b"x") + file(b"x"),
        "bytes are hidden in the header of '././@PaxHeader'",
    ),
    "a PAX header whose own mode is not a number": (
        changed(pax({b"path": b"f"}), 100, b"/") + file(b"x"),
        "the mode of 'a PAX header' is",
    ),
    "a PAX header under GNU's magic": (
        changed(pax({b"path": b"f"}), 257, tars.GNU) + file(b"x"),
        "only POSIX (ustar and PAX) archives are unpacked",
    ),
    "a size behind a NUL": (header(b"f", size=b"\0" * 10 + b"01"), "which is not in octal digits"),
    "a time of spaces": (header(b"f", mtime=b" " * 12), "which is not in octal digits"),
    "a file with a link's target in its header": (
        header(b"f", link=b"x"),
        "'f' is a file with a link's target",
    ),
    "a PAX user that is not a number": (pax({b"uid": b"root"}) + file(b"f"), "a PAX record 'uid' is 'root'"),
    "a PAX time that is not a number": (pax({b"atime": b"now"}) + file(b"f"), "a PAX record 'atime' is 'now'"),
    "an old archive without a magic": (header(b"f", magic=bytes(8)), "only POSIX (ustar and PAX) archives"),
    # What no environment needs
    "a whiteout": (file(b"lib/.wh.site.py"), "'lib/.wh.site.py' is a whiteout"),
    "an opaque whiteout": (file(b".wh..wh..opq"), "is a whiteout: a package's layer removes nothing"),
    "a whiteout for a folder": (folder(b".wh.lib") + file(b".wh.lib/f"), "is a whiteout"),
    "an overlay whiteout": (header(b"f", flag=b"3"), "'f' is a character device: no environment needs one"),
    "a block device": (header(b"f", flag=b"4"), "'f' is a block device"),
    "a FIFO": (header(b"f", flag=b"6"), "'f' is a FIFO"),
    "an unknown type": (header(b"f", flag=b"Z"), "'f' is of type b'Z'"),
    "a setuid file": (file(b"f", mode=0o4755), "'f' has mode 4755: setuid, setgid and sticky bits are refused"),
    "a setgid folder": (folder(b"d", mode=0o2755), "'d' has mode 2755"),
    "a sticky folder": (folder(b"d", mode=0o1777), "'d' has mode 1777"),
    "a capability": (
        pax({b"SCHILY.xattr.security.capability": b"\1"}) + file(b"f"),
        "a PAX record 'SCHILY.xattr.security.capability' is refused: no layer needs extended attributes",
    ),
    "an opaque folder of overlayfs": (
        pax({b"SCHILY.xattr.trusted.overlay.opaque": b"y"}) + folder(b"d"),
        "'SCHILY.xattr.trusted.overlay.opaque' is refused",
    ),
    "a redirect of overlayfs": (
        pax({b"SCHILY.xattr.user.overlay.redirect": b"/etc"}) + folder(b"d"),
        "'SCHILY.xattr.user.overlay.redirect' is refused",
    ),
    "an attribute in libarchive's spelling": (
        pax({b"LIBARCHIVE.xattr.user.overlay.opaque": b"eQ=="}) + folder(b"d"),
        "'LIBARCHIVE.xattr.user.overlay.opaque' is refused",
    ),
}


class Place:
    """A store inside a folder whose other content must stay as it is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "outside").mkdir(mode=0o755)
        (root / "outside" / "canary").write_text("untouched")
        self.store = Store(str(root / "store"))
        self.store.prepare()
        self.before = tars.snapshot(root)

    def bring(self, layer: Layer, blob: bytes) -> None:
        storage = OciLayout(str(self.root.parent / f"{self.root.name}-layout"), create=True)
        storage.push(layer.descriptor, lambda: BytesIO(blob))
        fetch([layer], storage, self.store, Silent())

    def bring_tar(self, tar: bytes, media_type: str = LAYER_ZSTD) -> Path:
        layer, blob = tars.layer(tar, media_type)
        self.bring(layer, blob)
        return Path(self.store.layer_path(layer.diff_id))

    def assert_untouched(self) -> None:
        assert tars.snapshot(self.root) == self.before


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = tmp_path / "place"
    root.mkdir()
    return Place(root)


@pytest.mark.parametrize(("tar", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses(place: Place, tar: bytes, message: str) -> None:
    with pytest.raises(LayersError, match=re.escape(message)) as refused:
        place.bring_tar(tar if END in tar else tar + END)
    assert str(refused.value).startswith("cannot unpack layer demo 1.0 (sha256:")
    place.assert_untouched()


@pytest.mark.parametrize("length", [0, 1, 511, 512, 600, 1535, 1536, 2047])
def test_refuses_a_tar_that_was_cut_short(place: Place, length: int) -> None:
    whole = file(b"f", b"x" * 700) + END
    with pytest.raises(InvalidContent, match="it was cut short"):
        place.bring_tar(whole[:length])
    place.assert_untouched()


def test_refuses_a_file_system_that_copies_in_place_of_hard_links(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, blob = tars.layer(file(b"one", b"x") + hardlink(b"two", b"one") + END)
    storage = OciLayout(str(place.root.parent / "layout"), create=True)
    storage.push(layer.descriptor, lambda: BytesIO(blob))

    def copy(source: bytes, target: bytes, *, dst_dir_fd: int | None = None, **_: object) -> None:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=dst_dir_fd))

    monkeypatch.setattr(os, "link", copy)
    with pytest.raises(StoreError, match="makes copies in place of hard links"):
        fetch([layer], storage, place.store, Silent())


def test_refuses_a_header_with_a_wrong_checksum(place: Place) -> None:
    damaged = bytearray(file(b"f") + END)
    damaged[0:1] = b"g"
    with pytest.raises(InvalidContent, match="a tar header has a wrong checksum"):
        place.bring_tar(bytes(damaged))
    place.assert_untouched()


def test_a_folder_swapped_for_a_link_while_it_is_written_is_not_followed(place: Place) -> None:
    # The reader below swaps the folder when the second file's content is asked for.
    tar = folder(b"lib") + folder(b"lib/in") + file(b"lib/in/one", b"1") + file(b"lib/in/two", b"2" * (1 << 20)) + END
    tar = tar[: -len(END)] + folder(b"share") + file(b"lib/in/three", b"3") + END
    target = place.root / "store" / "partial" / "swapped"

    class Swapping(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            inner = target / "tree" / "lib" / "in"
            if self.tell() > 1 << 19 and not inner.is_symlink():
                inner.rename(target / "moved")
                inner.symlink_to(place.root / "outside")
            return super().read(size)

    layer, _ = tars.layer(tar, LAYER_TAR)
    with pytest.raises(UnsafeLayer, match="its parent 'lib/in' is not a folder"):
        receive(Swapping(tar), layer, str(target))
    assert sorted(path.name for path in (place.root / "outside").iterdir()) == ["canary"]
    assert (target / "moved" / "two").exists()


class TestCompression:
    def test_refuses_a_second_gzip_member(self, place: Place) -> None:
        tar = file(b"f", b"x") + END
        layer, blob = tars.layer(tar, LAYER_GZIP, blob=gzip.compress(tar) + gzip.compress(file(b"g") + END))
        with pytest.raises(UnsafeLayer, match="bytes follow the end of its gzip stream"):
            place.bring(layer, blob)
        place.assert_untouched()

    def test_refuses_zeros_after_the_gzip_stream(self, place: Place) -> None:
        tar = file(b"f", b"x") + END
        layer, blob = tars.layer(tar, LAYER_GZIP, blob=gzip.compress(tar) + bytes(512))
        with pytest.raises(UnsafeLayer, match="bytes follow the end of its gzip stream"):
            place.bring(layer, blob)
        place.assert_untouched()

    def test_refuses_garbage_after_the_zstd_stream(self, place: Place) -> None:
        tar = file(b"f", b"x") + END
        layer, blob = tars.layer(tar, blob=zstandard.compress(tar) + b"garbage")
        with pytest.raises(InvalidContent, match="its zstd stream is damaged"):
            place.bring(layer, blob)
        place.assert_untouched()

    def test_a_second_zstd_frame_is_content_and_must_fit_the_diff_id(self, place: Place) -> None:
        tar = file(b"f", b"x") + END
        layer, blob = tars.layer(tar, blob=zstandard.compress(tar) + zstandard.compress(bytes(512)))
        with pytest.raises(InvalidContent, match="the image's config does not belong to its layers"):
            place.bring(layer, blob)
        place.assert_untouched()

    @pytest.mark.parametrize("media_type", [LAYER_GZIP, LAYER_ZSTD])
    def test_refuses_a_stream_that_was_cut_short(self, place: Place, media_type: str) -> None:
        tar = file(b"f", os.urandom(5000)) + END
        layer, blob = tars.layer(tar, media_type)
        layer, blob = tars.layer(tar, media_type, blob=blob[: len(blob) // 2])
        with pytest.raises(InvalidContent, match="was cut short"):
            place.bring(layer, blob)
        place.assert_untouched()

    @pytest.mark.slow
    @pytest.mark.parametrize("media_type", [LAYER_GZIP, LAYER_ZSTD])
    def test_refuses_a_bomb(self, place: Place, media_type: str) -> None:
        tar = header(b"zeros", size=120 << 20) + bytes(120 << 20) + END
        layer, blob = tars.layer(tar, media_type)
        with pytest.raises(UnsafeLayer, match="refused as a decompression bomb"):
            place.bring(layer, blob)
        place.assert_untouched()

    @pytest.mark.slow
    def test_a_layer_that_announces_its_size_may_be_mostly_zeros(self, place: Place) -> None:
        tar = header(b"zeros", size=120 << 20) + bytes(120 << 20) + END
        layer, blob = tars.layer(tar, unpacked=120 << 20)
        place.bring(layer, blob)
        assert os.path.getsize(place.store.layer_path(layer.diff_id) + "/zeros") == 120 << 20

    def test_refuses_a_zstd_window_of_2_gib(self, place: Place) -> None:
        # RFC 8878, 3.1.1.1.2: the window descriptor's upper five bits are its logarithm less 10; then a raw block.
        frame = b"\x28\xb5\x2f\xfd" + bytes([0, (31 - 10) << 3]) + (1 | 4 << 3).to_bytes(3, "little") + b"tar!"
        layer, blob = tars.layer(END, blob=frame)
        with pytest.raises(UnsafeLayer, match=f"needs a window of more than {MAX_WINDOW >> 20} MiB"):
            place.bring(layer, blob)
        place.assert_untouched()

    def test_refuses_a_media_type_of_another_kind(self, place: Place) -> None:
        layer, blob = tars.layer(END)
        layer = Layer(Descriptor.of("application/vnd.oci.image.layer.v1.tar+xz", blob), layer.diff_id)
        with pytest.raises(InvalidContent, match="is not an OCI layer"):
            place.bring(layer, blob)
        place.assert_untouched()


class TestBounds:
    def test_refuses_more_content_than_the_layer_announces(self, place: Place) -> None:
        tar = file(b"one", b"x" * 60) + file(b"two", b"x" * 41) + END
        layer, blob = tars.layer(tar, unpacked=100)
        with pytest.raises(UnsafeLayer, match="its files have more than the 100 bytes that it announces"):
            place.bring(layer, blob)
        place.assert_untouched()

    def test_takes_the_content_that_the_layer_announces(self, place: Place) -> None:
        layer, blob = tars.layer(file(b"one", b"x" * 60) + file(b"two", b"x" * 40) + END, unpacked=100)
        place.bring(layer, blob)
        assert os.path.getsize(place.store.layer_path(layer.diff_id) + "/two") == 40

    @pytest.mark.parametrize(
        "outside",
        [
            file(b"etc/passwd", b"root::0:0::/:/bin/sh"),
            file(b"opt/environment", b"x"),
            file(b"opt/env", b"x"),
            folder(b"etc"),
            folder(b"opt/envs"),
            symlink(b"opt", b"/etc"),
            symlink(b"lib", b"usr/lib"),
            hardlink(b"etc", b"opt/env/f"),
        ],
        ids=["file", "neighbour", "prefix a file", "folder", "folder beside", "parent a link", "link", "hard link"],
    )
    @pytest.mark.parametrize("workers", [False, True])
    def test_refuses_an_entry_outside_the_image_prefix(self, place: Place, outside: bytes, workers: bool) -> None:
        layer, blob = tars.layer(file(b"opt/env/f", b"x") + outside + END)
        path = f"{place.store.path}/partial/one"
        receiver = Worker().receive if workers else receive
        with pytest.raises(UnsafeLayer, match=r"outside the image prefix '/opt/env'|is not a folder"):
            receiver(BytesIO(blob), layer, path, "/opt/env")
        remove(path)
        place.assert_untouched()

    def test_takes_the_folders_from_the_root_to_the_image_prefix(self, tmp_path: Path) -> None:
        folders = folder(b"./") + folder(b"./opt/") + folder(b"./opt/env") + folder(b"./opt/env/lib")
        layer, blob = tars.layer(folders + file(b"./opt/env/lib/f", b"x") + END)
        receive(BytesIO(blob), layer, str(tmp_path / "layer"), "/opt/env")
        assert (tmp_path / "layer/tree/opt/env/lib/f").read_bytes() == b"x"

    def test_a_pull_refuses_an_entry_outside_the_image_prefix(self, place: Place) -> None:
        layer, blob = tars.layer(file(b"etc/passwd", b"x") + END)
        layout = place.root.parent / "published"
        digest = publish_layers(OciLayout(str(layout), create=True), "v1", [(layer, blob)])
        with pytest.raises(UnsafeLayer, match="'etc/passwd' is outside the image prefix '/opt/env'"):
            pull(f"oci:{layout}@{digest}", store=place.store)
        assert not place.store.has(layer.diff_id)

    @pytest.mark.slow
    def test_leaves_room_for_files_of_others_on_the_disk(self, tmp_path: Path) -> None:
        need_root()
        disk = tmp_path / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=20k", "none", str(disk)], check=True)
        try:
            tar = b"".join(file(b"%d" % number) for number in range(20_400)) + END
            layer, blob = tars.layer(tar)
            with pytest.raises(StoreError, match=r"more files \(inodes\); free some with lamella gc"):
                receive(BytesIO(blob), layer, str(disk / "layer"))
            assert os.statvfs(disk).f_favail >= 100
        finally:
            subprocess.run(["umount", str(disk)], check=True)


class TestIdentity:
    def test_refuses_a_diff_id_that_is_not_the_blobs(self, place: Place) -> None:
        layer, blob = tars.layer(file(b"f", b"x") + END)
        layer = Layer(layer.descriptor, Digest.of(b"another tar"))
        with pytest.raises(InvalidContent, match="the image's config does not belong to its layers"):
            place.bring(layer, blob)
        place.assert_untouched()

    @pytest.mark.parametrize("change", [b"", b"more"], ids=["other bytes", "longer"])
    def test_refuses_a_blob_that_is_not_its_digest(self, place: Place, change: bytes) -> None:
        layer, blob = tars.layer(file(b"f", b"x") + END, LAYER_TAR)
        storage = OciLayout(str(place.root.parent / "layout"), create=True)
        storage.push(layer.descriptor, lambda: BytesIO(blob))
        stored = place.root.parent / "layout" / "blobs" / "sha256" / layer.descriptor.digest.hex
        stored.chmod(0o644)
        stored.write_bytes(blob.replace(b"x", b"y") + change)
        with pytest.raises(InvalidContent, match=layer.descriptor.digest.hex):
            fetch([layer], storage, place.store, Silent())
        place.assert_untouched()


class TestWhatIsUnpacked:
    def test_content_modes_times_and_links(self, place: Place) -> None:
        tree = place.bring_tar(
            folder(b"opt/", 0o700)
            + folder(b"opt/empty/")
            + file(b"opt/plain", b"plain", 0o600)
            + file(b"opt/program", b"#!/bin/sh", 0o700)
            + hardlink(b"opt/same", b"opt/plain")
            + symlink(b"opt/there", b"../../etc/passwd")
            + END
        )
        assert {path: oct(mode) for path, (mode, _) in tars.snapshot(tree).items()} == {
            "opt": oct(stat.S_IFDIR | 0o755),
            "opt/empty": oct(stat.S_IFDIR | 0o755),
            "opt/plain": oct(stat.S_IFREG | 0o644),
            "opt/program": oct(stat.S_IFREG | 0o755),
            "opt/same": oct(stat.S_IFREG | 0o644),
            "opt/there": oct(stat.S_IFLNK | 0o777),
        }
        assert (tree / "opt/same").samefile(tree / "opt/plain")
        assert os.readlink(tree / "opt/there") == "../../etc/passwd"
        assert {os.lstat(path).st_mtime for path in tree.rglob("*")} == {tars.MTIME}

    def test_modes_do_not_depend_on_the_umask(self, place: Place) -> None:
        before = os.umask(0o077)
        try:
            tree = place.bring_tar(folder(b"d") + file(b"d/f") + folder(b"d/empty") + END)
        finally:
            os.umask(before)
        modes = [stat.S_IMODE((tree / name).stat().st_mode) for name in ("", "d", "d/f", "d/empty")]
        assert modes == [0o755, 0o755, 0o644, 0o755]

    def test_folders_in_no_order_keep_their_times(self, place: Place) -> None:
        tree = place.bring_tar(folder(b"a") + folder(b"b") + file(b"a/1") + file(b"b/1") + file(b"a/2") + END)
        assert (tree / "a").stat().st_mtime == tars.MTIME
        assert sorted(os.listdir(tree / "a")) == ["1", "2"]

    def test_folders_that_the_tar_does_not_name_are_made(self, place: Place) -> None:
        assert (place.bring_tar(file(b"a/b/c", b"x") + END) / "a/b/c").read_bytes() == b"x"

    def test_a_numeric_pax_path_is_a_name(self, place: Place) -> None:
        assert (place.bring_tar(pax({b"path": b"123"}) + file(b"other", b"x") + END) / "123").read_bytes() == b"x"

    def test_names_beyond_ustar(self, place: Place) -> None:
        name = "ö" * 120
        tree = place.bring_tar(pax({b"path": name.encode()}) + file(b"short", b"x") + END)
        assert (tree / name).read_bytes() == b"x"

    def test_a_ustar_prefix_is_part_of_the_name(self, place: Place) -> None:
        tree = place.bring_tar(header(b"f", prefix=b"some/folder") + END)
        assert (tree / "some/folder/f").is_file()

    def test_what_gnu_tar_writes_from_a_folder(self, place: Place) -> None:
        tree = place.bring_tar(folder(b"./") + file(b"./f", b"x") + END + bytes(8192))
        assert (tree / "f").read_bytes() == b"x"

    @pytest.mark.parametrize("media_type", [LAYER_TAR, LAYER_GZIP, LAYER_ZSTD])
    def test_every_compression(self, place: Place, media_type: str) -> None:
        content = os.urandom(300_000)
        assert (place.bring_tar(tars.tree({"a/b": content}), media_type) / "a/b").read_bytes() == content

    def test_frames_that_follow_one_another_are_one_tar(self, place: Place) -> None:
        tar = file(b"f", b"x" * 2000) + END
        layer, blob = tars.layer(tar, blob=zstandard.compress(tar[:1000]) + zstandard.compress(tar[1000:]))
        place.bring(layer, blob)
        assert Path(place.store.layer_path(layer.diff_id), "f").read_bytes() == b"x" * 2000
