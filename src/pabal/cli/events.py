"""``pabal events``, ``pabal streams`` and ``pabal tail``: read the log, and watch new events."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click
import msgspec
from rich.tree import Tree

from pabal.cli.base import (
    INTERRUPTED,
    REFUSED,
    UNAVAILABLE,
    WRONG_USAGE,
    compose,
    console,
    event_filter,
    fail,
    filter_options,
    json_option,
    json_text,
    limit_option,
    moment,
    payloads_option,
    print_hidden,
    print_json,
    progress,
    readable,
    row,
    run,
    show,
    table,
    target_argument,
    verbatim,
)
from pabal.cli.cloudevents import format_option, import_events, line_of, source_option
from pabal.cli.command import Command, Group
from pabal.cli.language import counted, t
from pabal.cli.shell import typed
from pabal.cli.translation import translate_error
from pabal.errors import CorruptLogError
from pabal.operations import Operations
from pabal.ports.operations import EventDetail, EventPage, EventView, Trace, TraceNode

_UNBOUNDED = 1_000_000
"""A width that no line reaches."""


@click.group(cls=Group)
def events() -> None:
    """List, show, trace, export and import the events of a log."""


@events.command("list")
@target_argument
@compose(filter_options, limit_option, payloads_option, json_option)
@click.option("--before", help="Cursor: show older events.")
@click.option("--after", help="Cursor: show newer events.")
def list_events(
    target: str,
    before: str | None,
    after: str | None,
    limit: int,
    payloads: str,
    as_json: bool,
    **criteria: Any,
) -> None:
    """List events, newest first, a page at a time.

    Example: pabal events list trading.db --type 'order.*' --since 2h
    """

    async def fetch(operations: Operations) -> EventPage:
        wanted = event_filter(**criteria)
        return await operations.events(wanted, before=before, after=after, limit=limit, payloads=as_json)

    page = run(target, fetch, payloads=payloads)
    if as_json:
        print_json(page)
        return
    show(_table(page.events), "no event matches")
    is_ascending = after is not None and before is None
    if is_ascending and page.newer is not None:
        click.echo(t("newer: --after {cursor}", cursor=page.newer), err=True)
    elif not is_ascending and page.older is not None:
        click.echo(t("older: --before {cursor}", cursor=page.older), err=True)


def _table(events: Sequence[EventView]) -> Any:
    event_table = table(">position", "recorded", "type", "aggregate", "event id")
    for event in events:
        row(
            event_table,
            event.cursor,
            moment(event.recorded_at),
            event.event_type,
            _aggregate(event),
            event.event_id,
        )
    return event_table


def _aggregate(event: EventView) -> str:
    if event.aggregate_id is None:
        return ""
    kind = f"{event.aggregate_type}/" if event.aggregate_type else ""
    version = "" if event.stream_version is None else f" v{event.stream_version}"
    return f"{kind}{event.aggregate_id}{version}"


@events.command("show")
@target_argument
@click.argument("event_id")
@compose(payloads_option, json_option)
def show_event(target: str, event_id: str, payloads: str, as_json: bool) -> None:
    """Show one event: payload, deliveries with their failed attempts, cause and effects.

    Example: pabal events show trading.db 0197a2f4-8c1e-7d3b-9a55-3f1c2b7e9d10
    """
    if re.fullmatch(r"\d+(:\d+)?", event_id):
        fail(
            t(
                "{place} is a position; give the event's id, which pabal events list prints last",
                place=event_id,
            ),
            WRONG_USAGE,
        )
    detail = run(target, lambda operations: operations.event(event_id), payloads=payloads)
    if as_json:
        print_json(detail)
    else:
        _print_detail(detail)
        print_hidden(payloads, [failure for each in detail.deliveries for failure in each.failures])


def _print_detail(detail: EventDetail) -> None:
    out = console()
    event = detail.event
    out.print(f"[bold]{verbatim(event.event_type)}[/] {event.event_id}")
    when, whose = moment(event.recorded_at), verbatim(_aggregate(event))
    out.print(f"{t('position')} {event.cursor}  {t('recorded')} {when}  {whose}")
    out.print(json_text(event.payload), markup=False)
    if event.metadata is not msgspec.UNSET:
        out.print(f"{t('metadata')} {verbatim(json_text(event.metadata, indent=-1))}")
    if detail.cause is not None:
        out.print(f"{t('caused by')} {verbatim(detail.cause.event_type)} {detail.cause.event_id}")
    for effect in detail.effects:
        out.print(f"{t('caused')} {verbatim(effect.event_type)} {effect.event_id}")
    for delivery in detail.deliveries:
        letter = "" if delivery.dead_letter_id is None else f"  {t('dead letter')} {delivery.dead_letter_id}"
        out.print(f"{t('delivery')} {verbatim(delivery.subscription)}: {t(delivery.state)}{letter}")
        for failure in delivery.failures:
            text = f"{failure.attempt}. {moment(failure.failed_at)} {failure.error_type}: {failure.message}"
            out.print(f"  {verbatim(text)}")
        if delivery.finished_at is not None:
            out.print(f"  {t('succeeded')} {moment(delivery.finished_at)}")


@events.command("trace")
@target_argument
@click.argument("correlation_id")
@json_option
def trace_events(target: str, correlation_id: str, as_json: bool) -> None:
    """Draw the causation tree of a correlation id, or of the chain that an event id belongs to.

    Example: pabal events trace trading.db 0197a2f4-8c1e-7d3b-9a55-3f1c2b7e9d10
    """
    trace = run(target, lambda operations: operations.trace(correlation_id))
    if as_json:
        print_json(trace)
        return
    _print_trace(trace)


def _print_trace(trace: Trace) -> None:
    out = console()
    out.width = _UNBOUNDED  # a tree is cut off at the width of the terminal, or at 80 without one
    for root in trace.roots:
        tree = Tree(_label(root.event))
        stack: list[tuple[Tree, TraceNode]] = [(tree, root)]
        while stack:
            branch, node = stack.pop()
            stack += [(branch.add(_label(effect.event)), effect) for effect in node.effects]
        out.print(tree)
    if not trace.complete:
        click.echo(t("there are more events than these {count}", count=trace.count), err=True)


def _label(event: EventView) -> str:
    aggregate = verbatim(_aggregate(event))
    return f"[bold]{verbatim(event.event_type)}[/] {aggregate} [dim]{event.cursor} {event.event_id}[/]"


@events.command("export")
@target_argument
@compose(filter_options)
@click.option("--after", help="Cursor: start after it.")
@click.option("--output", "-o", type=click.File("w", encoding="utf-8"), default="-", help="File to write to.")
@click.option("--limit", type=click.IntRange(1), help="Write at most this many.")
@format_option
@source_option
@click.option(
    "--payloads",
    type=click.Choice(["none", "masked", "full"]),
    default="full",
    show_default=True,
    help="Hide all payload values, those of fields such as email or token, or nothing.",
)
def export_events(
    target: str,
    after: str | None,
    output: TextIO,
    limit: int | None,
    form: str,
    source: str,
    payloads: str,
    **criteria: Any,
) -> None:
    """Export events as JSON lines, oldest first.

    A damaged event is reported and left out; the exit code is then 3.

    Example: pabal events export trading.db --type order.filled -o filled.jsonl
    """
    damaged: list[CorruptLogError] = []

    def report(error: CorruptLogError) -> None:
        damaged.append(error)
        click.echo(f"pabal: {readable(translate_error(error))}", err=True)

    async def write(operations: Operations) -> int:
        wanted = event_filter(**criteria)
        count = 0
        with progress(t("exporting"), limit) as update_progress:
            async for event in operations.read(wanted, after=after, limit=limit, on_damage=report):
                output.write(line_of(event, form, source) + "\n")
                count += 1
                if not count % 500:
                    update_progress(count)
        return count

    count = run(target, write, payloads=payloads)
    if output is not sys.stdout:
        click.echo(counted(count, "event written", "events written"), err=True)
    if damaged:
        left_out = counted(len(damaged), "damaged event left out", "damaged events left out")
        fail(left_out, UNAVAILABLE)


events.add_command(import_events)


@click.command(cls=Command)
@target_argument
@compose(filter_options, payloads_option, json_option)
@click.option("--after", help="Cursor: start with the events after it.")
@click.option("--count", type=click.IntRange(1), help="Stop after this many events.")
@click.option("--every", type=click.FloatRange(0.01), default=0.25, hidden=True)
def tail(
    target: str,
    after: str | None,
    count: int | None,
    every: float,
    payloads: str,
    as_json: bool,
    **criteria: Any,
) -> None:
    """Show events as they are stored, until Ctrl-C; keeps going when the application restarts.

    Example: pabal tail trading.db --type 'order.*'
    """

    async def follow(operations: Operations) -> None:
        wanted = event_filter(**criteria)
        start = after if after is not None or wanted.since is None else "0"
        remaining = count
        async with contextlib.aclosing(operations.follow(wanted, after=start, every=every)) as events:
            async for event in events:
                _print_tailed(event, as_json=as_json)
                remaining = None if remaining is None else remaining - 1
                if remaining == 0:
                    return

    # Ctrl-C is the normal way to end this.
    try:
        run(target, follow, payloads=payloads)
    except SystemExit as ended:
        if ended.code != INTERRUPTED:
            raise


def _print_tailed(event: EventView, *, as_json: bool) -> None:
    if as_json:
        click.echo(json_text(event, indent=-1))
    else:
        payload = json_text(event.payload, indent=-1)
        place = f"[dim]{event.cursor} {moment(event.recorded_at)}[/]"
        console().print(f"{place} [bold]{verbatim(event.event_type)}[/] {verbatim(payload)}")
    with contextlib.suppress(ValueError):
        sys.stdout.flush()


@click.group(cls=Group)
def streams() -> None:
    """List aggregates, or show the history of one."""


@streams.command("list")
@target_argument
@click.option("--prefix", default="", help="Only ids that start with this.")
@click.option("--after", help="Cursor: the next page.")
@compose(limit_option, json_option)
def list_streams(target: str, prefix: str, after: str | None, limit: int, as_json: bool) -> None:
    """List aggregates by id, with their current versions.

    Example: pabal streams list trading.db --prefix order-
    """
    page = run(target, lambda operations: operations.streams(prefix=prefix, after=after, limit=limit))
    if as_json:
        print_json(page)
        return
    streams = table("aggregate", "type", ">version")
    for stream in page.streams:
        row(streams, stream.aggregate_id, stream.aggregate_type, stream.version)
    show(streams, "no aggregate matches")
    if page.next is not None:
        click.echo(t("next: --after {cursor}", cursor=typed([page.next])), err=True)


@streams.command("show")
@target_argument
@click.argument("aggregate_id")
@click.option("--aggregate-type", help="Type of the aggregate, if several share the id.")
@click.option("--after-version", type=click.IntRange(0), default=0, help="Start after this version.")
@compose(limit_option, payloads_option, json_option)
def show_stream(
    target: str,
    aggregate_id: str,
    aggregate_type: str | None,
    after_version: int,
    limit: int,
    payloads: str,
    as_json: bool,
) -> None:
    """Show an aggregate's history, oldest first.

    Example: pabal streams show trading.db order-17
    """

    async def history(operations: Operations) -> list[EventView] | None:
        events = await operations.stream(
            aggregate_id, aggregate_type, after_version=after_version, limit=limit
        )
        is_known = events or (
            after_version and await operations.stream(aggregate_id, aggregate_type, limit=1)
        )
        return events if is_known else None

    events = run(target, history, payloads=payloads)
    if events is None:
        if "/" in aggregate_id:  # type/id, as ``events list`` prints it and ``--aggregate`` accepts it
            fail(
                t("this aggregate has no events; give its id alone, and its type with --aggregate-type"),
                REFUSED,
            )
        fail(t("this aggregate has no events"), REFUSED)
    if as_json:
        print_json(events)
        return
    # If aggregates of several types share the id, show the type beside each version.
    has_several_types = len({event.aggregate_type for event in events}) > 1
    event_table = table(
        *(["aggregate"] if has_several_types else []), ">version", "recorded", "type", "payload"
    )
    for event in events:
        payload = json_text(event.payload, indent=-1)
        cells = (event.stream_version, moment(event.recorded_at), event.event_type, payload)
        row(event_table, *([f"{event.aggregate_type}/{aggregate_id}"] if has_several_types else []), *cells)
    show(event_table, "this aggregate has no events above that version")
