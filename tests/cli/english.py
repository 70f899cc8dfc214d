"""Find English sentences in output that should be Korean, and the library's English sentences in its code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pabal
import pabal.errors

HANGUL = re.compile(r"[가-힣]")
_VALUES = re.compile(
    r"'[^']*'|\"[^\"]*\"|`[^`]*`"  # quoted
    r"|\{[^}]*\}|\[[^\]]*\]|\([^)가-힣]*\)"  # choices, ranges, records
    r"|\S*[/=@]\S*|--[\w-]+"  # paths, URLs, settings, options
    r"|\bpabal( [a-z][a-z-]*)*|\bpython -m pabal\b|CONFIG (SET|GET)( [a-z-]+)*|kill -9"  # commands
)
_SENTENCE = re.compile(r"(?:\b[A-Za-z][A-Za-z']*[;:.]? +){2}[A-Za-z][A-Za-z']*\b")
_EXAMPLE = re.compile(r"^ *예: ")
_WORDS = ("detail", "reason", "feature")
_ROOMS = (
    *("cli", "factory.py", "operations", "storage/sqlite", "dashboard", "demo", "domain"),
    *("brokers/redis", "integrations/cloudevents.py", "integrations/asyncapi.py"),
)
"""The packages that the command line reaches; errors of the others are seen only by programmers."""


_COMPOSED = {
    "its run was started X7; leave --X7 out to resume it": (
        "its run was started without it; leave --seed out to resume it",
        "its run was started with --seed 7; leave --seed out to resume it",
    ),
    "this file holds X7. For a new run choose another --file": (
        "this file holds a finished run. For a new run choose another --file",
        "this file holds an unfinished run; add --resume to continue it. For a new run choose another --file",
    ),
    "the column X7; a tape of X7 needs X7, and this one has X7": (
        "the column is missing; a tape of trades needs price, and this one has none",
        "the column appears twice; a tape of candles needs open, and this one has low",
    ),
    "X7, where the header has X7": (
        "1 cell, where the header has 4",
        "3 cells, where the header has 4",
    ),
    "X7 X7": (
        "'x' is earlier than the line before (2021-01-08)",
        "'x' is not a number such as 39432.48",
        "'x' is not above zero",
        "'x' is below 0",
        "'x' is not a time such as 2021-01-08T00:00:00.278Z",
    ),
}
"""Sentences that are assembled from parts, and their results."""


def english_in(text: str) -> list[str]:
    """Return the sequences of three or more English words outside of values and commands."""
    found: list[str] = []
    for line in text.splitlines():
        if not _EXAMPLE.match(line):
            found += _SENTENCE.findall(_VALUES.sub(" · ", line))
    return found


def sentences_of_errors() -> Iterator[tuple[str, str]]:
    """Yield each place where the library raises one of its errors, and the English sentence, with values."""
    root = Path(pabal.__file__).parent
    for room in _ROOMS:
        path = root / room
        for file in [path] if path.suffix else sorted(path.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Call) and _name(node.func) in _ERRORS:
                    named = [word.value for word in node.keywords if word.arg in _WORDS]
                    for argument in [*node.args[:1], *named]:
                        for said in _sentences(argument):
                            for text in _COMPOSED.get(said, (said,)):
                                yield f"{file.relative_to(root)}:{node.lineno}", text


_ERRORS = {name for name in vars(pabal.errors) if name.endswith("Error")} | {"RunError", "TapeError"}


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _sentences(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return [*_sentences(node.body), *_sentences(node.orelse)]
    if isinstance(node, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "X7" for part in node.values]
        return ["".join(parts)] if any(isinstance(part, ast.Constant) for part in node.values) else []
    return []
