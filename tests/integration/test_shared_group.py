"""A store and a cache that a group of people shares, since their machine's administrator allows it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest

from lamella.builder.cache_folder import cache_folder
from lamella.builder.content.blob import BlobWriter, LayerBlob
from lamella.builder.errors import CacheError
from lamella.builder.layer.cache import BuiltLayer, LayerCache
from lamella.layers.errors import PolicyError, StoreError
from lamella.layers.layout import OciLayout
from lamella.layers.mounting.mount import MountOptions, mount
from lamella.layers.oci.documents import LAYER_ZSTD, Digest
from lamella.layers.pulling.pull import pull
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import gc
from lamella.layers.upkeep.verify import verify
from support import tars
from support.engines import need, need_root
from support.people import import_everything, in_child
from support.policies import administer
from support.published import publish_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

pytestmark = [pytest.mark.root, pytest.mark.slow]

GROUP = f"lamella-tests-{os.getpid()}"
ADA, BOB, EVE = (f"{GROUP}-{name}" for name in ("ada", "bob", "eve"))


@pytest.fixture(scope="module")
def people() -> Iterator[None]:
    """Two members of a group, and a user who is not one."""
    need_root()
    subprocess.run([need("groupadd"), GROUP], check=True)
    try:
        for name in (ADA, BOB, EVE):
            groups = ["--groups", GROUP] if name != EVE else []
            subprocess.run([need("useradd"), "--no-create-home", "--user-group", *groups, name], check=True)
        yield
    finally:
        for name in (ADA, BOB, EVE):
            subprocess.run([need("userdel"), name], check=False)
        subprocess.run([need("groupdel"), GROUP], check=True)


@pytest.fixture
def place(people: None) -> Iterator[Path]:
    """What the administrator made: `install -d -g GROUP -m 2775 FOLDER`."""
    import grp

    folder = Path(tempfile.mkdtemp(prefix="lamella-test-"))
    folder.chmod(0o755)
    shared = folder / "shared"
    shared.mkdir()
    os.chown(shared, 0, grp.getgrnam(GROUP).gr_gid)
    shared.chmod(0o2775)
    try:
        yield shared
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def allowed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    administer(monkeypatch, place.parent, shared_group=GROUP)


def as_person(name: str, do: Callable[[], T]) -> T:
    """What `do` gives as this user, with all groups of this user."""
    import pwd

    import_everything()
    found = pwd.getpwnam(name)

    def become() -> None:
        os.umask(0o022)
        os.environ["HOME"] = "/nonexistent"
        os.initgroups(name, found.pw_gid)
        os.setgid(found.pw_gid)
        os.setuid(found.pw_uid)

    return in_child(become, do)


def packed(out: BinaryIO, content: bytes) -> LayerBlob:
    blob = BlobWriter(out, "zstd")
    blob.write_file([content], len(content))
    return blob.finish()


def published(folder: Path) -> list[str]:
    layout = OciLayout(str(folder / "layout"), create=True)
    made = [tars.layer(tars.tree({f"opt/env/{name}": name.encode() * 9}), package=name) for name in "abc"]
    publish_layers(layout, "one", made[:2])
    publish_layers(layout, "two", made[1:])
    return [f"oci:{folder}/layout:{tag}" for tag in ("one", "two")]


def test_two_members_pull_into_one_store_and_use_the_layers_of_each_other(place: Path, allowed: None) -> None:
    one, two = published(place.parent)
    store = Store(str(place / "store"))
    assert len(as_person(ADA, lambda: pull(one, store=store).plan.fetch)) == 2
    assert len(as_person(BOB, lambda: pull(two, store=store).plan.fetch)) == 1
    assert as_person(ADA, lambda: pull(two, store=store).moved) == 0
    assert as_person(BOB, lambda: verify(store).damaged) == ()
    target = place / "mounted"
    as_person(BOB, lambda: mount(one, str(target), store=store, options=MountOptions(method="copies")))
    assert (target / "a").read_bytes() == b"a" * 9


def test_gc_frees_what_this_member_pulled_and_names_the_others(place: Path, allowed: None) -> None:
    one, two = published(place.parent)
    store = Store(str(place / "store"))
    as_person(ADA, lambda: pull(one, store=store))
    as_person(BOB, lambda: pull(two, store=store))
    freed = as_person(BOB, lambda: gc(store, keep_bytes=0))
    assert len(freed.layers) == 1
    assert freed.in_use == (f"user {ADA}, who pulled them",)
    assert len(list(store.layers())) == 2
    assert len(as_person(ADA, lambda: gc(store, keep_bytes=0)).layers) == 2
    assert list(store.layers()) == []


def test_two_members_use_the_built_layers_of_each_other(place: Path, allowed: None) -> None:
    cache = LayerCache(str(place / "cache"))

    def added(key: str) -> BuiltLayer:
        return cache.add(key, LAYER_ZSTD, partial(packed, content=key.encode()))

    def content(key: str) -> bytes:
        built = cache.find(key)
        assert built
        path = cache.blob_path(built)
        assert path
        return Path(path).read_bytes()

    one, two = "ab" * 32, "cd" * 32
    by_ada = as_person(ADA, lambda: added(one))
    assert Digest.of(as_person(BOB, lambda: content(one))) == by_ada.digest
    by_bob = as_person(BOB, lambda: added(two))
    assert Digest.of(as_person(ADA, lambda: content(two))) == by_bob.digest


@pytest.mark.parametrize("policy", [{}, {"shared_group": "root"}, {"shared_group": "no-such-group"}])
def test_without_that_group_in_the_policy_a_shared_folder_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, policy: dict[str, str]
) -> None:
    administer(monkeypatch, place.parent, **policy)
    store = Store(str(place / "store"))
    with pytest.raises(StoreError, match=rf"group {GROUP} can write {place}"):
        as_person(ADA, store.check_private)
    with pytest.raises(CacheError, match=rf"group {GROUP} can write {place}"):
        as_person(ADA, lambda: cache_folder(str(place / "cache")))


def test_the_group_is_not_a_reason_to_trust_others(place: Path, allowed: None) -> None:
    store = Store(str(place / "store"))
    place.chmod(0o2777)
    with pytest.raises(StoreError, match="every user can write"):
        as_person(ADA, store.check_private)
    place.chmod(0o2775)
    shutil.chown(place, EVE)
    with pytest.raises(StoreError, match=rf"its owner, user {EVE}, can write"):
        as_person(ADA, store.check_private)
    shutil.chown(place, BOB)
    as_person(ADA, store.check_private)
    shutil.chown(place, BOB, EVE)
    with pytest.raises(StoreError, match=rf"its owner, user {BOB}, can write"):
        as_person(ADA, store.check_private)


@pytest.mark.parametrize("value", [["gpu"], 1, True])
def test_a_shared_group_that_is_not_a_name_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    administer(monkeypatch, tmp_path, shared_group=value)
    with pytest.raises(PolicyError, match="shared-group is not a string; use the name of one group"):
        Store(str(tmp_path / "store")).check_private()
