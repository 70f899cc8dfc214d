"""``pabal status``, ``pabal subscriptions`` and ``pabal replay``: inspect and control subscriptions."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import click

from pabal.cli.base import (
    REFUSED,
    WRONG_USAGE,
    compose,
    confirm,
    dry_run_option,
    errors_as_exit_codes,
    fail,
    json_option,
    moment,
    print_dry_run,
    print_json,
    print_result,
    readable,
    row,
    run,
    show,
    table,
    target_argument,
    yes_option,
)
from pabal.cli.command import Command, Group
from pabal.cli.language import counted, language, t
from pabal.cli.translation import translate
from pabal.operations import Operations
from pabal.operations.filters import parse_moment
from pabal.ports.operations import ActionResult, Reason, SubscriptionView
from pabal.ports.storage import Start

_MAX_REASONS = 50
"""The most reasons that ``status`` prints; more would say no more, and scroll the health off the screen."""
_HEALTH = {"ok": 0, "degraded": 0, "failing": REFUSED}


@click.command(cls=Command)
@target_argument
@json_option
def status(target: str, as_json: bool) -> None:
    """Show the health of a bus: its reasons, totals, and what is stuck.

    Example: pabal status trading.db
    """
    overview = run(target, Operations.overview)
    if as_json:
        print_json(overview)
        sys.exit(_HEALTH[overview.health])
    totals = overview.totals
    click.echo(f"{overview.target.address}: {t(overview.health)}")
    for reason in overview.reasons[:_MAX_REASONS]:
        click.echo(f"  {_describe_reason(reason)}")
    more = len(overview.reasons) - _MAX_REASONS
    if more > 0:
        click.echo(f"  {t('and {count} more; --json has them all', count=f'{more:,}')}")
    click.echo(
        t(
            "{events}, {subscriptions}, largest lag {lag}, {rate} events/s lately",
            events=counted(totals.events, "event"),
            subscriptions=counted(overview.subscriptions, "subscription"),
            lag=f"{overview.lag:,}",
            rate=f"{overview.published_per_second:g}",
        )
    )
    click.echo(
        t(
            "{retries}, {parked}, {queued} queued behind them, {scheduled} scheduled",
            retries=counted(overview.retries, "retry", "retries"),
            parked=counted(overview.parked, "dead letter"),
            queued=f"{overview.queued:,}",
            scheduled=f"{totals.scheduled:,}",
        )
    )
    sys.exit(_HEALTH[overview.health])


_REASONS = {
    "paused": "subscription {name} is paused, {number} events wait",
    "unclaimed": "subscription {name} has {number} unfinished events, but no process handles it",
    "retrying": (
        "subscription {name} has {number} failed deliveries waiting for a retry; "
        "at 4,096 it may stop taking new events"
    ),
    "parked": "subscription {name} has dead letters ({number}); retry or discard them",
    "forgotten": (
        "dead letters ({number}) belong to no subscription; "
        "discard them, or subscribe under their names and retry them"
    ),
    "queued": "subscription {name} has {number} events queued behind dead letters of the same key",
    "stuck": "subscription {name} is held by another process but makes no progress",
    "skipped": "subscription {name} skipped {number} events of unregistered types",
}


def _describe_reason(reason: Reason) -> str:
    if language() == "en" or reason.code not in _REASONS:
        return readable(translate(reason.text))
    return t(_REASONS[reason.code], name=repr(reason.subscription), number=f"{reason.number:,}")


@click.group(cls=Group)
def subscriptions() -> None:
    """List, pause, resume and reset durable subscriptions."""


@subscriptions.command("list")
@target_argument
@json_option
def list_subscriptions(target: str, as_json: bool) -> None:
    """List subscriptions: position, lag, retries, dead letters, and the process that handles each.

    Example: pabal subscriptions list trading.db
    """
    found = run(target, Operations.subscriptions)
    if as_json:
        print_json(found)
        return
    subscriptions = table(
        "subscription", "state", ">position", ">lag", ">retries", ">dead letters", ">queued", "updated"
    )
    for view in found:
        row(
            subscriptions,
            view.name,
            t(view.state),
            view.watermark,
            view.lag,
            view.retries,
            view.parked,
            view.queued,
            moment(view.updated_at),
        )
    show(subscriptions, "there is no durable subscription")


@subscriptions.command("pause")
@target_argument
@click.argument("name")
@json_option
def pause(target: str, name: str, as_json: bool) -> None:
    """Pause a subscription: it takes no events until it is resumed, even after a restart.

    Example: pabal subscriptions pause trading.db check-risk
    """
    result = run(target, lambda operations: operations.pause(name))
    print_result(result, as_json=as_json)
    if not result.count:
        fail(t("{name} is paused already", name=repr(name)), REFUSED)


@subscriptions.command("resume")
@target_argument
@click.argument("name")
@json_option
def resume(target: str, name: str, as_json: bool) -> None:
    """Resume a paused or halted subscription, in whichever process it runs.

    Example: pabal subscriptions resume trading.db check-risk
    """
    result = run(target, lambda operations: operations.resume(name))
    print_result(result, as_json=as_json)
    if not result.count:
        fail(t("{name} is neither paused nor halted", name=repr(name)), REFUSED)


@subscriptions.command("reset")
@target_argument
@click.argument("name")
@click.option(
    "--to",
    required=True,
    help="beginning, now, a position (events after it are delivered), an age such as 2h, or a time.",
)
@compose(dry_run_option, yes_option, json_option)
def reset(target: str, name: str, to: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Move a subscription's cursor: back to deliver events again, ahead to skip them.

    Its retries and replays are dropped, and so are its dead letters whose events are delivered again.

    Example: pabal subscriptions reset trading.db build-report --to beginning
    """
    with errors_as_exit_codes():
        start = _parse_start(to)
    plan = run(target, lambda operations: operations.plan_reset(name, start))
    question = t(
        "Move {name} from position {position} to {to}?", name=repr(name), position=plan.watermark, to=to
    )
    if plan.again:
        question += " " + counted(
            plan.again, "position is delivered again.", "positions are delivered again."
        )
    if plan.skipped:
        question += " " + counted(plan.skipped, "position is skipped.", "positions are skipped.")
    if dry_run:
        print_dry_run(question, plan, as_json=as_json)
        return
    confirm(question, yes=yes)
    print_result(run(target, lambda operations: operations.reset(name, start)), as_json=as_json)


def _parse_start(text: str) -> Start:
    if text == "beginning" or text == "now":
        return "beginning" if text == "beginning" else "now"
    if text.isascii() and text.isdecimal():
        return int(text)
    at = parse_moment("to", text or " ", datetime.now(UTC), local=True)
    assert at is not None
    return at


class _PositionOrTime(click.IntRange):
    """Accept a position from 1, or any other text, which the command parses as a time."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a number, or the text unchanged. Raises BadParameter."""
        return value if _is_text(value) else super().convert(value, param, ctx)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not (value.isascii() and value.isdecimal())


def _parse_bound(option: str, given: int | str) -> int | datetime:
    if isinstance(given, int):
        return given
    at = parse_moment(option, given or " ", datetime.now(UTC), local=True)
    assert at is not None
    return at


@click.command(cls=Command)
@target_argument
@click.argument("name")
@click.option(
    "--from",
    "first",
    type=_PositionOrTime(1),
    default=1,
    show_default=True,
    help="First position, an age such as 2h, or a time.",
)
@click.option(
    "--to",
    "last",
    type=_PositionOrTime(1),
    help="Last position, or an age or time to stop before; by default the position the subscription has "
    "reached.",
)
@compose(dry_run_option, yes_option, json_option)
def replay(
    target: str,
    name: str,
    first: int | str,
    last: int | str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Deliver events again, in order, to one subscription only.

    Example: pabal replay trading.db build-report --from 1000 --to 2000
    """
    with errors_as_exit_codes():
        begin, end = _parse_bound("from", first), None if last is None else _parse_bound("to", last)

    async def look(operations: Operations) -> tuple[SubscriptionView, ActionResult]:
        return await operations.subscription(name), await operations.plan_replay(name, begin, end)

    view, plan = run(target, look)
    if not plan.count:
        fail(t("there is nothing to deliver to {name} again in this range", name=repr(name)), WRONG_USAGE)
    upto = last if isinstance(last, str) else min(last or view.frontier, view.frontier)
    ends = {"first": first, "last": upto, "name": repr(name)}
    if isinstance(first, str) or isinstance(last, str):
        question = t("Deliver the events between {first} and {last} to {name} again?", **ends)
    else:
        question = t("Deliver positions {first} to {last} to {name} again?", **ends)
    if dry_run:
        print_dry_run(question, plan, as_json=as_json)
        return
    confirm(question, yes=yes)
    print_result(run(target, lambda operations: operations.replay(name, begin, end)), as_json=as_json)
