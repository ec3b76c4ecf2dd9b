"""Specifications for `KubeCluster`."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lamella.builder import InjectOptions, InvalidManifest
from lamella.integrations.dask.kubernetes import kube_cluster_spec
from lamella.layers import copy
from support.published import publish
from support.registry_simulator import RegistrySimulator

MANIFEST = Path(__file__).parents[2] / "builder/kubernetes/manifests/dask-cluster.yaml"
REFERENCE = f"registry.example.com/team/envs:v1@sha256:{'1' * 64}"


def options(reference: str) -> InjectOptions:
    return InjectOptions(reference, image="registry.example.com/lamella/node:1", architectures=("amd64",))


@pytest.mark.slow
def test_a_tag_gets_its_digest_prefix_glibc_and_architecture_from_the_registry(tmp_path: Path) -> None:
    with RegistrySimulator().serving() as registry:
        published = publish(tmp_path / "layout", [{"bin/python*": "x"}], glibc="2.31", prefix="/srv/python")
        pinned = copy(published, f"{registry.host}/team/envs:v1").reference
        tag = InjectOptions(f"{registry.host}/team/envs:v1", image="registry.example.com/lamella/node:1")
        made = kube_cluster_spec(YAML(typ="safe").load(MANIFEST.read_text()), tag)
    for role in ("scheduler", "worker"):
        pod = made["spec"][role]["spec"]
        assert "kubernetes.io/arch" in pod["nodeSelector"]
        assert pinned in pod["initContainers"][0]["command"]
        assert "needs = '2.31'" in str(pod["initContainers"][1])
        assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == "/srv/python"


@pytest.mark.slow
def test_scheduler_and_workers_get_the_environment_and_the_given_specification_stays() -> None:
    spec = YAML(typ="safe").load(MANIFEST.read_text())
    before = deepcopy(spec)
    made = kube_cluster_spec(spec, options(REFERENCE))
    assert spec == before
    for role in ("scheduler", "worker"):
        pod = made["spec"][role]["spec"]
        assert "/opt/env" in [each["mountPath"] for each in pod["containers"][0]["volumeMounts"]]
        assert any(REFERENCE in str(each) for each in pod["initContainers"])


@pytest.mark.slow
def test_another_reference_replaces_the_first() -> None:
    spec = YAML(typ="safe").load(MANIFEST.read_text())
    first, second = (options(f"{REFERENCE[:-1]}{last}") for last in "12")
    assert kube_cluster_spec(kube_cluster_spec(spec, first), second) == kube_cluster_spec(spec, second)


def test_a_specification_without_pods_is_an_error() -> None:
    with pytest.raises(InvalidManifest, match="spec: has no pods"):
        kube_cluster_spec({"apiVersion": "v1", "kind": "ConfigMap"}, options(REFERENCE))
