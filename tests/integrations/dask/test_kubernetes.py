"""Specifications for `KubeCluster`."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lamella.builder import InjectOptions, InvalidManifest
from lamella.integrations.dask.kubernetes import kube_cluster_spec

MANIFEST = Path(__file__).parents[2] / "builder/kubernetes/manifests/dask-cluster.yaml"
REFERENCE = f"registry.example.com/team/envs:v1@sha256:{'1' * 64}"


@pytest.mark.slow
def test_scheduler_and_workers_get_the_environment_and_the_given_specification_stays() -> None:
    spec = YAML(typ="safe").load(MANIFEST.read_text())
    before = copy.deepcopy(spec)
    made = kube_cluster_spec(spec, InjectOptions(REFERENCE, image="registry.example.com/lamella/node:1"))
    assert spec == before
    for role in ("scheduler", "worker"):
        pod = made["spec"][role]["spec"]
        assert "/opt/env" in [each["mountPath"] for each in pod["containers"][0]["volumeMounts"]]
        assert any(REFERENCE in str(each) for each in pod["initContainers"])


@pytest.mark.slow
def test_another_reference_replaces_the_first() -> None:
    spec = YAML(typ="safe").load(MANIFEST.read_text())
    first, second = (
        InjectOptions(f"{REFERENCE[:-1]}{last}", image="registry.example.com/lamella/node:1") for last in "12"
    )
    assert kube_cluster_spec(kube_cluster_spec(spec, first), second) == kube_cluster_spec(spec, second)


def test_a_specification_without_pods_is_an_error() -> None:
    with pytest.raises(InvalidManifest, match="spec: has no pods"):
        kube_cluster_spec({"apiVersion": "v1", "kind": "ConfigMap"}, InjectOptions(REFERENCE, image="node"))
