"""Every verb's document against its schema, and every failure against one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lamella.cli.verbs import VERBS
from lamella.layers import AgentOptions
from support import schemas
from support.agents import Agent, agent
from support.caches import warm_cache
from support.installed import install, venv, wheel
from support.keys import key_pair
from support.published import publish
from support.registry_simulator import RegistrySimulator
from support.short_folders import short_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

SCHEMAS = Path(__file__).parents[2] / "docs/reference/schemas"
COMMANDS = """
scan env
scan env --left-out
scan env --files alpha
explain alpha env
explain env/bin/activate env
push oci:images:v1 env --dry-run
push oci:images:v1 env --sbom
push oci:images:v1 env
push oci:images:v2 env --ignore beta
diff oci:images:v1 env
diff oci:images:v2 env
diff env oci:images:v2
diff oci:images:v1 oci:images:v2
diff oci:images:v1 oci:images:v2 --files
attach oci:images:v1 report.txt --type application/vnd.example.report --annotation a=b
attach oci:images:v1 report.txt --type application/vnd.example.report --dry-run
inject pod.yaml --env localhost:5000/team/envs:v1@sha256:DIGEST --offline --method image-volume
inject pod.yaml --env localhost:5000/team/envs:v1@sha256:DIGEST --offline --image localhost:5000/node:1 --in-place
inject pod.yaml --remove --output removed.yaml
inject --daemonset --image localhost:5000/node:1 --allow localhost:5000
inspect oci:images:v1
inspect oci:images:v1 --findings
inspect oci:images:v1 --sbom
inspect oci:images:v1 --files alpha
tags oci:images
tags oci:images --all
artifacts oci:images:v1
fetch oci:images:v1 reports --type application/vnd.example.report --dry-run
fetch oci:images:v1 reports --type application/vnd.example.report
copy oci:images:v1 oci:copies:v1 --dry-run
copy oci:images:v1 oci:copies:v1
untag oci:copies:v1 --dry-run
untag oci:copies:v1
gc oci:copies --all --yes
pull oci:images:v1 --dry-run
run oci:images:v1 --dry-run -- true
mount oci:images:v1 mounted --dry-run
export oci:images:v1 copied --dry-run
pull oci:images:v1
pull oci:images:v2
export oci:images:v1 copied
export env packed.tar --dry-run
export env packed.tar
mount oci:images:v1 linked --method hardlinks
agent --check --socket SOCKET
mount oci:images:v1 --agent SOCKET
ls
df
umount linked --dry-run
umount linked
verify
verify oci:images:v1
gc --all --dry-run
gc --all --yes
gc --all --yes --layer-cache
login REGISTRY -u user --password-stdin
logout REGISTRY
logout REGISTRY
completion bash
help
help push
"""


@pytest.fixture(scope="module")
def registry() -> Iterator[RegistrySimulator]:
    simulator = RegistrySimulator()
    simulator.auth = "basic"
    with simulator.serving():
        yield simulator


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """A folder with an environment, a report, a pod, and a cache that `gc` empties."""
    folder = tmp_path_factory.mktemp("json")
    warm_cache(shared, folder / "cache")
    alpha = wheel(folder, "alpha", "1.0", {"alpha.py": "VALUE = 1\n"})
    beta = wheel(folder, "beta", "2.0", {"beta.py": "import alpha\n"}, requires=["alpha>=1", "absent"])
    install(venv(folder / "env", by="uv"), alpha, beta, by="uv")
    (folder / "report.txt").write_text("fine\n")
    pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: main\n    image: debian\n"
    (folder / "pod.yaml").write_text(pod)
    return folder


def lamella(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in `folder`, with a store, a cache and credentials there."""
    settings = {"LAMELLA_STORE": f"{folder}/store", "LAMELLA_CACHE": f"{folder}/cache"}
    return subprocess.run(
        [sys.executable, "-m", "lamella.cli", *arguments],
        check=False,
        capture_output=True,
        text=True,
        input=stdin,
        cwd=folder,
        env=os.environ | settings | {"DOCKER_CONFIG": f"{folder}/docker"},
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a layout of one small environment, and a damaged one."""
    folder = tmp_path_factory.mktemp("published")
    for name in ("images", "damaged"):
        publish(folder / name, [{"a": "b" * 99}], tag="v1")
    for blob in (folder / "damaged/blobs/sha256").iterdir():
        blob.write_bytes(b"x" * blob.stat().st_size)
    (folder / "report.txt").write_text("fine\n")
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Agent]:
    """An agent that gives the environments of that folder."""
    options = AgentOptions(allow=(f"oci:{folder}/images",), metrics="127.0.0.1:0", min_free=0)
    with short_folder() as own, agent(own, options) as made:
        yield made


@pytest.fixture(scope="module")
def documents(folder: Path, registry: RegistrySimulator, served: Agent) -> dict[str, Any]:
    """What each of `COMMANDS` prints, in order."""
    found = {}
    for line in COMMANDS.strip().splitlines():
        known = {"REGISTRY": registry.host, "DIGEST": "0" * 64, "SOCKET": served.socket}
        command = reduce(lambda text, name: text.replace(name, known[name]), known, line).split()
        before = command.index("--") if "--" in command else len(command)
        done = lamella(folder, *command[:before], "--json", "--quiet", *command[before:], stdin="password\n")
        assert done.returncode == 0, (line, done.stderr)
        found[line] = json.loads(done.stdout)
    return found


def problems(document: object, schema: str) -> list[str]:
    """What the schema of that name objects to."""
    return schemas.problems(document, SCHEMAS / f"{schema}.json")


def test_each_verb_has_a_schema_that_is_valid_and_closed() -> None:
    assert {path.stem for path in SCHEMAS.glob("*.json")} == {*VERBS, "error", "follow", "push-watch", "resolution"}
    for path in SCHEMAS.glob("*.json"):
        schemas.check_schema(path)
        assert problems({"version": 1, "unknown": 1}, path.stem) != []
        assert problems({"version": 2}, path.stem) != []


def test_the_document_of_each_verb_fits_its_schema(documents: dict[str, Any]) -> None:
    # One test for all, since its fixture takes long and each process of a parallel run would need it.
    found = {line: problems(document, line.split(maxsplit=1)[0]) for line, document in documents.items()}
    assert {line: objections for line, objections in found.items() if objections} == {}


def test_every_verb_is_among_those_commands() -> None:
    # The document of `run` is on stderr, and tested below; that of `compare` takes a minute: tests/integration/test_compare.py.
    assert {line.split()[0] for line in COMMANDS.strip().splitlines()} == VERBS.keys() - {"compare"}


def test_run_prints_its_document_as_the_last_line_of_stderr(folder: Path, documents: dict[str, Any]) -> None:
    done = lamella(folder, "run", "oci:images:v1", "--json", "--quiet", "--", "sh", "-c", "echo mine; exit 7")
    assert (done.returncode, done.stdout) == (7, "mine\n")
    document = json.loads(done.stderr.splitlines()[-1])
    assert problems(document, "run") == []
    assert document["exit_code"] == 7


@pytest.mark.parametrize("verb", ["run", "mount", "export"])
def test_a_dry_run_has_a_plan_and_fields_of_its_own_verb(verb: str, documents: dict[str, Any]) -> None:
    (document,) = (value for line, value in documents.items() if line.startswith(f"{verb} oci") and "--dry-run" in line)
    assert document["dry_run"] is True
    assert document["plan"]["downloaded"] == {"layers": 0, "bytes": 0}
    assert {layer["name"] for layer in document["plan"]["missing"]} >= {"alpha", "beta"}


@pytest.mark.parametrize(
    ("command", "code", "exit_code"),
    [
        ("no-such-verb", "invalid", 2),
        ("pull", "invalid", 2),
        ("pull oci:images:v1 --no-such-flag", "invalid", 2),
        ("pull ada:s3cret@host/x", "invalid", 2),
        ("pull oci:images:v1 --platform amiga", "invalid", 2),
        ("fetch oci:images:v1 x --type a/b --digest sha1:0", "invalid", 2),
        ("inspect oci:images:v1 --verify absent.pub", "invalid", 2),
        ("gc", "invalid", 2),
        ("inspect oci:images:v9", "not-found", 3),
        ("tags oci:absent", "not-found", 3),
        ("copy oci:absent:v1 oci:there:v1", "not-found", 3),
        ("tags REGISTRY/team/envs", "unauthorized", 4),
        ("login REGISTRY -u user --password-stdin", "unauthorized", 4),
        ("tags localhost:1/team/envs", "unreachable", 5),
        ("pull oci:damaged:v1", "damaged", 8),
        ("inspect oci:images:v1 --require-signature KEY", "not-signed", 9),
        ("scan absent", "no-environment", 12),
        ("push oci:images:v3 images", "no-environment", 12),
        ("run oci:images:v9 -- true", "not-found", 125),
        ("run", "invalid", 125),
        ("run oci:images:v1 -- no-such-command", "command-not-found", 127),
        ("run oci:images:v1 -- ./report.txt", "not-executable", 126),
        ("export oci:images:v1 images", "failed", 1),
    ],
)
def test_a_failure_is_one_document_with_its_code(
    command: str,
    code: str,
    exit_code: int,
    published: Path,
    registry: RegistrySimulator,
    tmp_path: Path,
) -> None:
    words = command.replace("REGISTRY", registry.host).replace("KEY", str(key_pair(tmp_path)[1])).split()
    done = lamella(published, "--json", *words, stdin="wrong\n")
    document = json.loads(done.stdout)
    assert problems(document, "error") == []
    assert (document["error"]["code"], done.returncode) == (code, exit_code), document
    # The sentence is on stderr as well, with the hint.
    end = document["error"]["hint"] or document["error"]["message"]
    assert done.stderr.endswith(f"{end}\n")
    assert "s3cret" not in done.stdout + done.stderr
