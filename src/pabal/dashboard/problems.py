"""Errors of requests in one shape: a status, a code that the page translates, and a sentence."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pabal.dashboard.bilingual import bilingual
from pabal.errors import (
    ActionNotPossibleError,
    ConflictError,
    CorruptLogError,
    DeadLetterNotFoundError,
    DecodeError,
    EventNotFoundError,
    InvalidEventError,
    InvalidFilterError,
    PabalError,
    StorageError,
    SubscriptionError,
    SubscriptionNotFoundError,
    UnknownEventTypeError,
    UsageError,
)


class Problem(Exception):  # noqa: N818 - it is an answer, not a defect
    """Answer a request with an error. ``code`` is for programs; ``message`` says what to do next."""

    def __init__(self, status: int, code: str, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = fields

    def response(self) -> Response:
        """Return the error as a JSON response."""
        error = {"code": self.code, **bilingual("message", self.message)}
        return as_json({"error": {**self.fields, **error}}, self.status)


_RESPONSES: tuple[tuple[type[PabalError], int, str], ...] = (
    (InvalidFilterError, 400, "filter"),
    (EventNotFoundError, 404, "no_event"),
    (SubscriptionNotFoundError, 404, "no_subscription"),
    (DeadLetterNotFoundError, 404, "gone"),
    (ActionNotPossibleError, 409, "not_possible"),
    (ConflictError, 409, "conflict"),
    (SubscriptionError, 409, "not_possible"),
    (UnknownEventTypeError, 409, "unknown_type"),
    (DecodeError, 422, "does_not_fit"),
    (InvalidEventError, 422, "does_not_fit"),
    (CorruptLogError, 500, "damaged"),
    (StorageError, 503, "storage"),
    (UsageError, 400, "usage"),
    (PabalError, 500, "unexpected"),
)
"""The first match counts, so subclasses come before their base classes."""


def as_problem(error: PabalError) -> Problem:
    """Return the answer to a pabal error, with its message and those of its fields that are plain values."""
    status, code = next((status, code) for kind, status, code in _RESPONSES if isinstance(error, kind))
    plain = {name: value for name, value in error.fields.items() if isinstance(value, str | int | float)}
    return Problem(status, code, str(error), **plain)


async def answer_problem(request: Request, error: Exception) -> Response:
    """Answer a Problem."""
    assert isinstance(error, Problem)
    return error.response()


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer a pabal error."""
    assert isinstance(error, PabalError)
    return as_problem(error).response()


async def answer_http(request: Request, error: Exception) -> Response:
    """Answer an error of the router (a wrong method, an unknown path) in the same shape."""
    assert isinstance(error, HTTPException)
    code = {404: "no_path", 405: "method"}.get(error.status_code, "http")
    response = Problem(error.status_code, code, error.detail).response()
    response.headers.update(error.headers or {})
    return response


def as_json(body: Any, status: int = 200) -> Response:
    """Return plain values as a JSON response that must not be cached."""
    return Response(msgspec.json.encode(body), status, {"cache-control": "no-store"}, "application/json")
