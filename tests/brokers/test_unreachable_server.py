"""Commands and the dashboard without their server: one clear error, and no password in it."""

from __future__ import annotations

import asyncio
import pickle

import httpx
import pytest
from click.testing import CliRunner

from pabal.brokers.redis import RedisEventBus
from pabal.brokers.redis.address import masked
from pabal.brokers.redis.inspector import GroupInspector
from pabal.brokers.redis.reports import ConnectionLost
from pabal.cli.app import commands
from pabal.dashboard import create_dashboard
from pabal.errors import BrokerUnavailableError
from pabal.factory import open_operations
from pabal.ports.telemetry import Report


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make inspectors wait only a moment for a server, not for seconds."""
    defaults = {**(GroupInspector.__init__.__kwdefaults__ or {}), "patience": 0.05}
    monkeypatch.setattr(GroupInspector.__init__, "__kwdefaults__", defaults)


SECRETS = [
    "redis://kim:hunter2@127.0.0.1:1/0",
    "redis://kim:hun/hunter2@127.0.0.1:1/0",
    "redis://kim:hunter2#x@127.0.0.1:1/0",
    "redis://kim:hunter2?x@127.0.0.1:1/0",
    "postgres://kim:hunter2@127.0.0.1:1/0",
]


@pytest.mark.parametrize("url", SECRETS)
def test_no_password_of_a_url_is_printed(short_patience: None, url: str) -> None:
    """A password must not appear in terminals and logs, even if it was not escaped correctly."""
    done = CliRunner().invoke(commands, ["status", url])
    assert done.exit_code in (2, 3)
    assert "hunter2" not in done.output + masked(url)


async def test_the_dashboard_reports_an_unreachable_server(short_patience: None) -> None:
    """The page must not be blank, or show an empty group as if it were healthy."""
    async with open_operations("redis://kim:hunter2@127.0.0.1:1/0?group=g") as operations:
        app = create_dashboard(operations, allow_actions=True)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            own = {"x-csrf-token": (await http.get("/api/session")).json()["csrf"]}
            answers = [await http.get(f"/api/{path}") for path in ("report", "events", "dead-letters")]
            answers.append(await http.post("/api/subscriptions/pause", json={"name": "scale"}, headers=own))
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage")
        assert "no connection within" in answer.json()["error"]["message"]
        assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    "command",
    [
        ("status", "URL"),
        ("events", "list", "URL"),
        ("subscriptions", "pause", "URL", "scale"),
        ("dead-letters", "discard", "URL", "--all", "--yes"),
        ("audit", "URL"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_commands_report_an_unreachable_server_in_one_line(
    short_patience: None, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """An operator must not get a traceback, and a script not take the error for an empty log."""
    monkeypatch.setenv("PABAL_LANG", "en")
    url = "redis://127.0.0.1:1/0?group=g"
    done = CliRunner().invoke(commands, [url if word == "URL" else word for word in command])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert "no connection within" in done.stderr
    assert done.stderr.endswith("; nothing was sent. Check the server and the URL, then try again\n")


async def test_a_start_without_its_server_reports_it_at_once_and_once(namespace: str) -> None:
    """For its patience of thirty seconds the application would seem to hang, without a word."""
    attempts = 0
    third = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.close()
        if attempts == 3:
            third.set()

    reports: list[Report] = []
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        bus = RedisEventBus(f"redis://127.0.0.1:{port}/0", group="g", namespace=namespace, patience=60)
        bus.listen(reports.append)
        starting = asyncio.create_task(bus.start())
        await asyncio.wait_for(third.wait(), 30)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    [report] = reports
    assert isinstance(report, ConnectionLost)
    assert isinstance(report.error, BrokerUnavailableError)
    assert not report.error.was_connected


def test_an_error_keeps_what_it_says_about_sending_when_it_is_pickled() -> None:
    """In another process it would say that the call may have taken effect."""
    error = BrokerUnavailableError(path="redis://a", reason="gone", was_connected=False)
    assert str(error) == "redis://a: gone; nothing was sent. Check the server and the URL, then try again"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
