"""Results of comparisons with invented numbers, for the tests of tables and pages. Nothing in them was measured."""

from __future__ import annotations

from dataclasses import replace

from lamella.comparison import (
    ComparedPrefix,
    Comparison,
    Machine,
    Network,
    RegistryProgram,
    Run,
    Step,
    Story,
    Workflow,
)

MB = 10**6
STORIES = (
    Story("new", "Everything new", "Neither registry nor node has anything of the environment."),
    Story("unchanged", "Nothing changed", "The same environment once more."),
    Story("small-upgrade", "One small package upgraded", "idna, 0.3 MB, in another version."),
    Story("large-upgrade", "One large package upgraded", "scipy, 110 MB, in another version."),
    Story("edit", "One line of local code edited", "A line of the project's own module."),
    Story("sharing", "A second environment that shares 90 %", "A tenth of the packages is in other versions."),
    Story("second-node", "A second node", "The registry has everything, the node nothing."),
    Story("ten-nodes", "Ten nodes at once", "Ten network namespaces, each with 1000 Mbit/s and 2 ms."),
)
WORKFLOWS = (
    Workflow(
        "lamella", "Lamella", "push, pull, mount", {"lamella": "0.1.0"}, True, "zstd",
        "https://example.com/lamella", True, None,
    ),
    Workflow(
        "docker-uv", "Docker, uv", "build, push, pull", {"docker": "26.1.5", "buildkit": "0.13.1", "uv": "0.9.13"}, True, "zstd",
        "https://docs.astral.sh/uv/guides/integration/docker/", True, None,
    ),
    Workflow(
        "docker-copy", "Docker, COPY", "build, push, pull", {"docker": "26.1.5", "buildkit": "0.13.1"}, True, "gzip",
        "https://docs.docker.com/build/building/multi-stage/", True, None,
    ),
    Workflow(
        "uv-warm", "uv pip sync, warm cache", "install", {"uv": "0.9.13"}, True, None,
        "https://docs.astral.sh/uv/pip/compile/#syncing-an-environment", True, None,
    ),
    Workflow(
        "conda-pack-zst", "conda-pack, tar.zst", "pack, copy, unpack", {}, False, "zstd",
        "https://conda.github.io/conda-pack/", False, "conda-pack: not found; pip install conda-pack",
    ),
)  # fmt: skip
# Seconds of each step, megabytes up, down, at the registry and at the node, peak memory in megabytes.
_COSTS: dict[str, tuple[dict[str, float], float, float, float, float, float]] = {
    "lamella": ({"push": 38.0, "pull": 10.9, "mount": 0.31, "import": 0.9}, 612, 611, 612, 2010, 182),
    "docker-uv": ({"build": 61.0, "push": 79.0, "pull": 41.0, "import": 1.4}, 690, 688, 690, 2210, 640),
    "docker-copy": ({"build": 60.0, "push": 142.0, "pull": 46.0, "import": 1.4}, 702, 700, 702, 2230, 610),
    "uv-warm": ({"install": 14.2, "import": 1.1}, 0, 0, 0, 2090, 210),
}
# The share of "everything new" that each story costs: of the first workflow, of the others.
_SHARES = {
    "new": (1.0, 1.0), "unchanged": (0.035, 0.08), "small-upgrade": (0.05, 0.71), "large-upgrade": (0.12, 0.78),
    "edit": (0.045, 0.21), "sharing": (0.16, 0.86), "second-node": (0.22, 0.24), "ten-nodes": (0.52, 1.34),
}  # fmt: skip


def run(workflow: str, story: str, number: int = 1, *, noise: float = 1.0) -> Run:
    """One run that succeeded."""
    costs, uploaded, downloaded, registry, node, memory = _COSTS[workflow]
    share = _SHARES[story][workflow != "lamella"] * noise
    steps = tuple(
        Step(name, round(each * share, 3), round(each * share * 1.3, 3), int(memory * MB))
        for name, each in costs.items()
    )
    return Run(
        workflow, story, number, "cold" if story == "new" else "warm", round(0.4 * noise, 2), steps,
        round(sum(step.seconds for step in steps), 3), round(sum(step.cpu_seconds for step in steps), 3), int(memory * MB),
        int(uploaded * MB * share), int(downloaded * MB * share), int(registry * MB * share), int(node * MB * share), None,
    )  # fmt: skip


def comparison(rounds: int = 3) -> Comparison:
    """A comparison of four workflows in eight stories, with one run that failed and one workflow that was left out."""
    runs = [
        run(workflow, story.name, number, noise=1 + 0.06 * (number - 1) * (1 if at % 2 else -0.5))
        for number in range(1, rounds + 1)
        for story in STORIES
        for at, workflow in enumerate(_COSTS)
    ]
    at = next(at for at, each in enumerate(runs) if (each.workflow, each.story) == ("docker-copy", "sharing"))
    runs[at] = replace(runs[at], steps=(), failed="docker build: exit code 1: no space left on device")
    return Comparison(
        lamella="0.1.0",
        command=f"lamella compare /home/ada/project/.venv --rounds {rounds} --report comparison",
        begun="2026-11-27T01:40:00Z",
        seconds=5234.5,
        complete=True,
        environment=ComparedPrefix("/home/ada/project/.venv", "venv", "3.11.2", 228, 43_012, 2_010 * MB, True),
        machine=Machine(
            "Debian GNU/Linux 12 (bookworm)",
            "6.1.0-28-amd64",
            2,
            "Example Processor 9000",
            8_000 * MB,
            "ext4",
            (0.2, 1.6),
        ),
        network=Network("namespaces", 2.0, 1000.0),
        registry=RegistryProgram("docker-registry 2.8.1", False),
        rounds=rounds,
        workflows=WORKFLOWS,
        stories=STORIES,
        runs=tuple(runs),
    )
