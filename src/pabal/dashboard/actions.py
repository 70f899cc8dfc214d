"""API endpoints that change something. A request names the state its page saw; if outdated, it is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request

from pabal.dashboard.context import Context, parse_body
from pabal.dashboard.problems import Problem, as_json
from pabal.dashboard.queries import letter_filter
from pabal.dashboard.serializers import restore_masked, revision_of
from pabal.dashboard.sessions import COOKIE, LIFETIME
from pabal.errors import PabalError
from pabal.operations import Operations
from pabal.ports.operations import ActionResult
from pabal.ports.storage import Start

# -- login -------------------------------------------------------------------------------------------------


class LoginRequest(msgspec.Struct):
    """The body of a login: the token."""

    token: str


async def login(context: Context, request: Request) -> Any:
    """Set a session cookie if the token is right."""
    sessions = context.sessions
    if context.settings.token is None:
        raise Problem(409, "no_login", "this dashboard has no token to log in with")
    if lockout := sessions.lockout_seconds():
        raise Problem(
            429, "too_many", f"too many wrong tokens; try again in {lockout:.0f} s", seconds=round(lockout)
        )
    body = await parse_body(request, LoginRequest)
    if not sessions.is_token(body.token):
        sessions.record_failure()
        raise Problem(401, "wrong_token", "wrong token")
    response = as_json({})
    response.set_cookie(
        COOKIE, sessions.issue("token"), LIFETIME, secure=request.url.scheme == "https", **_cookie(request)
    )
    return response


async def logout(context: Context, request: Request) -> Any:
    """Delete the session cookie."""
    response = as_json({})
    response.delete_cookie(COOKIE, **_cookie(request))
    return response


def _cookie(request: Request) -> dict[str, Any]:
    return {"path": request.scope["root_path"], "httponly": True, "samesite": "strict"}  # that of the API


# -- subscriptions -----------------------------------------------------------------------------------------


class SubscriptionRequest(msgspec.Struct):
    """A body that names a subscription."""

    name: str


async def pause(context: Context, request: Request) -> Any:
    """Pause a subscription."""
    body = await parse_body(request, SubscriptionRequest)
    return await context.acting(request).pause(body.name)


async def resume(context: Context, request: Request) -> Any:
    """Resume a paused or halted subscription."""
    body = await parse_body(request, SubscriptionRequest)
    return await context.acting(request).resume(body.name)


class ResetRequest(SubscriptionRequest):
    """The body of a reset: ``watermark`` is the one the page showed, ``confirm`` the name, typed again."""

    start: str | int
    watermark: int
    confirm: str


async def plan_reset(context: Context, request: Request) -> Any:
    """Return what a reset would do: how many positions would be handled again, or skipped."""
    query = request.query_params
    text = query.get("start", "")
    start = _parse_start(int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else text)
    plan = await context.operations.plan_reset(query.get("name", ""), start)
    return {
        "watermark": plan.watermark,
        "start": plan.position,
        "again": plan.again,
        "skipped": plan.skipped,
    }


async def reset(context: Context, request: Request) -> Any:
    """Move a subscription's cursor."""
    body = await parse_body(request, ResetRequest)
    operations = context.acting(request)
    start = _parse_start(body.start)
    if body.confirm != body.name:
        raise Problem(400, "confirm", "type the name of the subscription to confirm", name=body.name)
    view = await operations.subscription(body.name)
    if view.watermark != body.watermark:
        raise Problem(
            409,
            "moved",
            f"{body.name!r} has moved on to {view.watermark} since the page was loaded; nothing was done",
            name=body.name,
            watermark=view.watermark,
        )
    return await operations.reset(body.name, start)


def _parse_start(start: str | int) -> Start:
    if start in ("beginning", "now") or (isinstance(start, int) and start >= 0):
        return start  # type: ignore[return-value]
    try:
        moment = datetime.fromisoformat(str(start))
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Problem(
            400,
            "start",
            f"{start!r} is not a place to start: use beginning, now, a position or a time in ISO 8601",
        ) from None


# -- dead letters ------------------------------------------------------------------------------------------


class DeadLetterSelection(msgspec.Struct):
    """The dead letters to act on: by ids, or all that match a filter, of which the page showed ``count``."""

    ids: list[int] | None = None
    filter: dict[str, str] | None = None
    count: int | None = None


async def retry(context: Context, request: Request) -> Any:
    """Deliver dead letters again."""
    selection = await parse_body(request, DeadLetterSelection)
    operations = context.acting(request)
    if selection.ids is not None:
        begun, left = await _apply_to_each(selection.ids, operations.retry)
        if not begun and len(selection.ids) == 1:
            raise Problem(409, "retrying", "this dead letter is already being retried")
    else:
        wanted = letter_filter(selection.filter or {})
        await _check_count(operations, selection)
        result = await operations.retry_matching(wanted)
        begun, left = result.count, result.skipped
    return {"begun": begun, "left": left}


async def discard(context: Context, request: Request) -> Any:
    """Remove dead letters for good."""
    selection = await parse_body(request, DeadLetterSelection)
    operations = context.acting(request)
    if selection.ids is not None:
        discarded, _ = await _apply_to_each(selection.ids, operations.discard)
    else:
        await _check_count(operations, selection)
        result = await operations.discard_matching(letter_filter(selection.filter or {}))
        discarded = result.count
    return {"discarded": discarded}


async def _check_count(operations: Operations, selection: DeadLetterSelection) -> None:
    count = await operations.count_matching(letter_filter(selection.filter or {}))
    if count != selection.count:
        raise Problem(
            409,
            "stale",
            f"{count} dead letters match now, the page showed {selection.count}; "
            "check again, nothing was done",
            n=count,
        )


async def _apply_to_each(ids: list[int], act: Any) -> tuple[int, int]:
    """Act on each dead letter. A single failure is raised; with several ids, failing ones are skipped."""
    if len(ids) == 1:
        result: ActionResult = await act(ids[0])
        return result.count, 0
    done = 0
    for letter_id in ids:
        try:
            done += (await act(letter_id)).count
        except PabalError:
            continue  # counted as left; acting on it alone raises the reason
    return done, len(ids) - done


class EditRequest(msgspec.Struct):
    """The body of an edit: the new payload, and the revision of the dead letter it is based on."""

    payload: dict[str, Any]
    revision: str


async def edit(context: Context, request: Request) -> Any:
    """Replace a dead letter's payload and deliver it again."""
    body = await parse_body(request, EditRequest)
    operations = context.acting(request)
    number = request.path_params["number"]
    letter = await operations.dead_letter(number)
    if letter.state == "retrying":
        raise Problem(409, "retrying", "this dead letter is already being retried")
    if revision_of(letter) != body.revision:
        raise Problem(409, "changed", "this dead letter has changed since the page was loaded; reload it")
    return await operations.edit_and_retry(number, restore_masked(body.payload, letter.event.payload))
