from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import pytest

from lamella.builder.environment import Origin
from lamella.builder.image.documents import PackageLayer
from lamella.builder.image.sbom import MEDIA_TYPE, sbom
from lamella.builder.layer.cache import BuiltLayer, LayerCache
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.layers.oci.documents import LAYER_ZSTD, Digest, Platform
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.referrers import annotations_of, content_of, referrers
from lamella.layers.storages import open_storage
from lamella.layers.trust import Trust
from support.packages import SITE, environment, package
from support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.environment import Package

INFO = f"{SITE}/tool-1.0.dist-info"


def component(one: Package) -> dict[str, Any]:
    built = BuiltLayer(Digest.of(b"blob"), 1, Digest.of(b"tar"), 1, LAYER_ZSTD)
    (found,) = json.loads(sbom([(one, PackageLayer(one.name, one.version, one.origin, "k", built))]))["components"]
    return dict(found)


def tool(prefix: Path, metadata: str) -> Package:
    return package(
        prefix, "tool", {f"{INFO}/METADATA": f"Name: tool\n{metadata}\n\nLicense: in the text\n"}, records=INFO
    )


def test_a_distribution_has_a_purl_a_hash_and_its_licence(tmp_path: Path) -> None:
    found = component(tool(tmp_path, "License-Expression: MIT OR Apache-2.0\nClassifier: License :: OSI Approved :: X"))
    assert found["purl"] == found["bom-ref"] == "pkg:pypi/tool@1.0"
    assert found["hashes"] == [{"alg": "SHA-256", "content": Digest.of(b"tar").hex}]
    assert found["licenses"] == [{"expression": "MIT OR Apache-2.0"}]


def test_licences_of_older_metadata_are_found_and_texts_are_not_names(tmp_path: Path) -> None:
    old = "License: BSD\nClassifier: License :: OSI Approved :: BSD License\nClassifier: Topic :: X"
    assert component(tool(tmp_path / "a", old))["licenses"] == [{"license": {"name": "BSD License"}}]
    assert component(tool(tmp_path / "b", "License: BSD"))["licenses"] == [{"license": {"name": "BSD"}}]
    assert "licenses" not in component(tool(tmp_path / "c", f"License: {'Permission is granted ' * 20}"))


@pytest.mark.parametrize(
    ("channel", "shown"),
    [
        ("https://host/t/tk-secret/forge/linux-64", "&channel=forge"),
        ("me:tk-secret@host/t/tk-secret/forge", "&channel=forge"),
        ("https://host/t/tk-secret", ""),
    ],
)
def test_a_conda_package_has_build_channel_and_subdir_without_a_token(tmp_path: Path, channel: str, shown: str) -> None:
    record = {"channel": channel, "subdir": "linux-64", "license": "Zlib"}
    zlib = package(tmp_path, "zlib", {"conda-meta/zlib.json": json.dumps(record)}, origin="conda", version="1.3")
    found = component(replace(zlib, build="h1_0"))
    assert found["purl"] == f"pkg:conda/zlib@1.3?build=h1_0{shown}&subdir=linux-64"
    assert found["licenses"] == [{"license": {"name": "Zlib"}}]
    assert "secret" not in json.dumps(found)


@pytest.mark.slow
def test_bill_of_every_origin_fits_the_schema(tmp_path: Path) -> None:
    # Takes seconds to import.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    origins = get_args(Origin)
    packages = [package(tmp_path / origin, origin, {"x": origin}, origin=origin) for origin in origins]
    sources = ("https://host/a b/é.whl", "git+ssh://host/repository@main", "file:///project", "", "", "")
    packages = [replace(one, source=source) for one, source in zip(packages, sources, strict=True)]
    packages.append(tool(tmp_path / "both", "License-Expression: MIT\nClassifier: License :: OSI Approved :: X"))
    packages.append(tool(tmp_path / "many", "Classifier: License :: A\nClassifier: License :: B"))
    packages[-1] = replace(packages[-1], name="other")
    built = BuiltLayer(Digest.of(b"blob"), 1, Digest.of(b"tar"), 1, LAYER_ZSTD)
    bill = sbom([(one, PackageLayer(one.name, one.version, one.origin, "k", built)) for one in packages])
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.decode()) is None


def test_unowned_files_are_a_component_without_a_purl(tmp_path: Path) -> None:
    found = component(package(tmp_path, "unowned", {"x": "x"}, origin="unowned", version=""))
    assert found["bom-ref"] == "unowned:unowned"
    assert "purl" not in found
    assert "version" not in found


def test_bill_is_attached_to_the_pushed_image_and_the_same_every_time(tmp_path: Path) -> None:
    cache = LayerCache(str(tmp_path / "cache"))
    env = environment(tmp_path / "env", tool(tmp_path / "env", "License: BSD"))
    documents = []
    for name in ("one", "two"):
        pushed = push(f"oci:{tmp_path}/{name}:x", env, PushOptions(sbom=True), cache=cache)
        again = push(f"oci:{tmp_path}/{name}:x", env, PushOptions(sbom=True), cache=cache)
        assert again.reference == pushed.reference
        place = Reference.parse(pushed.reference)
        storage = open_storage(place, Trust())
        (referrer,) = referrers(storage, storage.resolve(str(place.digest)), MEDIA_TYPE)
        documents.append(content_of(storage, referrer))
        storage.close()
    assert documents[0] == documents[1]
    assert [one["name"] for one in json.loads(documents[0])["components"]] == ["tool"]


def test_each_platform_of_an_index_has_its_bill(tmp_path: Path) -> None:
    """Adding a platform leaves the bills of materials of the others attached."""
    simulator = RegistrySimulator()
    with simulator.serving():
        reference = f"{simulator.host}/team/envs:x"
        cache = LayerCache(str(tmp_path / "cache"))
        for architecture, licence in (("amd64", "BSD"), ("arm64", "MIT")):
            env = environment(tmp_path / architecture, tool(tmp_path / architecture, f"License: {licence}"))
            env = replace(env, platform=Platform("linux", architecture))
            push(reference, env, PushOptions(append=True, sbom=True), cache=cache)
        storage = open_storage(Reference.parse(reference), Trust())
        licences = {}
        for referrer in referrers(storage, storage.resolve("x"), MEDIA_TYPE):
            (component,) = json.loads(content_of(storage, referrer))["components"]
            (licence,) = component["licenses"]
            licences[annotations_of(storage, referrer)["dev.lamella.platform"]] = licence["license"]["name"]
        storage.close()
    assert licences == {"linux/amd64": "BSD", "linux/arm64": "MIT"}
