"""Collect every text that the command line says: what is passed to t(), headings, help pages."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import click

import pabal.cli
from pabal.cli.app import commands
from pabal.cli.dead_letters import _QUESTIONS
from pabal.cli.subscriptions import _REASONS

_TEXT_ARGUMENTS = {"t": slice(0, 1), "table": slice(0, None), "show": slice(1, 2)}
STATES = {
    *("active", "starting", "standby", "halted", "paused", "idle", "finished", "pending", "retrying"),
    *("parked", "queued", "ok", "degraded", "failing"),
}
"""Words of the facade that are shown translated."""


def said() -> set[str]:
    found = {*STATES, *_QUESTIONS.values(), *_REASONS.values(), *helps(commands)}
    for path in Path(pabal.cli.__file__).parent.glob("*.py"):
        if not path.name.startswith("demo") and path.name != "doctor.py":
            found |= set(_arguments(ast.parse(path.read_text("utf-8"))))
    return found - {""}


def _arguments(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _TEXT_ARGUMENTS:
            for argument in node.args[_TEXT_ARGUMENTS[node.func.id]]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value.removeprefix(">")


def helps(command: click.Command) -> Iterator[str]:
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if not paragraph.startswith("Example:"):
            yield " ".join(paragraph.split("\n"))
    for param in command.params:
        if isinstance(param, click.Option) and param.help and param.is_eager <= (param.name == "lang"):
            yield param.help
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from helps(below)
