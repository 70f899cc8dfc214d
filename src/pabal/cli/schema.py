"""``pabal schema export`` and ``pabal schema check``: keep an application's event schemas under review."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from pabal.cli.base import (
    REFUSED,
    WRONG_USAGE,
    console,
    errors_as_exit_codes,
    fail,
    import_module,
    json_option,
    print_json,
    verbatim,
)
from pabal.cli.command import Group
from pabal.cli.language import counted, t
from pabal.cli.translation import translate, translate_error
from pabal.domain.schema_check import SchemaFinding, check_schema
from pabal.domain.schema_export import export_schema

_MARKS = {"failure": "red", "note": "dim"}


@click.group(cls=Group)
def schema() -> None:
    """Export the schemas of an application's events, and check later that stored events stay readable."""


@schema.command()
@click.argument("modules", nargs=-1, required=True)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write to this file.")
def export(modules: tuple[str, ...], output: Path | None) -> None:
    """Write the JSON Schema of every event that importing MODULES registers.

    Commit the file, and run pabal schema check against it in CI.

    Example: pabal schema export shop.events -o events.schema.json
    """
    with errors_as_exit_codes():
        for module in modules:
            import_module(module)
        text = msgspec.json.format(msgspec.json.encode(export_schema())).decode() + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        try:
            output.write_text(text, "utf-8")
        except OSError as error:
            fail(translate_error(error), WRONG_USAGE)


@schema.command()
@click.argument("snapshot", type=click.Path(path_type=Path))
@click.argument("modules", nargs=-1, required=True)
@json_option
def check(snapshot: Path, modules: tuple[str, ...], as_json: bool) -> None:
    """Check that events stored under the schemas in SNAPSHOT can be read by the classes in MODULES.

    Exit status: 0 if they can, 1 if there are failures (each with advice), 2 if the check cannot run.

    Example: pabal schema check events.schema.json shop.events
    """
    with errors_as_exit_codes():
        for module in modules:
            import_module(module)
        try:
            findings = check_schema(msgspec.json.decode(snapshot.read_bytes()))
        except OSError as error:
            fail(f"{snapshot}: {translate(error.strerror or str(error))}", WRONG_USAGE)
        except msgspec.DecodeError as error:
            fail(f"{snapshot}: {translate_error(error)}", WRONG_USAGE)
    failures = sum(finding.level == "failure" for finding in findings)
    if as_json:
        print_json({"ok": not failures, "findings": findings})
    else:
        _show(findings, failures)
    sys.exit(REFUSED if failures else 0)


def _show(findings: list[SchemaFinding], failures: int) -> None:
    out = console()
    for finding in findings:
        place = finding.event_type + (f".{finding.field}" if finding.field else "")
        style = _MARKS[finding.level]
        level = t("failure") if finding.level == "failure" else t("note")
        out.print(f"[{style}]{level}[/] {verbatim(f'{place}: {translate(finding.problem)}')}")
        out.print(f"  → {verbatim(translate(finding.advice))}", style="dim")
    out.print(counted(failures, "failure") if failures else t("all stored events can be read"))
