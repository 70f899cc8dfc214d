"""``pabal dashboard FILE|URL``: the web dashboard of a log."""

from __future__ import annotations

import asyncio
import errno
import sys
from typing import Any

import click

from pabal.cli.base import UNAVAILABLE, WRONG_USAGE, import_classes
from pabal.cli.command import Command
from pabal.cli.language import t
from pabal.cli.translation import translate_error
from pabal.dashboard import serve
from pabal.errors import PabalError, StorageError
from pabal.factory import open_operations


@click.command(cls=Command)
@click.argument("target", metavar="FILE|URL")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", default=8420, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free port."
)
@click.option("--allow-actions", is_flag=True, help="Allow actions; without it the dashboard is read-only.")
@click.option("--token", envvar="PABAL_DASHBOARD_TOKEN", help="Login token, at least 16 characters.")
@click.option(
    "--allowed-host",
    multiple=True,
    metavar="NAME",
    help="A host name under which the dashboard is reached.",
)
@click.option(
    "--payloads", type=click.Choice(["none", "masked", "full"]), help="How much of each payload to show."
)
@click.option("--title", default="", help="Display name of the log.")
@click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="Module to import event classes from, for editing.",
)
def dashboard(
    target: str, host: str, port: int, allowed_host: tuple[str, ...], modules: tuple[str, ...], **options: Any
) -> None:
    """Serve the dashboard for the log in FILE until Ctrl-C.

    The application does not have to be running. Listening on any host other than this machine requires a
    token; if none is given, one is generated and included in the printed address.

    Exit status: 0 after Ctrl-C, 2 if an option is invalid, 3 if FILE is not a log or the port is in use.

    Example: pabal dashboard trading.db --allow-actions
    """
    try:
        import_classes(modules)
        operations = open_operations(target)
        try:
            serve(operations, host=host, port=port, allowed_hosts=allowed_host, **options)
        finally:
            asyncio.run(operations.aclose())
    except (PabalError, OSError) as error:
        text = translate_error(error)
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            text = t("port {port} is in use; choose another with --port", port=port)
        click.echo(f"pabal dashboard: {text}", err=True)
        sys.exit(UNAVAILABLE if isinstance(error, StorageError | OSError) else WRONG_USAGE)
