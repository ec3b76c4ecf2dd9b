from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from lamella.builder.environment import Origin
from lamella.builder.image.documents import PackageLayer
from lamella.builder.image.sbom import MEDIA_TYPE, sbom
from lamella.builder.layer.cache import BuiltLayer, LayerCache
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.layers.oci.documents import LAYER_ZSTD, Digest, Platform
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.referrers import annotations_of, content_of, referrers
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage
from support.packages import SITE, environment, package
from support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from lamella.builder.environment import Package

INFO = f"{SITE}/tool-1.0.dist-info"


def document(*packages: Package) -> bytes:
    built = BuiltLayer(Digest.of(b"blob"), 1, Digest.of(b"tar"), 1, LAYER_ZSTD)
    layers = [PackageLayer(one.name, one.version, one.origin, "k", built) for one in packages]
    return sbom(zip(packages, layers, strict=True), environment(Path("/srv/env"), *packages))


def component(one: Package) -> dict[str, Any]:
    (found,) = json.loads(document(one))["components"]
    return dict(found)


def distribution(prefix: Path, name: str, *lines: str) -> Package:
    records = f"{SITE}/{name}-1.0.dist-info"
    return package(prefix / name, name, {f"{records}/METADATA": "\n".join([f"Name: {name}", *lines])}, records=records)


def conda(prefix: Path, name: str, **record: object) -> Package:
    files = {f"conda-meta/{name}-1.0-0.json": json.dumps(record)}
    return package(prefix / name, name, files, origin="conda")


def depends(*packages: Package) -> dict[str, list[str]]:
    """The graph by names."""
    bill = json.loads(document(*packages))
    names = {one["bom-ref"]: one["name"] for one in [*bill["components"], bill["metadata"]["component"]]}
    return {
        names[one["ref"]]: sorted(names[other] for other in one.get("dependsOn", ())) for one in bill["dependencies"]
    }


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
    assert found["licenses"] == [{"expression": "Zlib"}]
    assert found.get("supplier") == ({"name": "forge"} if shown else None)
    assert "secret" not in json.dumps(found)


@pytest.mark.slow
def test_bill_of_every_origin_fits_the_schema(tmp_path: Path) -> None:
    origins = get_args(Origin)
    packages = [package(tmp_path / origin, origin, {"x": origin}, origin=origin) for origin in origins]
    sources = ("https://host/a b/é.whl", "git+ssh://host/repository@main", "file:///project", "", "", "")
    packages = [replace(one, source=source) for one, source in zip(packages, sources, strict=True)]
    packages.append(tool(tmp_path / "both", "License-Expression: MIT\nClassifier: License :: OSI Approved :: X"))
    packages.append(tool(tmp_path / "many", "Classifier: License :: A\nClassifier: License :: B"))
    packages[-1] = replace(packages[-1], name="other")
    packages.append(distribution(tmp_path, "needs", "Requires-Dist: tool", "Maintainer-email: Ada <ada@example.org>"))
    packages.append(distribution(tmp_path, "mixed", "Classifier: License :: X", "Classifier: License :: MIT License"))
    bill = document(*packages)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.decode()) is None


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("https://host/a b/é.whl", "https://host/a%20b/%C3%A9.whl"),
        ("https://host/a%20b/c.whl#sha256=1", "https://host/a%20b/c.whl#sha256=1"),
        ('https://host/"<>\\^`{|}', "https://host/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("git+ssh://host/repository@main", "git+ssh://host/repository@main"),
    ],
)
def test_a_source_is_a_valid_url(tmp_path: Path, source: str, url: str) -> None:
    found = component(replace(package(tmp_path, "tool", {"x": ""}), source=source))
    assert [each["url"] for each in found["externalReferences"]] == [url]


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
            licences[annotations_of(storage, referrer)["dev.lamella.platform"]] = licence
        storage.close()
    assert licences == {"linux/amd64": {"license": {"name": "BSD"}}, "linux/arm64": {"expression": "MIT"}}


def test_the_environment_is_the_root_and_its_bill_the_same_wherever_it_is_pushed(tmp_path: Path) -> None:
    root = json.loads(document(tool(tmp_path, "")))["metadata"]["component"]
    assert (root["type"], root["bom-ref"], root["name"]) == ("application", "environment", "environment")
    version = ".".join(map(str, sys.version_info[:3]))
    assert root["description"] == f"Python {version} environment for {Platform.here()}"


def test_dependencies_follow_markers_extras_and_the_interpreter(tmp_path: Path) -> None:
    python = package(tmp_path / "python", "python", {"bin/python3": "x"}, origin="python")
    assert depends(
        python,
        distribution(
            tmp_path,
            "app",
            "Requires-Dist: Web_Lib[fast] (>=1)",
            "Requires-Dist: old; python_version < '3'",
            "Requires-Dist: absent",
            "Requires-Dist: not a requirement",
            "Requires-Dist: dev; extra == 'dev'",
        ),
        distribution(
            tmp_path, "web-lib", "Requires-Dist: speed; extra == 'fast'", "Requires-Dist: slow; extra == 'slow'"
        ),
        *(distribution(tmp_path, name) for name in ("old", "dev", "speed", "slow")),
    ) == {
        "environment": ["app", "dev", "old", "slow"],
        "app": ["python", "web-lib"],
        "web-lib": ["python", "speed"],
        "python": [],
        **{name: ["python"] for name in ("old", "dev", "speed", "slow")},
    }


def test_dependencies_of_conda_packages_are_those_of_their_records(tmp_path: Path) -> None:
    assert depends(
        conda(tmp_path, "numpy", depends=["python >=3.10,<4", "forge::libblas[version='>=3']", "__glibc >=2.17", 3]),
        conda(tmp_path, "libblas", depends="not a list"),
        conda(tmp_path, "python", depends=[]),
        distribution(tmp_path, "pip-installed", "Requires-Dist: numpy"),
    ) == {
        "environment": ["pip-installed"],
        "numpy": ["libblas", "python"],
        "libblas": [],
        "python": [],
        "pip-installed": ["numpy", "python"],
    }


def test_a_circle_that_nothing_leads_to_is_reached_from_the_root(tmp_path: Path) -> None:
    graph = depends(
        distribution(tmp_path, "b", "Requires-Dist: a"),
        distribution(tmp_path, "a", "Requires-Dist: b"),
        distribution(tmp_path, "top"),
    )
    assert graph == {"environment": ["a", "top"], "a": ["b"], "b": ["a"], "top": []}


@pytest.mark.parametrize(
    ("metadata", "licences"),
    [
        ("License-Expression: mit or apache-2.0", [{"expression": "MIT OR Apache-2.0"}]),
        ("License-Expression: anything goes", [{"license": {"name": "anything goes"}}]),
        ("License: apache-2.0\nClassifier: License :: OSI Approved :: Apache Software License", [{"expression": "Apache-2.0"}]),
        ("Classifier: License :: OSI Approved :: MIT License", [{"expression": "MIT"}]),
        ("Classifier: License :: OSI Approved :: Apache Software License", [{"license": {"name": "Apache Software License"}}]),
        (
            "Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: Other",
            [{"license": {"id": "MIT"}}, {"license": {"name": "Other"}}],
        ),
        ("License: UNKNOWN", None),
        ("", None),
    ],
)  # fmt: skip
def test_licences_are_spdx_expressions_where_the_metadata_allows_no_doubt(
    tmp_path: Path, metadata: str, licences: list[object] | None
) -> None:
    assert component(tool(tmp_path, metadata)).get("licenses") == licences


@pytest.mark.parametrize(
    ("metadata", "supplier"),
    [
        ("Author: Ada\nMaintainer: Grace", "Grace"),
        ("Author: Ada\nAuthor-email: Ada <ada@example.org>, Bob <bob@example.org>", "Ada, Bob"),
        ("Author-email: ada@example.org", None),
        ("Author: UNKNOWN", None),
    ],
)
def test_the_supplier_is_a_name_without_an_address(tmp_path: Path, metadata: str, supplier: str | None) -> None:
    found = component(tool(tmp_path, metadata))
    assert found.get("supplier") == (None if supplier is None else {"name": supplier})
    assert "example.org" not in json.dumps(found)


def test_a_conda_record_with_half_a_surrogate_pair_gives_a_bill(tmp_path: Path) -> None:
    found = component(conda(tmp_path, "odd", license="\ud800", depends=["\ud800"]))
    assert "licenses" not in found
