"""Examine a server without changing it: its version, what it may lose, and the state of the groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from pabal.brokers.redis.cursors import as_pairs, decode_cursor
from pabal.brokers.redis.extent import measure_extents
from pabal.brokers.redis.keys import GroupKeys, LogKeys, check_name
from pabal.brokers.redis.link import Link
from pabal.domain.counting import counted
from pabal.errors import BrokerError

_OLDEST = (6, 2)


class Finding(msgspec.Struct, frozen=True):
    """One finding about a server: its severity, a sentence, and advice on what to do ('' for none)."""

    level: Literal["ok", "warning", "problem"]
    text: str
    advice: str = ""


async def examine_server(url: str, namespace: str = "pabal", *, patience: float = 5.0) -> list[Finding]:
    """Return findings about a server and the log on it; nothing is written.

    Raises BrokerUnavailableError if the server does not answer within ``patience`` seconds, and UsageError
    for an invalid namespace.
    """
    check_name("namespace", namespace)
    link = Link(url, patience=patience, loads_scripts=False)
    await link.open()
    try:
        facts = _facts((await link.call("INFO")).decode())
        settings = await _settings(link)
        findings = [*judge_server(facts, settings), *await _judge_log(link, LogKeys(namespace))]
    finally:
        await link.close()
    return findings


def judge_server(facts: Mapping[str, str], settings: Mapping[str, str] | None) -> list[Finding]:
    """Return findings from the server's INFO and its settings (None if it does not show them).

    >>> facts = {"redis_version": "7.2.0", "aof_enabled": "0", "role": "master"}
    >>> [finding.level for finding in judge_server(facts, None)][:2]
    ['ok', 'problem']
    """
    name = "Valkey" if facts.get("server_name") == "valkey" else "Redis"
    version = facts.get("valkey_version") or facts.get("redis_version", "0")
    found: list[Finding] = []
    number = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if number < _OLDEST:
        found.append(Finding("problem", f"{name} {version} is too old", "use Redis 6.2 or Valkey, or newer"))
    else:
        found.append(Finding("ok", f"{name} {version}"))
    found.append(_judge_persistence(facts, settings))
    found.append(_judge_memory(facts))
    if facts.get("role") == "slave":
        found.append(
            Finding("problem", "this server is a replica and takes no events", "connect to the primary")
        )
    elif replicas := int(facts.get("connected_slaves", "0")):
        found.append(
            Finding(
                "warning",
                f"{counted(replicas, 'replica')}: after a failover the newest events may be missing",
                "set min-replicas-to-write and min-replicas-max-lag to limit how many",
            )
        )
    if facts.get("cluster_enabled") == "1":
        found.append(
            Finding(
                "warning", "the server is part of a cluster, which pabal was not tested on", "use one server"
            )
        )
    return found


def _judge_persistence(facts: Mapping[str, str], settings: Mapping[str, str] | None) -> Finding:
    if facts.get("aof_enabled") != "1":
        return Finding(
            "problem",
            "the append-only file is off: every restart of the server loses events",
            "CONFIG SET appendonly yes, and set it in the server's configuration file",
        )
    if facts.get("aof_last_write_status", "ok") != "ok":
        return Finding("problem", "the append-only file cannot be written", "check the server's disk")
    how = (settings or {}).get("appendfsync")
    if how == "always":
        return Finding("ok", "the append-only file is synced before each reply")
    if how == "everysec":
        return Finding(
            "warning",
            "the append-only file is synced once a second: a power failure may lose the last second",
            "CONFIG SET appendfsync always, if no acknowledged event may be lost",
        )
    if how == "no":
        return Finding(
            "problem",
            "the append-only file is synced when the operating system decides: a power failure may lose "
            "about 30 seconds",
            "CONFIG SET appendfsync everysec, or always",
        )
    return Finding(
        "warning",
        "the server does not show how it syncs the append-only file",
        "allow CONFIG GET, or check appendfsync on the server",
    )


def _judge_memory(facts: Mapping[str, str]) -> Finding:
    policy = facts.get("maxmemory_policy", "noeviction")
    limited = int(facts.get("maxmemory", "0")) > 0
    if limited and policy != "noeviction":
        return Finding(
            "problem",
            f"when memory is full, the server evicts keys (maxmemory-policy {policy}), including the log",
            "CONFIG SET maxmemory-policy noeviction",
        )
    if policy != "noeviction":
        return Finding(
            "warning",
            f"maxmemory-policy is {policy}; with a memory limit the server would evict the log",
            "CONFIG SET maxmemory-policy noeviction",
        )
    if limited and int(facts.get("used_memory", "0")) > 0.8 * int(facts["maxmemory"]):
        return Finding(
            "warning", "more than 80 % of maxmemory is used", "raise maxmemory, or look for a lagging group"
        )
    return Finding("ok", "nothing is evicted when memory is full")


async def _judge_log(link: Link, keys: LogKeys) -> list[Finding]:
    count = int(await link.call("HGET", keys.meta, "partitions") or 0)
    if not count:
        return [Finding("ok", f"there is no log under {keys.base[1:-2]!r} yet")]
    extents = await measure_extents(link, keys, range(count))
    found = [Finding("ok", f"a log of {counted(count, 'partition')}")]
    for group in sorted(name.decode() for name in await link.call("SMEMBERS", keys.groups)):
        of_group = GroupKeys(keys, group)
        members = int(await link.call("HLEN", of_group.members))
        letters = int(await link.call("ZCARD", of_group.letter_ids))
        lag = 0
        for part, extent in enumerate(extents):
            saved = as_pairs(await link.call("HGETALL", of_group.of(part).cursors)).values()
            marks = (decode_cursor(data).watermark for data in saved)
            lag += max(
                (extent.count_assigned(extent.skip_trimmed(mark), extent.head) for mark in marks), default=0
            )
        behind = counted(lag, "position behind", "positions behind")
        if lag and not members:
            found.append(
                Finding(
                    "warning",
                    f"group {group!r} is {behind} and has no process; the log cannot be trimmed past it",
                    "start a process of the group",
                )
            )
        else:
            processes = counted(members, "process", "processes")
            found.append(Finding("ok", f"group {group!r}: {processes}, {behind}"))
        if letters:
            advice = "list them with pabal dead-letters list, fix the cause, then retry or discard them"
            found.append(Finding("warning", f"group {group!r} has {counted(letters, 'dead letter')}", advice))
    return found


def _facts(info: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in info.splitlines() if ":" in line)
    return {name: value.strip() for name, _, value in pairs}


async def _settings(link: Link) -> dict[str, str] | None:
    try:
        found = as_pairs(await link.call("CONFIG", "GET", "append*"))
    except BrokerError:
        return None  # managed servers often refuse
    return {name.decode(): value.decode() for name, value in found.items()}
