from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from lamella.builder.content import bytecode, precompiler
from lamella.builder.content.precompiler import Precompiler
from lamella.builder.errors import BuilderError, CacheError, EnvironmentChanged
from lamella.builder.image.documents import ImageSettings
from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from lamella.layers.errors import Denied, LayersError, NotFound, StoreError
from lamella.layers.layout import OciLayout
from lamella.layers.oci import referrers
from lamella.layers.oci.annotations import PLATFORM
from lamella.layers.oci.documents import ImageConfig, Index, Manifest, Platform
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.progress.display import Silent
from lamella.layers.published import environment as published
from lamella.layers.published.findings import Finding
from lamella.layers.settings.trust import Trust
from lamella.layers.signing.cosign import sign, verify_signature
from lamella.layers.signing.keys import read_private_key
from lamella.layers.storages import open_storage
from support.engines import need, need_root
from support.installed import install, venv, wheel
from support.keys import key_pair
from support.packages import SITE, environment, package
from support.processes import DEADLINE
from support.published import push_image
from support.registry_simulator import PASSWORD, USER, Fault, RegistrySimulator
from support.tars import archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lamella.builder.environment import Environment


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as simulator:
        yield simulator


@pytest.fixture
def cache(tmp_path: Path) -> LayerCache:
    return LayerCache(str(tmp_path / "cache"))


def small(prefix: Path, *, count: int = 6, changed: str = "", compiles: bool = False) -> Environment:
    """Packages p0, p1 and so on, each larger than the next; one of them may be `changed`."""
    packages = []
    for number in range(count):
        name = f"p{number}"
        text = f"value = {number}\n" + "# padding\n" * (count - number) * 100 + ("new = 1\n" if name == changed else "")
        info = f"{SITE}/{name}-1.0.dist-info"
        files = {
            f"{SITE}/{name}.py": text,
            f"{info}/METADATA": f"Name: {name}\n",
            f"{info}/RECORD": "",
            f"{info}/INSTALLER": str(prefix),
            f"share/{name}.cfg": f"root={prefix}\n",
        }
        packages.append(package(prefix, name, files, records=info))
    return environment(prefix, *packages, compiles=compiles)


def base_image(reference: str, layers: list[dict[str, str | bytes]], env: tuple[str, ...] = ()) -> None:
    """Pushes an image of `layers` as `reference`."""
    place = Reference.parse(reference)
    storage = open_storage(place, Trust(), create=True)
    push_image(storage, [archive(files, "/root") for files in layers], place.tag, env=env)
    storage.close()


def digests(reference: str) -> dict[str, str]:
    """Package name to blob digest, as a node reads it."""
    place = Reference.parse(reference)
    storage = open_storage(place, Trust())
    try:
        (found,) = published.read_index(storage, place, Trust()).environments
    finally:
        storage.close()
    return {layer.descriptor.annotations["dev.lamella.package"]: str(layer.descriptor.digest) for layer in found.layers}


def image_of(storage: OciLayout, tag: str) -> tuple[Manifest, ImageConfig]:
    index = Index.parse(fetch_document(storage, storage.resolve(tag)))
    manifest = Manifest.parse(fetch_document(storage, index.manifests[0]))
    return manifest, ImageConfig.parse(fetch_document(storage, manifest.config))


@pytest.mark.slow
def test_the_same_environment_has_the_same_index_on_any_machine(tmp_path: Path) -> None:
    pushed = []
    for number in range(2):
        prefix = tmp_path / f"somewhere-{number}" / ("deeper" * number) / "env"
        cache = LayerCache(str(tmp_path / f"cache{number}"))
        pushed.append(push(f"oci:{tmp_path}/out{number}:x", small(prefix, compiles=True), cache=cache).reference)
    assert pushed[0].partition("@")[2] == pushed[1].partition("@")[2] != ""


def test_pushing_again_asks_for_the_tag_and_uploads_no_blob(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    reference = f"{registry.host}/team/envs:x"
    env = small(tmp_path / "env")
    first = push(reference, env, cache=cache)
    assert (first.built, first.uploaded, first.reused) == (6, 6, 0)
    registry.requests.clear()
    again = push(reference, env, cache=cache)
    assert (again.reference, again.built, again.uploaded, again.reused, again.moved) == (first.reference, 0, 0, 6, 0)
    assert again.plan.unchanged
    assert len(registry.asked("PUT .*/manifests/sha256:")) == 2, "the registry checks what its manifests name"
    assert len(registry.requests) == 3


@pytest.mark.parametrize("referrers_api", [True, False])
@pytest.mark.parametrize(("auth", "requests"), [("", 4), ("basic", 4), ("bearer", 5)])
@pytest.mark.slow
def test_pushing_again_is_five_requests_at_most_with_all_that_is_attached(
    tmp_path: Path,
    registry: RegistrySimulator,
    cache: LayerCache,
    monkeypatch: pytest.MonkeyPatch,
    auth: str,
    requests: int,
    referrers_api: bool,
) -> None:
    """The tag, two manifests, the list of attachments, and a token; those to the token server count."""
    registry.auth, registry.referrers_api = auth, referrers_api
    if auth:
        log_in(registry, tmp_path, monkeypatch)
    env = replace(small(tmp_path / "env"), findings=(Finding("warning", "patched", "p1", "p1 was patched"),))
    push(f"{registry.host}/team/envs:x", env, PushOptions(sbom=True), cache=cache)
    registry.requests.clear()
    again = push(f"{registry.host}/team/envs:x", env, PushOptions(sbom=True), cache=LayerCache(str(tmp_path / "cache")))
    assert again.plan.unchanged
    assert len(registry.requests) == requests


@pytest.mark.slow
@pytest.mark.parametrize("referrers_api", [True, False])
def test_a_process_that_pushes_again_makes_five_requests_at_most_with_a_token(
    tmp_path: Path, registry: RegistrySimulator, monkeypatch: pytest.MonkeyPatch, referrers_api: bool
) -> None:
    registry.auth, registry.referrers_api = "bearer", referrers_api
    log_in(registry, tmp_path, monkeypatch)
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "cache"))
    made = install(venv(tmp_path / "env"), wheel(tmp_path / "wheels", "one", files={"one.py": "one = 1\n"}))
    (made / "lib" / "unowned.so").write_bytes(b"of no package")
    reference = f"{registry.host}/team/envs:x"
    command = [sys.executable, "-m", "lamella.cli", "push", reference, str(made), "--sbom", "--json"]
    subprocess.run(command, check=True, capture_output=True)
    registry.requests.clear()
    again = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert again["uploaded"]["layers"] == 0
    assert len(registry.requests) <= 5
    secrets = [PASSWORD.encode(), *(token.encode() for token in registry.tokens)]
    kept = [path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not [content for content in kept for secret in secrets if secret in content]


def log_in(registry: RegistrySimulator, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login = {"auths": {registry.host: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}}
    (folder / "config.json").write_text(json.dumps(login))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


@pytest.mark.slow
def test_pushing_again_reads_no_blob(tmp_path: Path, cache: LayerCache) -> None:
    reference = f"oci:{tmp_path}/out:x"
    env = small(tmp_path / "env")
    first = push(reference, env, cache=cache)
    for path in (tmp_path / "cache/layers/blobs/sha256").iterdir():
        path.unlink()
    assert push(reference, env, cache=cache).reference == first.reference


@pytest.mark.slow
def test_a_colleague_neither_builds_nor_uploads_layers_in_the_tag(tmp_path: Path, registry: RegistrySimulator) -> None:
    reference = f"{registry.host}/team/envs:x"
    first = push(reference, small(tmp_path / "mine"), cache=LayerCache(str(tmp_path / "a")))
    registry.requests.clear()
    theirs = push(reference, small(tmp_path / "theirs"), cache=LayerCache(str(tmp_path / "b")))
    assert theirs.reference == first.reference
    assert (theirs.built, theirs.uploaded, theirs.reused, theirs.moved) == (0, 0, 6, 0)
    assert theirs.plan.unchanged
    assert not registry.asked("POST|PATCH|PUT .*/blobs/")
    assert len(registry.requests) == 6 + 6 + 2 + 2, "documents to read, blobs and configs to ask for, manifests"


@pytest.mark.slow
def test_one_changed_package_uploads_its_layer_alone(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    reference = f"{registry.host}/team/envs:x"
    push(reference, small(tmp_path / "env"), cache=cache)
    before = digests(reference)
    changed = push(reference, small(tmp_path / "new", changed="p3"), cache=cache)
    after = digests(reference)
    assert {name for name in after if after[name] != before[name]} == {"p3"}
    assert (changed.built, changed.uploaded, changed.reused) == (1, 1, 5)


@pytest.mark.slow
def test_more_packages_than_layers_are_bundled_and_a_change_moves_one_bundle(tmp_path: Path, cache: LayerCache) -> None:
    reference = f"oci:{tmp_path}/out:x"
    first = push(reference, small(tmp_path / "env", count=20), PushOptions(max_layers=12), cache=cache)
    storage = OciLayout(f"{tmp_path}/out")
    manifest, config = image_of(storage, "x")
    assert len(manifest.layers) == len(config.diff_ids) <= 12
    assert (first.built, first.uploaded) == (22, 22), "20 packages, 2 bundles of those without a layer of their own"
    assert "p19" in "".join(step["created_by"] for step in config.history)
    changed = push(reference, small(tmp_path / "new", count=20, changed="p19"), PushOptions(max_layers=12), cache=cache)
    assert (changed.built, changed.uploaded, changed.reused) == (2, 2, 20)


@pytest.mark.slow
def test_a_bundle_is_built_from_the_registrys_blobs_if_the_cache_lacks_them(
    tmp_path: Path, registry: RegistrySimulator
) -> None:
    reference = f"{registry.host}/team/envs:x"
    push(
        reference, small(tmp_path / "a", count=20), PushOptions(max_layers=12), cache=LayerCache(str(tmp_path / "one"))
    )
    other = LayerCache(str(tmp_path / "two"))
    theirs = push(reference, small(tmp_path / "b", count=20, changed="p19"), PushOptions(max_layers=12), cache=other)
    assert (theirs.built, theirs.uploaded) == (2, 2)


@pytest.mark.engine
def test_every_file_is_in_the_image_as_it_is_in_the_packages(tmp_path: Path, cache: LayerCache) -> None:
    push(
        f"oci:{tmp_path}/out:x",
        small(tmp_path / "env", count=20, compiles=True),
        PushOptions(max_layers=8),
        cache=cache,
    )
    subprocess.run([need("skopeo"), "copy", "-q", f"oci:{tmp_path}/out:x", f"dir:{tmp_path}/dir"], check=True)
    manifest = json.loads((tmp_path / "dir/manifest.json").read_text())
    for layer in manifest["layers"]:
        blob = tmp_path / "dir" / layer["digest"].partition(":")[2]
        subprocess.run([need("tar"), "--zstd", "-xf", blob, "-C", tmp_path / "dir"], check=True)
    site = tmp_path / "dir/opt/env" / SITE
    assert sorted(path.name for path in site.glob("*.py")) == sorted(f"p{number}.py" for number in range(20))
    assert len(list(site.glob("__pycache__/*.pyc"))) == 20
    assert (tmp_path / "dir/opt/env/share/p3.cfg").read_text() == "root=/opt/env\n"


@pytest.mark.slow
def test_a_dry_run_returns_the_plan_and_does_nothing(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    reference = f"{registry.host}/team/envs:x"
    push(reference, small(tmp_path / "env"), cache=cache)
    registry.requests.clear()
    planned = push(reference, small(tmp_path / "new", changed="p3"), PushOptions(dry_run=True), cache=cache)
    assert [layer.wanted.packages for layer in planned.plan.chosen("build")] == [("p3 1.0",)]
    assert (planned.built, planned.reused, planned.uploaded, planned.moved) == (0, 5, 0, 0)
    assert not registry.asked("POST|PUT|PATCH")
    fresh = push(f"oci:{tmp_path}/never:x", small(tmp_path / "env2"), PushOptions(dry_run=True), cache=cache)
    assert len(fresh.plan.chosen("upload")) == 6
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_a_layer_that_is_known_but_out_of_reach_is_built_again(tmp_path: Path, registry: RegistrySimulator) -> None:
    push(f"{registry.host}/team/envs:x", small(tmp_path / "a"), cache=LayerCache(str(tmp_path / "one")))
    other = LayerCache(str(tmp_path / "two"))
    push(f"{registry.host}/team/envs:x", small(tmp_path / "b"), cache=other)
    elsewhere = push(f"oci:{tmp_path}/out:x", small(tmp_path / "b"), cache=other)
    assert (elsewhere.built, elsewhere.uploaded) == (6, 6)


class NoBuild(Silent):
    """Fails the test if a build begins."""

    def begin(self, task: str, total: int | None, unit: str) -> None:  # noqa: ARG002 - only the name counts
        assert task != "build"


@pytest.mark.parametrize(
    ("status", "message"), [(405, "read-only"), (403, "denies"), (401, "requires authentication|unsupported")]
)
def test_a_missing_right_to_push_is_reported_before_the_build(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache, status: int, message: str
) -> None:
    registry.faults.append(Fault("POST .*/blobs/uploads/", 99, status))
    with pytest.raises(Denied, match=message):
        push(f"{registry.host}/team/envs:x", small(tmp_path / "env"), cache=cache, progress=NoBuild())


def test_checking_for_write_access_leaves_nothing_behind(tmp_path: Path, registry: RegistrySimulator) -> None:
    place = Reference.parse(f"{registry.host}/team/envs:x")
    storage = open_storage(place, Trust(), mirrors=False)
    storage.check_writable()
    assert registry.asked("DELETE .*/blobs/uploads/")
    assert registry.sessions == 0
    folder = tmp_path / "layout"
    layout = OciLayout(str(folder), create=True)
    layout.check_writable()
    layout.close()
    assert not folder.exists()


@pytest.mark.root
def test_a_read_only_folder_is_reported_before_the_build(cache: LayerCache, tmp_path: Path) -> None:
    need_root()
    env = small(tmp_path / "env")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run([need("mount"), "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk)], check=True)
    try:
        with pytest.raises(StoreError, match="the file system is read-only; name another folder"):
            push(f"oci:{disk}/layout:x", env, cache=cache, progress=NoBuild())
    finally:
        subprocess.run([need("umount"), str(disk)], check=True)


@pytest.mark.slow
def test_a_push_that_fails_leaves_the_tag_as_it_was(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    reference = f"{registry.host}/team/envs:x"
    first = push(reference, small(tmp_path / "env"), cache=cache)
    registry.faults.append(Fault("PUT .*/blobs/", times=100, status=403))
    with pytest.raises(LayersError):
        push(reference, small(tmp_path / "new", changed="p1"), cache=cache)
    assert str(Reference.parse(first.reference).digest) == registry.tags["team/envs"]["x"]
    registry.faults.clear()
    changed = push(reference, small(tmp_path / "again", changed="p1"), cache=cache)
    assert (changed.built, changed.uploaded) == (0, 1), "a built layer is not built again"


def test_a_blob_that_rotted_in_the_cache_is_not_pushed_and_built_again(tmp_path: Path, cache: LayerCache) -> None:
    env = small(tmp_path / "env", count=1)
    first = push(f"oci:{tmp_path}/one:x", env, cache=cache)
    (blob,) = (tmp_path / "cache/layers/blobs/sha256").iterdir()
    blob.write_bytes(b"x" * blob.stat().st_size)
    with pytest.raises(CacheError, match=r"damaged in the cache .*; push again"):
        push(f"oci:{tmp_path}/two:x", env, cache=cache)
    with pytest.raises(NotFound):
        OciLayout(f"{tmp_path}/two").resolve("x")
    again = push(f"oci:{tmp_path}/two:x", env, cache=cache)
    assert again.reference.partition("@")[2] == first.reference.partition("@")[2]


def test_a_file_is_hashed_again_unless_the_scan_excludes_late_changes(tmp_path: Path, cache: LayerCache) -> None:
    """A false hash in the inventory shows whether a push looks."""
    env = small(tmp_path / "env", count=1)
    one = env.packages[0]
    false = replace(
        one, files=tuple(file._replace(digest="0" * 64) if file.path.endswith(".py") else file for file in one.files)
    )
    late, settled = replace(env, packages=(false,)), replace(env, packages=(false,))
    object.__setattr__(settled, "digest", "of a scan")
    with pytest.raises(EnvironmentChanged):
        push(f"oci:{tmp_path}/late:v1", late, cache=cache)
    push(f"oci:{tmp_path}/settled:v1", settled, cache=cache)


def test_an_environment_that_changes_meanwhile_is_not_pushed(tmp_path: Path, cache: LayerCache) -> None:
    env = small(tmp_path / "env")
    (tmp_path / "env" / SITE / "p2.py").write_text("value = 0\n")
    with pytest.raises(EnvironmentChanged, match=r"p2\.py: changed while it was being packed"):
        push(f"oci:{tmp_path}/out:x", env, cache=cache)
    with pytest.raises(NotFound):
        OciLayout(f"{tmp_path}/out").resolve("x")


@pytest.mark.slow
def test_many_processes_push_one_environment_at_once(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    env = small(tmp_path / "env")
    with ThreadPoolExecutor(4) as threads:
        results = threads.map(
            lambda number: push(f"{registry.host}/team/envs:x{number % 2}", env, cache=cache), range(4)
        )
        assert len({result.reference.partition("@")[2] for result in results}) == 1
    assert set(registry.tags["team/envs"]) == {"x0", "x1"}


@pytest.mark.engine
@pytest.mark.parametrize("where", ["layout", "repository"])
def test_a_base_lies_below_and_its_layers_are_taken_over(
    where: str, tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    base = f"oci:{tmp_path}/base:b" if where == "layout" else f"{registry.host}/library/base:b"
    base_image(base, [{"etc/os-release": "ID=test\n"}], ("PATH=/bin",))
    reference = f"{registry.host}/team/envs:x"
    pushed = push(reference, small(tmp_path / "env"), PushOptions(base=base), cache=cache)
    assert pushed.uploaded == (7 if where == "layout" else 6)
    assert bool(registry.asked("POST .*mount=.*from=library")) == (where == "repository")
    subprocess.run(
        [
            need("skopeo"),
            "copy",
            "-q",
            "--all",
            "--src-tls-verify=false",
            f"docker://{reference}",
            f"oci:{tmp_path}/copy:x",
        ],
        check=True,
    )
    manifest, config = image_of(OciLayout(f"{tmp_path}/copy"), "x")
    assert len(manifest.layers) == 7
    assert config.env[0] == "PATH=/opt/env/bin:/bin"


def test_a_base_that_leaves_no_room_is_refused(tmp_path: Path, cache: LayerCache) -> None:
    base_image(f"oci:{tmp_path}/base:b", [{"a": "1"}, {"b": "2"}])
    with pytest.raises(BuilderError, match=r"has 2 layers, leaving none of --max-layers 2 for .*; raise --max-layers"):
        push(
            f"oci:{tmp_path}/out:x",
            small(tmp_path / "env"),
            PushOptions(base=f"oci:{tmp_path}/base:b", max_layers=2),
            cache=cache,
        )


@pytest.mark.parametrize("most", [0, -3])
def test_an_image_of_no_layers_is_refused(tmp_path: Path, cache: LayerCache, most: int) -> None:
    with pytest.raises(BuilderError, match=f"^--max-layers {most}: less than 1"):
        push(f"oci:{tmp_path}/out:x", small(tmp_path / "env"), PushOptions(max_layers=most), cache=cache)


@pytest.mark.slow
def test_settings_of_the_image_change_no_layer(tmp_path: Path, cache: LayerCache) -> None:
    env = small(tmp_path / "env")
    push(f"oci:{tmp_path}/out:x", env, cache=cache)
    other = push(f"oci:{tmp_path}/out:y", env, PushOptions(image=ImageSettings(env=("A=1",))), cache=cache)
    assert (other.built, other.uploaded) == (0, 0)
    assert "A=1" in image_of(OciLayout(f"{tmp_path}/out"), "y")[1].env


@pytest.mark.slow
def test_append_keeps_other_platforms_in_the_tag(tmp_path: Path, cache: LayerCache) -> None:
    amd64 = small(tmp_path / "env")
    arm64 = replace(amd64, platform=Platform("linux", "arm64"))
    references = []
    for name, order in (("one", (amd64, arm64)), ("two", (arm64, amd64))):
        for env in order:
            pushed = push(f"oci:{tmp_path}/{name}:x", env, PushOptions(append=True), cache=cache)
        assert push(f"oci:{tmp_path}/{name}:x", env, PushOptions(append=True), cache=cache).plan.unchanged
        references.append(pushed.reference)
        found = published.read_index(OciLayout(f"{tmp_path}/{name}"), Reference.parse(pushed.reference), Trust())
        assert [str(one.platform) for one in found.environments] == ["linux/amd64", "linux/arm64"]
    assert references[0].partition("@")[2] == references[1].partition("@")[2]
    alone = push(f"oci:{tmp_path}/one:x", amd64, cache=cache)
    assert (
        len(published.read_index(OciLayout(f"{tmp_path}/one"), Reference.parse(alone.reference), Trust()).environments)
        == 1
    )


@pytest.mark.slow
def test_gzip_layers_are_other_layers_of_the_same_content(tmp_path: Path, cache: LayerCache) -> None:
    env = small(tmp_path / "env")
    push(f"oci:{tmp_path}/out:zstd", env, cache=cache)
    made = push(f"oci:{tmp_path}/out:gzip", env, PushOptions(compression="gzip"), cache=cache)
    assert made.built == 6
    storage = OciLayout(f"{tmp_path}/out")
    manifests = [image_of(storage, tag) for tag in ("zstd", "gzip")]
    assert manifests[0][1].diff_ids == manifests[1][1].diff_ids
    assert {layer.media_type.rpartition("+")[2] for layer in manifests[1][0].layers} == {"gzip"}


@pytest.mark.parametrize("prefix", ["/usr", "/opt", "/usr/local"])
def test_an_image_prefix_that_others_share_is_refused(prefix: str, tmp_path: Path, cache: LayerCache) -> None:
    with pytest.raises(BuilderError, match=f"^--image-prefix {prefix}: shared with the system; use a folder"):
        push(f"oci:{tmp_path}/out:v1", small(tmp_path / "env"), PushOptions(image_prefix=prefix), cache=cache)


@pytest.mark.parametrize("prefix", ["opt/env", "/", "/opt/../etc", "/opt/my env", "/opt/env/", ""])
def test_an_image_prefix_that_cannot_be_is_refused(prefix: str, tmp_path: Path, cache: LayerCache) -> None:
    with pytest.raises(BuilderError, match="not an absolute path without spaces; use a path such as /opt/env"):
        push(f"oci:{tmp_path}/out:x", small(tmp_path / "env"), PushOptions(image_prefix=prefix), cache=cache)
    assert not (tmp_path / "out").exists()


def test_a_reference_with_a_digest_is_refused(tmp_path: Path, cache: LayerCache) -> None:
    with pytest.raises(BuilderError, match="names a digest, which a push creates; name a tag instead"):
        push(f"oci:{tmp_path}/out:x@sha256:{'0' * 64}", small(tmp_path / "env"), cache=cache)


def test_an_index_of_another_tool_is_replaced(tmp_path: Path, cache: LayerCache) -> None:
    base_image(f"oci:{tmp_path}/out:x", [{"a": "1"}])
    pushed = push(f"oci:{tmp_path}/out:x", small(tmp_path / "env"), cache=cache)
    assert pushed.uploaded == 6


@pytest.mark.slow
def test_what_a_colleague_pushed_under_another_tag_is_neither_built_nor_uploaded(
    tmp_path: Path, registry: RegistrySimulator
) -> None:
    push(f"{registry.host}/team/envs:theirs", small(tmp_path / "a"), cache=LayerCache(str(tmp_path / "one")))
    mine = LayerCache(str(tmp_path / "two"))
    pushed = push(f"{registry.host}/team/envs:mine", small(tmp_path / "b", changed="p2"), cache=mine)
    assert (pushed.built, pushed.uploaded, pushed.reused) == (1, 1, 5)


@pytest.mark.slow
def test_answers_are_believed_for_a_day_and_cost_no_request(tmp_path: Path, registry: RegistrySimulator) -> None:
    push(f"{registry.host}/team/envs:theirs", small(tmp_path / "a"), cache=LayerCache(str(tmp_path / "one")))
    mine = LayerCache(str(tmp_path / "two"))
    push(f"{registry.host}/team/envs:mine", small(tmp_path / "b", changed="p2"), cache=mine)
    registry.requests.clear()
    push(f"{registry.host}/team/envs:third", small(tmp_path / "c", changed="p3"), cache=mine)
    asked = [request.path.rpartition("/")[2] for request in registry.asked("GET .*/manifests/")]
    assert sorted(asked) == ["mine", "theirs", "third"], "whether each tag moved, and nothing of what it names"
    assert len(registry.asked("HEAD .*/blobs/")) == 2, "p3's, which was built, and p2's, which it never asked for"


@pytest.mark.slow
def test_a_colleagues_tag_that_moved_is_looked_at_again(tmp_path: Path, registry: RegistrySimulator) -> None:
    theirs, mine = LayerCache(str(tmp_path / "theirs")), LayerCache(str(tmp_path / "mine"))
    push(f"{registry.host}/team/envs:theirs", small(tmp_path / "a"), cache=theirs)
    push(f"{registry.host}/team/envs:mine", small(tmp_path / "b", changed="p2"), cache=mine)
    push(f"{registry.host}/team/envs:theirs", small(tmp_path / "c", changed="p3"), cache=theirs)
    pushed = push(f"{registry.host}/team/envs:mine", small(tmp_path / "d", changed="p3"), cache=mine)
    assert (pushed.built, pushed.uploaded) == (0, 0)


@pytest.mark.parametrize("status", [400, 411, 507, 520])
@pytest.mark.slow
def test_what_a_registry_refuses_is_not_blamed_on_the_cache(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache, status: int
) -> None:
    env = small(tmp_path / "env")
    push(f"oci:{tmp_path}/out:x", env, cache=cache)
    registry.faults.append(Fault("PUT .*/blobs/", 99, status, {"Retry-After": "1000"}))
    with pytest.raises(LayersError, match=f"answered {status}"):
        push(f"{registry.host}/team/envs:x", env, cache=cache)
    registry.faults.clear()
    pushed = push(f"{registry.host}/team/envs:x", env, cache=cache)
    assert (pushed.built, pushed.plan.chosen("build")) == (0, ())


@pytest.mark.slow
def test_a_push_ignores_unsigned_layers_if_signatures_are_required(tmp_path: Path, registry: RegistrySimulator) -> None:
    """Unsigned layers are not a cache: a stranger may have pushed them."""
    private, public = key_pair(tmp_path)
    reference = f"{registry.host}/team/envs:x"
    first = push(reference, small(tmp_path / "a"), cache=LayerCache(str(tmp_path / "theirs")))
    trust = Trust(required_key=public)
    changed = small(tmp_path / "b", changed="p2")
    for tag in ("x", "y"):
        fresh = LayerCache(str(tmp_path / f"mine-{tag}"))
        pushed = push(f"{registry.host}/team/envs:{tag}", changed, trust=trust, cache=fresh)
        assert pushed.built == 6
    sign(first.reference, private)
    assert push(reference, small(tmp_path / "c"), trust=trust, cache=LayerCache(str(tmp_path / "new"))).built == 6
    sign(pushed.reference, private)
    third = push(f"{registry.host}/team/envs:z", changed, trust=trust, cache=LayerCache(str(tmp_path / "third")))
    assert third.built == 0, "what the required key signed is a cache"
    trust = Trust(required_key=f"{tmp_path}/none.pub")
    with pytest.raises(LayersError, match="can't read the key"):
        push(reference, small(tmp_path / "c"), trust=trust, cache=LayerCache(str(tmp_path / "fourth")))


@pytest.mark.slow
def test_an_answer_that_is_no_longer_true_is_noticed_and_made_good(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    first = push(f"{registry.host}/team/envs:x", small(tmp_path / "a"), cache=cache)
    gone = str(first.plan.layers[0].wanted.key)
    built = cache.find(gone)
    assert built
    del registry.blobs["team/envs"][str(built.digest)]
    registry.tags["team/envs"].clear()
    again = push(f"{registry.host}/team/envs:y", small(tmp_path / "b"), cache=cache)
    assert again.uploaded == 1
    assert str(built.digest) in registry.blobs["team/envs"]


class Meanwhile(Silent):
    """Calls `action` once, when all layers are uploaded and nothing names them yet."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self._done = False

    def end(self, task: str) -> None:
        if task == "upload" and not self._done:
            self._done = True
            self._action()


def platforms(registry: RegistrySimulator, tag: str = "x") -> list[str]:
    reference = Reference.parse(f"{registry.host}/team/envs:{tag}")
    storage = open_storage(reference, Trust())
    try:
        return [str(found.platform) for found in published.read_index(storage, reference, Trust()).environments]
    finally:
        storage.close()


@pytest.mark.slow
def test_a_platform_that_a_colleague_adds_meanwhile_stays(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    reference = f"{registry.host}/team/envs:x"
    amd64 = small(tmp_path / "env")

    def add(architecture: str, progress: Silent | None = None) -> None:
        env = replace(amd64, platform=Platform("linux", architecture))
        push(reference, env, PushOptions(append=True, sbom=True), cache=cache, progress=progress)

    add("amd64", Meanwhile(lambda: add("arm64", Meanwhile(lambda: add("riscv64")))))
    assert platforms(registry) == ["linux/amd64", "linux/arm64", "linux/riscv64"]


@pytest.mark.slow
def test_platforms_that_are_not_kept_leave_no_attachments(tmp_path: Path, cache: LayerCache) -> None:
    reference = f"oci:{tmp_path}/out:x"
    env = replace(small(tmp_path / "env"), findings=(Finding("warning", "patched", "p1", "p1 was patched"),))
    named = {name: Platform("linux", name) for name in ("amd64", "arm64", "riscv64")}
    for name, keep in (("riscv64", ()), ("arm64", None), ("amd64", (named["arm64"],))):
        push(reference, replace(env, platform=named[name]), PushOptions(append=True, keep=keep), cache=cache)
    storage = OciLayout(f"{tmp_path}/out")
    index = storage.resolve("x")
    found = {referrers.annotations_of(storage, each)[PLATFORM] for each in referrers.referrers(storage, index)}
    assert found == {"linux/amd64", "linux/arm64"}


@pytest.mark.slow
def test_a_platform_that_another_s_tag_swept_away_is_added_again(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    """The tag cannot be locked between its last read and its change: the loser reads it again."""
    reference = f"{registry.host}/team/envs:x"
    env = small(tmp_path / "env")
    push(reference, replace(env, platform=Platform("linux", "arm64")), cache=cache)
    # As if another push had changed the tag right after.
    registry.faults.append(Fault("PUT .*/manifests/x", status=201))
    push(reference, env, PushOptions(append=True), cache=cache)
    assert platforms(registry) == ["linux/amd64", "linux/arm64"]


@pytest.mark.slow
def test_an_index_is_signed_and_has_its_attachments_before_the_tag_names_it(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    private, public = key_pair(tmp_path)
    env = replace(small(tmp_path / "env"), findings=(Finding("warning", "patched", "p1", "p1 was patched"),))
    reference = f"{registry.host}/team/envs:x"
    pushed = push(reference, env, PushOptions(sbom=True, signing_key=read_private_key(private)), cache=cache)
    digest = pushed.reference.partition("@")[2]
    puts = [request.path.rpartition("/")[2] for request in registry.asked("PUT .*/manifests/")]
    assert puts[-1] == "x"
    assert puts.index(digest) < puts.index(f"{digest.replace(':', '-')}.sig") < len(puts) - 1
    assert len(puts) == 7, "two images, the index, the signature, the bill of materials, the findings, the tag"
    verify_signature(reference, public)


@pytest.mark.slow
def test_a_push_whose_signature_is_refused_moves_no_tag(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    private, _ = key_pair(tmp_path)
    registry.faults.append(Fault(r"PUT .*/manifests/sha256-.*\.sig", status=403))
    with pytest.raises(LayersError, match="denies"):
        push(
            f"{registry.host}/team/envs:x",
            small(tmp_path / "env"),
            PushOptions(signing_key=read_private_key(private)),
            cache=cache,
        )
    assert "x" not in registry.tags.get("team/envs", {})


@pytest.mark.slow
def test_an_existing_index_is_signed_on_request(tmp_path: Path, cache: LayerCache) -> None:
    private, public = key_pair(tmp_path)
    reference = f"oci:{tmp_path}/out:x"
    env = small(tmp_path / "env")
    push(reference, env, cache=cache)
    assert push(reference, env, PushOptions(signing_key=read_private_key(private)), cache=cache).plan.unchanged
    verify_signature(reference, public)


@pytest.mark.slow
def test_a_dry_run_lists_the_bases_layers_that_the_destination_lacks(
    tmp_path: Path, registry: RegistrySimulator, cache: LayerCache
) -> None:
    base = f"oci:{tmp_path}/base:b"
    base_image(base, [{"etc/os-release": "ID=test\n"}, {"etc/issue": "test\n"}])
    reference = f"{registry.host}/team/envs:x"
    env = small(tmp_path / "env")
    planned = push(reference, env, PushOptions(base=base, dry_run=True), cache=cache).plan
    assert len(planned.base) == 2
    push(reference, env, PushOptions(base=base), cache=cache)
    again = push(reference, small(tmp_path / "b", changed="p1"), PushOptions(base=base, dry_run=True), cache=cache)
    assert again.plan.base == ()


@pytest.mark.slow
def test_a_first_push_takes_the_byte_code_that_was_compiled_during_its_scan(
    tmp_path: Path, cache: LayerCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = install(venv(tmp_path / "env"), wheel(tmp_path, "greet", files={"greet/__init__.py": "a = 1\n"}))
    options = ScanOptions(cache=str(tmp_path / "hashes"), system_libraries=False)
    alone = push(
        f"oci:{tmp_path}/alone:v1",
        scan(str(prefix), replace(options, cache=str(tmp_path / "other"))),
        cache=LayerCache(str(tmp_path / "other")),
    )
    starts = []
    begin = Precompiler.start

    def start(self: Precompiler, *arguments: Any) -> None:
        starts.append(len(list(arguments[2])))
        begin(self, *arguments)

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(Precompiler, "start", start)
    monkeypatch.setattr(precompiler, "_kill", lambda process: process.wait(DEADLINE))
    # No process of the build itself compiles.
    monkeypatch.setattr(bytecode, "_Worker", None)

    def pushed(to: str) -> str:
        made = push(f"oci:{tmp_path}/{to}:v1", str(prefix), scan_options=options, cache=cache)
        return made.reference.partition("@")[2]

    push(
        f"oci:{tmp_path}/dry:v1",
        str(prefix),
        PushOptions(dry_run=True),
        scan_options=replace(options, cache=str(tmp_path / "dry-hashes")),
    )
    assert starts == []
    assert pushed("layout") == alone.reference.partition("@")[2]
    assert len(starts) == 1
    # The environment is known: a later push has the layers, and compiles the few that changed itself.
    assert pushed("layout") == pushed("again") == alone.reference.partition("@")[2]
    assert len(starts) == 1
