"""The pipelines of docs/how-to/ci.md: the schemas of GitHub and GitLab accept them, and their commands run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from support.caches import warm_cache
from support.distribution import PASSWORD, USER, distribution
from support.installed import install, venv, wheel

pytestmark = [pytest.mark.slow, pytest.mark.engine]

GUIDE = Path(__file__).parent.parent.parent / "docs/how-to/ci.md"
GITHUB, GITLAB = re.findall(r"^```yaml\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("schema", "text"), [("github-workflows", GITHUB), ("gitlab-ci", GITLAB)])
def test_the_service_has_a_schema_that_accepts_the_file(tmp_path: Path, schema: str, text: str) -> None:
    judgement = judged(tmp_path, schema, text)
    assert judgement.returncode == 0, judgement.stdout
    wrong = text.replace("runs-on: ubuntu-24.04", "run-on: x").replace("script:", "skript:")
    assert judged(tmp_path, schema, wrong).returncode == 1


def judged(folder: Path, schema: str, text: str) -> subprocess.CompletedProcess[str]:
    file = folder / "pipeline.yml"
    file.write_text(text)
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def jobs(text: str) -> dict[str, list[str]]:
    """The commands of each job that name Lamella, a script for each."""
    document: dict[str, Any] = YAML(typ="safe").load(text)
    if "jobs" in document:
        steps = {name: [step.get("run", "") for step in job["steps"]] for name, job in document["jobs"].items()}
    else:
        before = document["default"]["before_script"]
        steps = {name: [*before, *document[name]["script"]] for name in ("push", "compare")}
    lines = {name: "\n".join(texts).splitlines() for name, texts in steps.items()}
    return {name: [line for line in found if re.search(r"\blamella (?!@)", line)] for name, found in lines.items()}


@pytest.mark.parametrize("text", [GITHUB, GITLAB], ids=["github", "gitlab"])
def test_the_commands_push_on_the_main_branch_and_compare_on_a_merge_request(
    tmp_path: Path, shared: Path, text: str
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    prefix = install(venv(project / ".venv"), wheel(tmp_path, "alpha", "1.0", {"alpha.py": "X = 1\n"}))
    commands = jobs(text)
    with distribution(auth=True) as registry:
        variables = {
            "DOCKER_CONFIG": str(tmp_path / "docker"),
            "LAMELLA_CACHE": str(warm_cache(shared, project / ".lamella-cache")),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            # What the services set.
            "REGISTRY_PASSWORD": PASSWORD,
            "GITHUB_ACTOR": USER,
            "GITHUB_SHA": 40 * "a",
            "CI_REGISTRY": registry,
            "CI_REGISTRY_IMAGE": f"{registry}/team/project",
            "CI_REGISTRY_PASSWORD": PASSWORD,
            "CI_REGISTRY_USER": USER,
            "CI_COMMIT_SHORT_SHA": "aaaaaaaa",
        }

        def ran(job: str) -> str:
            script = "\n".join(["set -euo pipefail", *commands[job]]).replace("ghcr.io", registry)
            done = subprocess.run(
                ["bash", "-c", script],
                check=False,
                capture_output=True,
                text=True,
                cwd=project,
                env=os.environ | variables,
            )
            assert done.returncode == 0, done.stderr
            assert PASSWORD not in done.stdout + done.stderr
            return done.stdout

        ran("push")
        install(prefix, wheel(tmp_path, "alpha", "2.0", {"alpha.py": "X = 2\n"}))
        ran("compare")
    assert re.search(r"alpha.*1\.0.*2\.0", (project / "difference.md").read_text())
