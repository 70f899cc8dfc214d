"""Statistics and health of a process, over all partitions that it owns."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from pabal.brokers.redis.group import GroupEngine
from pabal.bus.statistics import NOT_RUNNING, Findings, Health, collect, unclaimed
from pabal.delivery.consumer import HALTED, PAUSED

_SUMMED = ("events_dropped", "queue_size", "retry_queue_size")
_OF_SUBSCRIPTION = ("in_flight", "retrying", "blocked_keys", "lag")
_COUNTED = ("handled", "filtered", "failed_attempts", "retried", "parked", "dropped", "skipped")


def collect_statistics(engine: GroupEngine, paused: Container[str], **facts: Any) -> dict[str, Any]:
    """Return the figures of ``get_statistics``; watermarks are given per owned partition.

    Positions that were trimmed ahead of a subscription, as after a reset to the beginning, count as lag until
    the subscription reads past them, so for as long as it is paused or halted. ``GroupInspector``, which asks
    the server, does not count them. ``paused`` are the names of the group's paused subscriptions; a process
    that owns no partition has no other way to know.
    """
    total = collect(engine, stored=False, **facts)
    parts = {
        number: collect(running.engine, uptime=0.0, published=0, scheduled=0, is_running=True, stored=True)
        for number, running in engine.running.items()
    }
    for figures in parts.values():
        for key in _SUMMED:
            total[key] += figures[key]
    for name, mine in total["subscriptions"].items():
        consumer = engine.consumers[name]
        timed, busy = consumer.figures.timed, consumer.figures.busy_seconds
        watermarks: dict[int, int] = {}
        if name in paused and not parts:
            mine["state"] = PAUSED
        for number, figures in parts.items():
            theirs = figures["subscriptions"].get(name)
            if theirs is None:
                continue
            for key in (*_COUNTED, *_OF_SUBSCRIPTION):
                mine[key] += theirs[key] or 0  # lag is None while the subscription is being opened
            if theirs["state"] != "active" and mine["state"] != HALTED:
                mine["state"] = theirs["state"]
            watermarks[number] = theirs["watermark"]
            own = engine.running[number].engine.consumers[name]
            mine["lag"] -= engine.running[number].count_unassigned(own)
            timed += own.figures.timed
            busy += own.figures.busy_seconds
        mine["avg_processing_time_ms"] = 1000 * busy / timed if timed else 0.0
        mine["watermark"] = watermarks
    each = total["subscriptions"].values()
    total["events_processed"] = sum(one["handled"] for one in each)
    total["events_failed"] = sum(one["failed_attempts"] for one in each)
    total["events_parked"] = sum(one["parked"] for one in each)
    handled = sum(one["handled"] for one in each)
    spent = sum(one["handled"] * one["avg_processing_time_ms"] for one in each)
    total["avg_processing_time_ms"] = spent / handled if handled else 0.0
    total["partitions"] = sorted(engine.running)
    return total


def judge_health(engine: GroupEngine, is_running: bool, troubles: list[str], remarks: list[str]) -> Health:
    """Return the health of a process; ``troubles`` make it failing, ``remarks`` degraded."""
    if not is_running:
        return NOT_RUNNING
    found = Findings()
    found.failing += troubles
    found.degraded += [*remarks, *unclaimed(engine.engines())]
    for one in engine.engines():
        found.look_at(one)
    found.note_parked(engine.parked)
    return found.health()
