"""Click commands that translate Click's own texts, using the hooks that Click provides."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.cells import cell_len

from pabal.cli.korean.click_words import EXTRAS, METAVARS
from pabal.cli.language import language, t
from pabal.cli.translation import translate


class _Formatter(click.HelpFormatter):
    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, f"{t('Usage:')} " if prefix is None else prefix)

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        with super().section(t(name)):
            yield

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        if language() == "en":
            super().write_dl(rows, col_max, col_spacing)
            return
        translated = [(_translate_metavar(first), _translate_extras(second)) for first, second in rows]
        column = min(max((cell_len(first) for first, _ in translated), default=0), col_max) + col_spacing
        for first, second in translated:
            self.write(f"{'':{self.current_indent}}{first}")
            gap = column - cell_len(first)
            lines = _wrap(second, self.width - self.current_indent - column)
            if gap < col_spacing and lines:
                self.write(f"\n{'':{self.current_indent}}")
                gap = column
            margin = "\n" + " " * (self.current_indent + column)
            self.write(" " * gap + margin.join(lines) + "\n" if lines else "\n")

    def write_text(self, text: str) -> None:
        if language() == "en":
            super().write_text(text)
            return
        margin = " " * self.current_indent
        paragraphs = text.split("\n\n")
        wrapped = [_wrap(paragraph, self.width - self.current_indent) for paragraph in paragraphs]
        self.write("\n\n".join("\n".join(f"{margin}{line}" for line in lines) for lines in wrapped) + "\n")


def _wrap(text: str, width: int) -> list[str]:
    """Wrap a text between words; a Korean letter takes two places, which Click does not consider."""
    lines: list[str] = []
    for word in re.findall(r"\S+\s*", text):
        if lines and cell_len(lines[-1] + word.rstrip()) <= width:
            lines[-1] += word
        else:
            lines.append(word)
    return [line.rstrip() for line in lines]


def _translate_metavar(text: str) -> str:
    names, space, metavar = text.partition(" ") if ", " not in text else _after_last_comma(text)
    return f"{names}{space}{METAVARS.get(metavar, metavar)}"


def _after_last_comma(text: str) -> tuple[str, str, str]:
    before, comma, last = text.rpartition(", ")
    name, space, metavar = last.partition(" ")
    return f"{before}{comma}{name}", space, metavar


def _translate_extras(text: str) -> str:
    """Translate the text in the last brackets, where Click puts defaults and ranges."""
    found = re.search(r"\s\s\[([^\]]*)\]$", text)
    if found is None:
        return text
    extras = found[1]
    for english, korean in EXTRAS.items():
        extras = re.sub(rf"(?<![^ ]){english}", korean, extras)
    return f"{text[: found.start()]}  [{extras}]"


class _Context(click.Context):
    formatter_class = _Formatter


class TranslatedCommand(click.Command):
    """A command whose help page and usage errors are translated."""

    context_class = _Context

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help page."""
        with _translated_help(self):
            super().format_help(ctx, formatter)

    def get_short_help_str(self, limit: int = 72) -> str:
        """Return the first sentence of the help text."""
        return translated_help(self.help).partition("\n")[0].rstrip(".")

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return the ``--help`` option."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.help = t("Show this message and exit.")
        return option

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the pieces of the usage line after the command's name."""
        return [t(piece) for piece in super().collect_usage_pieces(ctx)]

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit; a usage error is printed in one line, with the exit code that Click assigns."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.ClickException as error:
            _show_error(error)
            sys.exit(error.exit_code)
        except click.Abort as error:
            click.echo(t("Aborted!"), err=True)
            sys.exit(130 if isinstance(error.__context__, KeyboardInterrupt) else 1)
        except OSError as error:
            # For example, a full disk behind ``>``. The buffered output could not be written either.
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            click.echo(f"pabal: {error}", err=True)
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def _show_error(error: click.ClickException) -> None:
    # The help page of a group called without a command arrives as an error; it is translated already.
    if language() == "en" or type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    if ctx is not None:
        click.echo(ctx.get_usage(), err=True)
        option = max(ctx.help_option_names, key=len)
        click.echo(t("Try '{command} {option}' for help.", command=ctx.command_path, option=option), err=True)
        click.echo(err=True)
    click.echo(t("Error: {message}", message=translate(error.format_message())), err=True)


def translated_help(text: str | None) -> str:
    """Translate a help text paragraph by paragraph; examples stay as they are."""
    translated: list[str] = []
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        joined = " ".join(paragraph.split("\n"))
        label, colon, example = joined.partition(":")
        is_example = label == "Example" and colon
        translated.append(f"{t('Example:')}{example}" if is_example else t(joined))
    return "\n\n".join(translated)


@contextmanager
def _translated_help(command: click.Command) -> Iterator[None]:
    options = [param for param in command.params if isinstance(param, click.Option)]
    originals = [command.help, *(option.help for option in options)]
    command.help = translated_help(command.help)
    for option in options:
        option.help = t(option.help) if option.help else option.help
    try:
        yield
    finally:
        command.help = originals[0]
        for option, text in zip(options, originals[1:], strict=True):
            option.help = text


class Command(TranslatedCommand):
    """A command in the chosen language."""


class Group(TranslatedCommand, click.Group):
    """A group in the chosen language, whose commands are too."""

    command_class = Command


Group.group_class = Group
