"""Show how two lists of lines differ, quickly even for long ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, ndiff

from pabal.errors import UsageError

_MAX_COMPARED = 4_000_000
"""The product of both sides' characters up to which similar lines are matched, in about a second."""


def refuse_classes(call: str, given: Iterable[object]) -> None:
    """Raise UsageError for a class passed instead of an event or command."""
    for each in given:
        if isinstance(each, type):
            name = each.__name__
            raise UsageError(f"{call}() was given the class {name}; pass an instance, {name}(…)")


def refuse_lists(call: str, given: Iterable[object]) -> None:
    """Raise UsageError for a list or tuple of events or commands; they are passed one by one."""
    for each in given:
        if isinstance(each, (list, tuple)):
            kind = type(each).__name__
            raise UsageError(f"{call}() was given a {kind}; pass its items one by one, as {call}(…, *{kind})")


def compare(expected: Sequence[str], found: Sequence[str]) -> str:
    """Return the lines of both, with ``-`` before missing ones and ``+`` before unexpected ones.

    Unless there are too many, similar lines are shown together, with the differences marked.
    """
    if sum(map(len, expected)) * sum(map(len, found)) <= _MAX_COMPARED:
        return "\n".join(line.removesuffix("\n") for line in ndiff(expected, found))
    lines: list[str] = []
    matcher = SequenceMatcher(None, expected, found, autojunk=False)
    for kind, begin, end, found_begin, found_end in matcher.get_opcodes():
        if kind == "equal":
            lines += (f"  {line}" for line in expected[begin:end])
        else:
            lines += (f"- {line}" for line in expected[begin:end])
            lines += (f"+ {line}" for line in found[found_begin:found_end])
    return "\n".join(lines)
