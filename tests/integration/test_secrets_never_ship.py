"""A canary in each place where a user or an installer leaves a secret: no byte of any is shipped, shown or logged."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, NamedTuple

import pytest
import zstandard

from support.conda import conda_environment, conda_package, python_of_the_run
from support.installed import install, wheel
from support.scanned import SITE

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "CANARY"
KEY = "-----BEGIN PRIVATE KEY-----\n{}\n"
META = "Metadata-Version: 2.1\nName: {}\nVersion: 1.0\n"


class Places(NamedTuple):
    """An environment, code and a home with a canary in every place; each names its place, for when it is found."""

    environment: Path
    work: Path
    home: Path


def canary(place: object) -> str:
    return f"{CANARY}-{re.sub(r'[^A-Za-z0-9]+', '-', str(place)).strip('-')}"


def write(folder: Path, name: str, text: str) -> None:
    """Writes `text`, with this place's canary for each {}."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("{}", canary(f"{folder.name}/{name}")))


def direct_url(url: str = "https://me:{}@host/x.whl") -> str:
    return json.dumps({"url": url, "archive_info": {"hash": "sha256=ab"}})


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Places:
    folder = tmp_path_factory.mktemp("secrets")
    channel = folder / "channel"
    python_of_the_run(channel, shared)
    for name in ("native", "tail", "bare", "asks"):
        conda_package(channel, name, {f"share/{name}.txt": name})
    environment = conda_environment(folder / "env", channel, ["python", "native", "tail", "bare", "asks"])
    found = Places(environment, folder / "work", folder / "home")
    _home(found)
    _conda(found)
    _installed(found)
    _editable(found, folder)
    _work(found)
    return found


def _home(places: Places) -> None:
    home = places.home
    for name in (
        ".netrc",
        ".pypirc",
        ".git-credentials",
        ".ssh/id_rsa",
        ".ssh/work",
        ".config/gcloud/db",
        ".azure/token",
    ):
        write(home, name, "{}")
    for name in (".aws/credentials", ".kube/config", ".docker/config.json", ".gnupg/secring", "plain/.ssh/config"):
        write(home, name, "{}")
    for name in ("plain", "shared"):
        write(home, f"{name}/.env", "{}")
        write(home, f"{name}/read.txt", "")


def _conda(places: Places) -> None:
    environment = places.environment
    urls = {
        "native": {"url": "https://me:{}@host/t/{}/c/linux-64/native-1.0-0.conda", "channel": "https://host/t/{}/c"},
        "tail": {"url": "https://host/t/{}", "channel": "https://host/t/{}"},
        "bare": {"url": "", "channel": "me:{}@conda.corp/t/{}", "requested_spec": "https://{}@host/c::bare"},
        "asks": {
            "depends": [
                "https://{}@host/t/{}/c::native >=1",
                "https://host/t/{}/c::gone",
                "native[url='https://{}@h/n'] >=9",
            ],
            "constrains": ["https://host/t/{}::tail <1"],
        },
    }
    for name, said in urls.items():
        (record,) = (environment / "conda-meta").glob(f"{name}-*.json")
        cleared = json.loads(json.dumps(said).replace("{}", canary(f"record-{name}")))
        record.write_text(json.dumps(json.loads(record.read_text()) | cleared))
    texts = {
        "conda-meta/history": "# cmd: conda install -c https://host/t/{}/c x\n",
        "conda-meta/initial-state.explicit.txt": "@EXPLICIT\nhttps://host/t/{}/c/x.conda\n",
        "conda-meta/pinned": "https://host/t/{}/c::x\n",
        "conda-meta/state": '{"env_vars": {"DB_PASS": "{}", "SENTRY_DSN": "{}"}}',
        "conda-meta/broken-1-0.json": '{"name": "broken", "url": "https://me:{}@host/x", ',
        "conda-meta/nameless-1-0.json": '{"url": "https://me:{}@host/x"}',
        "conda-meta/native-0.9-0.json": '{"name": "native", "version": "0.9", "url": "https://host/t/{}"}',
        "etc/conda/activate.d/env_vars.sh": "export AWS_SECRET_ACCESS_KEY={}\n",
        "etc/conda/deactivate.d/env_vars.fish": "set -gx GITHUB_PAT {}\n",
        "etc/conda/env_vars.d/own.json": '{"MYSQL_PWD": "{}"}',
        "condarc.d/corp.yml": "channel_alias: https://host/t/{}\n",
        ".condarc": "channels: [https://host/t/{}]\n",
        "pip.conf": "[global]\nindex-url = https://{}@host/simple\n",
        "etc/uv/uv.toml": 'index = [{url = "https://{}@host/simple"}]\n',
        ".netrc": "{}",
        "share/.ssh/work": "{}",
        "share/.gnupg/secring": "{}",
        "share/server.pem": KEY,
    }
    for name, text in texts.items():
        write(environment, name, text)
    os.utime(environment / "conda-meta" / "native-0.9-0.json", (0, 0))


def _installed(places: Places) -> None:
    environment, site = places.environment, places.environment / SITE
    folder = environment.parent
    install(
        environment, wheel(folder, "direct", files={"direct.py": ""}), wheel(folder, "mirrored", files={"m.py": ""})
    )
    requires = "Requires-Dist: foo @ git+https://{}@host/foo\nRequires-Dist: bar @ https://host/bar?token={}\n"
    texts = {
        "direct-1.0.dist-info/direct_url.json": direct_url(),
        "direct-1.0.dist-info/METADATA": META.format("direct") + requires,
        "mirrored-1.0.dist-info/provenance_url.json": direct_url(),
        "~irect-0.9.dist-info/direct_url.json": direct_url(),
        "~irect/settings.py": "URL = 'https://me:{}@host/x'\n",
        "torn-1.0.dist-info/direct_url.json": '{"url": "https://me:{}@host/x", ',
        "torn-1.0.dist-info/METADATA": "Requires-Dist: https://{}@host/x is not one\n",
        "vcs-1.0.dist-info/METADATA": META.format("vcs"),
        "vcs-1.0.dist-info/direct_url.json": json.dumps({"url": "https://{}@host/x", "vcs_info": {"vcs": "git"}}),
        "unowned/vendor/foo-1.0.dist-info/direct_url.json": direct_url(),
        "unowned/.pypirc": "{}",
    }
    for name, text in texts.items():
        write(site, name, text)
    (site / "unowned" / "notes.txt").symlink_to(places.home / ".netrc")


def _editable(places: Places, folder: Path) -> None:
    """Two projects: an import root, and a package's folder that a link brings."""
    site, root = places.environment / SITE, folder / "edited" / "src"
    texts = {
        "edited/__init__.py": "",
        "edited/.config/gcloud/application.json": "{}",
        "edited/.ssh/work": "{}",
        "edited/.env": "{}",
        "edited/.git/config": "{}",
        "edited/ignored.txt": "{}",
        "edited/vendor/foo-1.0.dist-info/provenance_url.json": direct_url(),
        "edited/vendor/foo-1.0.dist-info/METADATA": META.format("foo") + "Requires-Dist: x @ https://{}@host/x\n",
    }
    for name, text in texts.items():
        write(root, name, text)
    (root / ".lamellaignore").write_text("ignored.txt\n")
    write(
        site, "edited-1.0.dist-info/METADATA", META.format("edited") + "Requires-Dist: foo @ git+https://{}@host/foo\n"
    )
    said = {"url": f"file://{root.parent}", "dir_info": {"editable": True}}
    write(site, "edited-1.0.dist-info/direct_url.json", json.dumps(said))
    write(site, "edited-1.0.dist-info/RECORD", "edited.pth,,\nedited-1.0.dist-info/METADATA,,\n")
    (site / "edited.pth").write_text(f"{root}\n")


def _work(places: Places) -> None:
    work, home = places.work, places.home
    texts = {
        "app.py": "",
        ".env": "{}",
        ".pypirc": "{}",
        ".netrc": "{}",
        ".git/config": "[remote]\nurl = https://me:{}@host/x\n",
        "id_rsa": "{}",
        "tls.key": KEY,
        "prod.env": "DB_PASS={}\n",
        "requirements.txt": "--index-url https://{}@host/simple\n",
        "pyproject.toml": '[project]\nname = "work"\ndependencies = ["x @ git+https://{}@host/x"]\n',
        "pkg/__init__.py": "",
        "pkg/.git-credentials": "{}",
        "pkg/pip.conf": "[global]\nindex-url = https://me:{}@host/simple\n",
        "pkg/server.pem": KEY,
        "pkg/.hg/hgrc": "{}",
        "pkg/vendor/foo-1.0.dist-info/direct_url.json": direct_url(),
        "pkg/vendor/foo.egg-info/requires.txt": "a @ https://{}@host/a\n\n[x]\nb @ https://{}@host/b\n",
    }
    for name, text in texts.items():
        write(work, name, text)
    for name, target in {"netrc.txt": ".netrc", "deploykey": ".ssh/id_rsa", "keys": ".ssh", "plain": "plain"}.items():
        (work / "pkg" / name).symlink_to(home / target)
    (work / "pkg" / "again.txt").symlink_to("netrc.txt")


def lamella(places: Places, *arguments: object, debug: bool = False) -> subprocess.CompletedProcess[str]:
    cache = places.environment.parent / "cache"
    said = {"LAMELLA_CACHE": str(cache), "HOME": str(places.home), "XDG_CACHE_HOME": str(cache)}
    # pip would wait between its attempts.
    said |= {"PIP_NO_INDEX": "1", "PIP_RETRIES": "0"}
    command = [sys.executable, "-m", "lamella.cli", *map(str, arguments)]
    clean = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    if debug:
        said["LAMELLA_DEBUG"] = "1"
    return subprocess.run(command, env=clean | said, cwd=places.work, capture_output=True, text=True, check=False)


def found_in(text: str) -> set[str]:
    """The places whose canaries `text` has."""
    return set(re.findall(rf"{CANARY}-[\w-]*", text))


@pytest.fixture(scope="module")
def layout(places: Places) -> Path:
    """The layout after a push with a bill of materials; the push prints no secret."""
    layout = places.environment.parent / "layout"
    options = ["--local", places.work, "--include", places.home / "shared", "--sbom"]
    done = lamella(places, "push", f"oci:{layout}:v1", places.environment, *options)
    assert done.returncode == 0, done.stderr
    assert found_in(done.stdout + done.stderr) == set()
    return layout


def test_no_byte_of_any_secret_is_pushed(layout: Path) -> None:
    shipped = set()
    for blob in (layout / "blobs" / "sha256").iterdir():
        data = blob.read_bytes()
        if data[:4] == b"\x28\xb5\x2f\xfd":
            with zstandard.ZstdDecompressor().stream_reader(data) as stream:
                data = stream.read()
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                shipped |= set(archive.getnames())
        assert found_in(data.decode("utf-8", "replace")) == set()
    site = f"opt/env/{SITE}"
    wanted = {
        "app.py",
        "shared/read.txt",
        "edited/__init__.py",
        "direct.py",
        "direct-1.0.dist-info/METADATA",
    }
    assert {f"{site}/{name}" for name in wanted} <= shipped
    assert "opt/env/conda-meta/tail-1.0-0.json" in shipped


@pytest.mark.parametrize(
    "arguments",
    [
        ["scan", "--all", "--left-out"],
        ["scan", "--json"],
        ["scan", "--files=", "--json"],
        ["explain", "--json", "."],
        ["scan", "--fail-on", "warning"],
        ["scan", "--strict", "asks", "--strict", "torn"],
        ["push", "--dry-run", "oci:nowhere:v1"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("debug", [False, True])
def test_no_byte_of_any_secret_is_printed(places: Places, arguments: list[str], debug: bool) -> None:
    done = lamella(places, *arguments, places.environment, "--local", places.work, debug=debug)
    assert done.stdout + done.stderr
    assert found_in(done.stdout + done.stderr) == set()


def test_no_byte_of_any_secret_is_in_what_inspect_and_diff_say(places: Places, layout: Path) -> None:
    files = (["inspect", "--files=", "--json"], ["diff", "--files=", places.environment])
    for arguments in (["inspect"], ["inspect", "--json"], ["diff", places.environment], *files):
        done = lamella(places, *arguments, f"oci:{layout}:v1")
        assert done.stdout
        assert found_in(done.stdout + done.stderr) == set()


@pytest.mark.parametrize("debug", [False, True])
def test_no_byte_of_any_secret_is_in_an_error(places: Places, debug: bool) -> None:
    work, environment = places.work, places.environment
    denied = environment / "share" / ".wh.denied"
    denied.write_text(canary("whiteout"))
    build = work.parent / "unbuildable"
    write(
        build,
        "pyproject.toml",
        '[build-system]\nrequires = ["x @ https://me:{}@localhost:1/x-1.0-py3-none-any.whl"]\nbuild-backend = "x"\n',
    )
    (build / "unbuildable.py").touch()
    layout = f"oci:{work.parent}/errors:v1"
    provoked = [
        ["push", layout, environment, "--local", work],
        ["push", layout, environment, "--local", build, "--wheels"],
        ["push", layout, environment, "--local", work, "--include", "gone"],
        ["push", layout, environment, "--include", work / "tls.key"],
        ["push", layout, environment, "--include", work / ".git"],
        ["push", layout, environment, "--include", places.home / ".ssh"],
        ["push", layout, environment, "--include", "~"],
        ["push", f"https://me:{canary('reference')}@host/x:v1", environment],
        ["push", f"me:{canary('reference')}@localhost:1/x:v1", environment],
    ]
    try:
        done = [lamella(places, *arguments, debug=debug) for arguments in provoked]
    finally:
        denied.unlink()
    # All but the first two are invalid values; with LAMELLA_DEBUG each error but a usage error ends by its traceback.
    assert [each.returncode for each in done] == [1] * 2 + [1 if debug else 2] * (len(done) - 2)
    assert [found_in(each.stdout + each.stderr) for each in done] == [set()] * len(done)
