"""An exported conda environment is one to conda, mamba and pixi. rattler, pixi's engine, stands for them here."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.builder.layer.cache import LayerCache
from lamella.builder.packing.pack import pack
from lamella.builder.pushing.push import push
from lamella.builder.scanning.options import ScanOptions
from lamella.layers.exporting.export import export
from lamella.layers.exporting.target import ExportOptions
from lamella.layers.mounting.mount import mount, umount
from lamella.layers.store.store import Store
from support.conda import SHORT, conda_environment, conda_package, python_of_the_run
from support.engines import need_root

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

REMOVE = """
import asyncio, os, pathlib, sys
import rattler
prefix = sys.argv[1]
records = [rattler.PrefixRecord.from_path(str(path)) for path in pathlib.Path(prefix, "conda-meta").glob("*.json")]
print(sorted(f"{each.name.normalized} {each.url}" for each in records))
kept = [each for each in records if each.name.normalized != "pure"]
asyncio.run(rattler.install(kept, prefix, show_progress=False))
sys.stdout.flush()
os._exit(0)
"""
PURE = {
    "site-packages/pure/__init__.py": "def main(): pass\n",
    "site-packages/pure-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pure\nVersion: 1.0\n",
    "site-packages/pure-1.0.dist-info/RECORD": "pure/__init__.py,,\n",
}
TOKEN = "/t/tk-s3cret"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """A conda environment whose records and history have a token in the channel's address."""
    channel = tmp_path_factory.mktemp("conda") / "channel"
    python_of_the_run(channel, shared)
    conda_package(channel, "pure", PURE, noarch="python", depends=["python"])
    made = conda_environment(channel.parent / "env", channel, ["python", "pure"])
    for path in (made / "conda-meta").glob("*.json"):
        record = json.loads(path.read_text())
        address = f"https://ada:s3cret@conda.example.com{TOKEN}/main"
        record |= {"channel": address, "url": f"{address}/{record['subdir']}/{record['fn']}"}
        path.write_text(json.dumps(record))
    (made / "conda-meta/history").write_text(
        f"==> 2026-01-01 00:00:00 <==\n# cmd: conda install -c https://conda.example.com{TOKEN}/main pure\n"
        f"# update specs: ['https://conda.example.com{TOKEN}/main::pure[version=1.0]', 'python=3']\n"
    )
    return made


@pytest.fixture(scope="module")
def cache(shared: Path) -> str:
    return str(shared / "cache")


@pytest.fixture(scope="module")
def reference(environment: Path, cache: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pushed")
    name = f"oci:{folder}/layout:v1"
    push(name, str(environment), scan_options=ScanOptions(cache=cache), cache=LayerCache(cache))
    return name


def packed(environment: Path, folder: Path, cache: str) -> Path:
    options = ScanOptions(cache=cache)
    pack(str(environment), str(folder / "env"), scan_options=options, cache=LayerCache(cache))
    return folder / "env"


def channels(prefix: Path) -> set[str]:
    return {json.loads(path.read_text())["channel"] for path in (prefix / "conda-meta").glob("*.json")}


def test_packages_are_listed_and_removed(environment: Path, cache: str, tmp_path: Path) -> None:
    place = packed(environment, tmp_path, cache)
    package = place / f"lib/python{SHORT}/site-packages/pure"
    assert list((package / "__pycache__").iterdir())

    ran = subprocess.run([sys.executable, "-c", REMOVE, place], check=True, capture_output=True, text=True)

    assert "'pure https://conda.example.com/main/noarch/pure-1.0-0.conda'" in ran.stdout
    assert not package.exists()
    assert not (place / "conda-meta/pure-1.0-0.json").exists()
    assert subprocess.run([place / "bin/python", "-c", "import json"], check=False).returncode == 0


def test_the_history_has_packages_and_requests_and_no_credentials(
    environment: Path, cache: str, tmp_path: Path
) -> None:
    place = packed(environment, tmp_path, cache)

    history = (place / "conda-meta/history").read_text()
    assert "+https://conda.example.com/main/noarch::pure-1.0-0" in history
    assert '# update specs: ["pure[version=1.0]", "python=3"]' in history
    assert channels(place) == {"https://conda.example.com/main"}
    assert b"s3cret" not in b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())


def test_an_export_of_a_reference_has_the_same_records(
    environment: Path, reference: str, cache: str, tmp_path: Path
) -> None:
    place = packed(environment, tmp_path, cache)

    export(reference, str(tmp_path / "exported"), store=Store(str(tmp_path / "store")), options=ExportOptions())

    for path in (place / "conda-meta").iterdir():
        assert (tmp_path / "exported/conda-meta" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.root
@pytest.mark.engine
def test_a_mount_has_complete_records(reference: str, tmp_path: Path) -> None:
    need_root()
    store = Store(str(tmp_path / "store"))
    mount(reference, str(tmp_path / "env"), store=store)
    try:
        assert channels(tmp_path / "env") == {"https://conda.example.com/main"}
        assert (tmp_path / "env/conda-meta/history").exists()
    finally:
        umount(str(tmp_path / "env"), store=store)
