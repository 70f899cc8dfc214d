"""``pabal dashboard FILE|URL``: the web dashboard of a log."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from pabal.cli.base import UNAVAILABLE, WRONG_USAGE, import_module
from pabal.cli.command import Command
from pabal.cli.translation import translate_error
from pabal.dashboard import serve
from pabal.errors import PabalError, StorageError
from pabal.factory import open_operations


@click.command(cls=Command)
@click.argument("target", metavar="FILE|URL")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8420, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option("--allow-actions", is_flag=True, help="Allow actions; without it the dashboard is read-only.")
@click.option(
    "--token", envvar="PABAL_DASHBOARD_TOKEN", help="The token to log in with, 16 characters or more."
)
@click.option(
    "--allowed-host", multiple=True, metavar="NAME", help="A host name that the dashboard is reached by."
)
@click.option(
    "--payloads", type=click.Choice(["none", "masked", "full"]), help="How much of payloads to show."
)
@click.option("--title", default="", help="The name to show for the log.")
@click.option("--import", "modules", multiple=True, metavar="MODULE", help="Import event classes, to edit.")
def dashboard(
    target: str, host: str, port: int, allowed_host: tuple[str, ...], modules: tuple[str, ...], **options: Any
) -> None:
    """Serve the dashboard of the log in FILE, until Ctrl-C.

    The application may be running or not. To listen on a host other than this machine's own, a token
    is needed; if none is given, one is generated, and it is part of the address that is printed.

    Exit status: 0 after Ctrl-C, 2 if an option is invalid, 3 if FILE is not a log or the port is in use.

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
        click.echo(f"pabal dashboard: {translate_error(error)}", err=True)
        sys.exit(UNAVAILABLE if isinstance(error, StorageError | OSError) else WRONG_USAGE)
