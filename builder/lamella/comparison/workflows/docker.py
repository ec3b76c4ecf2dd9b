"""Images built by Docker's BuildKit, or by podman: uv's guide, also with zstd, the same with pip, and COPY of the environment."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.comparison.programs import base_image
from lamella.comparison.programs.engines import engine_program, podman_program
from lamella.comparison.programs.scripts import script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from lamella.comparison.measuring.meter import Measure
    from lamella.comparison.options import CompareOptions
    from lamella.comparison.programs.engines import Engine, EngineProgram
    from lamella.comparison.stories import Check
    from lamella.comparison.subject.subject import Original, Subject
    from lamella.comparison.workflows.workflow import Place, Session

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def uv_program() -> str:
    """Return the path of uv, or an empty string."""
    return script("uv")


def uv_version() -> str:
    """Return the version of uv."""
    return subprocess.run([uv_program(), "--version"], capture_output=True, text=True, check=False).stdout.split()[1]


def copied(base: str, subject: Subject) -> str:
    """Return a Dockerfile that copies the environment, and the code in a later layer."""
    return f"""\
FROM {base}
COPY environment {subject.prefix}
COPY code {subject.code}
ENV PATH={subject.prefix}/bin:{_PATH} PYTHONPATH={subject.code}
"""


def copied_and_compiled(base: str, subject: Subject) -> str:
    """Return the same with byte code: compiled in a builder stage, so that the environment is one layer."""
    return f"""\
FROM {base} AS builder
COPY environment {subject.prefix}
RUN {subject.prefix}/bin/python -m compileall -q -j 0 {subject.prefix}/lib || true
FROM {base}
COPY --from=builder {subject.prefix} {subject.prefix}
COPY code {subject.code}
ENV PATH={subject.prefix}/bin:{_PATH} PYTHONPATH={subject.code}
"""


def installed_by_uv(base: str, subject: Subject) -> str:
    """Return a Dockerfile by uv's guide: intermediate layers, cache mounts, byte code, multi-stage.

    uv comes from the context in place of its image, and the packages from a local index in place of PyPI.
    """
    return f"""\
FROM scratch AS uv
COPY tools/uv /uv
FROM {base} AS builder
COPY --from=uv /uv /bin/uv
ENV PATH={_PATH} UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=0
WORKDIR /app
ARG INDEX
RUN uv venv --quiet --python {subject.original.python}
RUN --mount=type=cache,target=/root/.cache/uv \\
    --mount=type=bind,source=requirements.txt,target=/app/requirements.txt \\
    uv pip sync --index-url $INDEX requirements.txt
FROM {base}
COPY --from=builder /app/.venv /app/.venv
COPY code /app/code
ENV PATH=/app/.venv/bin:{_PATH} PYTHONPATH=/app/code
"""


def installed_by_pip(base: str, subject: Subject) -> str:
    """Return a Dockerfile by Docker's guide for Python, multi-stage: requirements first, with a cache mount."""
    return f"""\
FROM {base} AS builder
ENV PATH={_PATH} PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
ARG INDEX
RUN {subject.original.python} -m venv /app/.venv
RUN --mount=type=cache,target=/root/.cache/pip \\
    --mount=type=bind,source=requirements.txt,target=/app/requirements.txt \\
    /app/.venv/bin/python -m pip install --no-deps --index-url $INDEX -r requirements.txt
FROM {base}
COPY --from=builder /app/.venv /app/.venv
COPY code /app/code
ENV PATH=/app/.venv/bin:{_PATH} PYTHONPATH=/app/code
"""


@dataclass(frozen=True, slots=True)
class DockerImage:
    """A workflow of docker build, push, pull and run."""

    name: str
    what: str
    """Its title after the engine's name."""
    dockerfile: Callable[[str, Subject], str]
    byte_code: bool | None
    source: str
    installs: bool
    """Whether it installs from an index."""
    needs_uv: bool = False
    steps: str = "build, push, pull, import"
    compression: str = "gzip"
    uses_base_image: bool = True
    engine: Callable[[], EngineProgram] = engine_program
    """Program of its engines."""

    @property
    def title(self) -> str:
        """Its name for readers."""
        return f"{self.engine().TITLE}, {self.what}"

    def missing(self, original: Original, options: CompareOptions) -> str | None:
        """Return what it lacks."""
        if options.registry:
            return "not with --registry: the base image is in the registry that a comparison starts; omit --registry"
        if self.installs and original.no_wheels:
            return original.no_wheels
        if self.needs_uv and not uv_program():
            return "uv: not installed; pipx install uv"
        return self.engine().missing() or base_image.missing(options.base_image)

    def programs(self) -> Mapping[str, str]:
        """Return the versions of the engine, and of uv."""
        return {**self.engine().versions(), **({"uv": uv_version()} if self.needs_uv else {})}

    @contextlib.contextmanager
    def opened(self, session: Session) -> Iterator[OpenedDocker]:
        """Start an engine that has the base image."""
        with contextlib.ExitStack() as stack:
            opened = OpenedDocker(self, session, {})
            opened.engines[session.laptop.name] = stack.enter_context(opened.started(session.laptop))
            opened.engine(session.laptop)("pull", "--quiet", opened.reference(session.laptop, base_image.NAME))
            if self.needs_uv:
                tools = os.path.join(session.subject.folder, "tools")
                os.makedirs(tools)
                shutil.copy2(os.path.realpath(uv_program()), os.path.join(tools, "uv"))
            yield opened


@dataclass(frozen=True, slots=True)
class OpenedDocker:
    """The workflow in a session. `engines` has one for each machine, by its name."""

    workflow: DockerImage
    session: Session
    engines: dict[str, Engine]

    def publish(self, tag: str, meter: Measure) -> None:
        """Build and push."""
        laptop, subject = self.session.laptop, self.session.subject
        dockerfile = os.path.join(laptop.folder, "Dockerfile")
        with open(dockerfile, "w", encoding="utf-8") as file:
            file.write(self.workflow.dockerfile(self.reference(laptop, base_image.NAME), subject))
        image = self.reference(laptop, f"{self.workflow.name}:{tag}")
        arguments = [
            "build",
            *self.workflow.engine().PROGRESS,
            "--network",
            "host",
            "--file",
            dockerfile,
            "--tag",
            image,
        ]
        if self.workflow.installs and laptop.index:
            arguments += ["--build-arg", f"INDEX=http://{laptop.index.host}/simple/"]
        with meter.step("build", laptop.folder):
            self.engine(laptop)(*arguments, subject.folder)
        with meter.step("push", laptop.folder):
            self.engine(laptop)("push", "--quiet", image)

    @contextlib.contextmanager
    def node(self, place: Place) -> Iterator[None]:
        """Start an engine that has the base image."""
        with self.started(place) as engine:
            self.engines[place.name] = engine
            engine("pull", "--quiet", self.reference(place, base_image.NAME))
            yield

    def deliver(self, place: Place, tag: str, check: Check, meter: Measure) -> None:
        """Pull, and import in a container."""
        image = self.reference(place, f"{self.workflow.name}:{tag}")
        with meter.step("pull", place.folder):
            self.engine(place)("pull", "--quiet", image)
        with meter.step("import", place.folder):
            self.engine(place)("run", "--rm", "--network", "none", image, "python", "-c", check.program())

    def started(self, place: Place) -> AbstractContextManager[Engine]:
        """Start an engine of a machine."""
        folder, workflow = place.folder, self.workflow
        return workflow.engine().engine(
            self.session.commands, os.path.join(folder, "engine"), folder, workflow.compression
        )

    def engine(self, place: Place) -> Engine:
        """Return the engine of a machine."""
        return self.engines[place.name]

    def reference(self, place: Place, image: str) -> str:
        """Return an image's name on a machine: each reaches the registry by a line of its own."""
        return f"{place.registry.host}/{self.session.repository}{image}"


COPY = DockerImage(
    "docker-copy",
    "COPY of the environment",
    copied,
    None,
    "https://docs.docker.com/build/building/best-practices/",
    installs=False,
)
COPY_COMPILED = DockerImage(
    "docker-copy-compiled",
    "COPY of the environment, with byte code",
    copied_and_compiled,
    True,
    "https://docs.docker.com/build/building/best-practices/",
    installs=False,
)
UV = DockerImage(
    "docker-uv",
    "uv",
    installed_by_uv,
    True,
    "https://docs.astral.sh/uv/guides/integration/docker/",
    installs=True,
    needs_uv=True,
)
PIP = DockerImage(
    "docker-pip",
    "pip",
    installed_by_pip,
    True,
    "https://docs.docker.com/guides/python/containerize/",
    installs=True,
)
UV_ZSTD = DockerImage(
    "podman-uv-zstd",
    "uv, zstd",
    installed_by_uv,
    True,
    "https://docs.podman.io/en/latest/markdown/podman-push.1.html",
    installs=True,
    needs_uv=True,
    compression="zstd",
    # The classic image store of Docker pushes gzip alone.
    engine=podman_program,
)
