"""The Lua scripts by themselves: what they refuse, and what they leave alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pabal.brokers.redis.cursors import as_pairs
from pabal.brokers.redis.link import Argument, Link
from pabal.brokers.redis.scripts import script
from tests.brokers.server import Server

BASE = 2**32


class Keys:
    """The keys of a test, written with one letter each, and the scripts that are run on them."""

    def __init__(self, link: Link, namespace: str) -> None:
        self.link = link
        self._prefix = f"{{{namespace}}}:"

    async def run(self, name: str, keys: str, *args: Argument) -> Any:
        """Run a script; each letter of ``keys`` is one key."""
        return await self.link.run(script(name), tuple(self._prefix + key for key in keys), *args)

    async def put(self, key: str, **facts: Argument) -> None:
        """Set fields of a hash; in their names, ``0`` stands for NUL."""
        for name, value in facts.items():
            await self.link.call("HSET", self._prefix + key, name.replace("0", "\0"), value)

    async def hash(self, key: str) -> dict[str, str]:
        """Return a hash, with ``0`` for NUL in the names of its fields."""
        found = as_pairs(await self.link.call("HGETALL", self._prefix + key))
        return {name.decode().replace("\0", "0"): value.decode() for name, value in found.items()}

    async def scores(self, key: str) -> dict[str, int]:
        """Return a sorted set, with ``0`` for NUL in its members."""
        found = as_pairs(await self.link.call("ZRANGE", self._prefix + key, 0, -1, "WITHSCORES"))
        return {name.decode().replace("\0", "0"): int(score) for name, score in found.items()}

    async def mark(self, key: str, member: str, score: int) -> None:
        """Add to a sorted set; in the member, ``0`` stands for NUL."""
        await self.link.call("ZADD", self._prefix + key, score, member.replace("0", "\0"))


@pytest.fixture
async def keys(shared_server: Server, namespace: str) -> AsyncIterator[Keys]:
    link = Link(shared_server.url)
    await link.open()
    yield Keys(link, namespace)
    await link.close()


# -- partitions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "members"), [("third", {"new": 1}), ("", {"new": 1}), ("dead", {})], ids=repr
)
async def test_a_partition_is_taken_only_from_the_expected_owner_by_a_member(
    keys: Keys, owner: str, members: dict[str, Argument]
) -> None:
    """Promise 44. Two processes would handle the partition that both found without a living owner."""
    await keys.put("l", owner=owner, epoch=4)
    await keys.put("e", sub0held="1")
    await keys.put("m", **members)
    assert await keys.run("take", "lemr", "new", "dead", "sub\0" + "7", "retry") == 0
    assert await keys.hash("l") == {"owner": owner, "epoch": "4"}
    assert (await keys.hash("e"), await keys.hash("r")) == ({"sub0held": "1"}, {})


async def test_taking_a_partition_ends_what_the_dead_owner_held(keys: Keys) -> None:
    """A subscription that the new owner lacks would count as held, and could not be forgotten."""
    await keys.put("l", owner="dead", epoch=4)
    await keys.put("e", sub=3, sub0held="1", other0held="it halted")
    await keys.put("m", new=1)
    assert await keys.run("take", "lemr", "new", "dead") == 5
    assert await keys.hash("e") == {"sub": "3"}


async def test_only_the_owner_releases_and_only_in_its_epoch(keys: Keys) -> None:
    """Promise 44. A process that lost a partition would free it under the hands of its new owner."""
    await keys.put("l", owner="new", epoch=4)
    epochs = {"sub": "3", "sub0held": "1", "other": "8", "other0held": "it halted"}
    await keys.put("e", **epochs)
    assert await keys.run("release", "le", "old", "sub", 3, "all") == 0
    assert await keys.run("release", "le", "new", "sub", 2, "one") == 1
    assert (await keys.hash("l"), await keys.hash("e")) == ({"owner": "new", "epoch": "4"}, epochs)
    assert await keys.run("release", "le", "new", "", 0, "all") == 1
    assert await keys.hash("l") == {"owner": "", "epoch": "4"}
    assert await keys.hash("e") == {"sub": "4", "other": "9"}  # late saves of the old epochs are refused


async def test_opening_takes_a_free_partition_and_refuses_one_of_another(keys: Keys) -> None:
    """Promise 44. Two processes would hold one subscription in the same partition."""
    await keys.put("c", sub="new:7")
    await keys.put("k", sub0moves=2)
    opened = await keys.run("open", "lecrqbkmp", "mine", "sub")
    assert (opened[0], opened[1], opened[5]) == (1, b"new:7", 2)
    assert await keys.hash("l") == {"owner": "mine", "epoch": "1"}
    before = await keys.hash("e")
    assert await keys.run("open", "lecrqbkmp", "another", "sub") is None
    assert await keys.run("open", "lecrqbkmp", "mine", "unknown") == [0]
    assert await keys.hash("e") == before == {"sub": "1", "sub0held": "1"}


async def test_a_halt_is_recorded_only_for_the_epoch_that_holds_the_subscription(keys: Keys) -> None:
    """A subscription that another process runs would be shown as halted."""
    for epochs in ({"sub": "4", "sub0held": "1"}, {"sub": "3"}):
        await keys.link.call("DEL", keys._prefix + "e")
        await keys.put("e", **epochs)
        assert await keys.run("halt", "em", "sub", 3, "it halted") == 0
        assert await keys.hash("e") == epochs


async def test_a_look_shows_the_log_the_next_due_event_and_what_is_called(keys: Keys) -> None:
    """A group that only reads would not notice a log made anew, or release a scheduled event too late."""
    await keys.put("t", token="1:mine")
    await keys.put("l", owner="mine", epoch=4)
    await keys.mark("s", "later", 70)
    await keys.mark("s", "sooner", 50)
    await keys.mark("d", "7", 7)
    await keys.put("c", **{"0version": "3"})
    await keys.link.call("SADD", keys._prefix + "b", "7")
    looks = [await keys.run("survey", "mtsdcglafb", "mine", token, "g") for token in ("1:mine", "0:old")]
    assert [look[0] for look in looks] == [1, 0]
    assert looks[1][1:] == [b"50", 1, [b"mine", b"2"], [b"mine", b"4", 0, b"", b"", 1], b"3"]
    assert await keys.link.call("SMEMBERS", keys._prefix + "g") == [b"g"]


# -- requests ---------------------------------------------------------------------------------------------


async def test_pausing_touches_no_halt_and_resuming_ends_only_halts(keys: Keys) -> None:
    """A halt would be forgotten by a pause, or a subscription that nobody holds would count as held."""
    await keys.put("n", sub=1)
    await keys.put("e", sub0held="it halted")
    assert await keys.run("pause", "ncef", "sub", 1) == 1
    assert await keys.hash("e") == {"sub0held": "it halted"}
    assert await keys.run("pause", "ncef", "sub", 0) == 1
    assert (await keys.hash("e"), await keys.hash("f")) == ({"sub0held": "1"}, {})
    assert await keys.run("pause", "ncef", "sub", 0) == 0
    assert (await keys.hash("c"))["0version"] == "2"


async def test_cancelling_leaves_the_replays_of_other_subscriptions(keys: Keys) -> None:
    """Their replays would end in the middle, or their events stay on the server for ever."""
    await keys.put("n", sub=1, subs=2)
    await keys.put("r", sub01="1:9:0", subs02="1:9:0")
    await keys.mark("h", "g0sub0replay01", 1)
    await keys.mark("h", "g0subs0replay02", 1)
    assert await keys.run("cancel", "ncrh", "g", "sub") == 1
    assert await keys.hash("r") == {"subs02": "1:9:0"}
    assert await keys.scores("h") == {"g0subs0replay02": 1}
    assert await keys.hash("c") == {"0version": "1"}


async def test_a_replay_holds_its_events_from_the_first_one_on(keys: Keys) -> None:
    """Promise 33. Events that are to be delivered again would be trimmed before."""
    await keys.put("n", sub=1)
    assert await keys.run("replay", "ncrh", "g", "sub", 3, 9) == 1
    assert await keys.scores("h") == {"g0sub0replay01": 3}
    assert await keys.hash("r") == {"sub01": "3:9:2"}


async def test_a_dead_letter_that_is_gone_is_not_retried(keys: Keys) -> None:
    """Promise 27. A discarded dead letter would leave a retry and a call that nobody answers."""
    assert await keys.run("retry", "slrc", 7, "", "sub\0" + "3", "retry") == -1
    assert (await keys.hash("s"), await keys.hash("r")) == ({}, {})
    assert not await keys.link.call("EXISTS", keys._prefix + "c")


@pytest.mark.parametrize(("version", "answer"), [(3, 1), (4, 0), (5, 0)])
async def test_requests_are_recalled_only_if_the_server_has_forgotten_them(
    keys: Keys, version: int, answer: int
) -> None:
    """Promise 43. A request made since would be undone, or no other process would notice the old ones."""
    facts: dict[str, Argument] = {"0version": version, "sub": "0"}
    await keys.put("c", **facts)
    assert await keys.run("recall", "c", 4, "sub", "1", "other", "1") == answer
    if answer:
        assert await keys.hash("c") == {"0version": "5", "sub": "0", "other": "1"}
    else:
        assert await keys.hash("c") == {"0version": f"{version}", "sub": "0"}


async def test_a_new_subscription_gets_a_number_above_all_others(keys: Keys) -> None:
    """After a restore, two subscriptions could have one number, and each other's notes of attempts."""
    await keys.put("n", first=1, second=5)
    assert await keys.run("declare", "nlrsidcmpo", "g", "third", 0, 0) == 6


# -- trimming ---------------------------------------------------------------------------------------------


async def test_nothing_is_trimmed_while_no_group_subscribes(keys: Keys) -> None:
    """Promise 42. The first group that subscribes from the beginning would find an empty log."""
    await keys.put("p", head=5)
    await keys.link.call("XADD", keys._prefix + "x", "5-5", "e", "")
    assert await keys.run("trim", "xpmh", 0) == -1
    assert await keys.link.call("XLEN", keys._prefix + "x") == 1
    await keys.mark("m", "g0sub", 5)
    assert await keys.run("trim", "xpmh", 0) == 5
    assert await keys.link.call("XLEN", keys._prefix + "x") == 0


async def test_jumps_without_a_position_in_between_are_merged_in_any_order(keys: Keys) -> None:
    """Each restart of a server without new events would leave a field in every partition for ever."""
    jumps = {3 * BASE: 2 * BASE, 2 * BASE: BASE, BASE: 10}
    await keys.put("p", head=3 * BASE)
    for target, before in jumps.items():
        await keys.link.call("HSET", keys._prefix + "p", f"jump:{target}", before)
    await keys.mark("m", "g0sub", 4)
    assert await keys.run("trim", "xpmh", 2) == 4
    facts = await keys.link.call("HGETALL", keys._prefix + "p")
    left = {name: int(value) for name, value in as_pairs(facts).items() if name.startswith(b"jump")}
    assert left == {b"jump:%d" % (3 * BASE): 10}
    await keys.mark("m", "g0sub", 3 * BASE)
    assert await keys.run("trim", "xpmh", 2) == 8  # the two newest of the ten events are kept
