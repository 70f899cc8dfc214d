"""``pabal doctor FILE``: check whether a log is healthy, and advise what to do if not."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import msgspec
from rich.cells import cell_len
from rich.console import Console

from pabal.cli.base import print_json, progress, readable, verbatim
from pabal.cli.command import Command
from pabal.cli.language import t
from pabal.cli.translation import translate, translate_error
from pabal.errors import PabalError
from pabal.factory import examine_redis, open_log
from pabal.operations.doctor import Diagnosis, examine

_COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}
_EXIT = {"ok": 0, "warning": 1, "problem": 2}


@click.command(cls=Command)
@click.argument("target", metavar="FILE|URL")
@click.option("--namespace", default="pabal", help="Namespace of the log on the server.")
@click.option("--json", "as_json", is_flag=True, help="Print the diagnosis as JSON.")
def doctor(target: str, namespace: str, as_json: bool) -> None:
    """Diagnose a log: the file (SQLite, write-ahead log, subscriptions, every checksum), or the server.

    For a server (redis://host:6379/0), it reports what could be lost under its settings, and the state of
    its groups. Nothing is changed. Exit status: 0 if all is well, 1 if there are warnings, 2 if there are
    problems or there is no log.

    Example: pabal doctor trading.db
    """
    on_server = "://" in target and not target.startswith("sqlite:")
    try:
        examination = examine_redis(target, namespace) if on_server else _examine_file(target)
        diagnosis = asyncio.run(examination)
    except PabalError as error:
        click.echo(readable(f"{t('problem')}  {translate_error(error)}"), err=True)
        sys.exit(_EXIT["problem"])
    if as_json:
        findings = msgspec.to_builtins(diagnosis.findings)
        report = {"path": diagnosis.path, "level": diagnosis.level, "findings": findings}
        print_json(report)
    else:
        _print_diagnosis(diagnosis)
    sys.exit(_EXIT[diagnosis.level])


async def _examine_file(target: str) -> Diagnosis:
    async with open_log(target) as storage:
        with progress(t("checking"), 100) as percent:
            return await examine(
                Path(storage.path),
                storage,
                progress=lambda done, total: percent(100 * done // max(1, total)),
            )


def _print_diagnosis(diagnosis: Diagnosis) -> None:
    console = Console(highlight=False, emoji=False)
    console.print(verbatim(diagnosis.path), soft_wrap=True)
    for finding in diagnosis.findings:
        color, level = _COLORS[finding.level], t(finding.level)
        console.print(
            f"[{color}]{level}[/]{_padding_after(level)} {verbatim(translate(finding.text))}", soft_wrap=True
        )
        if finding.advice:
            console.print(f"         → {verbatim(translate(finding.advice))}", style="dim", soft_wrap=True)


def _padding_after(level: str) -> str:
    return " " * (7 - cell_len(level))
