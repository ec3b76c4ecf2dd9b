"""Distributions of any system, resolved for a target by uv and by pip from an index on loopback."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest

from lamella.builder.indexes.client import IndexUnusable
from lamella.builder.indexes.model import Indexes
from lamella.builder.resolving.model import (
    InstalledCondaPackage,
    InstalledDistribution,
    InstalledPackages,
    Moved,
    Resolution,
    ResolveOptions,
    Target,
)
from lamella.builder.resolving.pypi import Refused, resolve_distributions
from lamella.layers.oci.documents import Platform
from support.index import Index, serve_index
from support.installed import wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

By = Literal["uv", "pip"]
TARGET = Target(Platform("linux", "amd64"), "3.11.7")
LINUX = "cp311-cp311-manylinux_2_17_x86_64"
MAC = "cp311-cp311-macosx_11_0_arm64"


@pytest.fixture(params=["uv", "pip"])
def by(request: pytest.FixtureRequest) -> By:
    chosen: By = request.param
    return chosen


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip-cache"))
    (tmp_path / "wheels").mkdir()
    with serve_index(Index(tmp_path / "wheels")) as served:
        yield served


def installed(*pypi: InstalledDistribution, system: str = "darwin", conda: str = "") -> InstalledPackages:
    packages = (InstalledCondaPackage(conda, "1.0", "0", "", "osx-arm64"),) if conda else ()
    return InstalledPackages("/env", "3.11.7", system, "arm64", pypi, packages)


def distribution(name: str, version: str = "1.0", *requires: str, requested: bool = True) -> InstalledDistribution:
    return InstalledDistribution(name, version, requires, requested)


def resolve(index: Index, packages: InstalledPackages, by: By, options: ResolveOptions | None = None) -> Resolution:
    return resolve_distributions(packages, TARGET, options or ResolveOptions(), Indexes((index.index(),)), by)


def versions(resolution: Resolution) -> dict[str, str]:
    return {artifact.name: artifact.version for artifact in resolution.artifacts}


def test_each_distribution_keeps_its_version_if_the_target_has_it(index: Index, by: By) -> None:
    for version in ("1.0", "1.1"):
        wheel(index.folder, "pure", version)
        wheel(index.folder, "native", version, tag=LINUX)
        wheel(index.folder, "native", version, tag=MAC)
    found = resolve(index, installed(distribution("native"), distribution("pure")), by)
    assert versions(found) == {"native": "1.0", "pure": "1.0"}
    assert (found.moved, found.findings) == ((), ())
    (native, _) = found.artifacts
    assert native.url.endswith(f"native-1.0-{LINUX}.whl")
    assert native.index == index.url
    assert len(native.sha256) == 64


def test_newest_of_the_same_minor_version_stands_in_for_a_missing_one(index: Index, by: By) -> None:
    wheel(index.folder, "native", "1.2.0", tag=MAC)
    for version in ("1.2.1", "1.2.3", "1.3.0"):
        wheel(index.folder, "native", version, tag=LINUX)
    wheel(index.folder, "native", "1.2.4rc1", tag=LINUX)
    found = resolve(index, installed(distribution("native", "1.2.0")), by)
    reason = f"no wheel for linux/amd64 and Python 3.11 on {index.url}"
    assert found.moved == (Moved("native", "moved", "1.2.0", "1.2.3", reason),)


def test_refusal_from_linux_names_every_distribution_that_the_target_lacks(index: Index, by: By) -> None:
    for name in ("one", "two"):
        wheel(index.folder, name, "1.0.0", tag=MAC)
        wheel(index.folder, name, "1.0.1", tag=LINUX)
    wheel(index.folder, "three")
    names = ("one", "three", "two", "unheard-of")
    packages = installed(*(distribution(name, "1.0" if name == "three" else "1.0.0") for name in names), system="linux")
    with pytest.raises(Refused) as refused:
        resolve(index, packages, by)
    reason = f"no wheel for linux/amd64 and Python 3.11 on {index.url}"
    assert str(refused.value) == (
        f"linux/amd64: 3 of the installed packages cannot be had: one 1.0.0: {reason}; two 1.0.0: {reason}; unheard-of "
        "1.0.0: not on the configured indexes; use --match minor, or put their wheels on an index, or push from linux/amd64"
    )


def test_a_version_that_only_a_later_index_has_is_refused_with_the_setting_that_asks_all(
    index: Index, tmp_path: Path, by: By
) -> None:
    wheel(index.folder, "native", "1.1", tag=LINUX)
    later = tmp_path / "later"
    later.mkdir()
    wheel(later, "native", "1.0", tag=LINUX)
    with serve_index(Index(later)) as second:
        indexes = Indexes((index.index(), second.index()))
        packages = installed(distribution("native", "1.0"), system="linux")
        with pytest.raises(Refused, match=r"no version 1\.0 on .*UV_INDEX_STRATEGY=unsafe-best-match asks all$"):
            resolve_distributions(packages, TARGET, ResolveOptions(), indexes, by)
        everywhere = replace(indexes, strategy="unsafe-best-match")
        assert versions(resolve_distributions(packages, TARGET, ResolveOptions(), everywhere, by)) == {"native": "1.0"}


def test_a_package_named_exact_keeps_its_version_or_is_refused(index: Index, by: By) -> None:
    wheel(index.folder, "native", "1.2.0", tag=MAC)
    wheel(index.folder, "native", "1.2.1", tag=LINUX)
    with pytest.raises(Refused, match=r"native 1\.2\.0: no wheel for linux/amd64"):
        resolve(index, installed(distribution("native", "1.2.0")), by, ResolveOptions(exact=("Native",)))


def test_match_none_takes_the_newest_version(index: Index, by: By) -> None:
    wheel(index.folder, "native", "1.2.0", tag=MAC)
    wheel(index.folder, "native", "3.0", tag=LINUX)
    found = resolve(index, installed(distribution("native", "1.2.0")), by, ResolveOptions(match="none"))
    assert versions(found) == {"native": "3.0"}


def test_packages_of_one_system_fall_away_and_those_of_the_target_come_in(index: Index, by: By) -> None:
    wheel(index.folder, "app", requires=["mac-part; sys_platform == 'darwin'", "linux-part; sys_platform == 'linux'"])
    wheel(index.folder, "linux-part", requires=["deeper"])
    wheel(index.folder, "deeper")
    wheel(index.folder, "pyobjc", tag=MAC)
    app = distribution("app", "1.0", "mac-part; sys_platform == 'darwin'", "linux-part; sys_platform == 'linux'")
    packages = installed(app, distribution("mac-part", requested=False), distribution("pyobjc"))
    found = resolve(index, packages, by)
    assert found.moved == (
        Moved("deeper", "added", "", "1.0", "required on the target"),
        Moved("linux-part", "added", "", "1.0", "required on the target"),
        Moved("mac-part", "dropped", "1.0", "", "required on darwin only, by app"),
        Moved("pyobjc", "dropped", "1.0", "", "required on darwin only"),
    )


def test_listed_package_of_another_system_falls_away_though_its_source_is_there(index: Index, by: By) -> None:
    for name, requires in (("pyobjc_core", []), ("pyobjc_framework_cocoa", ["pyobjc-core"])):
        wheel(index.folder, name, requires=requires, tag=MAC)
        (index.folder / f"{name}-1.0.tar.gz").write_bytes(b"")
    framework = distribution("pyobjc-framework-cocoa", "1.0", "pyobjc-core")
    found = resolve(index, installed(framework, distribution("pyobjc-core")), by)
    assert versions(found) == {}
    assert [(each.name, each.change) for each in found.moved] == [
        ("pyobjc-core", "dropped"),
        ("pyobjc-framework-cocoa", "dropped"),
    ]
    wheel(index.folder, "app", requires=["pyobjc-core"])
    with pytest.raises(Refused, match=r"pyobjc-core 1\.0: no wheel"):
        resolve(index, installed(distribution("app", "1.0", "pyobjc-core"), distribution("pyobjc-core")), by)


def test_conda_package_meets_a_requirement(index: Index, by: By) -> None:
    wheel(index.folder, "app", requires=["native>=1"])
    found = resolve(index, installed(distribution("app", "1.0", "native>=1"), conda="native"), by)
    assert (versions(found), found.moved, found.findings) == ({"app": "1.0"}, (), ())


def test_inconsistent_environment_ships_as_it_is_with_a_finding(index: Index, by: By) -> None:
    wheel(index.folder, "app", requires=["lib<2"])
    wheel(index.folder, "lib", "2.0")
    packages = installed(distribution("app", "1.0", "lib<2"), distribution("lib", "2.0"), system="linux")
    found = resolve(index, packages, by)
    assert versions(found) == {"app": "1.0", "lib": "2.0"}
    assert [finding.message for finding in found.findings if finding.subject == "app"] == [
        "app 1.0 requires lib<2, but lib 2.0 is what ships"
    ]


def test_yanked_version_ships_only_if_it_is_installed(index: Index, by: By) -> None:
    yanked = wheel(index.folder, "kept", "1.0")
    wheel(index.folder, "other", "1.0.0", tag=MAC)
    index.yanked |= {yanked.name, wheel(index.folder, "other", "1.0.2").name}
    wheel(index.folder, "other", "1.0.1")
    found = resolve(index, installed(distribution("kept"), distribution("other", "1.0.0")), by)
    assert versions(found) == {"kept": "1.0", "other": "1.0.1"}
    assert [(finding.kind, finding.subject) for finding in found.findings] == [("yanked", "kept")]


def test_wheel_for_a_newer_glibc_is_refused_with_its_name(index: Index, by: By) -> None:
    path = wheel(index.folder, "native", tag="cp311-cp311-manylinux_2_34_x86_64")
    with pytest.raises(Refused, match=rf"its wheels need a newer glibc than 2\.28: {path.name}"):
        resolve(index, installed(distribution("native"), system="linux"), by)


def test_a_version_for_another_python_is_refused_with_that_python(index: Index) -> None:
    index.pythons[wheel(index.folder, "native", tag="py3-none-any", metadata="Requires-Python: >=3.12").name] = ">=3.12"
    wheel(index.folder, "pure")
    with pytest.raises(Refused, match=r"native 1\.0: requires Python >=3\.12, not 3\.11\.7"):
        resolve(index, installed(distribution("native"), distribution("pure"), system="linux"), "uv")


def test_a_requirement_that_no_index_has_is_a_finding_in_our_words(index: Index) -> None:
    wheel(index.folder, "app", requires=["unheard-of>=2"])
    found = resolve(index, installed(distribution("app", "1.0", "unheard-of>=2"), system="linux"), "uv")
    assert versions(found) == {"app": "1.0"}
    assert [each.message for each in found.findings if each.subject == "/env"] == [
        (
            "not all requirements can be met on linux/amd64: unheard-of is not on the configured indexes; app requires "
            "unheard-of>=2; the packages ship as they are installed"
        )
    ]


def test_an_index_without_any_of_the_packages_is_named_once(index: Index) -> None:
    packages = installed(*(distribution(name) for name in ("one", "two", "three")), system="linux")
    with pytest.raises(IndexUnusable) as refused:
        resolve(index, packages, "uv")
    assert str(refused.value) == f"index {index.url}: has none of 3 installed packages; correct its URL"


def test_a_pure_package_whose_classifiers_name_other_systems_alone_ships_with_a_note(index: Index) -> None:
    for name in ("apple", "both"):
        wheel(index.folder, name)
    apple = replace(distribution("apple"), systems=("MacOS :: MacOS X",), pure=True)
    both = replace(distribution("both"), systems=("MacOS", "POSIX :: Linux"), pure=True)
    found = resolve(index, installed(apple, both), "uv")
    assert versions(found) == {"apple": "1.0", "both": "1.0"}
    assert [(each.severity, each.subject) for each in found.findings] == [("note", "apple")]
    assert "MacOS :: MacOS X alone" in found.findings[0].message


def test_source_distribution_is_built_later_and_its_requirements_count(index: Index, by: By) -> None:
    (index.folder / "sourced-1.0.tar.gz").write_bytes(b"not read")
    wheel(index.folder, "lib")
    found = resolve(index, installed(distribution("sourced", "1.0", "lib")), by)
    assert versions(found) == {"lib": "1.0", "sourced": "1.0"}
    assert found.artifacts[1].url.endswith("/files/sourced-1.0.tar.gz")
    assert [each.name for each in found.moved] == ["lib"]


def test_local_project_is_not_looked_for_on_an_index(index: Index, by: By) -> None:
    wheel(index.folder, "mine", "9.0")
    wheel(index.folder, "lib")
    mine = InstalledDistribution("mine", "1.0", ("lib",), True, "file:///home/ada/mine", True, "/home/ada/mine")
    found = resolve(index, installed(mine, distribution("lib", requested=False)), by)
    assert (versions(found), found.projects) == ({"lib": "1.0"}, ("/home/ada/mine",))
    assert not any(path.startswith("/simple/mine") for path, _ in index.requests)


def test_index_gets_its_login_and_no_message_shows_it(
    index: Index, by: By, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.login = "ada:s3cret%word"
    wheel(index.folder, "pure")
    packages = installed(distribution("pure"))
    indexes = Indexes((index.index(login=index.login),))
    assert versions(resolve_distributions(packages, TARGET, ResolveOptions(), indexes, by)) == {"pure": "1.0"}
    assert "s3cret" not in repr(indexes)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "another-uv-cache"))
    wrong = Indexes((index.index(login="ada:wr0ng"),))
    with pytest.raises(IndexUnusable) as refused:
        resolve_distributions(packages, TARGET, ResolveOptions(), wrong, by)
    assert "wr0ng" not in str(refused.value)
    assert str(refused.value).startswith(f"index {index.url}")
    assert "login (401); correct" in str(refused.value)


def test_pinned_package_is_looked_for_on_its_own_index_alone(index: Index, by: By, tmp_path: Path) -> None:
    wheel(index.folder, "mine", "1.0")
    wheel(index.folder, "lib")
    (tmp_path / "private").mkdir()
    wheel(tmp_path / "private", "mine", "1.0", metadata="Summary: private")
    with serve_index(Index(tmp_path / "private")) as private:
        indexes = Indexes((private.index(explicit=True), index.index()), {"mine": private.url})
        found = resolve_distributions(
            installed(distribution("lib"), distribution("mine")), TARGET, ResolveOptions(), indexes, by
        )
    assert {artifact.name: artifact.index for artifact in found.artifacts} == {"lib": index.url, "mine": private.url}
    assert not any(path.startswith("/simple/mine") for path, _ in index.requests)
    assert not any(path.startswith("/simple/lib") for path, _ in private.requests)


def test_package_of_several_indexes_comes_from_the_first_that_has_it(index: Index, by: By, tmp_path: Path) -> None:
    wheel(index.folder, "mine", "1.0")
    wheel(index.folder, "lib")
    (tmp_path / "private").mkdir()
    wheel(tmp_path / "private", "mine", "1.0")
    with serve_index(Index(tmp_path / "private")) as private:
        indexes = Indexes((private.index(), index.index()))
        packages = installed(distribution("lib"), distribution("mine"))
        found = resolve_distributions(packages, TARGET, ResolveOptions(), indexes, by)
    assert {artifact.name: artifact.index for artifact in found.artifacts} == {"lib": index.url, "mine": private.url}


def test_index_that_is_down_is_one_sentence(index: Index, by: By, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PIP_RETRIES", "0")
    indexes = Indexes((index.index(),))
    index.port, down = 9, index.port
    indexes = Indexes((index.index(),))
    index.port = down
    with pytest.raises(
        IndexUnusable, match=r"^index http://127\.0\.0\.1:9/simple\S*: .*URL and the network, or try again later$"
    ):
        resolve_distributions(installed(distribution("pure")), TARGET, ResolveOptions(), indexes, by)
