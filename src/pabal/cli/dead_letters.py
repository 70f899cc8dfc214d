"""``pabal dead-letters``: list, show, retry, edit and discard dead letters."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NoReturn

import click
import msgspec

from pabal.cli.base import (
    REFUSED,
    WRONG_USAGE,
    compose,
    confirm,
    console,
    dry_run_option,
    fail,
    fail_without_class,
    import_option,
    json_option,
    json_text,
    limit_option,
    moment,
    payloads_option,
    print_dry_run,
    print_hidden,
    print_json,
    print_result,
    progress,
    row,
    run,
    show,
    table,
    target_argument,
    verbatim,
    yes_option,
)
from pabal.cli.command import Group
from pabal.cli.language import counted, t
from pabal.cli.translation import translate, translate_error
from pabal.errors import CorruptDeadLetterError, UnknownEventTypeError
from pabal.operations import Operations
from pabal.operations.actions import describe_filter, is_group_wanted
from pabal.ports.operations import ActionResult, DeadLetterFilter, DeadLetterView

_filter_options = compose(
    click.option("--subscription", help="Only those of this subscription."),
    click.option("--type", "event_type", help="Only those of this event type."),
    click.option("--error", "error_type", help="Only those whose last attempt ended with this error type."),
)


@click.group("dead-letters", cls=Group)
def dead_letters() -> None:
    """List, show, retry, edit and discard dead letters."""


@dead_letters.command("list")
@target_argument
@compose(_filter_options, limit_option, payloads_option, json_option)
@click.option("--after", type=click.IntRange(0), default=0, help="Start after this number.")
@click.option("--groups", is_flag=True, help="Show counts by subscription and error instead.")
def list_letters(
    target: str, limit: int, payloads: str, as_json: bool, after: int, groups: bool, **criteria: Any
) -> None:
    """List dead letters, oldest first, or count them by subscription and error.

    Example: pabal dead-letters list trading.db --groups
    """
    wanted = DeadLetterFilter(**criteria)
    if groups:
        if wanted.event_type is not None:
            fail(t("--groups counts by subscription and error; it cannot be used with --type"), WRONG_USAGE)
        _list_groups(target, wanted, as_json=as_json)
        return
    page = run(
        target,
        lambda operations: operations.dead_letters(wanted, after=after, limit=limit),
        payloads=payloads,
    )
    if as_json:
        print_json(page)
        return
    letters = table(">number", "subscription", "event", "error", ">attempts", "parked at", "state")
    for letter in page.dead_letters:
        row(
            letters,
            letter.id,
            letter.subscription,
            letter.event.event_type,
            letter.error_type or translate(letter.reason),
            len(letter.attempts),
            moment(letter.parked_at),
            t(letter.state),
        )
    show(letters, "no dead letter matches")
    if page.next is not None:
        click.echo(t("next: --after {cursor}", cursor=page.next), err=True)


def _list_groups(target: str, wanted: DeadLetterFilter, *, as_json: bool) -> None:
    groups = [group for group in run(target, Operations.dead_letter_groups) if is_group_wanted(wanted, group)]
    if as_json:
        print_json(groups)
        return
    listed = table(">count", "subscription", "error", "first", "last", ">newest")
    for group in groups:
        first, last = moment(group.first_parked_at), moment(group.last_parked_at)
        row(listed, group.count, group.subscription, group.error_type, first, last, group.newest_id)
    show(listed, "no dead letter matches")


@dead_letters.command("show")
@target_argument
@click.argument("number", type=click.IntRange(1))
@compose(payloads_option, json_option)
def show_letter(target: str, number: int, payloads: str, as_json: bool) -> None:
    """Show a dead letter: the event, and every attempt with its error.

    Example: pabal dead-letters show trading.db 3
    """
    letter = run(target, lambda operations: operations.dead_letter(number), payloads=payloads)
    if as_json:
        print_json(letter)
    else:
        _print_letter(letter)
        print_hidden(payloads, letter.attempts)


def _print_letter(letter: DeadLetterView) -> None:
    out = console()
    event = letter.event
    state = f"{letter.subscription}: {t(letter.state)}, {translate(letter.reason)}"
    out.print(f"[bold]{letter.id}[/] {verbatim(state)}")
    out.print(f"[bold]{verbatim(event.event_type)}[/] {event.event_id}  {t('position')} {event.position}")
    out.print(json_text(event.payload), markup=False)
    if letter.queued:
        events = counted(letter.queued, "event of the same key waits", "events of the same key wait")
        out.print(t("{events} behind it", events=events))
    for attempt in letter.attempts:
        text = f"{attempt.attempt}. {moment(attempt.failed_at)} {attempt.error_type}: {attempt.message}"
        out.print(verbatim(text))
        if attempt.traceback:
            out.print(
                "\n".join(f"   {verbatim(line)}" for line in attempt.traceback.split("\n")), style="dim"
            )


Act = Callable[[Operations], Awaitable[ActionResult]]


def _act_on_matching(
    target: str,
    action: Literal["retry", "discard"],
    number: int | None,
    wanted: DeadLetterFilter,
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    modules: tuple[str, ...] = (),
) -> None:
    """Act on one dead letter, or on all that match, after confirming their number."""
    has_filter = wanted != DeadLetterFilter()
    if (number is not None) + (has_filter or everything) != 1:
        fail(t("name one dead letter, or choose with --subscription, --type, --error or --all"), WRONG_USAGE)
    if number is not None:
        event = run(target, lambda operations: _event_type_of(operations, number, action), modules=modules)
        count = 1
        question = t(_QUESTIONS[action, "one"], number=number, event=event)
    else:
        count = run(target, lambda operations: operations.count_matching(wanted))
        question = t(_QUESTIONS[action, "all"], letters=counted(count, "dead letter"))
    if not count:
        click.echo(t("no dead letter matches"))
        sys.exit(REFUSED)
    if dry_run:
        subject = describe_filter(wanted) if number is None else str(number)
        print_dry_run(question, ActionResult(action, subject, count), as_json=as_json)
        return
    if number is None or action == "discard":
        confirm(question, yes=yes)

    async def act(operations: Operations) -> ActionResult:
        if number is not None:
            return await (operations.retry(number) if action == "retry" else operations.discard(number))
        now = count if yes else await operations.count_matching(wanted)
        if now != count:
            letters = counted(now, "dead letter matches", "dead letters match")
            fail(t("{letters} now; nothing was changed", letters=letters), REFUSED)
        with progress(t("working"), count) as done:
            act_on_all = operations.retry_matching if action == "retry" else operations.discard_matching
            return await act_on_all(wanted, progress=done)

    result = run(target, act)
    print_result(result, as_json=as_json)
    if not result.count:
        _fail_unchanged(number)


def _fail_unchanged(number: int | None) -> NoReturn:
    if number is not None:
        fail(t("dead letter {number} is being retried already; nothing was changed", number=number), REFUSED)
    fail(t("nothing was changed"), REFUSED)


async def _event_type_of(operations: Operations, number: int, action: Literal["retry", "discard"]) -> str:
    try:
        return (await operations.dead_letter(number)).event.event_type
    except CorruptDeadLetterError:
        if action == "retry":
            raise
        return t("damaged")


_QUESTIONS = {
    ("retry", "one"): "Retry dead letter {number} ({event})?",
    ("retry", "all"): "Retry {letters}?",
    ("discard", "one"): "Discard dead letter {number} ({event}) for good?",
    ("discard", "all"): "Discard {letters} for good?",
}
_action_options = compose(
    click.argument("number", type=click.IntRange(1), required=False),
    _filter_options,
    click.option("--all", "everything", is_flag=True, help="All dead letters."),
    dry_run_option,
    yes_option,
    json_option,
)


@dead_letters.command("retry")
@target_argument
@compose(_action_options, import_option)
def retry(
    target: str,
    number: int | None,
    subscription: str | None,
    event_type: str | None,
    error_type: str | None,
    **options: Any,
) -> None:
    """Retry a dead letter, or all that match: those of a subscription, a type or an error.

    Example: pabal dead-letters retry trading.db --subscription send-mail --error TimeoutError
    """
    _act_on_matching(
        target, "retry", number, DeadLetterFilter(subscription, event_type, error_type), **options
    )


@dead_letters.command("discard")
@target_argument
@_action_options
def discard(
    target: str,
    number: int | None,
    subscription: str | None,
    event_type: str | None,
    error_type: str | None,
    **options: Any,
) -> None:
    """Permanently discard a dead letter, or all that match.

    Example: pabal dead-letters discard trading.db 3
    """
    _act_on_matching(
        target, "discard", number, DeadLetterFilter(subscription, event_type, error_type), **options
    )


@dead_letters.command("edit")
@target_argument
@click.argument("number", type=click.IntRange(1))
@click.option(
    "--set", "fields", multiple=True, metavar="FIELD=JSON", help="Change one field, without an editor."
)
@compose(import_option, dry_run_option, json_option)
def edit(
    target: str, number: int, fields: tuple[str, ...], modules: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    """Change the payload of a dead letter, in your editor or with --set, and retry it.

    The new payload must fit the event class, so name its module with --import.

    Example: pabal dead-letters edit trading.db 3 --import shop.events --set quantity=2
    """
    letter = run(target, lambda operations: operations.dead_letter(number), modules=modules)
    before = letter.event.payload
    payload = _with_fields(before, fields) if fields else _edit_payload(before)
    if payload is None or payload == before:
        fail(t("nothing was changed"), REFUSED)
    if dry_run:
        print_json(payload)
        return

    async def act(operations: Operations) -> ActionResult:
        try:
            return await operations.edit_and_retry(number, payload)
        except UnknownEventTypeError as error:
            fail_without_class(error)

    result = run(target, act)
    print_result(result, as_json=as_json)
    if not result.count:
        _fail_unchanged(number)


def _with_fields(payload: Any, fields: tuple[str, ...]) -> Any:
    changed = dict(payload) if isinstance(payload, dict) else {}
    for field in fields:
        name, separator, text = field.partition("=")
        if not separator or name not in changed:
            known = ", ".join(changed) or t("none")
            fail(
                t("{field} is not FIELD=JSON; the fields are {known}", field=repr(field), known=known),
                WRONG_USAGE,
            )
        try:
            changed[name] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            changed[name] = text  # a value that is not JSON is taken as text
    return changed


def _edit_payload(payload: Any) -> Any:
    text = click.edit(json_text(payload) + "\n", extension=".json")
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        fail(t("this is not a JSON object: {reason}", reason=translate_error(error)), WRONG_USAGE)
