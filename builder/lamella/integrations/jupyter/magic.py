"""The magic itself: the words of its line, the command's progress in the cell, and completion."""

from __future__ import annotations

import getpass
import re
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

from lamella.integrations.jupyter.command import CommandFailed, run
from lamella.integrations.jupyter.results import result_of
from lamella.layers.text import seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from lamella.integrations.jupyter.results import Result

_TABLES = frozenset({"push", "diff", "scan"})
# With one of these the command's own text is the result.
_TEXT = frozenset({"--json", "--files", "--left-out", "--help", "-h", "--watch"})
# Without @, before which a password could stand.
_VARIABLE = re.compile(r"[\w./:-]*?(\{[\w.\[\]]+\}|\$[A-Za-z_]\w*)[\w./:-]*", re.ASCII)
_PASSWORD = "--password-stdin"


class Magic:
    """`%lamella`, for one shell."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._pushed = ""
        self._help: dict[str, tuple[str, ...]] = {}

    def run(self, line: str) -> Result | None:
        """Run the command `lamella`.

        %lamella push REF    push the kernel's environment, with the code of this folder
        %lamella diff [REF]  compare it with a reference; by default, with the last that was pushed here
        %lamella scan        show it
        %lamella             list the verbs; `%lamella VERB --help` shows one

        The result of these three is a table, and a value: `pushed = %lamella push REF`, `pushed.document`.
        """
        try:
            words = shlex.split(line) or ["--help"]
        except ValueError as error:
            # Without the line, which can have a token in it.
            raise CommandFailed(f"%lamella: {str(error).lower()}; quote words as in a shell") from None
        verb, typed = words[0], ""
        _check_variables(words)
        if verb == "diff":
            words = self._sides(words)
        elif verb == "login" and not any(word in _TEXT or word.startswith("--password") for word in words):
            typed = getpass.getpass("Password: ")
            words.append(_PASSWORD)
        if verb not in _TABLES or any(word.partition("=")[0] in _TEXT for word in words):
            run(words, input_text=typed, line=print, remark=_to_stderr, tick=_nothing).check()
            return None
        status = Status(self._shell, verb)
        try:
            ended = run([*words, "--json"], remark=status.remark, tick=status.tick)
        finally:
            status.close()
        document = ended.document
        if not document or "error" in document:
            ended.check()
            raise CommandFailed(f"%lamella {verb}: no result")
        result = result_of(verb, document, ended.remarks if status.in_cell else ())
        if verb == "push" and not document["dry_run"]:
            self._pushed = document["reference"]
        if ended.code:
            # A result that --fail-on or --strict objects to is shown, and is a failure all the same.
            from IPython.display import display

            display(result)
            ended.check()
        return result

    def complete(self, _shell: object, event: Any) -> list[str]:
        """Complete the verb, and the options of a verb."""
        before = event.text_until_cursor.split()[1:]
        if before and not event.text_until_cursor[-1:].isspace():
            before.pop()
        verb = before[0] if before else ""
        if verb and verb not in self._listed(""):
            return []
        return [word for word in self._listed(verb) if word.startswith(event.symbol)]

    def _sides(self, words: Sequence[str]) -> list[str]:
        """Return the words of `diff` with both sides: a reference, and the environment of the kernel."""
        at = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
        named, rest = [*words[:at]], [*words[at:]]
        if {"-h", "--help"} & {*rest}:
            return [*words]
        if len(named) == 1 and all(word.startswith("-") for word in rest):
            if not self._pushed:
                raise CommandFailed("%lamella diff: nothing was pushed here yet; use %lamella diff REFERENCE")
            named.append(self._pushed)
        return [*named, *([sys.prefix] if len(named) == 2 else []), *rest]

    def _listed(self, verb: str) -> tuple[str, ...]:
        """The verbs, or the options of one, from the command's help."""
        if verb not in self._help:
            text = run([*([verb] if verb else []), "--help"], remark=_nothing, tick=_nothing).output
            pattern = r"(?<![\w-])--[a-z][a-z-]+" if verb else r"^  ([a-z]+) "
            self._help[verb] = tuple(dict.fromkeys(re.findall(pattern, text, re.MULTILINE)))
        return self._help[verb]


class Status:
    """The command's last line and its time, in one place of a notebook's cell; elsewhere, its lines as they come."""

    def __init__(self, shell: InteractiveShell, verb: str) -> None:
        self.in_cell = hasattr(shell, "kernel")
        self._verb = verb
        self._last = ""
        self._began = self._drawn = time.monotonic()
        self._handle: Any = None

    def remark(self, line: str) -> None:
        """Take a line of stderr."""
        self._last = line
        if not self.in_cell:
            _to_stderr(line)

    def tick(self) -> None:
        """Draw, once a second at most."""
        now = time.monotonic()
        if self.in_cell and now - self._drawn >= 1:
            self._drawn = now
            self._draw(f"{self._verb}: {seconds(now - self._began)}" + (f"; {self._last}" if self._last else ""))

    def close(self) -> None:
        """Empty the place."""
        if self._handle:
            self._draw("")

    def _draw(self, text: str) -> None:
        from IPython.display import display

        content = {"text/plain": text}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def _nothing(*_: object) -> None:
    """Nothing."""


def _check_variables(words: Sequence[str]) -> None:
    """Raise `CommandFailed` for a variable of the notebook that IPython left as it is, since it does not exist."""
    for word in words[: words.index("--") if "--" in words else None]:
        if found := _VARIABLE.fullmatch(word):
            raise CommandFailed(f"%lamella: {found[1]}: no such variable in this notebook; define it in a cell first")
