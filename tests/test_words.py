"""Phrases that make text slow to read stay out of help, messages, docstrings, comments, test names and docs."""

from __future__ import annotations

import ast
import re
from bisect import bisect
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
CLEAN = (
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "builder", "layers", "cli", "tests",
)  # fmt: skip

# "is no slower" and "is no longer" are comparisons.
_COMPARED = "|".join(
    f"{word}\\b"
    for word in (
        "longer", "more than", "less", "fewer", "better", "worse", "slower", "faster", "larger", "smaller", "older",
        "newer", "later", "earlier", "higher", "lower", "shorter", "deeper", "wider",
    )
)  # fmt: skip
PHRASES = {
    "write 'not a X'": re.compile(rf"(?<![Tt]here )\b(?:is|are|was|were|be) no(?:ne\b| (?!{_COMPARED}))"),
    "name the subject": re.compile(
        r"\b(?:whoever|whomever|somebody)\b|(?<!user )(?<!`)\bnobody\b(?![:`])"
        r"|\bwhat (?:is|are|was|were|has|had|holds|held|can|can't|may|must|needs)\b(?![^.]*\?)",
        re.IGNORECASE,
    ),
    "write 'if' or 'when'": re.compile(
        r"\bwhere (?:there (?:is|are|was|were|isn't|aren't)\b|that (?:is|was|can|can't|may|must|has|does|needs|would)\b"
        r"|(?:it|they) (?:can|can't|could|may|must|has|have|do|does|don't|doesn't|needs?|would|isn't|aren't|wasn't)\b"
        r"|(?:it|they) (?:is|was|are|were) (?:a|an|the|not|missing|absent|empty|already)\b|none\b|nothing\b)",
        re.IGNORECASE,
    ),
    "programs do not tell, say, hear, want or know": re.compile(
        r"\btold\b(?! apart)|\bhears?\b|\b(?:is|are|was|were|be) said\b|\bsays? (?:so|nothing)\b|\bknows? (?:no|nothing)\b"
        r"|[:;] want (?:a|an|one|true|only|the)\b|\b(?:it|lamella|that|which) wants\b|\btells more\b",
        re.IGNORECASE,
    ),
    "use the usual words": re.compile(
        r"\b(?:in no case|elsewhere than|another than|for want of|(?:is|are|was|were) let be)\b", re.IGNORECASE
    ),
}

_COMMENT = re.compile(r"(?:^|\s)#+ (.*)")


class Text:
    """Text of a file on one line, with the line number of each of its words."""

    def __init__(self, line: int, content: str) -> None:
        self.words: list[str] = []
        self.starts: list[int] = []
        self.lines: list[int] = []
        at = 0
        for number, text in enumerate(content.splitlines(), line):
            for word in text.split():
                self.words.append(word)
                self.starts.append(at)
                self.lines.append(number)
                at += len(word) + 1

    def found(self) -> Iterator[tuple[int, str]]:
        """The line and the reason of each phrase in it."""
        joined = " ".join(self.words)
        for advice, pattern in PHRASES.items():
            for match in pattern.finditer(joined):
                yield self.lines[bisect(self.starts, match.start()) - 1], f"{match[0]!r}: {advice}"


def strings(source: str) -> Iterator[Text]:
    """Docstrings, messages and names of tests. A formatted string is one text."""
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(node.lineno, node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield Text(node.lineno, "".join(map(str, parts)))
        else:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield Text(node.lineno, node.name.replace("_", " "))
            nodes.extend(ast.iter_child_nodes(node))


def comments(source: str) -> Iterator[Text]:
    """Comments, those on consecutive lines as one text."""
    first, block = 0, list[str]()
    for number, line in enumerate(source.splitlines(), 1):
        # Not by `tokenize`, which takes longer than all the rest: a "# " in a string is prose as well.
        if comment := _COMMENT.search(line):
            if number != first + len(block):
                yield Text(first, "\n".join(block))
                first, block = number, []
            block.append(comment[1])
    yield Text(first, "\n".join(block))


def texts(path: Path) -> Iterator[Text]:
    """Everything in a Python or Markdown file that a person reads as prose."""
    source = path.read_text()
    if path.suffix == ".md":
        # A code block is a program or its output; it keeps its lines, so that the numbers stay.
        yield Text(
            1, re.sub(r"^```.*?^```$", lambda code: "\n" * code[0].count("\n"), source, flags=re.MULTILINE | re.DOTALL)
        )
    else:
        yield from strings(source)
        yield from comments(source)


def files(place: str) -> list[Path]:
    """The Python and Markdown files of a folder, or the file itself."""
    path = ROOT / place
    found = [path] if path.is_file() else sorted([*path.rglob("*.py"), *path.rglob("*.md")])
    return [each for each in found if each != Path(__file__)]


@pytest.mark.slow
@pytest.mark.parametrize("place", CLEAN)
def test_clean_folders_stay_free_of_slow_phrases(place: str) -> None:
    assert files(place), f"{place} does not exist"
    found = [
        f"{path.relative_to(ROOT)}:{line}: {phrase}"
        for path in files(place)
        for text in texts(path)
        for line, phrase in text.found()
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "phrase",
    [
        "Whoever writes opens without `mirrors`", "gave an address that is none", "Hears and says nothing",
        "of more than 500 packages, what is left", "Secrets are told by name", "public wheels are let be",
        "ships in no case", "None where it may", "{base} is no folder: correct it", "was no more at X",
        "empty where there is\nnone", "found where that can't be", "The layers that nobody has", "asks for what can't be",
        "the variable is {}: want true or false", "`lamella --help` tells more", "that the code ships is said",
    ],
)  # fmt: skip
def test_a_slow_phrase_is_found(phrase: str) -> None:
    assert list(Text(1, phrase).found())


@pytest.mark.parametrize(
    "sentence",
    [
        "Return the annotation, or an empty string if there is none.", "The import is no slower than in a venv.",
        "The file is no longer there.", "Show where it is mounted.", "Find the interpreter by where it is.",
        "What is a layer? A package.", "Run it as the user nobody.", "Two layers are told apart by their key.",
        "There are no tags in the repository.", "Print what a node lacks.", "The registry wants nothing changed.",
    ],
)  # fmt: skip
def test_plain_english_is_not_a_slow_phrase(sentence: str) -> None:
    assert list(Text(1, sentence).found()) == []


def test_a_phrase_is_reported_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '"""One line.\n\nReturn None where\nthere is no package.\n"""\n\n# A reason\n# that nobody needs.\n'
    )
    assert sorted(line for text in texts(path) for line, _ in text.found()) == [3, 8]
