"""TLS certificates, users and passwords: which connections are accepted, and which secrets stay hidden."""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from pabal import EventBusFactory
from pabal.brokers.redis import RedisEventBus
from pabal.brokers.redis.link import Argument, Link
from pabal.delivery.retry import RetryPolicy
from pabal.errors import BrokerError, BrokerUnavailableError, StorageError
from pabal.factory import open_operations
from pabal.ports.operations import DeadLetterFilter
from tests.brokers.certificates import Certificate, make_certificate
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.proxy import Proxy
from tests.brokers.server import Server
from tests.brokers.support import fail_on_odd, run_cli, stop_heartbeats

ROOT = Path(__file__).resolve().parents[2]
USER, PASSWORD = "risk-user", "correct-horse"
WRONG = "wrong-staple"
FOR_EVER = 3600.0
"""Patience in seconds, longer than any test runs: a bus that waits after a rejection makes its test fail."""


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"), "IP:127.0.0.1")


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Capture the log messages of every library, at every level."""
    with caplog.at_level(logging.DEBUG):
        yield caplog


def acl(page: str = "redis.md") -> list[str]:
    """Return the ``ACL SETUSER`` command given on a page of the documentation, as a list of words."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    [block] = re.findall(r"```text\n(ACL SETUSER risk .+?)```", text, re.DOTALL)
    return shlex.split(block)


async def run_as_admin(server: Server, *command: Argument) -> Any:
    link = Link(server.url, loads_scripts=False)
    await link.open()
    try:
        return await link.call(*command)
    finally:
        await link.close()


async def command_for(server: Server) -> list[str]:
    """Return the documentation's command with the test's password, without words an old server lacks."""
    command = [PASSWORD.join(word.split("PASSWORD")) for word in acl()]
    command[2] = USER
    info = (await run_as_admin(server, "INFO", "server")).decode()
    (version,) = re.findall(r"^redis_version:(\d+)\.(\d+)", info, re.MULTILINE)
    if tuple(map(int, version)) < (7, 2):
        command.remove("+client|setinfo")
    return command


@asynccontextmanager
async def documented_user(server: Server) -> AsyncIterator[str]:
    """Create the user of the documentation and yield its URL; fail if the server denied it anything."""
    await run_as_admin(server, *await command_for(server))
    yield url_for(server.port)
    denied = [dict(zip(one[::2], one[1::2], strict=True)) for one in await run_as_admin(server, "ACL", "LOG")]
    # Redis 6.2 records that it does not know the ``client setinfo`` that the client tries on each connection.
    assert [one for one in denied if one[b"object"] != b"client"] == []


def url_for(port: int, password: str = PASSWORD, scheme: str = "redis", **settings: object) -> str:
    query = "&".join(f"{name}={value}" for name, value in {"group": "risk", **settings}.items())
    return f"{scheme}://{USER}:{password}@127.0.0.1:{port}/0?{query}"


def bus_at(url: str, handler: Any = None, **options: Any) -> RedisEventBus:
    options = {"partitions": 4, "lease": 1.0, "patience": 30.0, **options}
    bus = cast(RedisEventBus, EventBusFactory.from_url(url, **options))
    if handler is not None:
        bus.subscribe(Moved, handler, name="sub", retry=RetryPolicy(max_attempts=2, base_delay=0.01))
    return bus


def assert_hidden(*shown: object) -> None:
    """Fail if the ``str`` or ``repr`` of any argument contains a user name or a password."""
    for one in shown:
        for secret in (USER, PASSWORD, WRONG):
            assert secret not in f"{one} {one!r}", one


# -- certificates -------------------------------------------------------------------------------------


async def test_a_group_and_its_operations_work_over_tls(
    shared_server: Server, namespace: str, certificate: Certificate
) -> None:
    """A bus, or one of its connections, would speak without TLS to a server that requires TLS.

    The servers used by the tests are built without TLS (Valkey's says "Failed finding TLS support"), so a
    proxy in this process terminates TLS in front of a real server. It rejects clients without TLS.
    """
    recorder = Recorder()
    async with Proxy(shared_server.port, tls=certificate.server_context()) as proxy:
        settings = {"namespace": namespace, "ssl_ca_certs": certificate.file}
        url = f"rediss://127.0.0.1:{proxy.port}/0?group=risk&" + "&".join(
            f"{name}={value}" for name, value in settings.items()
        )
        async with bus_at(url, recorder) as bus:
            await bus.publish_batch(moves(8, 40))
            await bus.drain(timeout=30)
            await _take_over_from(bus_at(url, recorder), bus)
            await bus.publish_batch(moves(8, 8))
            await until(lambda: len(recorder.numbers) >= 48)
            async with open_operations(url) as operations:
                assert (await operations.overview()).totals.events == 48
            assert bus.address == f"rediss://127.0.0.1:{proxy.port}/0"
        plain = Link(proxy.url, patience=0.3)
        with pytest.raises(BrokerUnavailableError):
            await plain.open()


async def _take_over_from(dying: RedisEventBus, bus: RedisEventBus) -> None:
    """Let ``dying`` join and stop sending heartbeats, so that ``bus`` takes its partitions over.

    A takeover matters here because a bus notes attempts on a connection of its own.
    """
    await dying.start()
    await until(lambda: len(bus.partitions) == len(dying.partitions) == 2)
    stop_heartbeats(dying)
    await until(lambda: len(bus.partitions) == 4)
    await dying.stop(timeout=1.0)


@pytest.mark.parametrize("fault", ["unknown authority", "another name"])
async def test_an_invalid_certificate_is_rejected_at_once(
    shared_server: Server,
    namespace: str,
    tmp_path: Path,
    certificate: Certificate,
    fault: str,
    everything_logged: pytest.LogCaptureFixture,
) -> None:
    """The password would be sent to an impostor, or the application would wait without giving a reason.

    A proxy terminates TLS in front of a real server, as above.
    """
    shown = make_certificate(tmp_path, "IP:127.0.0.1" if fault == "unknown authority" else "DNS:other.host")
    trusted = certificate if fault == "unknown authority" else shown
    async with Proxy(shared_server.port, tls=shown.server_context()) as proxy:
        url = url_for(proxy.port, scheme="rediss", namespace=namespace, ssl_ca_certs=trusted.file)
        bus = bus_at(url, Recorder(), patience=FOR_EVER)
        with pytest.raises(BrokerUnavailableError, match=r"rediss://127\.0\.0\.1.*certificate") as caught:
            await bus.start()
        async with open_operations(url) as operations:
            with pytest.raises(BrokerUnavailableError, match="certificate") as inspection:
                await operations.overview()
    assert_hidden(caught.value, inspection.value, bus, bus.health(), everything_logged.text)


# -- users and passwords ------------------------------------------------------------------------------


async def test_the_documented_user_has_all_permissions_a_group_needs(
    own_server: Server, everything_logged: pytest.LogCaptureFixture
) -> None:
    """With the documented permissions, a takeover or a retry would be denied halfway."""
    recorder = Recorder()
    reports: list[Any] = []

    async def handle(event: Moved) -> None:
        fail_on_odd(event)
        await recorder.handle(event)

    async with documented_user(own_server) as url:
        bus = bus_at(url, handle)
        bus.listen(reports.append)
        async with bus:
            await bus.publish_batch(moves(4, 20))
            await bus.publish(Moved("later", 100), delay=0.01)
            await until(lambda: 100 in recorder.numbers)
            await bus.drain(timeout=30)
            first, second, *_ = await bus.dead_letters.list()
            await bus.dead_letters.retry(first.id)
            await bus.dead_letters.discard(second.id)
            await _take_over_from(bus_at(url, handle), bus)
            await bus.publish_batch(moves(4, 20))
            await until(lambda: len(recorder.numbers) >= 21)
            figures, health = bus.get_statistics(), bus.health()
        async with open_operations(url) as operations:
            overview = await operations.overview()
            letters = await operations.dead_letters()
            await operations.retry_matching(DeadLetterFilter(error_type="ValueError"))
            entries = await operations.audit()
        shown = [bus, figures, health, overview, letters, entries, operations.target, *reports]
        assert_hidden(*shown, everything_logged.text, bus._log, bus._log.link, bus.address)
        assert overview.totals.events == 41


@pytest.mark.parametrize("page", ["redis.md", "redis.ko.md"])
def test_the_documented_permissions_match_the_commands_pabal_uses(page: str) -> None:
    """Servers would deny a command newly used in the code, or still allow one that is no longer used."""
    allowed = {word[1:] for word in acl(page) if word.startswith("+")}
    folder = ROOT / "src" / "pabal" / "brokers" / "redis"
    code = "".join(one.read_text("utf-8") for one in folder.glob("*.py") if one.name != "doctor.py")
    scripts = "".join(one.read_text("utf-8") for one in folder.glob("lua/*.lua"))
    called = re.findall(r'(?:call|_call_now|pack\(|send_command)\(\s*"([A-Z]+)"(?:, "([A-Z]+)")?', code)
    used = {
        f"{name}|{word}".lower() if name in ("CLIENT", "SCRIPT") else name.lower() for name, word in called
    }
    used |= {name.lower() for name in re.findall(r"redis\.call\('([A-Z]+)'", scripts)}
    assert allowed == used | {"client|setname", "client|setinfo"}  # the client names itself


@pytest.mark.parametrize("group", ["payroll", "risky"])
async def test_a_user_cannot_read_another_group(
    own_server: Server, group: str, everything_logged: pytest.LogCaptureFixture
) -> None:
    """With one application's password, one could read another application's data."""
    async with bus_at(f"{own_server.url}?group={group}", fail_on_odd) as other:
        await other.publish_batch(moves(4, 8))
        await other.drain(timeout=30)
    await run_as_admin(own_server, *await command_for(own_server))
    url = url_for(own_server.port).replace("group=risk", f"group={group}")
    async with open_operations(url) as operations:
        with pytest.raises(BrokerError, match=r"(?i)no permissions") as inspection:
            await operations.dead_letters()
    bus = bus_at(url, Recorder())
    with pytest.raises(StorageError, match=r"(?i)no permissions") as caught:
        await bus.start()
    assert not bus.is_running
    assert_hidden(inspection.value, caught.value, bus, everything_logged.text)


@pytest.mark.parametrize("page", ["redis.md", "redis.ko.md"])
async def test_the_page_warns_of_group_names_that_another_groups_pattern_matches(
    own_server: Server, page: str
) -> None:
    """A reader would think two applications isolated because their users differ, though they are not."""
    async with bus_at(f"{own_server.url}?group=risk:eu", fail_on_odd) as other:
        await other.publish_batch(moves(4, 8))
        await other.drain(timeout=30)
    await run_as_admin(own_server, *await command_for(own_server))
    url = url_for(own_server.port).replace("group=risk", "group=risk:eu")
    async with open_operations(url) as operations:
        assert len((await operations.dead_letters()).dead_letters) == 4
    assert "`risk:`" in (ROOT / "docs" / page).read_text("utf-8")


@pytest.mark.parametrize("fault", ["wrong password", "no password", "no permission"])
async def test_a_wrong_password_is_rejected_at_once_and_not_shown(
    own_server: Server, fault: str, everything_logged: pytest.LogCaptureFixture
) -> None:
    """An application would wait half a minute without giving a reason, or would log the password."""
    url = url_for(own_server.port, WRONG)
    if fault == "no password":
        await run_as_admin(own_server, "CONFIG", "SET", "requirepass", PASSWORD)
        url = f"{own_server.url}?group=risk"
    if fault == "no permission":
        await run_as_admin(own_server, "ACL", "SETUSER", USER, "on", f">{WRONG}", "~*", "+@all", "-info")
    bus = bus_at(url, Recorder(), patience=FOR_EVER)
    why = {
        "wrong password": "invalid",
        "no password": "required",
        "no permission": "the user has no permissions",
    }
    with pytest.raises(
        BrokerUnavailableError, match=rf"redis://127\.0\.0\.1:\d+/0: .*{why[fault]}"
    ) as caught:
        await bus.start()
    async with open_operations(url) as operations:
        with pytest.raises(StorageError) as inspection:
            await operations.overview()
    assert_hidden(caught.value, inspection.value, bus, bus.health(), everything_logged.text)


@pytest.mark.parametrize("fault", ["", "wrong password", "no permission"])
@pytest.mark.parametrize("lang", ["en", "ko"])
async def test_the_doctor_shows_neither_the_user_nor_the_password_of_its_url(
    own_server: Server, fault: str, lang: str, everything_logged: pytest.LogCaptureFixture
) -> None:
    """The output of the doctor is pasted into tickets and chats, with the password in it."""
    async with bus_at(f"{own_server.url}?group=risk", fail_on_odd) as bus:
        await bus.publish_batch(moves(4, 8))
        await bus.drain(timeout=30)
    permissions = "-info" if fault == "no permission" else "+info"
    await run_as_admin(own_server, "ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "+@all", permissions)
    url = url_for(own_server.port, WRONG if fault == "wrong password" else PASSWORD)
    for options in ([], ["--json"]):
        code, output = await asyncio.to_thread(run_cli, "doctor", url, *options, lang=lang)
        assert f"redis://127.0.0.1:{own_server.port}/0" in output
        assert (code == 2) == bool(fault), output
        assert_hidden(output, everything_logged.text)


async def test_a_changed_password_is_reported_until_it_works_again(
    own_server: Server, everything_logged: pytest.LogCaptureFixture
) -> None:
    """If the server's password changes first, a bus would stop for good, or sit idle without a report."""
    recorder = Recorder()
    reports: list[Any] = []
    async with documented_user(own_server) as url:
        bus = bus_at(url, recorder, patience=FOR_EVER)
        bus.listen(reports.append)
        async with bus:
            await run_as_admin(own_server, "ACL", "SETUSER", USER, "resetpass", f">{WRONG}")
            await run_as_admin(own_server, "CLIENT", "KILL", "USER", USER)
            await until(lambda: "username-password" in str(bus.health()))
            health = bus.health()
            assert health.status == "failing"
            assert_hidden(health, bus, bus.get_statistics(), *reports)
            await run_as_admin(own_server, "ACL", "SETUSER", USER, f">{PASSWORD}")
            await bus.publish_batch(moves(4, 8))
            await until(lambda: len(recorder.numbers) == 8)
        assert_hidden(everything_logged.text)
        await run_as_admin(own_server, "ACL", "LOG", "RESET")  # it lists the rejected logins
