"""The group of all commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from pabal.cli import language
from pabal.cli.asyncapi import asyncapi
from pabal.cli.base import Command, Group
from pabal.cli.bench import bench
from pabal.cli.care import audit, backup, check, retention, vacuum
from pabal.cli.dashboard import dashboard
from pabal.cli.dead_letters import dead_letters
from pabal.cli.demo import demo
from pabal.cli.doctor import doctor
from pabal.cli.events import events, streams, tail
from pabal.cli.projections import projections
from pabal.cli.schema import schema
from pabal.cli.subscriptions import replay, status, subscriptions


class _Commands(Group):
    """Choose the language before anything else is looked at, for a mistake is told in it too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options in front of the command."""
        if not ctx.resilient_parsing:
            language.choose(language.asked_for(args))
        return super().parse_args(ctx, args)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="pabal", message="%(prog)s %(version)s", help="Show the version and exit.")
@click.option(
    "--lang",
    type=click.Choice(language.LANGUAGES),
    is_eager=True,
    expose_value=False,
    help="Speak this language; by default that of the locale.",
)
def commands() -> None:
    """Run pabal, a durable event bus that lives inside a Python application.

    Example: pabal status trading.db
    """


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete pabal's commands.

    Example: pabal completion bash >> ~/.bashrc
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(commands, {}, "pabal", "_PABAL_COMPLETE").source())


for command in (
    demo,
    doctor,
    status,
    tail,
    events,
    streams,
    subscriptions,
    dead_letters,
    replay,
    projections,
    retention,
    backup,
    check,
    vacuum,
    audit,
    bench,
    dashboard,
    asyncapi,
    schema,
    completion,
):
    commands.add_command(command)
