"""``pabal asyncapi MODULE:BUS``: the AsyncAPI document of an application."""

from __future__ import annotations

import sys

import click
import msgspec

from pabal.bus.base import BaseEventBus
from pabal.cli.base import errors_as_exit_codes, import_module
from pabal.cli.command import Command
from pabal.errors import UsageError
from pabal.integrations.asyncapi import asyncapi_document


@click.command(cls=Command)
@click.argument("application", metavar="MODULE[:BUS]")
@click.option("--title", default=None, help="Title of the document; the module's name by default.")
@click.option("--version", default="1.0.0", show_default=True, help="Version of the application.")
@click.option("--types", default="", help="Only event types that start with this.")
def asyncapi(application: str, title: str | None, version: str, types: str) -> None:
    """Print the AsyncAPI 3.0 document of an application's events and subscriptions.

    MODULE is imported from the current directory or the environment, which registers its events; BUS names
    a bus in it, whose subscriptions are included. Exit status: 2 if either is missing.

    Example: pabal asyncapi shop.main:bus --types shop. > asyncapi.json
    """
    module_name, _, bus_name = application.partition(":")
    if not module_name:
        raise click.UsageError("name a module: MODULE or MODULE:BUS")
    with errors_as_exit_codes():
        import_module(module_name)
        bus = getattr(sys.modules[module_name], bus_name, None) if bus_name else None
        if bus_name and not isinstance(bus, BaseEventBus):
            raise UsageError(f"{module_name!r} has no bus named {bus_name!r}; write MODULE:BUS")
        document = asyncapi_document(
            bus.subscriptions.attached() if bus is not None else (),
            title=title or module_name,
            version=version,
            event_types=types,
        )
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
