"""The summary that the demo prints at its end."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pabal.cli.demo_tables import NAMES, READS, holdings_table, money, table
from pabal.cli.language import counted, t
from pabal.cli.translation import translate
from pabal.demo.report import DeadLetterLine, Summary


def print_summary(console: Console, summary: Summary) -> None:
    """Print the summary of a run."""

    def write(line: str = "", style: str = "") -> None:
        console.print(Text(line, style=style), soft_wrap=True)

    what = t("a SIMULATED tape") if summary.simulated else summary.tape
    write(t("Played {what} in {seconds} s.", what=what, seconds=f"{summary.seconds:.1f}"), "bold")
    if summary.resumed_at is not None:
        write(
            t(
                "Resumed after {events} of the tape. The counts and times below are of this process only.",
                events=counted(summary.resumed_at, "event"),
            )
        )
    write()
    for part in (
        _events_table(summary),
        _figures_table(summary),
        _subscriptions_table(summary),
        holdings_table(summary.holdings),
    ):
        console.print(part)
        write()
    write(
        t(
            "profit and loss {profit} in paper money: realized {realized}, unrealized {unrealized}, "
            "fees {fees}",
            profit=money(summary.profit),
            realized=money(summary.realized),
            unrealized=money(summary.unrealized),
            fees=money(-summary.fees),
        )
    )
    for letter in summary.dead_letters:
        write(_describe_letter(letter))
    write()
    write(
        t(
            "result {result}: the same for each run of this tape, however often it is killed and resumed",
            result=summary.result,
        )
    )
    write(
        t(
            "log    {file}, {events}, durability {durability}",
            file=summary.file,
            events=counted(summary.events, "event"),
            durability=summary.durability,
        )
    )


def _describe_letter(letter: DeadLetterLine) -> str:
    text = t(
        "dead letter: {subscription} gave up {event} after {attempts}: {error}",
        subscription=letter.subscription,
        event=f"{letter.event_type} {letter.event_id}",
        attempts=counted(letter.attempts, "attempt"),
        error=translate(letter.error),
    )
    return f"{text} ({t('the demo put this event there to show it')})" if letter.injected else text


def _events_table(summary: Summary) -> Table:
    events = table("events in the log", "type", "count", left=2)
    for event_type, count in _in_flow_order(summary.by_type):
        events.add_row(t(NAMES.get(event_type, "")), Text(event_type, style="dim"), f"{count:,}")
    return events


def _in_flow_order(by_type: dict[str, int]) -> list[tuple[str, int]]:
    known = [(name, by_type[name]) for name in NAMES if name in by_type]
    return known + [(name, count) for name, count in sorted(by_type.items()) if name not in NAMES]


def _figures_table(summary: Summary) -> Table:
    figures = Table.grid(padding=(0, 2, 0, 0))
    pace = t("paced; --speed max removes the limit") if summary.paced_at else t("as fast as possible")
    p50, p99 = summary.latency_p50, summary.latency_p99
    latency = (
        t("nothing was left to handle")
        if p50 is None or p99 is None
        else f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
    )
    for name, value, note in (
        (t("handled"), f"{summary.handled:,}", t("deliveries to subscriptions")),
        (t("retried"), f"{summary.retried:,}", t("failed attempts, retried")),
        (t("parked"), f"{summary.parked:,}", t("kept as dead letters")),
        (t("events/s"), f"{summary.events_per_second:,.0f}", pace),
        (t("publish → handled"), latency, t("waits for retries included")),
    ):
        figures.add_row(name, Text(value, style="bold"), Text(note, style="dim"))
    return figures


def _subscriptions_table(summary: Summary) -> Table:
    subscriptions = table("subscription", "reads", "handled", "retried", "parked", "p50 ms", "p99 ms", left=2)
    for subscription in summary.subscriptions:
        subscriptions.add_row(
            subscription.name,
            Text(t(READS[subscription.name]), style="dim"),
            f"{subscription.handled:,}",
            f"{subscription.retried:,}",
            f"{subscription.parked:,}",
            "-" if subscription.latency_p50 is None else f"{subscription.latency_p50:.1f}",
            "-" if subscription.latency_p99 is None else f"{subscription.latency_p99:.1f}",
        )
    return subscriptions
