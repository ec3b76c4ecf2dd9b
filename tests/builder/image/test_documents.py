from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lamella.builder.environment import Needs
from lamella.builder.errors import BuilderError
from lamella.builder.image.base import choose
from lamella.builder.image.documents import About, Base, Documents, ImageLayer, ImageSettings, PackageLayer, documents
from lamella.builder.layer.bundle import partition
from lamella.builder.layer.cache import BuiltLayer
from lamella.layers.oci import annotations as names
from lamella.layers.oci.documents import (
    DOCKER_LAYER_GZIP,
    LAYER_GZIP,
    LAYER_ZSTD,
    MANIFEST,
    MAX_DOCUMENT,
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Layer,
    Manifest,
    Platform,
)

ABOUT = About(Platform("linux", "amd64"), "/opt/env", "3.12.4", Needs("2.28", 3, ("libcuda.so.1",)))


def built(name: str) -> BuiltLayer:
    return BuiltLayer(Digest.of(name.encode()), 10, Digest.of(f"{name} tar".encode()), 20, LAYER_ZSTD)


PACKAGES = [
    PackageLayer("numpy", "2.1", "pypi", "a" * 64, built("numpy")),
    PackageLayer("unowned", "", "unowned", "b" * 64, built("unowned")),
]
IMAGE = [
    ImageLayer(("numpy 2.1",), "a" * 64, built("numpy")),
    ImageLayer(("x 1", "unowned"), "c" * 64, built("bundle")),
]
ADDED = {"created_by": "ADD rootfs", "created": "2024-01-01T00:00:00Z"}
BASE = Base(
    "registry.example/debian:12",
    Digest.of(b"base"),
    (Layer(Descriptor(DOCKER_LAYER_GZIP, Digest.of(b"rootfs"), 5), Digest.of(b"rootfs tar")),),
    ImageConfig(
        Platform("linux", "amd64"),
        (Digest.of(b"rootfs tar"),),
        env=("PATH=/bin", "LANG=C.UTF-8"),
        cmd=("bash",),
        labels={"a": "b"},
        user="app",
        history=(ADDED, {"created_by": "USER nobody", "empty_layer": True}),
        more={
            "ExposedPorts": {"8080/tcp": {}},
            "Volumes": {"/data": {}},
            "StopSignal": "SIGINT",
            "Healthcheck": {"Test": ["CMD", "true"]},
            "Shell": ["/bin/bash", "-c"],
            "OnBuild": ["RUN x"],
        },
    ),
)


def made(base: Base | None = None, settings: ImageSettings | None = None) -> Documents:
    return documents(ABOUT, PACKAGES, IMAGE, base=base, settings=settings)


def image_config(documents: Documents) -> ImageConfig:
    return ImageConfig.parse(documents.configs[0].content)


def test_one_index_names_image_and_package_manifest_as_engines_and_nodes_expect() -> None:
    result = made()
    image, packages = Index.parse(result.index.content).manifests
    assert image.platform == Platform("linux", "amd64")
    assert str(packages.platform) == "unknown/unknown"
    assert packages.annotations == {
        names.IMAGE: str(image.digest),
        names.DOCKER_REFERENCE_TYPE: "attestation-manifest",
        names.DOCKER_REFERENCE_DIGEST: str(image.digest),
    }
    assert [image.digest, packages.digest] == [document.descriptor.digest for document in result.manifests]


def test_the_package_manifest_describes_each_layer() -> None:
    manifest = Manifest.parse(made().manifests[1].content)
    assert manifest.annotations == {
        names.PREFIX: "/opt/env",
        names.PYTHON: "3.12.4",
        names.GLIBC: "2.28",
        names.CPU: "3",
        names.DRIVERS: "libcuda.so.1",
    }
    numpy, unowned = manifest.layers
    assert numpy.annotations == {
        names.PACKAGE: "numpy", names.VERSION: "2.1", names.ORIGIN: "pypi", names.KEY: "a" * 64, names.UNPACKED: "20"
    }  # fmt: skip
    assert names.VERSION not in unowned.annotations
    assert ImageConfig.parse(made().configs[1].content).diff_ids == tuple(layer.built.diff_id for layer in PACKAGES)


def test_the_same_environment_and_flags_have_the_same_digest() -> None:
    assert made().index.descriptor.digest.hex == "179e9315c1648febaf6ec992d54785d57a8d43aedb494d93ddad4da0aafac0ae"
    assert made() == made()
    assert made(settings=ImageSettings(labels={"a": "b"})).index != made().index


def test_an_image_without_a_base_runs_its_own_python() -> None:
    config = image_config(made())
    assert config.env == ("PATH=/opt/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    assert (config.entrypoint, config.cmd) == ((), ("/opt/env/bin/python",))
    assert config.created == "1980-01-01T00:00:00Z"
    assert [step["created_by"] for step in config.history] == ["lamella: numpy 2.1", "lamella: x 1, unowned"]
    assert {step["created"] for step in config.history} == {config.created}


def test_a_base_lies_below_and_its_config_is_inherited() -> None:
    result = made(BASE)
    config, manifest = image_config(result), Manifest.parse(result.manifests[0].content)
    assert config.diff_ids[0] == Digest.of(b"rootfs tar")
    assert manifest.layers[0] == Descriptor(LAYER_GZIP, Digest.of(b"rootfs"), 5), (
        "an OCI manifest has OCI's media types"
    )
    assert config.env == ("PATH=/opt/env/bin:/bin", "LANG=C.UTF-8")
    assert (config.cmd, config.user, config.labels) == (("bash",), "app", {"a": "b"})
    assert config.history[:2] == BASE.config.history
    assert [step["created_by"] for step in config.history[2:]] == ["lamella: numpy 2.1", "lamella: x 1, unowned"]
    assert config.more == {name: value for name, value in BASE.config.more.items() if name != "OnBuild"}
    assert manifest.annotations["org.opencontainers.image.base.name"] == "registry.example/debian:12"
    assert manifest.annotations["org.opencontainers.image.base.digest"] == str(Digest.of(b"base"))


def test_a_bases_author_and_the_system_that_it_asks_for_are_inherited() -> None:
    described = {"author": "Debian", "os.version": "12.5", "os.features": ["x"]}
    content = {**json.loads(BASE.config.to_json()), **described, "docker_version": "1", "container": "c"}
    base = replace(BASE, config=ImageConfig.parse(json.dumps(content).encode()))
    config = json.loads(made(base).configs[0].content)
    assert {name: config.get(name) for name in (*described, "docker_version", "container")} == {
        **described,
        "docker_version": None,
        "container": None,
    }


@pytest.mark.parametrize("steps", [[], ["ADD rootfs", "ENV x", "CMD y"]], ids=["none", "more"])
def test_a_bases_history_that_does_not_fit_its_layers_names_every_layer(steps: list[str]) -> None:
    """Engines refuse a config whose steps with layers are not as many as its layers."""
    history = tuple({"created_by": step} for step in steps)
    base = replace(BASE, config=replace(BASE.config, history=history))
    config = image_config(made(base))
    assert len(config.history) == len(config.diff_ids)


@pytest.mark.parametrize(
    ("wanted", "there", "chosen"),
    [
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], "linux/arm/v6"),
        ("linux/arm", ["linux/arm/v5", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/arm/v6", ["linux/arm/v7"], None),
        ("linux/arm64", ["linux/amd64", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64/v9", ["linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64"], "linux/amd64"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], "linux/amd64/v2"),
        ("linux/amd64", ["linux/amd64/v3"], None),
        ("linux/s390x", ["linux/amd64", "unknown/unknown"], None),
    ],
)
def test_a_base_is_the_newest_variant_that_runs_there(wanted: str, there: list[str], chosen: str | None) -> None:
    entries = [Descriptor(MANIFEST, Digest.of(each.encode()), 1, platform=Platform.parse(each)) for each in there]
    found = choose(entries, Platform.parse(wanted))
    assert (str(found.platform) if found else None) == chosen


def test_an_entrypoint_discards_the_bases_command_as_in_a_dockerfile() -> None:
    config = image_config(made(BASE, ImageSettings(entrypoint=("serve",), env=("A=1", "LANG=de"), labels={"a": "c"})))
    assert (config.entrypoint, config.cmd) == (("serve",), ())
    assert config.env == ("PATH=/opt/env/bin:/bin", "LANG=de", "A=1")
    assert config.labels == {"a": "c"}


def test_annotations_and_a_time_are_those_of_the_index_and_the_image() -> None:
    source = {"org.opencontainers.image.source": "https://example.org/x", "org.opencontainers.image.revision": "abc"}
    result = made(BASE, ImageSettings(annotations=source, created="2026-01-31T12:00:00+01:00"))
    index, manifest = Index.parse(result.index.content), Manifest.parse(result.manifests[0].content)
    said = source | {"org.opencontainers.image.created": "2026-01-31T12:00:00+01:00"}
    assert index.annotations == said
    assert said.items() <= manifest.annotations.items()
    assert image_config(result).created == "2026-01-31T12:00:00+01:00"
    packages = Manifest.parse(result.manifests[1].content)
    assert packages == Manifest.parse(
        made(BASE, ImageSettings(created=image_config(result).created)).manifests[1].content
    )


@pytest.mark.parametrize(
    "name",
    ["", "dev.lamella.prefix", "org.opencontainers.image.created", "org.opencontainers.image.base.digest"],
)
def test_reserved_annotations_are_refused(name: str) -> None:
    with pytest.raises(BuilderError, match="reserved for Lamella; use another name"):
        ImageSettings(annotations={name: "x"})


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-01-31", "2026-13-01T00:00:00Z", "2026-01-31 12:00:00Z", "1769860800"]
)
def test_an_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(BuilderError, match=r"not a time in RFC 3339 form; use one such as 2026-01-31T12:00:00Z"):
        ImageSettings(created=text)


def test_documents_are_canonical_json() -> None:
    for document in (*made().configs, *made().manifests, made().index):
        value = json.loads(document.content)
        assert json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == document.content


def test_every_registry_accepts_the_documents_of_1200_packages() -> None:
    """distribution and Harbor refuse manifests of more than 4 MiB, ECR those of more than 500 layers."""
    packages = [
        PackageLayer(
            f"a-package-with-a-long-name-{number}", "2026.10.18.post1", "pypi", f"{number:064}", built(str(number))
        )
        for number in range(1200)
    ]
    alone, bundles = partition([(package.name, 1) for package in packages], 100)
    image = [ImageLayer(tuple(names), "a" * 64, built(names[0])) for names in [*([name] for name in alone), *bundles]]
    result = documents(ABOUT, packages, image)
    assert len(Manifest.parse(result.manifests[0].content).layers) <= 100
    assert (
        max(document.descriptor.size for document in (*result.configs, *result.manifests, result.index))
        < MAX_DOCUMENT // 4
    )
    assert [len(Manifest.parse(made.content).layers) for made in result.manifests[1:]] == [500, 500, 200]


@pytest.mark.parametrize("count", [0, 499, 500, 501])
def test_an_environment_s_layers_are_in_as_few_package_manifests_as_can_have_them(count: int) -> None:
    packages = [PackageLayer(f"p{number:03}", "1", "pypi", "a" * 64, built(str(number))) for number in range(count)]
    result = documents(ABOUT, packages, IMAGE)
    manifests = [Manifest.parse(made.content) for made in result.manifests[1:]]
    assert [len(manifest.layers) for manifest in manifests] == ([500, 1] if count == 501 else [count])
    assert [layer.annotations[names.PACKAGE] for each in manifests for layer in each.layers] == [
        package.name for package in packages
    ]
    index = Index.parse(result.index.content)
    assert {entry.annotations[names.IMAGE] for entry in index.manifests[1:]} == {str(index.manifests[0].digest)}
