"""Commands and the dashboard without their server: one clear error, and no password in it."""

from __future__ import annotations

import httpx
import pytest
from click.testing import CliRunner

from pabal.brokers.redis.address import masked
from pabal.brokers.redis.inspector import GroupInspector
from pabal.cli.app import commands
from pabal.dashboard import create_dashboard
from pabal.factory import open_operations


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
