"""Indexes as pip, uv, Poetry and PDM are configured, with logins from where each looks for them."""

from __future__ import annotations

import functools
import os
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from lamella.builder.indexes.client import IndexClient, IndexUnusable
from lamella.builder.indexes.configured import configured_indexes, project_folder
from lamella.builder.indexes.model import PYPI, Indexes, Login, PackageIndex, with_query
from lamella.builder.indexes.pages import project_files
from lamella.builder.indexes.settings_files import InvalidIndexSettings
from support.servers import serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Configured = Callable[..., Indexes]

PRIVATE = "https://pypi.corp.example/simple"
OTHER = "https://other.example/simple"


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configured:
    """Read the settings of a project and a user in `tmp_path`, with these variables."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home/.config"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "xdg"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "home").mkdir()
    (tmp_path / "project").mkdir()

    def read(*metadata: Path, **environ: str) -> Indexes:
        return configured_indexes(
            str(tmp_path / "project"),
            str(tmp_path / "venv"),
            metadata=map(str, metadata),
            environ=environ,
            markers={"sys_platform": "linux"},
        )

    return read


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def urls(indexes: Indexes) -> list[str]:
    return [each.url for each in indexes.indexes]


def distribution(tmp_path: Path, name: str, installer: str) -> Path:
    return write(tmp_path / f"{name}.dist-info/INSTALLER", f"{installer}\n").parent


def test_without_settings_the_public_index_is_the_only_one(configured: Configured) -> None:
    assert configured() == Indexes((PackageIndex(PYPI),))


def test_pip_files_override_each_other_and_variables_override_them(configured: Configured, tmp_path: Path) -> None:
    write(tmp_path / "xdg/pip/pip.conf", "[global]\nindex-url = https://global.example/simple\n")
    assert urls(configured()) == ["https://global.example/simple"]
    write(tmp_path / "home/.config/pip/pip.conf", "[global]\nindex_url = https://user.example/simple/\n")
    assert urls(configured()) == ["https://user.example/simple"]
    write(tmp_path / "venv/pip.conf", "[install]\nindex-url = https://venv.example/simple\n")
    assert urls(configured()) == ["https://venv.example/simple"]
    named = write(
        tmp_path / "named.conf", "[global]\nextra-index-url =\n  https://a.example/s\n  https://b.example/s\n"
    )
    assert urls(configured(PIP_CONFIG_FILE=str(named))) == [
        "https://a.example/s",
        "https://b.example/s",
        "https://venv.example/simple",
    ]
    assert urls(configured(PIP_INDEX_URL=PRIVATE)) == [PRIVATE]
    assert urls(configured(PIP_CONFIG_FILE=os.devnull)) == [PYPI]


def test_extra_index_of_pip_goes_before_the_main_one_so_that_the_public_one_is_not_asked(
    configured: Configured,
) -> None:
    found = configured(PIP_EXTRA_INDEX_URL=PRIVATE)
    assert (urls(found), found.strategy) == ([PRIVATE, PYPI], "first-index")


def test_no_index_leaves_the_links_alone(configured: Configured, tmp_path: Path) -> None:
    found = configured(PIP_NO_INDEX="1", PIP_FIND_LINKS="wheels https://links.example/")
    assert found.indexes == ()
    assert [each.url for each in found.find_links] == [str(tmp_path / "project/wheels"), "https://links.example/"]


def test_login_of_a_find_links_page_goes_to_its_server_alone_and_is_not_shown(
    configured: Configured, tmp_path: Path
) -> None:
    link = "https://ada:hunter2@links.example/whl/page.html?token=s3same"
    flat = f'[[index]]\nname = "flat"\nurl = "{link}"\nformat = "flat"\n'
    source = f'[[tool.pdm.source]]\nname = "flat"\nurl = "{link}"\ntype = "find_links"\n'
    tool = write(tmp_path / "project/uv.toml", flat)
    ways = [configured()]
    tool.unlink()
    write(tmp_path / "project/pyproject.toml", source)
    ways += [configured(), configured(PIP_FIND_LINKS=link), configured(UV_FIND_LINKS=link)]
    write(tmp_path / "project/pyproject.toml", "")
    ways += [configured(PIP_FIND_LINKS=link.replace("hunter2", "${PASSWORD}"), PASSWORD="hunter2")]
    for found in ways:
        assert [each.url for each in found.find_links] == ["https://links.example/whl/page.html"]
        assert found.login_for("https://links.example/whl/mine-1.0-py3-none-any.whl") == Login("ada", "hunter2")
        assert found.login_for("https://other.example/whl/mine-1.0-py3-none-any.whl") is None
        assert found.login_for("http://links.example/whl/mine-1.0-py3-none-any.whl") is None
        assert found.hidden("hunter2 and token=s3same") == "**** and ****"
        assert "hunter2" not in repr(found)
        assert "s3same" not in repr(found)


def test_find_links_page_gets_the_login_of_netrc(configured: Configured, tmp_path: Path) -> None:
    write(tmp_path / "home/.netrc", "machine links.example login ada password pw\n").chmod(0o600)
    found = configured(PIP_FIND_LINKS="http://links.example/whl/")
    assert found.login_for("http://links.example/whl/mine-1.0-py3-none-any.whl") == Login("ada", "pw")


GITLAB = "https://git.example/api/v4/projects"


@pytest.mark.parametrize(
    ("url", "index", "user"),
    [
        (f"{GITLAB}/1/packages/pypi/simple/mine/", "", "one"),
        (f"{GITLAB}/2/packages/pypi/simple/mine/", "", "two"),
        (f"{GITLAB}/2/packages/pypi/files/abc/mine-1.0.tar.gz", "", "two"),
        (f"{GITLAB}/1/../2/packages/pypi/files/abc/mine-1.0.tar.gz", "", "two"),
        (f"{GITLAB}/1/%2e%2e/2/packages/pypi/files/abc/mine-1.0.tar.gz", "", "two"),
        (f"{GITLAB}/12/packages/pypi/simple/mine/", "", ""),
        (f"{GITLAB}/3/packages/pypi/simple/mine/", "", ""),
        ("https://git.example/uploads/mine-1.0.tar.gz", "", ""),
        ("https://git.example/uploads/mine-1.0.tar.gz", f"{GITLAB}/2/packages/pypi/simple", "two"),
        ("https://git.example/uploads/mine-1.0.tar.gz", f"{GITLAB}/3/packages/pypi/simple", ""),
    ],
)
def test_login_on_a_shared_server_is_that_of_the_nearest_index(url: str, index: str, user: str) -> None:
    logins = {"1": Login("one", "1"), "2": Login("two", "2"), "3": None}
    indexes = [PackageIndex(f"{GITLAB}/{number}/packages/pypi/simple", login=each) for number, each in logins.items()]
    for ordered in (indexes, indexes[::-1]):
        found = Indexes(tuple(ordered)).login_for(url, index)
        assert (found.user if found else "") == user


def test_options_in_requirements_txt_and_its_includes_count_for_pip(configured: Configured, tmp_path: Path) -> None:
    write(
        tmp_path / "project/requirements.txt", "--extra-index-url https://a.example/s # ours\n-r more/deep.txt\nx==1\n"
    )
    write(tmp_path / "project/more/deep.txt", f"-i {PRIVATE}\n")
    assert urls(configured()) == ["https://a.example/s", PRIVATE]


def test_uv_indexes_keep_their_order_with_the_default_last(configured: Configured, tmp_path: Path) -> None:
    write(
        tmp_path / "project/pyproject.toml",
        f"""
        [[tool.uv.index]]
        name = "main"
        url = "{PRIVATE}"
        default = true
        [[tool.uv.index]]
        name = "torch"
        url = "https://torch.example/whl"
        explicit = true
        [[tool.uv.index]]
        url = "{OTHER}"
        authenticate = "never"
        [tool.uv.sources]
        Torch_Vision = [
            {{ index = "main", marker = "sys_platform == 'darwin'" }},
            {{ index = "torch", marker = "sys_platform == 'linux'" }},
        ]
        """,
    )
    found = configured(UV_INDEX="env=https://env.example/simple")
    assert urls(found) == ["https://env.example/simple", "https://torch.example/whl", OTHER, PRIVATE]
    assert found.pins == {"torch-vision": "https://torch.example/whl"}
    assert [each.url for each in found.for_package("torch-vision")] == ["https://torch.example/whl"]
    assert "https://torch.example/whl" not in [each.url for each in found.for_package("numpy")]
    assert found.indexes[2].authenticate == "never"


def test_project_of_uv_overrides_user_and_variables_override_the_project(
    configured: Configured, tmp_path: Path
) -> None:
    write(tmp_path / "home/.config/uv/uv.toml", f'index-url = "{OTHER}"\nextra-index-url = ["https://u.example/s"]\n')
    assert urls(configured()) == ["https://u.example/s", OTHER]
    write(tmp_path / "project/uv.toml", f'[[index]]\nurl = "{PRIVATE}"\ndefault = true\n')
    assert urls(configured()) == ["https://u.example/s", PRIVATE]
    assert urls(configured(UV_DEFAULT_INDEX="https://env.example/s"))[-1] == "https://env.example/s"
    assert urls(configured(UV_NO_CONFIG="1")) == [PYPI]
    named = write(tmp_path / "named.toml", 'index-strategy = "unsafe-best-match"\nindex-url = "https://n.example/s"\n')
    found = configured(UV_CONFIG_FILE=str(named))
    assert (urls(found), found.strategy) == (["https://n.example/s"], "unsafe-best-match")


def test_a_strategy_in_the_environment_holds_for_the_indexes_of_any_tool(
    configured: Configured, tmp_path: Path
) -> None:
    named = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    found = configured(PIP_INDEX_URL=PRIVATE, PIP_EXTRA_INDEX_URL=OTHER, **named)
    assert (urls(found), found.strategy) == ([OTHER, PRIVATE], "unsafe-best-match")
    assert configured(PIP_INDEX_URL=PRIVATE).strategy == "first-index"
    write(tmp_path / "project/uv.toml", f'index-strategy = "unsafe-first-match"\nindex-url = "{PRIVATE}"\n')
    assert configured().strategy == "unsafe-first-match"
    assert configured(**named).strategy == "unsafe-best-match"
    with pytest.raises(InvalidIndexSettings, match="index-strategy best: not a strategy of uv"):
        configured(UV_INDEX_STRATEGY="best", PIP_INDEX_URL=PRIVATE)


def test_settings_of_the_tool_that_installed_the_packages_decide(configured: Configured, tmp_path: Path) -> None:
    environ = {"UV_DEFAULT_INDEX": OTHER, "PIP_INDEX_URL": PRIVATE}
    by_pip = [distribution(tmp_path, name, "pip") for name in ("a", "b")]
    by_uv = distribution(tmp_path, "c", "uv")
    assert urls(configured(*by_pip, by_uv, **environ)) == [PRIVATE]
    assert urls(configured(by_uv, **environ)) == [OTHER]
    assert urls(configured(by_uv, PIP_INDEX_URL=PRIVATE)) == [PRIVATE]


def test_sources_of_poetry_and_pdm_are_read(configured: Configured, tmp_path: Path) -> None:
    project = write(
        tmp_path / "project/pyproject.toml",
        f"""
        [[tool.poetry.source]]
        name = "corp"
        url = "{PRIVATE}"
        priority = "supplemental"
        [[tool.poetry.source]]
        name = "only"
        url = "{OTHER}"
        priority = "explicit"
        [tool.poetry.dependencies]
        secret_lib = {{ version = "1", source = "only" }}
        """,
    )
    found = configured(POETRY_HTTP_BASIC_CORP_USERNAME="ada", POETRY_HTTP_BASIC_CORP_PASSWORD="pw")
    assert urls(found) == [PYPI, PRIVATE, OTHER]
    assert found.login_for(f"{PRIVATE}/x/") == Login("ada", "pw")
    assert found.pins == {"secret-lib": OTHER}
    write(
        project,
        f'[[tool.pdm.source]]\nname = "corp"\nurl = "https://ada:${{TOKEN}}@{PRIVATE.removeprefix("https://")}"\n'
        'include_packages = ["a_b", "c-*"]\n',
    )
    found = configured(TOKEN="pw")
    assert (urls(found), found.pins) == ([PRIVATE, PYPI], {"a-b": PRIVATE})
    assert found.indexes[0].login == Login("ada", "pw")


def test_patterns_of_pdm_decide_the_source_of_each_package(configured: Configured, tmp_path: Path) -> None:
    source = f'[[tool.pdm.source]]\nname = "corp"\nurl = "{PRIVATE}"\n'
    public = f'[[tool.pdm.source]]\nname = "pypi"\nurl = "{PYPI}"\n'
    packages = [distribution(tmp_path, name, "pdm") for name in ("corp_secret-1.0", "numpy-2.0", "corp-old-0.1")]
    project = write(tmp_path / "project/pyproject.toml", f'{public}{source}include_packages = ["Corp_*"]\n')
    found = configured(*packages)
    assert found.pins == {"corp-secret": PRIVATE, "corp-old": PRIVATE}
    assert urls(found) == [PRIVATE, PYPI], "a package that the target alone needs may match as well"
    write(project, f'{public}exclude_packages = ["corp-*"]\n{source}')
    found = configured(*packages)
    assert (urls(found), found.pins) == ([PYPI, PRIVATE], {"corp-secret": PRIVATE, "corp-old": PRIVATE})


def test_login_comes_from_the_url_then_variables_then_netrc_then_the_store_of_uv(
    configured: Configured, tmp_path: Path
) -> None:
    index = f"corp={PRIVATE}"
    store = (
        '[[credential]]\nservice = "https://pypi.corp.example"\nusername = "stored"\npassword = "s"\nscheme = "basic"\n'
    )
    write(tmp_path / "data/uv/credentials/credentials.toml", store)
    assert configured(UV_INDEX=index).indexes[0].login == Login("stored", "s")
    netrc = write(tmp_path / "home/.netrc", "machine pypi.corp.example login ada password pw\n")
    netrc.chmod(0o600)
    assert configured(UV_INDEX=index).indexes[0].login == Login("ada", "pw")
    other = write(
        tmp_path / "other-netrc", "machine pypi.corp.example login bob password b\ndefault login x password y\n"
    )
    other.chmod(0o600)
    found = configured(UV_INDEX=index, NETRC=str(other))
    assert (found.indexes[0].login, found.indexes[1].login) == (Login("bob", "b"), None)
    environ = {"UV_INDEX": index, "UV_INDEX_CORP_USERNAME": "env", "UV_INDEX_CORP_PASSWORD": "e"}
    assert configured(**environ).indexes[0].login == Login("env", "e")


def test_keyring_is_asked_only_if_it_is_configured_or_the_url_names_a_user(
    configured: Configured, tmp_path: Path
) -> None:
    command = write(
        tmp_path / "bin/keyring",
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ "$2 $3" = "{PRIVATE} ada" ] && echo secret && exit 0\nexit 1\n',
    )
    command.chmod(0o755)
    path = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    assert configured(PIP_INDEX_URL=PRIVATE, **path).indexes[0].login is None
    assert not (tmp_path / "asked").exists()
    with_user = PRIVATE.replace("//", "//ada@")
    assert configured(PIP_INDEX_URL=with_user, **path).indexes[0].login == Login("ada", "secret")
    assert configured(UV_DEFAULT_INDEX=with_user, **path).indexes[0].login == Login("ada", "")
    on = configured(UV_DEFAULT_INDEX=with_user, UV_KEYRING_PROVIDER="subprocess", **path)
    assert on.indexes[0].login == Login("ada", "secret")
    assert "secret" not in (tmp_path / "asked").read_text()


def test_index_that_must_not_get_a_login_gets_none(configured: Configured, tmp_path: Path) -> None:
    write(tmp_path / "home/.netrc", "machine pypi.corp.example login ada password pw\n").chmod(0o600)
    write(tmp_path / "project/uv.toml", f'[[index]]\nurl = "{PRIVATE}"\nauthenticate = "never"\n')
    found = configured()
    assert found.indexes[0].login is None
    assert found.login_for(f"{PRIVATE}/x/") is None


def test_netrc_that_others_can_read_and_a_malformed_one_are_findings(configured: Configured, tmp_path: Path) -> None:
    path = write(tmp_path / "home/.netrc", "machine pypi.corp.example login ada password pw\n")
    path.chmod(0o644)
    (finding,) = configured().findings
    assert finding.message == f"{path}: other users can read its passwords; run chmod 600 {path}"
    path.write_text("hunter2\n")
    (finding,) = configured().findings
    assert finding.message == f"{path}: not a netrc file, and its logins are not used; correct it"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("project/uv.toml", 'index = "hunter2', "cannot be read: not TOML"),
        ("home/.config/pip/pip.conf", "index-url = https://u:hunter2@x", "cannot be read: not an INI file"),
        ("project/requirements.txt", "--index-url 'https://u:hunter2@x\n", ", line 1: quotes are not closed"),
        ("project/requirements.txt", "-r requirements.txt\n", ": includes itself; correct it"),
    ],
)
def test_malformed_settings_are_one_sentence_without_a_password(
    configured: Configured, tmp_path: Path, name: str, text: str, problem: str
) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(InvalidIndexSettings) as refused:
        configured()
    assert str(path) in str(refused.value)
    assert problem in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_pin_to_an_index_that_is_not_defined_is_refused(configured: Configured, tmp_path: Path) -> None:
    path = write(tmp_path / "project/pyproject.toml", '[tool.uv.sources]\ntorch = { index = "gone" }\n')
    with pytest.raises(InvalidIndexSettings) as refused:
        configured()
    assert str(refused.value) == f"{path}: torch is pinned to the index gone, which is not defined; define it"


def test_login_of_netrc_goes_to_a_file_host_over_https_alone(configured: Configured, tmp_path: Path) -> None:
    write(tmp_path / "home/.netrc", "machine files.example login ada password pw\n").chmod(0o600)
    found = configured(PIP_INDEX_URL=PRIVATE)
    assert found.login_for("https://files.example/x.whl") == Login("ada", "pw")
    assert found.login_for("http://files.example/x.whl") is None


def test_no_password_is_in_a_representation_or_a_text_that_a_server_sends_back(configured: Configured) -> None:
    found = configured(PIP_INDEX_URL="https://ada:p%40ss-word@pypi.corp.example/simple")
    assert "ss-word" not in repr(found)
    echoed = "Authorization: Basic YWRhOnBAc3Mtd29yZA== of p@ss-word and p%40ss-word"
    assert found.hidden(echoed) == "Authorization: Basic **** of **** and ****"


def test_query_of_an_index_goes_with_requests_and_is_not_shown(configured: Configured) -> None:
    found = configured(PIP_INDEX_URL=f"{PRIVATE}/?token=hunter2")
    assert urls(found) == [PRIVATE]
    assert "hunter2" not in repr(found)
    assert with_query(found.indexes[0], "/numpy/") == f"{PRIVATE}/numpy/?token=hunter2"
    assert found.hidden(f"no {PRIVATE}?token=hunter2") == f"no {PRIVATE}?****"


@pytest.mark.parametrize("password", ["hun[ter2", "hun]ter2", "hun/ter2", "hun#ter2"])
@pytest.mark.parametrize(
    ("variable", "setting"), [("PIP_INDEX_URL", "index-url of pip"), ("UV_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL")]
)
def test_password_that_is_not_percent_encoded_is_one_sentence_without_it(
    configured: Configured, password: str, variable: str, setting: str
) -> None:
    with pytest.raises(InvalidIndexSettings) as refused:
        configured(**{variable: f"https://ada:{password}@pypi.corp.example/simple"})
    assert str(refused.value) == f"{setting}: not the URL of an index; percent-encode the password"


def test_page_that_leads_to_a_file_of_this_machine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pages/numpy").mkdir(parents=True)
    write(tmp_path / "pages/numpy/index.html", '<!DOCTYPE html><a href="file:///srv/numpy-1.0-py3-none-any.whl">')
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "pages"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, serving(server):
        index = PackageIndex(f"http://127.0.0.1:{server.server_port}")
        with IndexClient(Indexes((index,))) as client, pytest.raises(IndexUnusable, match="a file of this machine"):
            project_files(client, index, "numpy")
        local = PackageIndex((tmp_path / "pages").as_uri())
        with IndexClient(Indexes((local,))) as client:
            assert project_files(client, local, "numpy")


def test_project_of_an_environment_is_the_folder_it_lies_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "app/pixi.toml", "")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert project_folder(str(tmp_path / "app/.venv")) == str(tmp_path / "app")
    assert project_folder(str(tmp_path / "app/.pixi/envs/default")) == str(tmp_path / "app")
    assert project_folder(str(tmp_path / "other/.venv")) == str(tmp_path / "elsewhere")
