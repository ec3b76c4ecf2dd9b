"""A hostile registry against the real command: each verb ends with one sentence, soon, and keeps nothing of it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
import zstandard

from lamella.cli.failures import EXIT_CODES
from lamella.layers.oci import annotations as names
from lamella.layers.oci.documents import LAYER_ZSTD, Descriptor, Digest, Layer
from lamella.layers.registry.repository import Registry
from lamella.layers.tar import headers
from support.published import AMD64, blob, image, package_manifest, publish_layers, push_environment, push_index
from support.registry_simulator import PASSWORD, USER, Fault, RegistrySimulator
from support.tars import archive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = pytest.mark.slow

METADATA = "http://169.254.169.254/latest/meta-data"
EVIL = "\x1b]0;evil\x07\x9b2J\u202e"


class Place(NamedTuple):
    """A registry, its reference, and a node whose user is logged in there."""

    simulator: RegistrySimulator
    reference: str
    folder: Path

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the command. A verb that hangs fails the test."""
        known = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
        (self.folder / "config.json").write_text(json.dumps({"auths": {self.simulator.host: known}}))
        own = {"LAMELLA_STORE": f"{self.folder}/store", "DOCKER_CONFIG": str(self.folder), "HOME": str(self.folder)}
        return subprocess.run(
            [sys.executable, "-m", "lamella.cli", *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **own},
            timeout=120,
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with RegistrySimulator().serving() as simulator:
        registry = Registry(simulator.host, "team/envs")
        content = archive({"bin/tool*": "#!/bin/sh\n"}, "/opt/env")
        layer = Layer(blob(content, {names.PACKAGE: "tool"}).descriptor, Digest.of(content))
        publish_layers(registry, "v1", [(layer, content)])
        registry.close()
        simulator.requests.clear()
        yield Place(simulator, f"{simulator.host}/team/envs:v1", tmp_path)


def verbs(place: Place) -> Mapping[str, list[object]]:
    """Each verb that reads from a registry."""
    out = place.folder / "out"
    return {
        "inspect": ["inspect", place.reference],
        "pull": ["pull", place.reference],
        "run": ["run", place.reference, "--", "tool"],
        "mount": ["mount", "--method", "copies", place.reference, out],
        "export": ["export", place.reference, out],
        "copy": ["copy", place.reference, f"oci:{out}:v1"],
        "verify": ["verify", place.reference],
        "diff": ["diff", place.reference, place.reference],
        "artifacts": ["artifacts", place.reference],
        "fetch": ["fetch", place.reference, out, "--type", "application/vnd.example"],
    }


LAYERS = ["pull", "run", "mount", "export", "copy"]


def refused(place: Place, verb: str, *words: str) -> None:
    """Assert one printable sentence with one of `words`, an exit code of Lamella's, and nothing left of the content."""
    done = place(*verbs(place)[verb])
    assert done.returncode in {*EXIT_CODES.values(), 125 if verb == "run" else 1}, done
    assert "Traceback" not in done.stderr
    assert (done.stdout + done.stderr).replace("\n", "").isprintable(), ascii(done.stderr)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("lamella: ")]
    assert any(word in line for word in words), line
    assert PASSWORD not in done.stderr
    assert not list(place.folder.glob("store/layers/*/*"))
    assert not list(place.folder.glob("out/**/tool"))


READERS = ["inspect", *LAYERS, "verify", "diff", "artifacts", "fetch"]


@pytest.mark.parametrize(
    ("what", "verb"), [*(("manifests", verb) for verb in READERS), *(("blobs", verb) for verb in LAYERS)]
)
def test_no_verb_follows_a_registry_to_a_metadata_address(place: Place, what: str, verb: str) -> None:
    place.simulator.faults = [Fault(f"GET .*/{what}/", 99, 307, {"Location": METADATA})]
    refused(place, verb, "refused to continue at 169.254.169.254")


@pytest.mark.parametrize("verb", ["inspect", "pull", "copy"])
def test_no_verb_asks_a_metadata_address_for_a_token(place: Place, verb: str) -> None:
    place.simulator.auth, place.simulator.realm = "bearer", METADATA
    refused(place, verb, "refused to continue at 169.254.169.254")


@pytest.mark.parametrize("verb", ["inspect", "pull", "copy"])
def test_the_password_for_one_registry_goes_to_no_other_host(place: Place, verb: str) -> None:
    with RegistrySimulator().serving() as thief:
        other = thief.host.replace("localhost", "127.0.0.1")
        place.simulator.faults = [Fault("GET .*/manifests/", 99, 307, {"Location": f"http://{other}/v2/x"})]
        place.simulator.auth = "basic"
        refused(place, verb, "no tag")
        assert thief.requests
        assert [each for each in thief.requests if "Authorization" in each.headers] == []


@pytest.mark.parametrize("verb", LAYERS)
def test_a_layer_of_other_bytes_is_not_kept(place: Place, verb: str) -> None:
    place.simulator.faults = [Fault("GET .*/blobs/", 99, body=b"other bytes" * 50)]
    refused(place, verb, "sha256:", "digest", "bytes")


@pytest.mark.parametrize("verb", ["inspect", *LAYERS, "verify", "artifacts", "fetch"])
def test_endless_manifest_is_refused(place: Place, verb: str) -> None:
    head = {"Content-Type": "application/vnd.oci.image.index.v1+json"}
    place.simulator.faults = [Fault("GET .*/manifests/", 99, headers=head, body=b" " * (40 << 20))]
    refused(place, verb, "larger than")


@pytest.mark.parametrize("verb", ["pull", "run", "mount", "export"])
def test_a_layer_that_unpacks_to_a_disk_full_of_zeros_is_refused(place: Place, verb: str) -> None:
    size = 3 << 30
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    piece = bytes(1 << 20)
    parts = [compressor.compress(headers.file_header(b"opt/env/zeros", 0o644, size))]
    parts += [compressor.compress(piece) for _ in range(size >> 20)]
    bomb = b"".join([*parts, compressor.flush()])
    registry = Registry(place.simulator.host, "team/envs")
    layer = Layer(Descriptor.of(LAYER_ZSTD, bomb, {names.PACKAGE: "zeros", names.UNPACKED: "10"}), Digest.of(b"zeros"))
    publish_layers(registry, "v1", [(layer, bomb)])
    registry.close()
    refused(place, verb, "its files have more than the 10 bytes that it announces")


def test_a_list_of_tags_without_an_end_ends(place: Place) -> None:
    again = {"Link": '</v2/team/envs/tags/list?n=1&last=x>; rel="next"', "Content-Type": "application/json"}
    place.simulator.faults = [Fault("GET .*/tags/list", 10**6, headers=again, body=b'{"tags": ["v1"]}')]
    done = place("tags", place.reference.rpartition(":")[0])
    assert done.returncode in EXIT_CODES.values()
    assert "the registry's list" in done.stderr
    assert len(place.simulator.requests) < 20


def test_escapes_in_tags_names_and_refusals_do_not_reach_the_terminal(place: Place) -> None:
    registry = Registry(place.simulator.host, "team/envs")
    packed = blob(b"content", {names.PACKAGE: EVIL, names.VERSION: EVIL}).pushed(registry)
    config, manifest = image([packed.descriptor], annotations={names.PREFIX: "/opt/env", names.PYTHON: EVIL})
    config.pushed(registry)
    push_index(registry, [package_manifest(manifest.pushed(registry).descriptor)], "v1")
    push_environment(registry, "v2", platforms=[AMD64])
    registry.close()
    document = json.dumps({"tags": ["v1", f"v2{EVIL}", "v2"]}).encode()
    refusal = json.dumps({"errors": [{"code": EVIL, "message": EVIL}]}).encode()
    place.simulator.faults = [
        Fault("GET .*/tags/list", 9, headers={"Content-Type": "application/json"}, body=document),
        Fault("GET .*/manifests/v9", 9, 403, {"Content-Type": "application/json"}, body=refusal),
    ]
    name = place.reference.rpartition(":")[0]
    for command in (["tags", name], ["tags", "--all", name], ["inspect", f"{name}:v1"], ["inspect", f"{name}:v9"]):
        done = place(*command)
        for text in (done.stdout, done.stderr):
            assert text.replace("\n", "").isprintable(), ascii(text)
    assert "evil" in done.stderr
