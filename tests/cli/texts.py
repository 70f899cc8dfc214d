"""Collect every text of the command line: arguments of t(), headings, help pages."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click

import pabal.cli
from pabal.cli.app import commands
from pabal.cli.dead_letters import _QUESTIONS
from pabal.cli.demo_tables import NAMES, READS
from pabal.cli.subscriptions import _REASONS
from pabal.demo.report import Phase
from pabal.operations.doctor import Level

_TEXT_ARGUMENTS = {"t": slice(0, 1), "table": slice(0, None), "show": slice(1, 2), "counted": slice(1, 2)}
STATES = {
    *("active", "starting", "standby", "halted", "paused", "idle", "finished", "pending", "retrying"),
    *("parked", "queued", "ok", "degraded", "failing"),
}
"""Words of the facade that are translated when shown."""
DEMO = {*NAMES.values(), *READS.values(), *get_args(Phase), "trades", "candles"}
"""Words of the demo that are translated when shown."""
BENCH = {"in memory", "on disk, normal", "on disk, full"}


def command_line_texts() -> set[str]:
    found = {*STATES, *DEMO, *BENCH, *get_args(Level), *_QUESTIONS.values(), *_REASONS.values()}
    found |= set(helps(commands))
    for path in Path(pabal.cli.__file__).parent.glob("*.py"):
        found |= set(_arguments(ast.parse(path.read_text("utf-8"))))
    return found - {""}


def _arguments(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _TEXT_ARGUMENTS:
            for argument in node.args[_TEXT_ARGUMENTS[node.func.id]]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    text = argument.value.removeprefix(">")
                    yield f"{{number}} {text}" if node.func.id == "counted" else text


def subcommands(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Yield the commands of a group, importing those of ``pabal`` itself."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None, name
        yield name, command


def helps(command: click.Command) -> Iterator[str]:
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if not paragraph.startswith("Example:"):
            yield " ".join(paragraph.split("\n"))
    for param in command.params:
        if isinstance(param, click.Option) and param.help:
            yield param.help
    if isinstance(command, click.Group):
        for _, below in subcommands(command):
            yield from helps(below)
