"""The objects that every request handler needs."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from pabal.dashboard.problems import Problem, as_json
from pabal.dashboard.sessions import Sessions
from pabal.dashboard.settings import DashboardSettings
from pabal.operations import Masking, Operations

if TYPE_CHECKING:
    from pabal.dashboard.live import Hub

T = TypeVar("T")
_MAX_BODY_BYTES = 4 << 20


class Context:
    """Hold the parts of one dashboard. ``raw`` does not mask payloads, so keep its results on the server."""

    def __init__(
        self, operations: Operations, settings: DashboardSettings, sessions: Sessions, hub: Hub
    ) -> None:
        self.operations = operations.using(masking=settings.masking)
        self.raw = operations.using(masking=Masking("full"))
        self.settings = settings
        self.sessions = sessions
        self.hub = hub

    def acting(self, request: Request) -> Operations:
        """Return operations with the user as actor. Raises Problem on a read-only dashboard."""
        if not self.settings.allow_actions:
            raise Problem(
                403, "read_only", "this dashboard is read-only; start it with --allow-actions to make changes"
            )
        return self.raw.using(actor=f"{user_of(request)} (dashboard)")


Endpoint = Callable[[Context, Request], Any | Awaitable[Any]]


def as_endpoint(context: Context, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Turn a function that returns plain values into a Starlette endpoint."""

    async def respond(request: Request) -> Response:
        try:
            result = endpoint(context, request)
            if inspect.isawaitable(result):
                result = await result
        finally:
            if request.method == "POST":
                context.hub.invalidate()  # even one that failed may have changed something
        return result if isinstance(result, Response) else as_json(result)

    return respond


def user_of(request: Request) -> str | None:
    """Return the user's name, as determined by the guard."""
    user: str | None = request.state.user
    return user


async def parse_body(request: Request, shape: type[T]) -> T:
    """Parse a JSON body of the given shape. Raises Problem for anything else."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Problem(415, "content_type", "send the body as application/json")
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > _MAX_BODY_BYTES:
            raise Problem(413, "too_large", f"the body is larger than {_MAX_BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(raw, type=shape)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem(400, "body", f"the body cannot be read: {error}") from error
