"""The command line, its page and its catalogue agree, in both languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import Formatter

import click
import pytest

from pabal.cli import base
from pabal.cli.app import commands
from pabal.cli.korean.demo import DEMO
from pabal.cli.korean.own import OWN
from tests.cli.texts import command_line_texts, subcommands
from tests.docs.pages import ROOT

PAGES = pytest.mark.parametrize("page", ["cli.md", "cli.ko.md"])
_DESCRIBED_ELSEWHERE = {"demo", "doctor"}


def leaves(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, below in subcommands(command):
            yield from leaves(below, f"{path} {name}".strip())
    else:
        yield path, command


@PAGES
def test_the_page_describes_exactly_the_commands(page: str) -> None:
    """A command would be unknown to readers, or promised and not there."""
    described = re.findall(r"^\| `pabal ([a-z -]+)`", (ROOT / "docs" / page).read_text("utf-8"), re.MULTILINE)
    assert sorted(described) == sorted(path for path, _ in leaves(commands))


@PAGES
def test_the_page_names_every_option(page: str) -> None:
    """Readers would not learn of an option."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    options = {
        option
        for path, command in leaves(commands)
        if path not in _DESCRIBED_ELSEWHERE
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden
        for option in param.opts
        if option.startswith("--")
    }
    assert {option for option in options if option not in text} == set()


@PAGES
def test_the_page_lists_every_exit_code(page: str) -> None:
    """A script would have to guess what a code means."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    codes = {0, base.REFUSED, base.WRONG_USAGE, base.UNAVAILABLE, base.INTERRUPTED}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)} == codes


def test_the_korean_catalogue_has_exactly_the_texts_of_the_command_line() -> None:
    """Korean output would contain English, or the catalogue keep unused texts."""
    assert {*OWN, *DEMO} == command_line_texts() | {"Example:"}


@pytest.mark.parametrize("english", sorted({**OWN, **DEMO}))
def test_a_translation_has_the_same_fields(english: str) -> None:
    """A name or a count would be missing in Korean, or the message end in a KeyError."""
    fields = [
        {name for _, name, _, _ in Formatter().parse(text) if name}
        for text in (english, {**OWN, **DEMO}[english])
    ]
    assert fields[0] == fields[1]


@pytest.mark.parametrize(("path", "command"), [(p, c) for p, c in leaves(commands) if p != "demo"])
def test_every_help_page_has_an_example_that_parses(path: str, command: click.Command) -> None:
    """The first thing a user copies would be refused."""
    example = (command.help or "").partition("Example: ")[2].partition("\n")[0].partition(" >")[0]
    words = [word.strip("'") for word in example.split()]
    assert words[: len(path.split()) + 1] == ["pabal", *path.split()]
    if "--directory" in words:
        words[words.index("--directory") + 1] = "/"
    command.make_context(path, words[len(path.split()) + 1 :]).close()
