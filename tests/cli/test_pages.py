"""Lists longer than a page: the hint below one page leads to the next, without gaps or repetition."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path

import pytest

from pabal import DomainEvent, EventBusFactory, RetryPolicy, SqliteEventStorage
from pabal.domain.event import caused_by
from tests.cli.conftest import Pabal
from tests.operations.conftest import ShopOrder, ShopPacked


def store(file: Path, *events: DomainEvent) -> None:
    async def fill() -> None:
        async with SqliteEventStorage(file) as storage:
            await storage.store_events(events)

    asyncio.run(fill())


def collect_pages(pabal: Pabal, *command: object, hint: str) -> list[list[str]]:
    """Follow the hints to the end exactly as printed; return the first column of each page."""
    pages: list[list[str]] = []
    more: list[str] = []
    while True:
        page = pabal(*command, *more)
        assert page.exit_code == 0, page.output
        pages.append([line.split()[0] for line in page.stdout.splitlines()[1:]])
        if not page.stderr:
            return pages
        assert page.stderr.startswith(f"{hint}: ")
        more = shlex.split(page.stderr.removeprefix(f"{hint}: "))


def test_events_list_can_be_paged_in_both_directions(pabal: Pabal, file: Path) -> None:
    """A user who follows the hints would miss events, or go round in circles."""
    listing = ("events", "list", file, "--limit", 3)
    assert collect_pages(pabal, *listing, hint="older") == [["8", "7", "6"], ["5", "4", "3"], ["2", "1"]]
    assert collect_pages(pabal, *listing, "--after", 2, hint="newer") == [["5", "4", "3"], ["8", "7", "6"]]
    assert pabal("--lang", "ko", *listing).stderr == "이전 쪽: --before 6\n"
    assert pabal("--lang", "ko", *listing, "--after", 0).stderr == "다음 쪽: --after 3\n"


@pytest.mark.parametrize(("lang", "hint"), [("en", "next"), ("ko", "다음 쪽")])
def test_streams_list_can_be_paged_when_ids_contain_quotes(
    pabal: Pabal, tmp_path: Path, lang: str, hint: str
) -> None:
    """For a customer called O'Brien, the shell would wait for a closing quotation mark."""
    names = ["kim", "o'brien", 'o"hara', "park"]
    store(tmp_path / "names.db", *(ShopOrder(name, 1) for name in names))
    listing = ("--lang", lang, "streams", "list", tmp_path / "names.db", "--limit", 1)
    assert collect_pages(pabal, *listing, hint=hint) == [[name] for name in sorted(names)]


@pytest.mark.parametrize(("lang", "hint"), [("en", "next"), ("ko", "다음 쪽")])
def test_dead_letters_list_can_be_paged(pabal: Pabal, file: Path, lang: str, hint: str) -> None:
    """Dead letters beyond the first page would never be seen."""
    listing = ("--lang", lang, "dead-letters", "list", file, "--limit", 1)
    assert collect_pages(pabal, *listing, hint=hint) == [["1"], ["2"]]


def test_events_trace_truncates_a_long_chain_and_says_so(pabal: Pabal, tmp_path: Path) -> None:
    """Users would believe that the missing events never happened."""
    first = ShopOrder("o-1", 1)
    effects = [caused_by(ShopPacked(f"o-{n}"), first) for n in range(5000)]
    store(tmp_path / "long.db", first, *effects)
    drawn = pabal("events", "trace", tmp_path / "long.db", first.event_id)
    assert len(drawn.stdout.splitlines()) == 5000
    assert drawn.stderr == "there are more events than these 5000\n"
    result = pabal("--lang", "ko", "events", "trace", tmp_path / "long.db", first.event_id)
    assert result.stderr == "이 5000개 말고도 이벤트가 더 있습니다\n"


# -- details of one ---------------------------------------------------------------------------------------


def test_metadata_is_shown_and_masked_as_payloads_are(pabal: Pabal, tmp_path: Path) -> None:
    """The publisher of an event would be invisible, or a token in the metadata be shown."""
    order = ShopOrder("o-1", 1, metadata={"user": "kim", "api_token": "t-1"})
    store(tmp_path / "one.db", order)
    shown = pabal("events", "show", tmp_path / "one.db", order.event_id).stdout
    assert 'metadata {"user":"kim","api_token":"•••"}\n' in shown
    whole = pabal("--lang", "ko", "events", "show", tmp_path / "one.db", order.event_id, "--payloads", "full")
    assert '메타데이터 {"user":"kim","api_token":"t-1"}\n' in whole.stdout


def test_dead_letters_show_counts_the_events_queued_behind_it(pabal: Pabal, tmp_path: Path) -> None:
    """A user who discards it would not know how many events that releases."""

    async def fill() -> None:
        async with EventBusFactory.create_default_event_bus(tmp_path / "keys.db", durability="normal") as bus:

            async def refuse(event: ShopOrder) -> None:
                raise ValueError(event.quantity)

            bus.subscribe(
                ShopOrder,
                refuse,
                name="pack",
                retry=RetryPolicy(max_attempts=1),
                ordering=lambda event: event.order_id,
                on_exhausted="park_key",
            )
            await bus.publish_batch([ShopOrder("o-1", n) for n in range(3)])
            await bus.drain()

    asyncio.run(fill())
    show = ("dead-letters", "show", tmp_path / "keys.db", 1)
    assert "\n2 events of the same key wait behind it\n" in pabal(*show).stdout
    assert "\n같은 키의 이벤트 2개가 뒤에서 기다립니다\n" in pabal("--lang", "ko", *show).stdout
    (view,) = json.loads(pabal("subscriptions", "list", tmp_path / "keys.db", "--json").stdout)
    assert (view["parked"], view["queued"]) == (1, 2)
