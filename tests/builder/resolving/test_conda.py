"""Conda packages for another platform: resolved by rattler from a local channel, installed, and the same layers."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import platform as machine
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import CannotResolve
from lamella.builder.layer.cache import LayerCache
from lamella.builder.layer.layer_set import layers
from lamella.builder.prefix.systems import System
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.builder.resolving.conda import install_conda, resolve_conda
from lamella.builder.resolving.model import InstalledCondaPackage, InstalledPackages, ResolveOptions, Target
from lamella.builder.resolving.one_system import is_of_one_system
from lamella.builder.resolving.pixi_lock import pixi_lock
from lamella.builder.resolving.rattler_process import failure, rattler_process
from lamella.builder.resolving.target_prefix import resolve, target_environment
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from lamella.layers.attaching.attach import fetch
from lamella.layers.attaching.listing import LOCK
from lamella.layers.oci.annotations import PACKAGE
from lamella.layers.oci.documents import Digest, Platform
from lamella.layers.oci.reference import Reference
from lamella.layers.published import environment as published
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage
from support.conda import (
    PLACEHOLDER,
    SHORT,
    VERSION,
    conda_environment,
    conda_package,
    environment_of_lock,
    python_package,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamella.builder.resolving.model import Moved, Resolution

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(machine.machine() != "x86_64", reason="the native machine is x86-64"),
]
AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")
PURE = {
    "site-packages/pure/__init__.py": "def main():\n    return 'pure'\n",
    "site-packages/pure-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pure\nVersion: 1.0\n",
}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "rattler"))
    monkeypatch.setenv("RATTLER_AUTH_FILE", str(tmp_path_factory.getbasetemp() / "no-credentials.json"))


@contextlib.contextmanager
def served(folder: Path, password: str = "") -> Iterator[str]:
    """URL of a server of `folder`, which requires the user `me` with a password, if it is given."""
    wanted = "Basic " + base64.b64encode(f"me:{password}".encode()).decode()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            # Its 304 repeats no validator, which rattler takes for a failure; RFC 9110 servers send their ETag.
            del self.headers["If-Modified-Since"]
            if password and self.headers.get("Authorization") != wanted:
                self.send_error(401)
            else:
                super().do_GET()

        def log_message(self, *arguments: object) -> None:
            """Keep the output short."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def installed_from(url: str, *names: str) -> InstalledPackages:
    """An environment of linux/amd64 with these packages."""
    packages = tuple(InstalledCondaPackage(name, "1.0", "0", url, "linux-64", name) for name in names)
    return InstalledPackages("/env", VERSION, "linux", "amd64", (), packages)


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A channel with packages for a Mac and for Linux on two machines."""
    made = tmp_path_factory.mktemp("conda") / "channel"
    for subdir in ("linux-64", "linux-aarch64"):
        python_package(made, subdir, small=True)
        conda_package(made, "libstdcxx", {"lib/libstdcxx.txt": "x"}, subdir=subdir)
        conda_package(
            made, "fast", {"lib/fast.txt": subdir, "etc/fast.conf": f"{PLACEHOLDER}/lib\n"}, subdir=subdir,
            version="2.1.3", build="h1_0", depends=["python", "libstdcxx", "__glibc >=2.17"],
        )  # fmt: skip
        conda_package(made, "moving", {"lib/moving.txt": "4"}, subdir=subdir, version="3.1.4")
        conda_package(made, "moving", {"lib/moving.txt": "9"}, subdir=subdir, version="3.2.9")
    conda_package(made, "guarded", {"lib/guarded.txt": "theirs"}, subdir="linux-64")
    conda_package(made, "only-amd", {"lib/only.txt": ""}, subdir="linux-64")
    conda_package(made, "new-glibc", {"lib/new.txt": ""}, subdir="linux-64", depends=["__glibc >=2.34"])
    conda_package(made, "cuda", {"lib/cuda.txt": ""}, subdir="linux-64", depends=["__cuda >=12"])
    conda_package(made, "pure", PURE, noarch="python", depends=["python"], entry_points=["pure = pure:main"])
    magic = b"\xcf\xfa\xed\xfe\x0c\0\0\1" + bytes(24)
    conda_package(
        made, "python", {f"bin/python{SHORT}": magic, f"lib/python{SHORT}/os.py": ""}, subdir="osx-arm64",
        version=VERSION, links={"bin/python": f"python{SHORT}"},
    )  # fmt: skip
    conda_package(
        made, "fast", {"lib/fast.txt": "osx"}, subdir="osx-arm64", version="2.1.3", depends=["python", "libcxx"]
    )
    for name, version in (("appnope", "1.0"), ("libcxx", "1.0"), ("moving", "3.1.7")):
        conda_package(made, name, {f"lib/{name}.txt": ""}, subdir="osx-arm64", version=version)
    # Makes the index as well.
    conda_environment(made.parent / "native", made, ["python", "fast", "pure"])
    return made


def mac(channel: Path, *more: InstalledCondaPackage) -> InstalledPackages:
    """A Mac's environment."""
    uri = channel.as_uri()
    packages = [
        InstalledCondaPackage("python", VERSION, "h9_0", uri, "osx-arm64", f"python {SHORT}.*"),
        InstalledCondaPackage("fast", "2.1.3", "h5_0", uri, "osx-arm64", "fast"),
        InstalledCondaPackage("pure", "1.0", "0", uri, "noarch", "pure"),
        InstalledCondaPackage("libcxx", "1.0", "0", uri, "osx-arm64"),
        InstalledCondaPackage("appnope", "1.0", "0", uri, "osx-arm64"),
        *more,
    ]
    return InstalledPackages("/Users/me/env", VERSION, "darwin", "arm64", (), tuple(packages))


def changes(resolution: Resolution) -> list[tuple[str, str, str, str, str]]:
    def row(each: Moved) -> tuple[str, str, str, str, str]:
        return each.name, each.change, each.installed, each.resolved, each.reason

    return [row(each) for each in resolution.moved]


def digests(reference: str) -> dict[str, Digest]:
    place = Reference.parse(reference)
    index = published.read_index(open_storage(place, Trust()), place, Trust())
    (found,) = index.environments
    return {each.descriptor.annotations[PACKAGE]: each.descriptor.digest for each in found.layers}


def keys(prefix: str, cache: Path) -> dict[str, str]:
    """Layer key of each package in the environment at `prefix`: it covers every byte of its layer."""
    environment = scan(prefix, ScanOptions(cache=str(cache)))
    made = layers(environment, image_prefix="/opt/env", compression="zstd", image_layers=100)
    return {one.package.name: one.wanted.key for one in made.packages}


def test_an_environment_of_a_mac_gets_the_layers_of_a_native_one(channel: Path, tmp_path: Path) -> None:
    resolution = resolve_conda(mac(channel), Target(AMD, VERSION), ResolveOptions())
    assert changes(resolution) == [
        ("appnope", "dropped", "1.0", "", "not built for linux-64"),
        ("libcxx", "dropped", "1.0", "", "not built for linux-64"),
        ("libstdcxx", "added", "", "1.0", "needed on linux-64"),
    ]
    assert resolution.findings == ()
    prefix = tmp_path / "prefix"
    install_conda(resolution, str(prefix))
    pushed = {}
    for name, path in (("native", channel.parent / "native"), ("elsewhere", prefix)):
        push(
            f"oci:{tmp_path}/{name}:v1",
            scan(str(path)),
            PushOptions(),
            cache=LayerCache(str(tmp_path / f"cache-{name}")),
        )
        pushed[name] = digests(f"oci:{tmp_path}/{name}:v1")
    assert pushed["elsewhere"] == pushed["native"]


@pytest.mark.parametrize("platform", [AMD, ARM], ids=str)
def test_a_conda_environment_on_a_mac_is_pushed_for_linux(channel: Path, tmp_path: Path, platform: Platform) -> None:
    specs = ["python", "fast", "pure", "appnope", "moving"]
    prefix = conda_environment(tmp_path / "mac", channel, specs, "osx-arm64")
    plan = resolve(str(prefix), platform, ResolveOptions(), here=System("darwin", "arm64"))
    subdir = "linux-64" if platform == AMD else "linux-aarch64"
    assert changes(plan.resolution) == [
        ("appnope", "dropped", "1.0", "", f"not built for {subdir}"),
        ("libcxx", "dropped", "1.0", "", f"not built for {subdir}"),
        ("libstdcxx", "added", "", "1.0", f"needed on {subdir}"),
        ("moving", "moved", "3.1.7", "3.1.4", f"no build of 3.1.7 for {subdir}"),
    ]
    with target_environment(plan, ScanOptions(cache=str(tmp_path / "cache"), local="")) as environment:
        pushed = push(
            f"oci:{tmp_path}/layout:v1", environment, PushOptions(), cache=LayerCache(str(tmp_path / "cache"))
        )
    assert environment.platform == platform
    assert {each.artifact_type for each in pushed.attached} >= {LOCK}
    again = resolve(str(prefix), platform, ResolveOptions(), here=System("darwin", "arm64"))
    with target_environment(again, ScanOptions(cache=str(tmp_path / "cache"), local="")) as environment:
        unchanged = push(
            f"oci:{tmp_path}/layout:v1", environment, PushOptions(), cache=LayerCache(str(tmp_path / "cache"))
        )
    assert (unchanged.built, unchanged.uploaded, unchanged.reference) == (0, 0, pushed.reference)


def test_a_mac_s_environment_becomes_one_for_arm64_incrementally(channel: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    resolution = resolve_conda(mac(channel), Target(ARM, VERSION), ResolveOptions())
    assert {each.name: each.url.split("/")[-2] for each in resolution.artifacts} == {
        "python": "linux-aarch64", "fast": "linux-aarch64", "libstdcxx": "linux-aarch64", "pure": "noarch",
    }  # fmt: skip
    install_conda(resolution, str(prefix))
    seen = (prefix / "lib/fast.txt").stat()
    more = mac(channel, InstalledCondaPackage("moving", "3.1.7", "0", channel.as_uri(), "osx-arm64", "moving"))
    again = resolve_conda(more, Target(ARM, VERSION), ResolveOptions())
    install_conda(again, str(prefix))
    assert (prefix / "lib/moving.txt").read_text() == "4"
    assert (prefix / "lib/fast.txt").stat().st_ino == seen.st_ino
    assert scan(str(prefix)).platform == ARM


@pytest.mark.parametrize(("options", "moved"), [(ResolveOptions(), "3.1.4"), (ResolveOptions(match="none"), "3.1.4")])
def test_a_version_that_is_not_built_moves_to_the_nearest(channel: Path, options: ResolveOptions, moved: str) -> None:
    more = mac(channel, InstalledCondaPackage("moving", "3.1.7", "0", channel.as_uri(), "osx-arm64", "moving"))
    found = changes(resolve_conda(more, Target(AMD, VERSION), options))
    assert ("moving", "moved", "3.1.7", moved, "no build of 3.1.7 for linux-64") in found


@pytest.mark.parametrize("options", [ResolveOptions(match="exact"), ResolveOptions(exact=("moving",))])
def test_a_version_that_must_not_move_is_refused(channel: Path, options: ResolveOptions) -> None:
    more = mac(channel, InstalledCondaPackage("moving", "3.1.7", "0", channel.as_uri(), "osx-arm64", "moving"))
    with pytest.raises(CannotResolve) as refused:
        resolve_conda(more, Target(AMD, VERSION), options)
    assert str(refused.value) == (
        "moving 3.1.7: no build for linux-64 in the packages' channels; use --match minor or --match none"
    )


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A channel with a package that is on the public one as well, and a dependency of it."""
    made = tmp_path_factory.mktemp("private") / "channel"
    for subdir in ("linux-64", "linux-aarch64"):
        conda_package(made, "fast", {"lib/fast.txt": "ours"}, subdir=subdir, version="2.1.3", depends=["libstdcxx"])
        conda_package(made, "libstdcxx", {"lib/libstdcxx.txt": "ours"}, subdir=subdir)
    conda_package(made, "guarded", {"lib/guarded.txt": "ours"}, subdir="linux-64", depends=["__glibc >=2.34"])
    conda_environment(made.parent / "native", made, ["fast"])
    return made


@pytest.mark.parametrize("wanted", ["fast", "libstdcxx"])
def test_package_of_a_private_channel_is_never_taken_from_the_public_one(
    channel: Path, private: Path, wanted: str
) -> None:
    public = [
        InstalledCondaPackage(name, version, "0", channel.as_uri(), "linux-64", name)
        for name, version in (("python", VERSION), ("pure", "1.0"), ("moving", "3.1.4"))
    ]
    ours = [
        InstalledCondaPackage(name, version, "0", private.as_uri(), "linux-64", name if name == wanted else "")
        for name, version in (("fast", "2.1.3"), ("libstdcxx", "1.0"))
    ]
    installed = InstalledPackages("/env", VERSION, "linux", "amd64", (), (*public, *ours))
    for target in (Target(AMD, VERSION), Target(ARM, VERSION)):
        found = {
            each.name: each.index.rstrip("/") for each in resolve_conda(installed, target, ResolveOptions()).artifacts
        }
        expected = {"fast", "libstdcxx"} if wanted == "fast" else {"libstdcxx"}
        assert {name for name, index in found.items() if index == private.as_uri()} == expected


def test_private_package_that_does_not_fit_the_target_is_not_replaced_by_a_public_one(
    channel: Path, private: Path
) -> None:
    packages = [
        InstalledCondaPackage(name, version, "0", uri, "linux-64", name)
        for name, version, uri in (
            ("python", VERSION, channel.as_uri()),
            ("pure", "1.0", channel.as_uri()),
            ("guarded", "1.0", private.as_uri()),
        )
    ]
    installed = InstalledPackages("/env", VERSION, "linux", "amd64", (), tuple(packages))
    with pytest.raises(CannotResolve, match="__glibc"):
        resolve_conda(installed, Target(AMD, VERSION, "2.28"), ResolveOptions(match="none"))


def test_package_that_only_another_channel_has_for_the_target_is_refused(channel: Path, private: Path) -> None:
    packages = [
        InstalledCondaPackage("python", VERSION, "0", channel.as_uri(), "linux-64", "python"),
        InstalledCondaPackage("moving", "3.1.4", "0", private.as_uri(), "linux-64", "moving"),
    ]
    installed = InstalledPackages("/env", VERSION, "linux", "amd64", (), tuple(packages))
    with pytest.raises(CannotResolve, match=r"moving 3\.1\.4: no build for linux-aarch64 in the packages' channels"):
        resolve_conda(installed, Target(ARM, VERSION), ResolveOptions())


def test_a_team_s_package_without_a_build_for_linux_is_refused(channel: Path) -> None:
    uri = channel.as_uri()
    # Built for a Mac alone, as appnope is; nothing says that it has to be.
    ours = InstalledCondaPackage("ours", "1.0", "0", uri, "osx-arm64", "ours")
    with pytest.raises(CannotResolve) as refused:
        resolve_conda(mac(channel, ours), Target(AMD, VERSION), ResolveOptions())
    assert str(refused.value) == (
        "ours 1.0: no build for linux-64 in the packages' channels; remove it, or build for linux-64"
    )
    unasked = dataclasses.replace(ours, requested="")
    resolution = resolve_conda(mac(channel, unasked), Target(AMD, VERSION), ResolveOptions())
    assert ("ours", "dropped", "1.0", "", "not built for linux-64") in changes(resolution)


@pytest.mark.parametrize(
    ("name", "channel", "alone"),
    [
        ("appnope", "https://conda.example/team", True),
        ("pyobjc-core", "https://conda.example/team", True),
        ("vs2015_runtime", "https://conda.example/team", True),
        ("anything", "https://mirror.example/conda-forge", True),
        ("anything", "https://repo.anaconda.com/pkgs/main", True),
        ("anything", "https://conda.anaconda.org/team/label/main", False),
        ("anything", "https://conda.example/conda-forge-team", False),
        ("pywin32ours", "https://conda.example/team", False),
    ],
)
def test_packages_of_one_system_are_listed_or_of_public_channels(name: str, channel: str, alone: bool) -> None:
    assert is_of_one_system(InstalledCondaPackage(name, "1.0", "0", channel, "osx-arm64")) == alone


def test_a_pixi_lock_that_is_damaged_is_one_sentence(channel: Path, tmp_path: Path) -> None:
    lock = tmp_path / "pixi.lock"
    lock.write_text("version: [\n  no lock\n")
    with pytest.raises(CannotResolve) as refused:
        resolve_conda(mac(channel), Target(AMD, VERSION), ResolveOptions(), pixi_lock=str(lock))
    assert str(refused.value) == f"{lock}: not a lock file; lock the project again, or remove it"


def test_every_package_that_the_target_lacks_is_named(channel: Path) -> None:
    installed = installed_from(channel.as_uri(), "only-amd", "cuda", "new-glibc")
    with pytest.raises(CannotResolve, match=r"^only-amd 1\.0, cuda 1\.0, new-glibc 1\.0: no build for linux-aarch64"):
        resolve_conda(installed, Target(ARM, VERSION), ResolveOptions())


def test_the_target_s_glibc_and_cuda_decide(channel: Path) -> None:
    uri = channel.as_uri()

    def resolved(name: str, target: Target) -> list[str]:
        return [each.name for each in resolve_conda(installed_from(uri, name), target, ResolveOptions()).artifacts]

    with pytest.raises(CannotResolve, match="__glibc"):
        resolved("new-glibc", Target(AMD, VERSION, "2.28"))
    assert resolved("new-glibc", Target(AMD, VERSION, "2.36")) == ["new-glibc"]
    with pytest.raises(CannotResolve, match="__cuda"):
        resolved("cuda", Target(AMD, VERSION))
    assert resolved("cuda", Target(AMD, VERSION, cuda="12.4")) == ["cuda"]


def test_a_lock_of_the_environment_installs_it_again(channel: Path, tmp_path: Path) -> None:
    text = pixi_lock(str(channel.parent / "native"), AMD)
    assert channel.as_uri() in text
    (tmp_path / "pixi.lock").write_text(text)
    resolution = resolve_conda(
        mac(channel), Target(AMD, VERSION), ResolveOptions(), pixi_lock=str(tmp_path / "pixi.lock")
    )
    install_conda(resolution, str(tmp_path / "again"))
    assert {each.name for each in scan(str(tmp_path / "again")).packages} >= {"python", "fast", "pure", "libstdcxx"}
    assert pixi_lock(str(tmp_path / "again"), AMD) == text


def test_rattler_installs_the_same_layers_from_the_lock_alone(channel: Path, tmp_path: Path) -> None:
    native = str(channel.parent / "native")
    (tmp_path / "pixi.lock").write_text(pixi_lock(native, AMD))
    again = environment_of_lock(tmp_path / "pixi.lock", tmp_path / "again")
    assert keys(str(again), tmp_path / "cache") == keys(native, tmp_path / "cache")


def test_a_lock_is_attached_to_a_push_and_stays_when_another_platform_is_added(channel: Path, tmp_path: Path) -> None:
    reference, cache = f"oci:{tmp_path}/layout:v1", LayerCache(str(tmp_path / "layers"))
    text = pixi_lock(str(channel.parent / "native"), AMD)
    pushed = push(
        reference,
        dataclasses.replace(scan(str(channel.parent / "native")), locks={"pixi.lock": text}),
        PushOptions(),
        cache=cache,
    )
    assert LOCK in {each.artifact_type for each in pushed.attached}
    install_conda(resolve_conda(mac(channel), Target(ARM, VERSION), ResolveOptions()), str(tmp_path / "arm"))
    push(reference, scan(str(tmp_path / "arm")), PushOptions(append=True), cache=cache)
    (fetched,) = fetch(reference, str(tmp_path / "fetched"), LOCK)
    assert fetched.path == f"{tmp_path}/fetched/pixi.lock"
    assert (tmp_path / "fetched/pixi.lock").read_text() == text


def test_a_replaced_package_is_refused(channel: Path, tmp_path: Path) -> None:
    resolution = resolve_conda(mac(channel), Target(ARM, VERSION), ResolveOptions())
    artifacts = tuple(dataclasses.replace(each, sha256="0" * 64) for each in resolution.artifacts)
    with pytest.raises(CannotResolve, match=r"^fast: its hash in the channel has changed; push again to resolve anew$"):
        install_conda(dataclasses.replace(resolution, artifacts=artifacts), str(tmp_path / "prefix"))


def test_a_package_with_another_hash_than_the_channel_s_is_refused(channel: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(channel, copy)
    with served(copy) as url:
        resolution = resolve_conda(installed_from(url, "only-amd"), Target(AMD, VERSION), ResolveOptions())
        conda_package(copy, "only-amd", {"lib/only.txt": "hostile"}, subdir="linux-64")
        with pytest.raises(CannotResolve) as refused:
            install_conda(resolution, str(tmp_path / "prefix"))
    assert str(refused.value) == (
        f"{url}/linux-64/only-amd-1.0-0.conda: its hash differs from the channel's; the file is damaged or was "
        "replaced, push again"
    )
    assert not (tmp_path / "prefix/lib/only.txt").exists()


def test_a_channel_with_a_password_is_read_with_rattler_s_credentials(
    channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(channel, "s3cret-CANARY") as url:
        installed = installed_from(url, "only-amd")
        with pytest.raises(CannotResolve, match=r"requires authentication; log in with pixi auth login HOST"):
            resolve_conda(installed, Target(AMD, VERSION), ResolveOptions())
        credentials = tmp_path / "credentials.json"
        credentials.write_text(
            json.dumps({"127.0.0.1": {"BasicHTTP": {"username": "me", "password": "s3cret-CANARY"}}})
        )
        monkeypatch.setenv("RATTLER_AUTH_FILE", str(credentials))
        resolution = resolve_conda(installed, Target(AMD, VERSION), ResolveOptions())
        install_conda(resolution, str(tmp_path / "prefix"))
    assert "CANARY" not in repr(resolution) + pixi_lock(str(tmp_path / "prefix"), AMD)


def test_a_channel_with_credentials_in_its_url_ships_none(channel: Path, tmp_path: Path) -> None:
    with served(channel, "s3cret-CANARY") as url:
        named = url.replace("http://", "http://me:s3cret-CANARY@")
        installed = installed_from(url, "only-amd")
        resolution = resolve_conda(installed, Target(AMD, VERSION), ResolveOptions(), channels=[named])
        install_conda(resolution, str(tmp_path / "prefix"), channels=[named])
    assert "CANARY" not in repr(resolution) + pixi_lock(str(tmp_path / "prefix"), AMD)


@pytest.mark.parametrize("place", ["{0}me:s3cret-CANARY@{1}", "{0}{1}/t/s3cret-CANARY"])
def test_a_solver_s_reason_has_no_credentials_of_a_channel(channel: Path, tmp_path: Path, place: str) -> None:
    folder = tmp_path / "t/s3cret-CANARY" if "/t/" in place else tmp_path
    shutil.copytree(channel, folder, dirs_exist_ok=True)
    password = "" if "/t/" in place else "s3cret-CANARY"
    with served(tmp_path, password) as url:
        named = place.format("http://", url.removeprefix("http://"))
        with rattler_process() as rattler:
            attempt = {"specs": [f"fast ==99[channel='{named}']"], "constraints": [], "preferred": [], "names": []}
            solved = rattler.ask("solve", channels=[named], subdir="linux-64", attempts=[attempt], virtual={})
    assert "fast ==99" in solved["reason"]
    assert "CANARY" not in solved["reason"]


def test_an_installation_leaves_the_package_cache_alone(channel: Path, tmp_path: Path) -> None:
    resolution = resolve_conda(installed_from(channel.as_uri(), "only-amd"), Target(AMD, VERSION), ResolveOptions())
    install_conda(resolution, str(tmp_path / "prefix"))
    assert (tmp_path / "prefix/lib/only.txt").stat().st_nlink == 1


def test_a_channel_that_is_down_is_one_sentence() -> None:
    installed = installed_from("http://127.0.0.1:9/chan", "fast")
    with pytest.raises(CannotResolve) as refused:
        resolve_conda(installed, Target(AMD, VERSION), ResolveOptions())
    assert "cannot be reached; check the network and the channel's URL" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_failure_has_no_credentials() -> None:
    text = "FetchRepoDataError: HTTP status client error (401 Unauthorized) for url (https://me:secret@h.example/t/tok/c/repodata.json)"
    assert failure(text) == (
        "https://h.example/c/repodata.json: requires authentication; log in with pixi auth login HOST or set "
        "RATTLER_AUTH_FILE"
    )


def test_a_channel_without_an_index_is_named() -> None:
    text = (
        "GatewayError: could not find subdir 'noarch' in channel 'file:///srv/channel/' Caused by: failed to open file "
        "`/srv/channel/noarch/repodata.json`: No such file or directory (os error 2)"
    )
    assert failure(text) == (
        "file:///srv/channel: has no noarch/repodata.json; check the channel's URL, or index the channel"
    )
