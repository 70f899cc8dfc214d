"""Parse filters as people type them: type patterns, ages and dates, cursors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from fnmatch import translate

from pabal.errors import InvalidFilterError
from pabal.ports.groups import Matches, Place
from pabal.ports.operations import EventFilter
from pabal.ports.storage import LogFilter

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_TYPE_PATTERN = re.compile(r"[\w.*?:\-\[\]!/+]+")
FIELDS = ("type", "aggregate", "correlation", "causation", "since", "until")


def parse_filter(
    texts: Mapping[str, str | Iterable[str]], now: datetime | None = None, *, local: bool = False
) -> EventFilter:
    """Return the filter that these texts describe; empty texts do not restrict.

    Keys are ``type`` (names or patterns, separated by commas), ``aggregate`` (``type/id``, ``id`` or
    ``type/``), ``correlation``, ``causation``, ``since`` and ``until`` (``15m``, ``2h``, ``3d``, or an ISO
    8601 date or time; one without a zone is in UTC, or with ``local`` in the machine's zone). Raises
    InvalidFilterError.

    >>> wanted = parse_filter({"type": "order.*", "aggregate": "order/o-1"})
    >>> wanted.types, wanted.aggregate_type, wanted.aggregate_id
    (('order.*',), 'order', 'o-1')
    """
    given = {name: value for name, value in texts.items() if value}
    unknown = sorted(set(given) - set(FIELDS))
    if unknown:
        raise InvalidFilterError(
            field=unknown[0], value=str(given[unknown[0]]), reason=f"use one of {', '.join(FIELDS)}"
        )
    moment = now or datetime.now(UTC)
    kind, identity = _parse_aggregate(_text_of(given, "aggregate"))
    since, until = (
        parse_moment(name, _text_of(given, name), moment, local=local) for name in ("since", "until")
    )
    if since is not None and until is not None and since >= until:
        raise InvalidFilterError(
            field="until",
            value=_text_of(given, "until"),
            reason=f"it is not later than since={since.isoformat()}",
        )
    return EventFilter(
        types=_parse_types(given.get("type", ())),
        aggregate_type=kind,
        aggregate_id=identity,
        correlation_id=_text_of(given, "correlation") or None,
        causation_id=_text_of(given, "causation") or None,
        since=since,
        until=until,
    )


def _text_of(given: Mapping[str, str | Iterable[str]], name: str) -> str:
    value = given.get(name, "")
    return (value if isinstance(value, str) else ",".join(value)).strip()


def _parse_types(value: str | Iterable[str]) -> tuple[str, ...]:
    parts = [value] if isinstance(value, str) else list(value)
    names = [name.strip() for part in parts for name in part.split(",") if name.strip()]
    for name in names:
        if not _TYPE_PATTERN.fullmatch(name):
            raise InvalidFilterError(
                field="type", value=name, reason="write names or patterns such as order.placed or order.*"
            )
    return tuple(dict.fromkeys(names))


def _parse_aggregate(value: str) -> tuple[str | None, str | None]:
    if not value:
        return None, None
    kind, slash, identity = value.partition("/")
    if not slash:
        return None, value
    return kind or None, identity or None


def parse_moment(field: str, value: str, now: datetime, *, local: bool = False) -> datetime | None:
    """Parse an age or time; return None for an empty text. Raises InvalidFilterError.

    A time without a zone is in UTC, or with ``local`` in the machine's zone.

    >>> parse_moment("since", "2h", datetime(2026, 5, 1, 12, tzinfo=UTC)).hour
    10
    """
    if not value:
        return None
    age = re.fullmatch(r"(\d{1,9})\s*([smhdw])", value)
    try:
        if age:
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo or local else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):  # OSError: Windows knows no local time before 1970
        raise InvalidFilterError(
            field=field,
            value=value,
            reason="write an age such as 15m, 2h or 3d, or a time such as 2026-05-01T09:30",
        ) from None


def parse_position(field: str, value: str | None) -> int | None:
    """Parse a cursor of a log: a position. Raises InvalidFilterError."""
    if value is None or value == "":
        return None
    if not (value.isascii() and value.isdecimal() and len(value) <= 18):
        raise InvalidFilterError(field=field, value=value, reason="it must be a position, a whole number")
    return int(value)


def parse_place(field: str, value: str | None) -> Place | None:
    """Parse a cursor of a partitioned log: a partition and a position in it. Raises InvalidFilterError.

    >>> parse_place("before", "3:1200")
    Place(partition=3, position=1200)
    """
    if value is None or value == "":
        return None
    found = re.fullmatch(r"(\d{1,4}):(\d{1,18})", value, re.ASCII)
    if found is None:
        raise InvalidFilterError(
            field=field, value=value, reason="it must be a partition and a position in it, such as 3:1200"
        )
    return Place(int(found[1]), int(found[2]))


def matcher(wanted: EventFilter) -> Matches:
    """Return a predicate that tells whether a row matches the filter, apart from its time."""
    type_matches: dict[str, bool] = {}

    def has_type(name: str) -> bool:
        if name not in type_matches:
            type_matches[name] = not wanted.types or bool(types_matching(wanted.types, [name]))
        return type_matches[name]

    other_criteria = LogFilter(
        aggregate_id=wanted.aggregate_id,
        aggregate_type=wanted.aggregate_type,
        correlation_id=wanted.correlation_id,
        causation_id=wanted.causation_id,
    )
    return lambda row: has_type(row.event_type) and other_criteria.admits(row)


def types_matching(patterns: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """Return the known names that are among the patterns or match one.

    >>> types_matching(["order.*"], ["order.filled", "order.placed", "trade.seen"])
    ('order.filled', 'order.placed')
    """
    matches = re.compile("|".join(translate(pattern) for pattern in patterns)).match
    return tuple(name for name in known if matches(name))
