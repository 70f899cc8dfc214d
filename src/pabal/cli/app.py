"""The group of all commands."""

from __future__ import annotations

from importlib import import_module

import click
from click.shell_completion import get_completion_class

from pabal.cli import language
from pabal.cli.command import Group

_MODULES = {
    "asyncapi": "asyncapi",
    "audit": "maintenance",
    "backup": "maintenance",
    "bench": "bench",
    "check": "maintenance",
    "dashboard": "dashboard",
    "dead-letters": "dead_letters",
    "demo": "demo",
    "doctor": "doctor",
    "events": "events",
    "projections": "projections",
    "replay": "subscriptions",
    "retention": "maintenance",
    "schema": "schema",
    "status": "subscriptions",
    "streams": "events",
    "subscriptions": "subscriptions",
    "tail": "events",
    "vacuum": "maintenance",
}
"""The module of each command, imported when it is called: importing all would double the start-up time."""


class _Commands(Group):
    """Choose the language before parsing anything else, so that parse errors are translated too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options before the command's name."""
        if not ctx.resilient_parsing:
            language.choose(language.requested_language(args))
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, including those not imported yet."""
        return sorted({*self.commands, *_MODULES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing its module if necessary."""
        if cmd_name not in self.commands and cmd_name in _MODULES:
            module = import_module(f"pabal.cli.{_MODULES[cmd_name]}")
            self.add_command(getattr(module, cmd_name.replace("-", "_")))
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="pabal", message="%(prog)s %(version)s", help="Show the version and exit.")
@click.option(
    "--lang",
    type=click.Choice(language.LANGUAGES),
    is_eager=True,
    expose_value=False,
    help="Output language; defaults to that of the locale.",
)
def commands() -> None:
    """Run pabal, a durable event bus that lives inside a Python application.

    Example: pabal status trading.db
    """


@commands.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that enables shell completion for pabal's commands.

    Example: pabal completion bash >> ~/.bashrc
    """
    shell_class = get_completion_class(shell)
    assert shell_class is not None
    click.echo(shell_class(commands, {}, "pabal", "_PABAL_COMPLETE").source())
