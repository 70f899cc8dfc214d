"""API endpoints that only read; each function answers one path below ``/api``."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request

from pabal.dashboard.bilingual import audit_result
from pabal.dashboard.context import Context, user_of
from pabal.dashboard.problems import Problem
from pabal.dashboard.serializers import (
    causation_graph,
    chained_events,
    event_detail,
    event_row,
    letter_detail,
    letter_row,
)
from pabal.errors import EventNotFoundError
from pabal.operations import parse_filter
from pabal.ports.operations import DeadLetterFilter

_PAGE = 50
_MAX_GRAPH_EVENTS = 400
_FILTER_FIELDS = ("type", "aggregate", "correlation", "since", "until")


def session(context: Context, request: Request) -> Any:
    """Return the user and the dashboard's settings; the only endpoint besides login that needs no login."""
    user = user_of(request)
    settings = context.settings
    public = {
        "user": user,
        "login": settings.token is not None,
        "version": version("pabal"),
        "title": settings.title,
    }
    if user is None:
        return public
    target = context.operations.target
    return {
        **public,
        "csrf": context.sessions.csrf_for(user),
        "can_act": settings.allow_actions,
        "source": {"kind": target.kind, "name": target.address, "has_log": target.has_log},
        "payloads": context.operations.masking.mode,
    }


async def report(context: Context, request: Request) -> Any:
    """Return the current state of everything."""
    return await context.hub.report()


async def series(context: Context, request: Request) -> Any:
    """Return figures over time."""
    return await context.hub.series(request.query_params.get("range") or "15m")


# -- events ------------------------------------------------------------------------------------------------


async def types(context: Context, request: Request) -> Any:
    """Return the event types to choose from."""
    return {"types": await context.hub.types()}


async def events(context: Context, request: Request) -> Any:
    """Return a page of matching events, newest first."""
    query = request.query_params
    wanted = parse_filter({name: query[name] for name in _FILTER_FIELDS if name in query})
    head = (await context.operations.totals()).head
    page = await context.operations.events(
        wanted, before=query.get("before") or None, limit=_PAGE, payloads=True
    )
    return {
        "items": [event_row(event) for event in page.events],
        "next": page.older,
        "complete": page.older is None,
        "searched_to": page.older,
        "limit": _PAGE,
        "head": max([head, *(event.position or 0 for event in page.events)]),
    }


async def event(context: Context, request: Request) -> Any:
    """Return one event, its deliveries, and its chain of causes and effects."""
    event_id = request.path_params["event_id"]
    detail = await context.operations.event(event_id)
    try:
        trace = await context.operations.trace(event_id, limit=_MAX_GRAPH_EVENTS)
    except EventNotFoundError:  # it has just been trimmed
        trace = None
    parked = await context.operations.parked(chained_events(detail, trace))
    return {
        **event_detail(detail, context.operations.masking),
        "graph": causation_graph(detail, trace, parked),
    }


# -- streams -----------------------------------------------------------------------------------------------


async def streams(context: Context, request: Request) -> Any:
    """Return a page of aggregates, by id."""
    query = request.query_params
    page = await context.operations.streams(prefix=query.get("prefix", ""), after=query.get("after") or None)
    return {"items": page.streams, "next": page.next}


async def stream(context: Context, request: Request) -> Any:
    """Return a page of one aggregate's history; the type ``-`` means none. An unknown one is a 404."""
    kind, identity = request.path_params["kind"], request.path_params["identity"]
    kind = "" if kind == "-" else kind
    after = _int_parameter(request, "after") or 0
    found = await context.operations.stream(identity, kind, after_version=after, limit=_PAGE + 1)
    items = [event_row(one) for one in found[:_PAGE]]
    more = items[-1]["stream_version"] if len(found) > _PAGE else None
    version = await _version_of(context, identity, kind)
    if not items and not version:
        what = f"{kind}/{identity}" if kind else identity
        raise Problem(404, "no_stream", f"there is no stream {what!r} in this log; check its type and id")
    return {"items": items, "next": more, "version": version}


async def _version_of(context: Context, identity: str, kind: str) -> int:
    page = await context.operations.streams(prefix=identity, limit=50)
    return next(
        (one.version for one in page.streams if (one.aggregate_id, one.aggregate_type) == (identity, kind)), 0
    )


# -- projections -------------------------------------------------------------------------------------------


async def projections(context: Context, request: Request) -> Any:
    """Return the position of each projection, and the log's head."""
    found = await context.operations.projections()
    head = max((one.position + one.lag for one in found), default=0)
    return {"items": found, "head": head}


# -- dead letters ------------------------------------------------------------------------------------------


async def dead_letter_groups(context: Context, request: Request) -> Any:
    """Return the number of dead letters by subscription and error."""
    groups = await context.hub.dead_letter_groups()
    return {"groups": groups, "total": sum(group["count"] for group in groups)}


async def dead_letters(context: Context, request: Request) -> Any:
    """Return a page of matching dead letters, oldest first, and how many match in total."""
    wanted = letter_filter(dict(request.query_params))
    page = await context.operations.dead_letters(
        wanted, after=_int_parameter(request, "after") or 0, limit=_PAGE
    )
    return {
        "items": [letter_row(letter) for letter in page.dead_letters],
        "next": page.next,
        "count": await context.operations.count_matching(wanted),
    }


def letter_filter(values: dict[str, Any]) -> DeadLetterFilter:
    """Build the filter for dead letters from query parameters or a body."""
    names = DeadLetterFilter.__struct_fields__
    return DeadLetterFilter(**{name: values[name] for name in names if values.get(name)})


async def dead_letter(context: Context, request: Request) -> Any:
    """Return one dead letter with every failed attempt."""
    number = request.path_params["number"]
    masked = await context.operations.dead_letter(number)
    unmasked = await context.raw.dead_letter(number)
    return {"letter": letter_detail(masked, unmasked)}


# -- the audit log -----------------------------------------------------------------------------------------


async def audit(context: Context, request: Request) -> Any:
    """Return recorded actions, newest first."""
    found = await context.operations.audit(before=_int_parameter(request, "before"), limit=_PAGE + 1)
    items = [{**msgspec.structs.asdict(entry), **audit_result(entry)} for entry in found[:_PAGE]]
    return {"items": items, "next": found[_PAGE - 1].id if len(found) > _PAGE else None}


def _int_parameter(request: Request, name: str) -> int | None:
    text = request.query_params.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise Problem(400, "filter", f"{name}={text!r} is not a number", field=name, value=text)
    return int(text)
