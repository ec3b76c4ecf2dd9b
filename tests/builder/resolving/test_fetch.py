"""Downloads for a target: checked, cached, once, and nothing left of a failed one."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import BuilderError
from lamella.builder.indexes.model import Indexes
from lamella.builder.resolving.fetch import digest_of, fetch
from lamella.builder.resolving.model import Artifact, InstalledDistribution, Target
from lamella.builder.resolving.sources import direct_artifact
from lamella.layers.oci.documents import Platform
from lamella.layers.progress.display import Silent
from support.index import Index, serve_index
from support.installed import wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


HERE = Target(Platform("linux", "arm64"), ".".join(map(str, sys.version_info[:3])))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    (tmp_path / "wheels").mkdir()
    with serve_index(Index(tmp_path / "wheels")) as served:
        yield served


def artifact(index: Index, path: Path, sha256: str = "", size: int = 0) -> Artifact:
    name = path.name.partition("-")[0]
    digest = sha256 or hashlib.sha256(path.read_bytes()).hexdigest()
    url = f"http://127.0.0.1:{index.port}/files/{path.name}"
    return Artifact("wheel", name, "1.0", url, digest, size, index.url)


def fetched(index: Index, cache: Path, *artifacts: Artifact, login: str = "") -> dict[Artifact, str]:
    return fetch(artifacts, HERE, Indexes((index.index(login=login),)), str(cache), Silent())


def left(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.is_file()]


def test_file_is_downloaded_once_and_found_in_the_cache_afterwards(index: Index, tmp_path: Path) -> None:
    paths = [wheel(index.folder, name) for name in ("one", "two")]
    wanted = [artifact(index, path) for path in paths]
    for _ in range(2):
        found = fetched(index, tmp_path / "cache", *wanted)
        assert [Path(found[each]).read_bytes() for each in wanted] == [path.read_bytes() for path in paths]
    assert sorted(index.downloads()) == [path.name for path in paths]
    assert sorted(left(tmp_path / "cache")) == [path.name for path in paths]


def test_two_fetches_at_once_download_once(index: Index, tmp_path: Path) -> None:
    wanted = artifact(index, wheel(index.folder, "one"))
    threads = [threading.Thread(target=fetched, args=(index, tmp_path / "cache", wanted)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert index.downloads() == ["one-1.0-py3-none-any.whl"]


def test_content_with_another_hash_is_refused_and_not_kept(index: Index, tmp_path: Path) -> None:
    path = wheel(index.folder, "one")
    with pytest.raises(BuilderError) as refused:
        fetched(index, tmp_path / "cache", artifact(index, path, "0" * 64))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(refused.value) == (
        f"index {index.url}: one 1.0 (127.0.0.1): sha256 is {digest}, but the index or a lock states "
        f"{'0' * 64}; nothing was used, report this to the index's operator"
    )
    assert left(tmp_path / "cache") == []


@pytest.mark.slow
def test_cut_download_is_tried_again_and_leaves_nothing(index: Index, tmp_path: Path) -> None:
    path = wheel(index.folder, "one", files={"one.bin": os.urandom(1 << 16)})
    index.cut.add(path.name)
    with pytest.raises(BuilderError, match=r"index http://\S+: one 1\.0 \(127\.0\.0\.1\): .*try again later$"):
        fetched(index, tmp_path / "cache", artifact(index, path))
    assert len(index.downloads()) > 1
    assert left(tmp_path / "cache") == []


def test_web_page_in_place_of_a_wheel_names_the_proxy(index: Index, tmp_path: Path) -> None:
    index.pages = True
    with pytest.raises(BuilderError, match="a web page came in its place; check for a proxy in between"):
        fetched(index, tmp_path / "cache", artifact(index, wheel(index.folder, "one")))


@pytest.mark.parametrize(("login", "message"), [("", "requires a login"), ("ada:wr0ng", r"refuses the login \(401\)")])
def test_refused_login_is_one_sentence_without_it(index: Index, tmp_path: Path, login: str, message: str) -> None:
    index.login = "ada:s3cret"
    with pytest.raises(BuilderError, match=rf"one 1\.0 \(127\.0\.0\.1\): 127\.0\.0\.1:\d+ {message}") as refused:
        fetched(index, tmp_path / "cache", artifact(index, wheel(index.folder, "one")), login=login)
    assert "wr0ng" not in str(refused.value)


def test_login_is_not_sent_to_the_server_of_a_redirect(index: Index, tmp_path: Path) -> None:
    path = wheel(index.folder, "one")
    index.login = "ada:s3cret"
    with serve_index(Index(index.folder)) as other:
        index.redirect = f"http://127.0.0.1:{other.port}"
        fetched(index, tmp_path / "cache", artifact(index, path), login=index.login)
    assert [authorization for _, authorization in other.requests] == [""]


def test_login_is_not_sent_to_another_server_that_a_page_names(index: Index, tmp_path: Path) -> None:
    path = wheel(index.folder, "one")
    with serve_index(Index(index.folder)) as other:
        wanted = artifact(other, path)
        fetched(index, tmp_path / "cache", wanted, login="ada:s3cret")
    assert [authorization for _, authorization in other.requests] == [""]


def test_file_that_the_index_lacks_is_reported(index: Index, tmp_path: Path) -> None:
    path = wheel(index.folder, "one")
    wanted = artifact(index, path)
    path.unlink()
    with pytest.raises(BuilderError, match=r"one 1\.0 .*: no such file; its index names a file that it does not have"):
        fetched(index, tmp_path / "cache", wanted)


@pytest.mark.parametrize("tags", [True, False])
def test_file_without_a_known_hash_is_looked_at_again_and_sent_only_if_it_changed(
    tags: bool, index: Index, tmp_path: Path
) -> None:
    index.tags = tags
    path = wheel(index.folder, "one", files={"one.py": "a = 1\n"})
    direct = replace(artifact(index, path), sha256="", index="")
    first = fetched(index, tmp_path / "cache", direct)[direct]
    assert fetched(index, tmp_path / "cache", direct)[direct] == first
    assert (len(index.downloads()), index.unchanged) == (2, [path.name] if tags else [])
    wheel(index.folder, "one", files={"one.py": "a = 2\n"})
    changed = fetched(index, tmp_path / "cache", direct)[direct]
    assert Path(changed).read_bytes() == path.read_bytes()
    assert changed != first, "a prefix tells wheels apart by their paths"
    assert digest_of(direct, str(tmp_path / "cache")) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_changed_file_behind_a_redirect_is_noticed_and_an_unchanged_one_not_sent(index: Index, tmp_path: Path) -> None:
    path = wheel(index.folder, "one")
    with serve_index(Index(index.folder, tags=True)) as files:
        index.redirect = f"http://127.0.0.1:{files.port}"
        direct = replace(artifact(index, path), sha256="", index="")
        for _ in range(2):
            fetched(index, tmp_path / "cache", direct)
    assert files.unchanged == [path.name]


def test_wheel_of_a_url_is_the_one_that_was_installed_or_refused(index: Index, tmp_path: Path) -> None:
    path = wheel(index.folder, "one", files={"one.py": "a = 1\n"})
    installed = hashlib.sha256(path.read_bytes()).hexdigest()
    url = f"http://127.0.0.1:{index.port}/files/{path.name}"
    direct = direct_artifact(InstalledDistribution("one", "1.0", source=url, sha256=installed), HERE)
    assert fetched(index, tmp_path / "cache", direct)
    wheel(index.folder, "one", files={"one.py": "a = 2\n"})
    with pytest.raises(BuilderError) as refused:
        fetched(index, tmp_path / "another", direct)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(refused.value) == (
        f"URL: one 1.0 (127.0.0.1): sha256 is {digest}, but the file that was installed had {installed}; nothing was "
        "used, install it again"
    )
    assert left(tmp_path / "another") == []


SETTINGS = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def backend(name: str) -> str:
    """A build backend that gives the wheel `name` beside it."""
    return (
        "import shutil, os\n"
        "def build_wheel(folder, config_settings=None, metadata_directory=None):\n"
        f"    return os.path.basename(shutil.copy({name!r}, folder))\n"
    )


def sdist(index: Index, tag: str) -> Path:
    """A source distribution whose backend gives a wheel with `tag`."""
    made = wheel(index.folder / ".." / "made", "sourced", tag=tag)
    path = index.folder / "sourced-1.0.tar.gz"
    contents = {
        "pyproject.toml": SETTINGS.encode(),
        "backend.py": backend(made.name).encode(),
        made.name: made.read_bytes(),
    }
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"sourced-1.0/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.slow
def test_pure_source_distribution_becomes_a_wheel(index: Index, tmp_path: Path) -> None:
    wanted = artifact(index, sdist(index, "py3-none-any"))
    found = fetched(index, tmp_path / "cache", wanted)
    assert found[wanted].endswith("/sourced-1.0-py3-none-any.whl")
    assert fetched(index, tmp_path / "cache", wanted) == found
    assert len(index.downloads()) == 1


@pytest.mark.slow
def test_repository_is_cloned_without_a_write_to_the_one_of_a_running_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repositories = [tmp_path / "theirs", tmp_path / "users"]
    made = wheel(tmp_path / "made", "sourced")
    for repository in repositories:
        repository.mkdir()
        (repository / "pyproject.toml").write_text(SETTINGS)
        (repository / "backend.py").write_text(backend(made.name))
        (repository / made.name).write_bytes(made.read_bytes())
        git(repository, "init", "--quiet")
        git(repository, "add", ".")
        git(repository, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", repository.name)
    theirs, users = repositories
    commit, before = git(theirs, "rev-parse", "HEAD"), git(users, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(users / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(users))
    monkeypatch.setenv("GIT_INDEX_FILE", str(users / ".git/index"))
    wanted = Artifact("wheel", "sourced", "1.0", f"git+file://{theirs}@{commit}", "", 0, "")
    found = fetch([wanted], HERE, Indexes(()), str(tmp_path / "cache"), Silent())
    assert found[wanted].endswith("/sourced-1.0-py3-none-any.whl")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name)
    assert git(users, "rev-parse", "HEAD") == before
    assert not (users / ".git/FETCH_HEAD").exists()


@pytest.mark.slow
def test_package_of_a_repository_is_built_at_its_commit_though_the_branch_went_on(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    (repository / "below").mkdir(parents=True)
    (repository / "below/pyproject.toml").write_text(SETTINGS)
    git(repository, "init", "--quiet")
    commits = []
    for value in (1, 2):
        made = wheel(repository / "below", "sourced", files={"sourced.py": f"value = {value}\n"})
        (repository / "below/backend.py").write_text(backend(made.name))
        git(repository, "add", ".")
        git(repository, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", str(value))
        commits.append(git(repository, "rev-parse", "HEAD"))
    source = f"git+file://{repository}@{commits[0]}#subdirectory=below"
    wanted = direct_artifact(InstalledDistribution("sourced", "1.0", source=source), HERE)
    found = fetch([wanted], HERE, Indexes(()), str(tmp_path / "cache"), Silent())
    with zipfile.ZipFile(found[wanted]) as archive:
        assert archive.read("sourced.py") == b"value = 1\n"


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def damaged(path: Path, ending: str) -> Path:
    """A source distribution named with `ending` whose content cannot be read."""
    made = path / f"sourced-1.0{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("sourced-1.0/pyproject.toml", "")
        content = bytearray(made.read_bytes())
        # The flag of an encrypted file, in its own header and in the central directory.
        content[6] |= 1
        content[content.rindex(b"PK\x01\x02") + 8] |= 1
        made.write_bytes(content)
        return made
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        member = tarfile.TarInfo("sourced-1.0/data")
        member.size = 1 << 20
        tar.addfile(member, io.BytesIO(os.urandom(member.size)))
    packers: dict[str, Callable[[bytes], bytes]] = {
        ".tar.gz": gzip.compress,
        ".tar.bz2": bz2.compress,
        ".tar.xz": lzma.compress,
    }
    content = bytearray(packers[ending](plain.getvalue()))
    middle = len(content) // 2
    content[middle : middle + 4096] = b"\xff" * 4096
    made.write_bytes(content)
    return made


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_damaged_source_distribution_is_one_sentence(index: Index, tmp_path: Path, ending: str) -> None:
    wanted = artifact(index, damaged(index.folder, ending))
    with pytest.raises(BuilderError, match=r"^sourced 1\.0: damaged source distribution: .+; report it to the index"):
        fetched(index, tmp_path / "cache", wanted)


@pytest.mark.slow
def test_compiled_source_distribution_is_refused_with_what_would_help(index: Index, tmp_path: Path) -> None:
    wanted = artifact(index, sdist(index, "cp311-cp311-linux_x86_64"))
    with pytest.raises(BuilderError) as refused:
        fetched(index, tmp_path / "cache", wanted)
    assert str(refused.value) == (
        "sourced 1.0: only its source can be had, and it is compiled (sourced-1.0-cp311-cp311-linux_x86_64.whl); make its "
        "wheel on the target platform with pip wheel and put it on an index, or push from there"
    )
