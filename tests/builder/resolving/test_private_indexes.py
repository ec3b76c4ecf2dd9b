"""Logins of private indexes stay with their servers, and private packages are looked for on private indexes alone."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import pytest

from lamella.builder.errors import BuilderError
from lamella.builder.indexes.model import Indexes, Login, PackageIndex, link_page
from lamella.builder.resolving.fetch import fetch
from lamella.builder.resolving.model import InstalledDistribution, InstalledPackages, ResolveOptions, Target
from lamella.builder.resolving.pypi import Refused, resolve_distributions
from lamella.builder.resolving.target_prefix import resolve
from lamella.layers.oci.documents import Platform
from lamella.layers.progress.display import Silent
from support.hostile_index import HostileIndex, Way, serve_hostile_index
from support.index import Index, serve_index
from support.installed import install, venv, wheel
from support.shared_server import Projects, serve_projects

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

By = Literal["uv", "pip"]
TARGET = Target(Platform("linux", "amd64"), "3.11.7")
OURS, THEIRS = "ada:our-hunter2", "eve:their-swordfish"
SECRETS = ("our-hunter2", "their-swordfish", *(base64.b64encode(each.encode()).decode() for each in (OURS, THEIRS)))
_started: list[str] = []


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        _started.append(repr(arguments[1]))


sys.addaudithook(_record)


@pytest.fixture(params=["uv", "pip"])
def by(request: pytest.FixtureRequest) -> By:
    chosen: By = request.param
    return chosen


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "caches/uv"))
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "caches/pip"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    (tmp_path / "wheels").mkdir()
    (tmp_path / "public").mkdir()


def installed(*names: str) -> InstalledPackages:
    pypi = tuple(InstalledDistribution(name, "1.0", requested=True) for name in names)
    return InstalledPackages("/env", "3.11.7", "linux", "arm64", pypi)


def login(pair: str) -> Login:
    user, _, password = pair.partition(":")
    return Login(user, password)


def basic(pair: str) -> str:
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


@pytest.mark.parametrize("way", get_args(Way))
def test_hostile_index_gets_no_login_of_another_and_shows_none(
    way: Way, by: By, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    _started.clear()
    made = wheel(tmp_path / "wheels", "mine")
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    with (
        serve_index(Index(tmp_path / "wheels", login=OURS)) as ours,
        serve_hostile_index(HostileIndex(way, f"http://127.0.0.1:{ours.port}", made.name, digest)) as theirs,
    ):
        indexes = Indexes(
            (
                PackageIndex(theirs.url, "theirs", login=login(THEIRS)),
                PackageIndex(ours.url, "ours", login=login(OURS)),
            ),
            pins={"mine": theirs.url},
        )
        shown = repr(indexes)
        try:
            found = resolve_distributions(installed("mine"), TARGET, ResolveOptions(), indexes, resolver=by)
            shown += repr(found)
            fetch(found.artifacts, TARGET, indexes, str(tmp_path / "caches/lamella"), Silent())
        except BuilderError as error:
            shown += str(error)
    assert theirs.requests
    assert {authorization for _, authorization in theirs.requests} <= {"", basic(THEIRS)}
    assert {authorization for _, authorization in ours.requests} <= {"", basic(OURS)}
    kept = [path for path in (tmp_path / "caches").rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in kept).decode("latin-1")
    for secret in SECRETS:
        assert secret not in shown
        assert secret not in caplog.text
        assert secret not in " ".join(_started)
        assert secret not in content
        assert secret not in " ".join(map(str, kept))


def test_package_of_a_private_index_is_never_looked_for_on_the_public_one(by: By, tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "mine")
    wheel(tmp_path / "public", "mine", "1.0")
    wheel(tmp_path / "public", "other")
    with (
        serve_index(Index(tmp_path / "wheels", login=OURS)) as private,
        serve_index(Index(tmp_path / "public")) as public,
    ):
        indexes = Indexes((PackageIndex(private.url, login=login(OURS)), PackageIndex(public.url)))
        found = resolve_distributions(installed("mine", "other"), TARGET, ResolveOptions(), indexes, resolver=by)
        fetch(found.artifacts, TARGET, indexes, str(tmp_path / "caches/lamella"), Silent())
    assert {each.name: each.index for each in found.artifacts} == {"mine": private.url, "other": public.url}
    assert not [path for path, _ in public.requests if "mine" in path]


@pytest.mark.parametrize("section", ["global", "install"])
def test_pip_asks_no_index_of_the_users_own_settings(
    section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path / "wheels", "mine")
    wheel(tmp_path / "public", "mine", "1.0", tag="py2.py3-none-any")
    with (
        serve_index(Index(tmp_path / "wheels", login=OURS)) as private,
        serve_index(Index(tmp_path / "public")) as public,
    ):
        settings = tmp_path / "xdg/pip/pip.conf"
        settings.parent.mkdir(parents=True)
        others = f"find-links = {public.url}/mine/\nuser = true\nno-index = {str(section == 'global').lower()}\n"
        settings.write_text(f"[{section}]\nindex-url = {public.url}\nextra-index-url = {public.url}\n{others}")
        monkeypatch.setenv("XDG_CONFIG_DIRS", str(settings.parents[1]))
        for name in ("USER", "TARGET", "PREFIX"):
            monkeypatch.setenv(f"PIP_{name}", "1")
        indexes = Indexes(
            (PackageIndex(private.url, explicit=True, login=login(OURS)), PackageIndex(public.url)),
            pins={"mine": private.url},
        )
        found = resolve_distributions(installed("mine"), TARGET, ResolveOptions(), indexes, resolver="pip")
    assert [each.index for each in found.artifacts] == [private.url]
    assert public.requests == []


def test_pinned_package_that_its_index_lacks_is_refused_instead_of_taken_from_another(by: By, tmp_path: Path) -> None:
    wheel(tmp_path / "public", "mine")
    with (
        serve_index(Index(tmp_path / "wheels", login=OURS)) as private,
        serve_index(Index(tmp_path / "public")) as public,
    ):
        indexes = Indexes(
            (PackageIndex(private.url, explicit=True, login=login(OURS)), PackageIndex(public.url)),
            pins={"mine": private.url},
        )
        with pytest.raises(Refused, match=r"mine 1\.0: not on the configured indexes"):
            resolve_distributions(installed("mine"), TARGET, ResolveOptions(), indexes, resolver=by)
    assert public.requests == []


def test_wrong_login_is_one_sentence_that_names_the_index(by: By, tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "mine")
    with serve_index(Index(tmp_path / "wheels", login=OURS)) as private:
        indexes = Indexes((PackageIndex(private.url, login=login(THEIRS)),))
        with pytest.raises(BuilderError) as refused:
            resolve_distributions(installed("mine"), TARGET, ResolveOptions(), indexes, resolver=by)
    assert f"index {private.url}" in str(refused.value)
    assert "(401)" in str(refused.value)
    assert "correct" in str(refused.value)


def test_project_with_a_private_index_is_resolved_with_the_login_of_netrc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path / "wheels", "mine")
    wheel(tmp_path / "public", "other")
    project = tmp_path / "project"
    links = [option for folder in ("wheels", "public") for option in ("--find-links", str(tmp_path / folder))]
    install(venv(project / ".venv"), "mine", "other", options=["--no-index", *links])
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ada password our-hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in [name for name in os.environ if name.startswith(("UV_INDEX", "UV_DEFAULT", "UV_EXTRA", "UV_CONFIG"))]:
        monkeypatch.delenv(name)
    with (
        serve_index(Index(tmp_path / "wheels", login=OURS)) as private,
        serve_index(Index(tmp_path / "public")) as public,
    ):
        (project / "uv.toml").write_text(
            f'[[index]]\nurl = "{private.url}"\n[[index]]\nurl = "{public.url}"\ndefault = true\n'
        )
        plan = resolve(str(project / ".venv"), Platform("linux", "arm64"))
    assert {each.name: each.index for each in plan.resolution.artifacts} == {"mine": private.url, "other": public.url}
    assert sorted(each.message for each in plan.resolution.findings) == sorted(
        (f"1 package from {private.url}: mine", f"1 package from {public.url}: other")
    )
    assert "our-hunter2" not in repr(plan)


@pytest.mark.parametrize("name", ["mine", "other"])
def test_page_of_find_links_gets_its_login_and_no_other_server_does(name: str, by: By, tmp_path: Path) -> None:
    _started.clear()
    wheel(tmp_path / "wheels", "mine")
    wheel(tmp_path / "public", "other")
    with (
        serve_index(Index(tmp_path / "wheels", login=OURS, html=True)) as private,
        serve_index(Index(tmp_path / "public")) as public,
    ):
        page = link_page(f"http://{OURS}@127.0.0.1:{private.port}/simple/mine/", "find-links")
        indexes = Indexes((PackageIndex(public.url),), find_links=(page,))
        found = resolve_distributions(installed(name), TARGET, ResolveOptions(), indexes, resolver=by)
        fetch(found.artifacts, TARGET, indexes, str(tmp_path / "caches/lamella"), Silent())
    assert [each.name for each in found.artifacts] == [name]
    assert {authorization for _, authorization in public.requests} <= {""}
    shown = repr(found) + repr(indexes) + " ".join(_started)
    assert not [secret for secret in SECRETS if secret in shown]


@pytest.mark.parametrize("with_theirs", [True, False])
def test_projects_on_one_server_get_no_login_of_each_other(with_theirs: bool, by: By, tmp_path: Path) -> None:
    made = wheel(tmp_path / "wheels", "mine")
    other = wheel(tmp_path / "wheels", "other")
    with serve_projects(Projects({"mine": made, "other": other})) as served:
        indexes = Indexes(
            (
                PackageIndex(f"{served.url}/mine/simple", login=login(OURS)),
                PackageIndex(f"{served.url}/other/simple", login=login(THEIRS) if with_theirs else None),
            ),
            pins={"other": f"{served.url}/other/simple", "mine": f"{served.url}/mine/simple"},
        )
        found = resolve_distributions(installed("mine", "other"), TARGET, ResolveOptions(), indexes, resolver=by)
        fetch(found.artifacts, TARGET, indexes, str(tmp_path / "caches/lamella"), Silent())
    sent = {(path.split("/")[1], authorization) for path, authorization in served.requests if authorization}
    assert sent == {("mine", basic(OURS)), *([("other", basic(THEIRS))] if with_theirs else [])}


def test_files_outside_the_paths_of_a_server_s_indexes_are_had_with_the_login_of_each(tmp_path: Path) -> None:
    wheels = {name: wheel(tmp_path / "wheels", name) for name in ("mine", "other")}
    logins = {"mine": OURS, "other": THEIRS}
    with serve_projects(Projects(wheels, logins=logins)) as served:
        urls = {name: f"{served.url}/{name}/simple" for name in logins}
        private = (PackageIndex(urls[name], explicit=True, login=login(logins[name])) for name in logins)
        indexes = Indexes((*private, PackageIndex(f"{served.url}/none/simple")), pins=urls)
        found = resolve_distributions(installed("mine", "other"), TARGET, ResolveOptions(), indexes, resolver="uv")
        fetch(found.artifacts, TARGET, indexes, str(tmp_path / "caches/lamella"), Silent())
    assert [each.index for each in found.artifacts] == [urls["mine"], urls["other"]]


def test_file_of_this_machine_that_a_page_names_is_refused(by: By, tmp_path: Path) -> None:
    made = wheel(tmp_path / "local", "mine")
    with serve_projects(Projects({"mine": made}, link=made.as_uri())) as served:
        indexes = Indexes((PackageIndex(f"{served.url}/mine/simple"),))
        with pytest.raises(BuilderError, match=r"index http://\S+: .*leads to a file of this machine, mine-1\.0"):
            resolve_distributions(installed("mine"), TARGET, ResolveOptions(), indexes, resolver=by)
        allowed = replace(indexes, find_links=(PackageIndex(str(tmp_path / "local")),))
        found = resolve_distributions(installed("mine"), TARGET, ResolveOptions(), allowed, resolver=by)
    assert [each.url for each in found.artifacts] == [made.as_uri()]
