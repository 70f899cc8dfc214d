"""``pabal dashboard FILE|URL``: the web dashboard of a log."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from pabal.cli.base import UNAVAILABLE, WRONG_USAGE, import_module
from pabal.cli.command import Command
from pabal.cli.speaking import told
from pabal.dashboard import serve
from pabal.errors import PabalError, StorageError
from pabal.factory import open_operations


@click.command(cls=Command)
@click.argument("target", metavar="FILE|URL")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8420, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option("--allow-actions", is_flag=True, help="Let the page change things; without, it only shows.")
@click.option(
    "--token", envvar="PABAL_DASHBOARD_TOKEN", help="The token to log in with, 16 characters or more."
)
@click.option("--allowed-host", multiple=True, metavar="NAME", help="A name that the dashboard goes by.")
@click.option("--payloads", type=click.Choice(["none", "masked", "full"]), help="What is shown of payloads.")
@click.option("--title", default="", help="What to call the log.")
@click.option("--import", "modules", multiple=True, metavar="MODULE", help="Import event classes, to edit.")
def dashboard(
    target: str, host: str, port: int, allowed_host: tuple[str, ...], modules: tuple[str, ...], **options: Any
) -> None:
    """Serve the dashboard of the log in FILE, until Ctrl-C.

    The application may run meanwhile, or not. For any host but this machine's own a token is made unless one
    is given; it is part of the address that is printed.

    Exit status: 0 after Ctrl-C, 2 if an option makes no sense, 3 if FILE is no log or the port is taken.

    Example: pabal dashboard trading.db --allow-actions
    """
    try:
        for module in modules:
            import_module(module)
        operations = open_operations(target)
        try:
            serve(operations, host=host, port=port, allowed_hosts=allowed_host, **options)
        finally:
            asyncio.run(operations.aclose())
    except (PabalError, OSError) as error:
        click.echo(f"pabal dashboard: {told(error)}", err=True)
        sys.exit(UNAVAILABLE if isinstance(error, StorageError | OSError) else WRONG_USAGE)
