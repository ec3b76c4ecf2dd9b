"""Environments of earlier layer formats, in `support/formats` as they were pushed when that format was current."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.push import push
from lamella.layers.oci.documents import Platform
from lamella.layers.pulling.pull import pull
from lamella.layers.store.store import Store
from support import tars
from support.packages import SITE, environment, package

FORMATS = Path(__file__).parents[2] / "support/formats"
AMD64 = Platform("linux", "amd64")
PUSHED = {2: "51038e75af3283df8a3cdb053b4c057464aca5a8d532e0585aeadf9e3acdff97"}


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A folder for layouts, in which `format-2` is one of that format."""
    with tarfile.open(FORMATS / "format-2.tar.gz") as tar:
        tars.extract(tar, tmp_path / "format-2")
    return tmp_path / "format-2"


@pytest.mark.slow
def test_an_environment_of_an_earlier_format_is_pulled_as_it_was_pushed(layout: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    pulled = pull(f"oci:{layout}:v1", store=store, platform=AMD64)
    assert pulled.reference.endswith(f"@sha256:{PUSHED[2]}")
    trees = [Path(store.layer_path(layer.diff_id)) for layer in pulled.environment.layers]
    files = {path: root / path for root in trees for path, (_, what) in tars.snapshot(root).items() if what}
    assert files["opt/env/etc/tool.cfg"].read_text() == "root=/opt/env\n"
    assert files["opt/env/bin/idna"].read_text() == "#!/opt/env/bin/python\nimport idna\n"
    assert {path.lstat().st_mtime for path in files.values()} == {315532800}


@pytest.mark.slow
def test_a_push_beside_an_earlier_format_builds_anew_and_leaves_the_earlier_one(layout: Path, tmp_path: Path) -> None:
    before = tars.snapshot(layout / "blobs")
    prefix = tmp_path / "env"
    info = f"{SITE}/idna-3.10.dist-info"
    idna = package(
        prefix,
        "idna",
        {f"{SITE}/idna/__init__.py": "def encode(text):\n    return text.encode()\n", f"{info}/METADATA": ""},
        version="3.10",
        records=info,
    )
    cache = LayerCache(str(tmp_path / "cache"))
    pushed = push(f"oci:{layout}:v2", environment(prefix, idna, compiles=True), cache=cache)
    assert (pushed.built, pushed.reused) == (1, 0)
    assert before.items() <= tars.snapshot(layout / "blobs").items()
    earlier = pull(f"oci:{layout}:v1", store=Store(str(tmp_path / "store")), platform=AMD64)
    assert earlier.reference.endswith(f"@sha256:{PUSHED[2]}")
