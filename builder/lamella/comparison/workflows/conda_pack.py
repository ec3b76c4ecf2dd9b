"""conda-pack: an archive of the whole environment, packed on the laptop, moved as a file, and unpacked on the node."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.comparison.programs.artifact import pull_file, push_file
from lamella.comparison.programs.scripts import interpreter, script

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lamella.comparison.measuring.meter import Measure
    from lamella.comparison.options import CompareOptions
    from lamella.comparison.stories import Check
    from lamella.comparison.subject.subject import Original
    from lamella.comparison.workflows.workflow import Place, Session

HOW = "pipx install conda-pack"
HOW_ZSTANDARD = "pipx inject conda-pack zstandard"


def program() -> str:
    """Return the path of conda-pack, or an empty string."""
    return script("conda-pack")


@dataclass(frozen=True, slots=True)
class CondaPack:
    """The workflow."""

    name: str
    title: str
    suffix: str
    """Of the archive, which names its format."""
    compression: str | None
    decompressor: str
    """Program that tar unpacks it with."""
    steps: str = "pack, push, pull, unpack, import"
    byte_code: bool | None = None
    source: str = "https://conda.github.io/conda-pack/"
    uses_base_image: bool = False

    def missing(self, original: Original, _options: CompareOptions) -> str | None:
        """Return what it lacks."""
        if not original.is_conda:
            return "conda-pack: packs conda environments alone; compare one"
        if not program():
            return f"conda-pack: not installed; {HOW}"
        if not _version():
            return f"conda-pack: {program()} does not run; reinstall it"
        if self.compression == "zstd" and not _has_zstandard():
            return f"conda-pack: cannot import zstandard; {HOW_ZSTANDARD}"
        for each in ("tar", self.decompressor):
            if not shutil.which(each):
                return f"{each}: not installed; sudo apt install {each}"
        return None

    def programs(self) -> Mapping[str, str]:
        """Return the version of conda-pack."""
        return {"conda-pack": _version()}

    @contextlib.contextmanager
    def opened(self, session: Session) -> Iterator[OpenedCondaPack]:
        """Start nothing: it has no daemon."""
        yield OpenedCondaPack(self, session)


@dataclass(slots=True)
class OpenedCondaPack:
    """The workflow in a session."""

    workflow: CondaPack
    session: Session
    published: tuple[str, str, int] | None = None
    """Tag, requirements and edit of the code that were published last."""
    unpacked: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """Digest and folder of what a machine unpacked last, by its name and by tag."""

    def publish(self, tag: str, meter: Measure) -> None:
        """Pack and push; the code alone after an edit of it."""
        session, laptop = self.session, self.session.laptop
        archive, code = (
            os.path.join(laptop.folder, each) for each in (f"environment.{self.workflow.suffix}", "code.tar")
        )
        with open(session.subject.requirements, encoding="utf-8") as file:
            now = (tag, file.read(), session.subject.edit)
        # conda-pack packs everything anew each time. Its user knows that an edit of the code needs no other archive.
        code_alone = self.published is not None and self.published[:2] == now[:2] and self.published != now
        with meter.step("pack"):
            if not code_alone:
                command = [program(), "--quiet", "--force", "--n-threads", "-1", "--prefix", session.subject.prefix]
                # Else it refuses environments in which pip replaced a package of conda's, or made an editable install.
                command += ["--ignore-missing-files", "--ignore-editable-packages"]
                session.commands.run([*command, "--output", archive])
            session.commands.run(["tar", "-C", session.subject.code, "-cf", code, "."])
        with meter.step("push"):
            if not code_alone:
                push_file(session.commands, self._reference(laptop, "environment", tag), archive)
            push_file(session.commands, self._reference(laptop, "code", tag), code)
        self.published = now

    @contextlib.contextmanager
    def node(self, _place: Place) -> Iterator[None]:
        """Start nothing."""
        yield

    def deliver(self, place: Place, tag: str, check: Check, meter: Measure) -> None:
        """Pull, unpack beside the former environment, and import. An archive that is unpacked already stays."""
        commands = self.session.commands
        known, folder = self.unpacked.get((place.name, tag), ("", ""))
        archive, packed, code = (
            os.path.join(place.folder, each)
            for each in (f"environment.{self.workflow.suffix}", "code.tar", f"{tag}-code")
        )
        with meter.step("pull"):
            digest = pull_file(commands, self._reference(place, "environment", tag), archive, known)
            pull_file(commands, self._reference(place, "code", tag), packed)
        with meter.step("unpack"):
            if digest != known:
                # As short as can be: without conda's cache, conda-pack moves nothing to a longer path.
                folder = os.path.join(place.folder, str(len(os.listdir(place.folder))))
                os.mkdir(folder)
                commands.run(
                    ["tar", f"--use-compress-program={self.workflow.decompressor}", "-xf", archive, "-C", folder]
                )
                search = {"PATH": os.pathsep.join((f"{folder}/bin", os.environ.get("PATH", os.defpath)))}
                commands.run([f"{folder}/bin/conda-unpack"], env=search)
                os.unlink(archive)
                self.unpacked[place.name, tag] = (digest, folder)
            os.makedirs(code, exist_ok=True)
            commands.run(["tar", "-C", code, "-xf", packed])
        with meter.step("import"):
            commands.run([f"{folder}/bin/python", "-c", check.program()], env={"PYTHONPATH": code})

    def _reference(self, place: Place, name: str, tag: str) -> str:
        return f"{place.registry.host}/{self.session.repository}{self.workflow.name}/{name}:{tag}"


def _version() -> str:
    """Return the version of conda-pack; empty if it does not run, as after its Python was removed."""
    try:
        done = subprocess.run([program(), "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return (done.stdout.split() or [""])[-1] if not done.returncode else ""


def _has_zstandard() -> bool:
    """Return whether the Python of conda-pack's script can import zstandard."""
    python = interpreter(program())
    return subprocess.run([python, "-c", "import zstandard"], capture_output=True, check=False).returncode == 0


GZ = CondaPack("conda-pack-gz", "conda-pack, tar.gz", "tar.gz", "gzip", "gzip")
ZST = CondaPack("conda-pack-zst", "conda-pack, tar.zst", "tar.zst", "zstd", "zstd")
