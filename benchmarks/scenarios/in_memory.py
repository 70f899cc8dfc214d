"""How many events per second pass from publisher to handler in memory?"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.events import OrderPlaced, make_events
from benchmarks.harness import Settings, installed, interleave, loop_factory, run
from benchmarks.model import Entry, Metrics, Outcome, Table
from benchmarks.rivals.in_memory import MORE_RIVALS, RIVALS, Rival, Work, pabal_batches

NAME = "in-memory"
BATCH_NAME = "publish-batch"
METRIC = "events/s"
REFERENCE = "asyncio.Queue, 4 workers"


def case_name(handlers: int, keys: int, loop: str) -> str:
    """Return the name of a case in tables and goals."""
    return f"{handlers} handler{'s' if handlers > 1 else ''}, {keys:,} key{'s' if keys > 1 else ''}, {loop}"


def entry_of(rival: Rival, case: str, events: Sequence[OrderPlaced], handlers: int, loop: str) -> Entry:
    """Return the entry of one rival in one case."""
    mine = events[: int(len(events) * rival.share)]
    factory = loop_factory(loop)

    def measure() -> Metrics:
        seconds = run(_timed(rival, Work(mine, handlers)), factory)
        return {METRIC: len(mine) / seconds}

    missing = "" if factory is not None else f"{loop} is not installed"
    version = installed(rival.distribution) if rival.distribution else ""
    return Entry(
        case=case,
        rival=rival.name,
        metrics=(METRIC,),
        measure=measure,
        version=version or "",
        events=len(mine),
        note=rival.note,
        missing="not installed" if version is None else missing,
    )


async def _timed(rival: Rival, work: Work) -> float:
    return await rival.measure(work)


def measure(settings: Settings) -> Outcome:
    """Measure every case with every rival that supports it."""
    count = settings.size(100_000, 20_000)
    by_keys = {keys: make_events(count, keys) for keys in (1, 1_000)}
    entries: list[Entry] = []
    for loop, counts in (("asyncio", (1, 3)), ("uvloop", (1,) if settings.quick else (1, 3))):
        for handlers in counts:
            for keys, events in by_keys.items():
                rivals = RIVALS + (MORE_RIVALS if keys == 1 and loop == "asyncio" else ())
                entries += [
                    entry_of(rival, case_name(handlers, keys, loop), events, handlers, loop)
                    for rival in rivals
                    if settings.wants(rival.name)
                ]
    return Outcome(
        scenario=NAME,
        title="In memory: throughput",
        text=(
            f"{count:,} events of six fields, made beforehand, are published one by one and handled by async "
            "handlers that count them. pabal runs with its default options: order per aggregate, retries, "
            "statistics, 4 workers, a queue of 10,000. Only pabal keeps order per key while keys run in "
            "parallel, retries, and isolates handlers; the floors only pass the event on."
        ),
        tables=(Table("Events per second, in memory", (METRIC,), REFERENCE, NAME),),
        series=tuple(interleave(entries, settings.runs)),
    )


def measure_batches(settings: Settings) -> Outcome:
    """Measure ``publish_batch`` beside single publishes."""
    count = settings.size(200_000, 20_000)
    events = make_events(count, 1_000)
    single, queue = RIVALS[0], RIVALS[1]
    rivals = [
        single._replace(name="pabal, publish", note="one by one"),
        single._replace(name="pabal, publish_batch(100)", measure=pabal_batches(100)),
        single._replace(name="pabal, publish_batch(1,000)", measure=pabal_batches(1_000)),
        queue,
    ]
    case = case_name(1, 1_000, "asyncio")
    entries = [entry_of(rival, case, events, 1, "asyncio") for rival in rivals]
    return Outcome(
        scenario=BATCH_NAME,
        title="In memory: publish_batch",
        text=f"The same {count:,} events, one by one and in batches.",
        tables=(Table("Events per second, in memory, in batches", (METRIC,), "pabal, publish", BATCH_NAME),),
        series=tuple(interleave(entries, settings.runs)),
    )
