"""``pabal events export --format cloudevents`` and ``pabal events import``, as run from a shell."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from pabal import EventBusFactory, SqliteEventStorage
from pabal.cli.app import commands
from pabal.domain.counting import counted
from pabal.integrations.cloudevents import to_cloudevent
from tests.integrations.test_cloudevents import Billed, billed


def _pabal(*arguments: object, lines: str | None = None) -> Result:
    words = ["--lang", "en", *(str(argument) for argument in arguments)]
    return CliRunner().invoke(commands, words, input=lines, prog_name="pabal")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    async def fill() -> None:
        async with EventBusFactory.create_default_event_bus(tmp_path / "bills.db") as bus:
            await bus.publish_batch([billed(), Billed("b-2", billed().amount)])

    asyncio.run(fill())
    return tmp_path / "bills.db"


def _export(file: Path) -> str:
    result = _pabal("events", "export", file, "--format", "cloudevents", "--source", "/bills")
    assert result.exit_code == 0, result.output
    return result.stdout


def _stored(file: Path) -> list[dict[str, object]]:
    async def read() -> list[dict[str, object]]:
        async with SqliteEventStorage(file) as storage:
            return [envelope.event.to_dict() async for envelope in storage.read()]

    return asyncio.run(read())


def test_exported_events_are_readable_by_the_official_sdk(file: Path) -> None:
    """Another system could not read the exported log."""
    lines = _export(file).splitlines()
    read = [
        from_http_event(HTTPMessage({"content-type": "application/cloudevents+json"}, line.encode()))
        for line in lines
    ]
    assert [event.get_subject() for event in read] == ["b-1", "b-2"]
    assert {event.get_source() for event in read} == {"/bills"}


def test_exporting_and_importing_a_log_gives_the_same_log_once(file: Path, tmp_path: Path) -> None:
    """A log could not be moved, or a repeated import would double it, or report that it did."""
    lines = _export(file)
    for summary in ("2 events stored", "0 events stored, 2 were there already"):
        result = _pabal("events", "import", tmp_path / "copy.db", lines=lines)
        assert (result.exit_code, result.output) == (0, f"{summary}\n")
    assert _stored(tmp_path / "copy.db") == _stored(file)


@pytest.mark.parametrize(
    "bad", ["{", "[]", "{}", '{"specversion": "1.0", "id": "x", "source": "/", "type": "?"}']
)
def test_an_invalid_line_is_reported_and_its_batch_is_not_stored(
    file: Path, tmp_path: Path, bad: str
) -> None:
    """Half a file would be in the log, and it would be unclear which half."""
    result = _pabal("events", "import", tmp_path / "copy.db", lines=_export(file) + "\n" + bad + "\n")
    assert result.exit_code == 1
    assert "line 4: " in result.output
    assert _stored(tmp_path / "copy.db") == []


@pytest.mark.parametrize("more", [0, 1])
def test_batches_of_500_before_the_batch_of_an_invalid_line_are_stored(tmp_path: Path, more: int) -> None:
    """It would be unclear where to continue, or the count of stored events be wrong."""
    lines = [
        json.dumps(to_cloudevent(Billed(f"b-{n}", billed().amount), "/bills")) for n in range(500 + more)
    ]
    result = _pabal("events", "import", tmp_path / "copy.db", lines="\n".join([*lines, "{"]))
    assert (result.exit_code, f"line {501 + more}: " in result.output) == (1, True)
    assert len(_stored(tmp_path / "copy.db")) == 500
    repeated = _pabal("events", "import", tmp_path / "copy.db", lines="\n".join(lines))
    stored = counted(more, "event")
    assert (repeated.exit_code, repeated.output) == (0, f"{stored} stored, 500 were there already\n")
    assert len(_stored(tmp_path / "copy.db")) == 500 + more


def test_an_export_can_omit_payloads(file: Path) -> None:
    """A log that is passed on to a supplier would reveal amounts."""
    result = _pabal("events", "export", file, "--format", "cloudevents", "--payloads", "none")
    assert result.exit_code == 0
    assert "1.50" not in result.stdout
    assert all(json.loads(line)["specversion"] == "1.0" for line in result.stdout.splitlines())


def test_import_reads_a_file_with_a_byte_order_mark(file: Path, tmp_path: Path) -> None:
    """Files saved by PowerShell or an editor on Windows would be rejected for their first line."""
    saved = tmp_path / "saved.jsonl"
    saved.write_text(_export(file), encoding="utf-8-sig")
    result = _pabal("events", "import", tmp_path / "copy.db", "--input", saved)
    assert (result.exit_code, result.output) == (0, "2 events stored\n")
    assert _stored(tmp_path / "copy.db") == _stored(file)
