"""The environment that is compared, kept apart from the user's: an original copy, and a working copy for each session."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.comparison.errors import ComparisonError
from lamella.comparison.subject import code
from lamella.comparison.subject.changes import copy_environment, move_environment, upgrade
from lamella.comparison.subject.conda import NOT_COPIED, follow_move, is_conda, move_conda, upgrade_record
from lamella.comparison.subject.distributions import Distribution, distributions, size_of, top_modules
from lamella.comparison.subject.wheels import make_wheel, make_wheels
from lamella.layers.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamella.builder import Environment
    from lamella.comparison.programs.commands import Commands

SMALL_BYTES = 50_000
"""A small package has at least this much, if one has."""
_TRIES = 12
_NEVER_UPGRADED = frozenset({"ray"})
"""A job of Ray can change no version of Ray itself."""


@dataclass(frozen=True, slots=True)
class Original:
    """The copy that every working copy begins as. Nothing changes it."""

    folder: str
    place: str
    """Path of the working copies, which its files name."""
    is_conda: bool
    wheels: str | None
    """Folder with a wheel of each package; None if one of them can't be a wheel."""
    no_wheels: str | None
    """Why `wheels` is None."""
    distributions: tuple[Distribution, ...]
    sizes: dict[str, int]
    small: Distribution
    large: Distribution
    modules: dict[str, tuple[str, ...]]
    """Of the small and the large package."""
    base_prefix: str | None
    """Prefix of the interpreter that it needs outside; None for a conda environment, which holds its own."""
    python: str
    """Absolute path of the interpreter that the environment is made with."""
    python_version: str
    """Its minor version: `3.11`."""
    byte_code: bool
    """Whether most of its modules have byte code on disk."""
    code_files: int = code.FILES + 1

    def size_of(self, distribution: Distribution) -> int:
        """Return the bytes of its files."""
        return self.sizes[distribution.normalised]

    def shared_out(self, percent: int) -> tuple[Distribution, ...]:
        """Return packages with at most `percent` of all bytes, the same in every session."""
        room = sum(self.sizes.values()) * percent / 100
        found = []
        for each in sorted(self.distributions, key=lambda each: (-self.size_of(each), each.normalised)):
            is_kept = each in (self.small, self.large) or each.normalised in _NEVER_UPGRADED
            if self.size_of(each) <= room and not is_kept:
                room -= self.size_of(each)
                found.append(each)
        return tuple(found)


def take(environment: Environment, scratch: str, commands: Commands, note: Callable[[str], None]) -> Original:
    """Copy the scanned environment into `scratch`, and make its wheels.

    Raises:
        ComparisonError: none of its packages can be imported.
    """
    # At least as long as the paths of nodes: conda-pack moves an environment to no longer one without conda's cache.
    folder, place = os.path.join(scratch, "original"), os.path.join(scratch, "working-copy", "environment")
    os.makedirs(folder)
    note("copy the environment")
    conda = is_conda(environment.prefix)
    copy_environment(environment.prefix, folder, linked=False, without=NOT_COPIED if conda else ())
    python = os.path.join(environment.prefix, "bin", "python")
    if conda:
        moved = move_conda(folder, environment.prefix, place)
        follow_move(folder, place, moved.changed, python, commands)
        if moved.kept:
            note(
                f"{counted(len(moved.kept), 'compiled file')}, such as {moved.kept[0]}: no room for another path; kept as copied"
            )
    else:
        move_environment(folder, environment.prefix, place)
    found = distributions(folder)
    if not found:
        raise ComparisonError(f"{environment.prefix}: has no Python packages with a RECORD; name another environment")
    sizes = {each.normalised: size_of(each) for each in found}
    base = commands.run([python, "-I", "-B", "-c", "import sys; print(sys.base_prefix); print(sys._base_executable)"])
    base_prefix, base_python = base.splitlines()
    modules: dict[str, tuple[str, ...]] = {}

    def imports(each: Distribution) -> bool:
        for module in top_modules(each)[:1]:
            try:
                commands.run([python, "-I", "-B", "-c", f"import {module}"])
            except ComparisonError:
                continue
            modules[each.normalised] = (module,)
            return True
        return False

    upgradable = [each for each in found if each.normalised not in _NEVER_UPGRADED] or found
    by_size = sorted(upgradable, key=lambda each: (sizes[each.normalised], each.normalised))
    not_tiny = [each for each in by_size if sizes[each.normalised] >= SMALL_BYTES]
    note("choose packages to upgrade")
    large = next(filter(imports, by_size[::-1][:_TRIES]), None)
    small = next(filter(imports, [each for each in (*not_tiny, *by_size[::-1]) if each != large][:_TRIES]), large)
    if not large or not small:
        raise ComparisonError(f"{environment.prefix}: none of its packages can be imported; name another environment")
    others = sorted(each.name for each in environment.packages if each.origin == "conda")
    no_wheels = (
        f"{others[0]}: a conda package, which no Python index has; compare a virtual environment" if others else None
    )
    wheels = None if no_wheels else os.path.join(scratch, "wheels")
    if wheels:
        note("build wheels of the installed packages")
        make_wheels(commands, folder, wheels)
    return Original(
        folder=folder,
        place=place,
        is_conda=conda,
        wheels=wheels,
        no_wheels=no_wheels,
        distributions=found,
        sizes=sizes,
        small=small,
        large=large,
        modules=modules,
        base_prefix=None if conda else base_prefix,
        python=base_python,
        python_version=".".join(environment.interpreter.version.split(".")[:2]),
        byte_code=_has_byte_code(folder),
    )


@dataclass(slots=True)
class Subject:
    """The working copy of a session, which its stories change: environment, local code and requirements."""

    original: Original
    folder: str
    edit: int = 0
    _upgraded: dict[str, Distribution] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """The environment."""
        return self.original.place

    @property
    def code(self) -> str:
        """Folder of the local code, to be put on Python's path."""
        return os.path.join(self.folder, "code")

    @property
    def requirements(self) -> str:
        """File with the exact version of each package."""
        return os.path.join(self.folder, "requirements.txt")

    def modules(self, distribution: Distribution) -> tuple[str, ...]:
        """Return the names that a node must import of a package."""
        return self.original.modules.get(distribution.normalised, ())

    def upgrade(self, distribution: Distribution, number: int) -> Distribution:
        """Upgrade a package of the original in this copy, with a wheel of it on the index, and return it as it is now."""
        known = self._upgraded.get(distribution.normalised) or _moved(distribution, self.original.folder, self.prefix)
        new = upgrade(known, number)
        if self.original.is_conda:
            upgrade_record(self.prefix, known, new)
        self._upgraded[distribution.normalised] = new
        if self.original.wheels:
            make_wheel(new, self.prefix, self.original.wheels)
        self._require()
        return new

    def edit_code(self) -> None:
        """Change one line of the local code."""
        self.edit += 1
        code.edit(self.code, self.edit)

    def _require(self) -> None:
        lines = [
            f"{each.normalised}=={self._upgraded.get(each.normalised, each).version}\n"
            for each in self.original.distributions
        ]
        with open(self.requirements, "w", encoding="utf-8") as file:
            file.writelines(lines)


def working_copy(original: Original) -> Subject:
    """Return a fresh working copy at the place of the former one."""
    folder = os.path.dirname(original.place)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(original.place)
    copy_environment(original.folder, original.place, linked=True)
    subject = Subject(original, folder)
    code.make_code(subject.code)
    subject._require()
    return subject


def _moved(distribution: Distribution, former: str, prefix: str) -> Distribution:
    return Distribution(distribution.name, distribution.version, f"{prefix}{distribution.info.removeprefix(former)}")


def _has_byte_code(folder: str) -> bool:
    modules = compiled = 0
    for _, _, names in os.walk(os.path.join(folder, "lib")):
        modules += sum(name.endswith(".py") for name in names)
        compiled += sum(name.endswith(".pyc") for name in names)
    return compiled > modules / 2
