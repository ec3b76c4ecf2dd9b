"""An environment in manifests as charts, operators and people write them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import pytest

from lamella.builder import InjectOptions, InvalidManifest, inject, remove_environment
from support.manifests import MANIFESTS, VERSIONS, differences, load, schema_problems, semantic_problems

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = sorted(path.name for path in MANIFESTS.iterdir())
REFERENCE = f"registry.example.com/team/envs:v1@sha256:{'a' * 64}"
NEWER = f"registry.example.com/team/envs:v2@sha256:{'b' * 64}"
METHODS = ("init", "image-volume", "host")
OF_DASK = ("dask-cluster.yaml", "dask-job.yaml")
"""Manifests whose operator has no image volumes."""


def methods(name: str) -> list[str]:
    """The methods that a manifest can have."""
    return [each for each in METHODS if each != "image-volume" or name not in OF_DASK]


CASES = [(name, method) for name in NAMES for method in methods(name)]
ADDED = {"volumes", "initContainers", "volumeMounts", "env", "nodeSelector", "affinity", "annotations", "metadata"}


def options(method: Any = "init", reference: str = REFERENCE, **more: Any) -> InjectOptions:
    return InjectOptions(
        reference,
        method=method,
        **{"image": "registry.example.com/node:1", "architectures": ("amd64",), "glibc": "2.36", **more},
    )


def read(name: str) -> str:
    return (MANIFESTS / name).read_bytes().decode()


def pod(containers: str = "  - name: main\n    image: debian\n", more: str = "") -> str:
    return f"apiVersion: v1\nkind: Pod\nmetadata:\n  name: train\nspec:\n{more}  containers:\n{containers}"


def test_there_are_thirty_manifests() -> None:
    assert len(NAMES) >= 30


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), CASES)
def test_nothing_but_the_environment_changes(name: str, method: str) -> None:
    before = load(read(name))
    after = load(inject(read(name), options(method)).text)

    assert len(after) == len(before)
    found = [each for one, other in zip(before, after, strict=True) for each in differences(one, other)]
    assert found
    for path, old, new in found:
        keys = {part.removesuffix("[]") for part in path.split(".")}
        lengthened = isinstance(old, str) and new == f"/opt/env/bin:{old}"
        assert (old in (None, [], {}) and keys & ADDED) or lengthened, (path, old, new)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), CASES)
def test_lines_are_added_and_only_those_that_must_are_changed(name: str, method: str) -> None:
    before = read(name).splitlines(keepends=True)
    after = inject(read(name), options(method)).text.splitlines(keepends=True)

    for tag, start, end, first, last in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        changed = before[start:end]
        assert tag in ("equal", "insert", "replace"), changed
        if tag == "replace":
            # In flow style, null as a word, or PATH: the old line is within the new ones.
            new = "".join(after[first:last])
            assert any(mark in new for mark in ("lamella", "/opt/env/bin:", "kubernetes.io/arch")), new


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), CASES)
def test_removing_gives_the_original_back(name: str, method: str) -> None:
    assert remove_environment(inject(read(name), options(method)).text).text == read(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_injecting_twice_changes_nothing(name: str) -> None:
    once = inject(read(name), options()).text

    assert inject(once, options()).text == once


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_newer_reference_replaces_an_older_one_whatever_its_method(name: str) -> None:
    older = inject(read(name), options("host")).text
    method = methods(name)[-2]

    newer = inject(older, options(method, NEWER))

    assert newer.text == inject(read(name), options(method, NEWER)).text
    assert {pod.replaced for pod in newer.pods} == {REFERENCE}


VARIANTS: dict[str, Callable[[str], str]] = {
    "windows": lambda text: text.replace("\n", "\r\n"),
    "mark": lambda text: f"\ufeff{text}",
    "unended": lambda text: text.rstrip("\n"),
    "indented by blanks": lambda text: text.replace("\n\n", "\n   \n"),
    "trailing blanks": lambda text: text.replace("\n", "  \n") if "\\\n" not in text else text,
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_line_ends_and_blanks_stay(name: str, variant: str) -> None:
    text = VARIANTS[variant](read(name))

    for method in methods(name):
        written = inject(text, options(method)).text
        assert remove_environment(written).text == text
        assert inject(written, options(method)).text == written
        if variant == "windows":
            assert "\n" not in written.replace("\r\n", "")
        if variant == "unended" and not text.endswith("\n"):
            assert not written.endswith("\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_results_are_what_each_version_of_kubernetes_accepts(name: str) -> None:
    for method in methods(name):
        written = inject(read(name), options(method)).text
        assert semantic_problems(written) == []
        for version in VERSIONS if method != "image-volume" else VERSIONS[3:]:
            assert schema_problems(written, version) == [], (method, version)


@pytest.mark.slow
def test_a_store_on_the_node_is_accepted_too() -> None:
    written = inject(pod(), options(node_store="/var/lib/lamella")).text

    assert semantic_problems(written) == []
    assert schema_problems(written, VERSIONS[-1]) == []


def test_the_init_container_comes_before_those_that_are_there() -> None:
    text = pod(more="  initContainers:\n  - name: migrate\n    image: debian\n")

    (document,) = load(inject(text, options()).text)

    assert [each["name"] for each in document["spec"]["initContainers"]] == [
        "lamella-environment",
        "lamella-check",
        "migrate",
    ]


def test_only_the_named_containers_get_the_environment() -> None:
    text = pod("  - name: main\n    image: debian\n  - name: side\n    image: busybox\n")

    injected = inject(text, options(containers=("side",)))

    (document,) = load(injected.text)
    main, side = document["spec"]["containers"]
    assert main == {"name": "main", "image": "debian"}
    assert [each["name"] for each in side["volumeMounts"]] == ["lamella-environment"]
    assert [each.containers for each in injected.pods] == [("side",)]


def test_an_init_container_gets_the_environment_by_name() -> None:
    text = pod(more="  initContainers:\n  - name: migrate\n    image: debian\n")

    (document,) = load(inject(text, options(containers=("migrate",))).text)

    assert "volumeMounts" in document["spec"]["initContainers"][1]
    assert document["spec"]["containers"] == [{"name": "main", "image": "debian"}]


def test_the_image_pull_secret_of_the_pod_is_the_credentials_of_the_init_container() -> None:
    text = pod(more="  imagePullSecrets:\n  - name: regcred\n")

    (document,) = load(inject(text, options()).text)

    secret = document["spec"]["volumes"][1]["secret"]
    assert (secret["secretName"], secret["optional"]) == ("regcred", True)
    assert {"name": "DOCKER_CONFIG", "value": "/pull-secret"} in document["spec"]["initContainers"][0]["env"]


def test_the_init_container_has_the_resources_of_the_container_beside_it_except_devices() -> None:
    limits = "{cpu: 2, memory: 4Gi, nvidia.com/gpu: 1}"
    text = pod(f"  - name: main\n    image: debian\n    resources:\n      limits: {limits}\n")

    (document,) = load(inject(text, options()).text)

    assert document["spec"]["initContainers"][0]["resources"] == {"limits": {"cpu": "2", "memory": "4Gi"}}


def test_the_check_is_left_out_on_request() -> None:
    for method in METHODS:
        written = inject(pod(), options(method, check=False)).text
        assert "lamella-check" not in written
        assert remove_environment(written).text == pod()
    assert "initContainers" not in inject(pod(), options("image-volume", check=False)).text


def test_too_little_memory_to_unpack_layers_is_not_taken_over() -> None:
    text = pod("  - name: main\n    image: debian\n    resources: {limits: {memory: 64Mi}}\n")

    (document,) = load(inject(text, options()).text)

    assert document["spec"]["initContainers"][0]["resources"]["limits"] == {"memory": "1Gi"}


BOTH = ("amd64", "arm64")
IN_BOTH = {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]}


def affinity(text: str) -> Any:
    (document,) = load(inject(text, options(architectures=BOTH)).text)
    required = document["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return required["nodeSelectorTerms"]


def terms(*lines: str) -> str:
    """A pod whose required node affinity has these lines."""
    path = "  affinity:\n    nodeAffinity:\n      requiredDuringSchedulingIgnoredDuringExecution:\n"
    return pod(more=f"{path}        nodeSelectorTerms:\n" + "".join(f"        {line}\n" for line in lines))


def test_a_pod_of_several_architectures_goes_to_nodes_that_have_one() -> None:
    assert affinity(pod()) == [{"matchExpressions": [IN_BOTH]}]
    assert affinity(pod(more="  affinity: {}\n")) == [{"matchExpressions": [IN_BOTH]}]


def test_each_term_of_an_affinity_gets_the_architectures() -> None:
    zone = "- matchExpressions:", "  - {key: zone, operator: In, values: [a]}"
    named = "- matchFields:", "  - {key: metadata.name, operator: In, values: [b]}"

    first, second, empty = affinity(terms(*zone, *named, "- matchExpressions: []"))

    assert first["matchExpressions"] == [{"key": "zone", "operator": "In", "values": ["a"]}, IN_BOTH]
    assert second["matchExpressions"] == [IN_BOTH]
    assert empty == {"matchExpressions": []}, "a term that fits no node must not fit one now"


ON_AMD64, ON_BOTH, ON_S390X, NOT_ON_BOTH = (
    f"- matchExpressions: [{{key: kubernetes.io/arch, operator: {operator}, values: {values}}}]"
    for operator, values in (
        ("In", "[amd64]"),
        ("In", "[amd64, arm64]"),
        ("In", "[s390x]"),
        ("NotIn", "[amd64, arm64]"),
    )
)
IN_ZONE = "- matchExpressions: [{key: zone, operator: In, values: [x]}]"


def test_only_terms_that_allow_other_architectures_get_the_expression() -> None:
    lines = (ON_AMD64, IN_ZONE, ON_BOTH, ON_S390X, NOT_ON_BOTH)

    before = [load(line)[0][0]["matchExpressions"] for line in lines]
    after = [each["matchExpressions"] for each in affinity(terms(*lines))]

    assert after == [before[0], [*before[1], IN_BOTH], before[2], [*before[3], IN_BOTH], [*before[4], IN_BOTH]]


@pytest.mark.parametrize("other", [IN_ZONE, ON_S390X])
def test_one_architecture_is_selected_unless_every_term_is_for_it(other: str) -> None:
    text = terms(ON_AMD64, other)
    written = inject(text, options()).text

    assert load(written)[0]["spec"]["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert remove_environment(written).text == text
    assert "nodeSelector:" not in inject(terms(ON_AMD64, ON_AMD64), options()).text


def test_a_pod_whose_terms_are_all_for_other_architectures_is_reported() -> None:
    with pytest.raises(InvalidManifest, match="Pod train: selects nodes with s390x, and the environment is for amd64"):
        inject(terms(ON_S390X, ON_S390X), options(architectures=BOTH))


def test_a_record_without_numbers_of_terms_is_read() -> None:
    text = terms(IN_ZONE, "- matchFields: [{key: a}]")
    written = inject(text, options(architectures=BOTH)).text

    assert "amd64,arm64@0,1" in written
    assert remove_environment(written.replace("@0,1", "")).text == text


@pytest.mark.parametrize(
    "more",
    [
        "  nodeSelector: {kubernetes.io/arch: amd64}\n",
        (
            "  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: ["
            "{matchExpressions: [{key: kubernetes.io/arch, operator: In, values: [arm64, amd64]}]}]}}}\n"
        ),
    ],
)
def test_a_pod_that_selects_among_the_architectures_stays_as_it_is(more: str) -> None:
    text = inject(pod(more=more), options(architectures=BOTH)).text
    assert more in text
    assert text.count("kubernetes.io/arch") == 1


@pytest.mark.parametrize(
    "text",
    [
        pod(),
        pod(more="  affinity: {}\n"),
        pod(more="  affinity:\n"),
        pod(more="  affinity:\n    nodeAffinity: {}\n"),
        pod(more="  affinity:\n    podAffinity: {}\n"),
        terms("- matchExpressions:", "  - {key: zone, operator: In, values: [a]}", "- matchFields: [{key: a}]"),
        terms("- matchFields: [{key: a}]", "  matchExpressions: []"),
        terms("  []"),
        terms("- matchExpressions: [{key: kubernetes.io/arch, operator: In, values: [amd64, s390x]}]"),
        terms(ON_BOTH, ON_S390X),
        terms(IN_ZONE, ON_BOTH),
        terms(ON_BOTH, NOT_ON_BOTH),
        terms(*(line.replace("[{", "\n          - {").replace("}]", "}") for line in (ON_BOTH, ON_S390X, IN_ZONE))),
    ],
)
def test_removing_an_affinity_gives_the_original_back(text: str) -> None:
    written = inject(text, options(architectures=BOTH)).text
    assert "arm64" in written
    assert inject(written, options(architectures=BOTH)).text == written
    assert remove_environment(written).text == text
    assert schema_problems(inject(pod(), options(architectures=BOTH)).text, VERSIONS[-1]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_removing_architectures_gives_every_original_back(name: str) -> None:
    written = inject(read(name), options(architectures=BOTH)).text
    assert remove_environment(written).text == read(name)
    assert remove_environment(inject(written, options()).text).text == read(name)


def test_a_tag_is_resolved_before_it_is_injected() -> None:
    with pytest.raises(InvalidManifest, match="envs:v1: not pinned to a digest"):
        inject(pod(), options(reference="registry.example.com/team/envs:v1"))


def test_a_selector_that_is_there_stays_alone() -> None:
    text = pod(more="  nodeSelector: {kubernetes.io/arch: amd64}\n")

    assert "nodeSelector: {kubernetes.io/arch: amd64}\n" in inject(text, options()).text


def test_path_stays_alone_if_it_begins_with_the_environment_or_on_request() -> None:
    given = "/opt/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    text = pod(f"  - name: main\n    image: debian\n    env:\n    - name: PATH\n      value: {given}\n")

    for written in (inject(text, options()).text, inject(text, options(search_path=False)).text):
        assert written.count(given) == 1
        assert remove_environment(written).text == text
    assert "PATH" not in inject(pod(), options(search_path=False)).text


def test_an_empty_path_becomes_the_environment_s() -> None:
    text = pod('  - name: main\n    image: debian\n    env:\n    - name: PATH\n      value: ""\n')

    written = inject(text, options()).text

    assert 'value: "/opt/env/bin"\n' in written
    assert remove_environment(written).text == text


def test_another_path_in_the_containers_is_the_prefix_of_the_init_container() -> None:
    (document,) = load(inject(pod(), options(path="/srv/env")).text)

    (container,) = document["spec"]["containers"]
    assert container["volumeMounts"][0]["mountPath"] == "/srv/env"
    command = document["spec"]["initContainers"][0]["command"]
    assert command[command.index("--prefix") + 1] == "/srv/env"


def test_an_injection_whose_keys_kubectl_sorted_is_removed() -> None:
    # kubectl and kustomize sort keys: `env` comes first, beside the dash.
    text = pod("  - image: debian\n    name: main\n", "")
    written = inject(text, options()).text
    lines = written.splitlines(keepends=True)
    begin = lines.index("  - image: debian\n")
    end = next(index for index in range(begin + 2, len(lines)) if lines[index].startswith("  init"))
    moved = ["  - env:\n", *lines[begin + 3 : end], "    image: debian\n", "    name: main\n"]
    sorted_text = "".join([*lines[:begin], *moved, *lines[end:]])
    assert load(sorted_text) == load(written)

    assert remove_environment(sorted_text).text == text


def test_later_additions_of_others_stay() -> None:
    written = inject(pod(), options()).text
    edited = written.replace("    env:\n", "    env:\n    - name: MINE\n      value: mine\n", 1)

    removed = remove_environment(edited).text

    assert "MINE" in removed
    assert "lamella" not in removed
    assert semantic_problems(removed) == []


def test_a_manifest_without_an_environment_is_returned_as_it_is() -> None:
    assert remove_environment("{{ not: yaml").text == "{{ not: yaml"


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("a: [", {}, "x.yaml line 1: not YAML"),
        ("a: b\n  c: d\n", {}, "x.yaml line 2: not YAML: mapping values are not allowed here; correct it"),
        ("kind: Service\napiVersion: v1\n", {}, "x.yaml: has no pods; give a manifest with a Pod"),
        ("", {}, "x.yaml: empty; give a manifest with pods"),
        ("\ufeff \n\r\n", {}, "x.yaml: empty; give a manifest with pods"),
        ("# nothing here\n", {}, "x.yaml: has only comments; give a manifest with pods"),
        ("a:\n\tb: c\n", {}, "x.yaml line 2, column 1: a tab, where YAML allows spaces only; replace it"),
        ("a:\n- \tb: c\n", {}, "x.yaml line 2, column 3: a tab, where YAML allows spaces only; replace it"),
        ("spec:\n{{- if .Values.x }}\n  a: b\n{{- end }}\n", {}, "x.yaml line 2: a Helm template, not YAML; render it"),
        ("metadata:\n  name: {{ .Values.name }}\n", {}, "line 2: a Helm template, not YAML; render it first"),
        (pod(), {"containers": ("mian",)}, "--container mian: no such container; did you mean main?"),
        (pod(), {"containers": ("x",)}, "--container x: no such container; x.yaml has main"),
        (
            pod(more="  volumes:\n  - name: lamella-environment\n    emptyDir: {}\n"),
            {},
            "Pod train: has a volume lamella-environment that lamella inject did not make; rename it",
        ),
        (
            pod("  - name: main\n    image: debian\n    volumeMounts:\n    - {name: data, mountPath: /opt/env/data}\n"),
            {},
            "Pod train: container main mounts data at /opt/env/data, where the environment belongs; mount that",
        ),
        (
            pod(more="  nodeSelector: {kubernetes.io/arch: arm64}\n"),
            {},
            "Pod train: selects nodes with arm64, and the environment is for amd64; push it for that platform too",
        ),
        (
            pod(more="  imagePullSecrets: [{name: a}, {name: b}]\n"),
            {},
            "Pod train: has the image pull secrets a, b; name the one for the environment's registry with --pull-secret",
        ),
        (
            pod("  - name: main\n    image: debian\n    env:\n    - {name: PATH, valueFrom: {x: y}}\n"),
            {},
            "Pod train: container main has a PATH that is not written there; write its value, or use --no-path",
        ),
        (
            pod("  - name: main\n    image: debian\n    env: &e\n    - {name: A}\n  - {name: b, image: c, env: *e}\n"),
            {"containers": ("main",)},
            "Pod train: container b shares its YAML with one that gets the environment, by an anchor; name both",
        ),
        (pod("  - name: main\n"), {"method": "image-volume"}, "Pod train: container main has no image"),
        (pod().replace("containers:", "volumes: x\n  containers:"), {}, "Pod train: volumes is not a sequence"),
        (pod("  - name: main\n    image: b\n    env: {}\n"), {}, "Pod train: env is not a sequence; correct it"),
        (
            pod(more="  nodeSelector: {kubernetes.io/os: windows}\n"),
            {},
            "Pod train: is for nodes with windows, and environments are for Linux",
        ),
        (pod(more="  os: {name: windows}\n"), {}, "Pod train: is for nodes with windows"),
        (pod(more="  volumes: !!null\n"), {}, "Pod train: volumes is null by a tag; remove the tag"),
        (
            pod().replace(
                "  name: train\n", f"  name: train\n  annotations: {{lamella.dev/environment: {REFERENCE!r}}}\n"
            ),
            {},
            "Pod train: has the annotation lamella.dev/environment, and no container with that environment; remove",
        ),
        (pod("    []\n"), {}, "x.yaml: its pods have no containers; add one first"),
        (
            read("dask-cluster.yaml"),
            {"method": "image-volume"},
            "its operator's schema has no image volumes, and the API server would drop them; use --method init or host",
        ),
    ],
)
def test_a_manifest_that_cannot_get_an_environment_is_reported(text: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidManifest) as raised:
        inject(text, options(**more), name="x.yaml")

    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("reference", "more", "message"),
    [
        ("oci:/srv/layout:v1", {}, "oci:/srv/layout:v1: a folder, which pods can't read"),
        (REFERENCE, {"image": ""}, "--method init: needs the node image; build one with make node-image"),
        (REFERENCE, {"method": "host", "path": "/srv"}, "the files of the environment name /opt/env"),
        (REFERENCE, {"path": "srv"}, "--path srv: not an absolute path; use one such as /opt/env"),
        (REFERENCE, {"path": "/srv/../x"}, "--path /srv/../x: not an absolute path"),
        (REFERENCE, {"method": "host", "node_store": "/var/lib/lamella"}, "for --method init alone; leave it out"),
        (REFERENCE, {"method": "overlay"}, "--method overlay: invalid choice; use init, image-volume, host"),
    ],
)
def test_options_that_contradict_each_other_are_reported(reference: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidManifest) as raised:
        options(reference=reference, **more)

    assert message in str(raised.value)


@pytest.mark.parametrize("tabs", ["\t", " \t", "\t\t "])
def test_tabs_that_separate_tokens_are_kept(tabs: str) -> None:
    text = f"# a\tb\n{pod()}".replace(": ", f":{tabs}").replace("\n  ", f"{tabs}# why\n  ", 1)

    written = inject(text, options()).text

    assert written.count("\t") == text.count("\t")
    assert remove_environment(written).text == text


def test_deep_and_recursive_documents_are_read() -> None:
    deep = "[" * 100 + "]" * 100
    text = f"---\na: &a [*a, {deep}]\n---\n{pod()}"

    assert remove_environment(inject(text, options()).text).text == text


@pytest.mark.parametrize("again", ["- *all", "- *l19\n- *l19"], ids=["in itself", "two to the power of 20 times"])
def test_a_list_that_aliases_repeat_is_read_once(again: str) -> None:
    nested = "".join(
        f"  l{number}: &l{number} {{apiVersion: v1, kind: List, items: [{', '.join([f'*l{number - 1}'] * 2)}]}}\n"
        for number in range(1, 20)
    )
    main = "  l0: &l0 {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: b}]}}\n"
    text = f"&all\nx:\n{main}{nested}apiVersion: v1\nkind: List\nitems:\n- *l0\n{again}\n"

    assert remove_environment(inject(text, options()).text).text == text
