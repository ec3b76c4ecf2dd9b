"""`uv pip sync` on the node, from an index: with a cold and a warm cache, and without byte code, which is uv's default."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.comparison.workflows.docker import uv_program, uv_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lamella.comparison.measuring.meter import Measure
    from lamella.comparison.options import CompareOptions
    from lamella.comparison.stories import Check
    from lamella.comparison.subject.subject import Original
    from lamella.comparison.workflows.workflow import Place, Session


@dataclass(frozen=True, slots=True)
class Uv:
    """The workflow."""

    name: str
    title: str
    is_warm: bool
    steps: str = "install, import"
    byte_code: bool = True
    compression: str | None = "deflate"
    source: str = "https://docs.astral.sh/uv/pip/compile/#syncing-an-environment"
    uses_base_image: bool = False

    def missing(self, original: Original, _options: CompareOptions) -> str | None:
        """Return what it lacks."""
        return original.no_wheels or (None if uv_program() else "uv: not installed; pipx install uv")

    def programs(self) -> Mapping[str, str]:
        """Return its version."""
        return {"uv": uv_version()}

    @contextlib.contextmanager
    def opened(self, session: Session) -> Iterator[OpenedUv]:
        """Start nothing: it has no daemon."""
        yield OpenedUv(self, session)


@dataclass(frozen=True, slots=True)
class OpenedUv:
    """The workflow in a session."""

    workflow: Uv
    session: Session

    def publish(self, tag: str, meter: Measure) -> None:
        """Do nothing: the wheels are on the index."""

    @contextlib.contextmanager
    def node(self, place: Place) -> Iterator[None]:
        """Fill the cache, if it is to be warm, as another environment of the same packages would have."""
        if self.workflow.is_warm:
            self._sync(place, "other")
            shutil.rmtree(os.path.join(place.folder, "other"))
        yield

    def deliver(self, place: Place, tag: str, check: Check, meter: Measure) -> None:
        """Sync the node's environment, copy the code, and import."""
        if not self.workflow.is_warm:
            shutil.rmtree(os.path.join(place.folder, "cache"), ignore_errors=True)
        code = os.path.join(place.folder, f"{tag}-code")
        with meter.step("install"):
            self._sync(place, tag)
            shutil.copytree(self.session.subject.code, code, dirs_exist_ok=True)
        with meter.step("import"):
            self.session.commands.run(
                [os.path.join(place.folder, tag, "bin", "python"), "-c", check.program()], env={"PYTHONPATH": code}
            )

    def _sync(self, place: Place, name: str) -> None:
        folder = os.path.join(place.folder, name)
        settings = {"UV_CACHE_DIR": os.path.join(place.folder, "cache"), "UV_PYTHON_DOWNLOADS": "never"}
        settings |= {"UV_NO_CONFIG": "1", "XDG_CONFIG_HOME": place.folder}
        if self.workflow.byte_code:
            settings["UV_COMPILE_BYTECODE"] = "1"
        run = self.session.commands.run
        if not os.path.isdir(folder):
            run(
                [uv_program(), "venv", "--quiet", "--python", self.session.subject.original.python, folder],
                env=settings,
            )
        assert place.index
        command = [uv_program(), "pip", "sync", "--quiet", "--index-url", f"http://{place.index.host}/simple/"]
        run([*command, "--python", f"{folder}/bin/python", self.session.subject.requirements], env=settings)


COLD = Uv("uv-cold", "uv pip sync on the node, cold cache", is_warm=False)
WARM = Uv("uv-warm", "uv pip sync on the node, warm cache", is_warm=True)
WARM_UNCOMPILED = Uv(
    "uv-warm-uncompiled", "uv pip sync on the node, warm cache, no byte code", is_warm=True, byte_code=False
)
