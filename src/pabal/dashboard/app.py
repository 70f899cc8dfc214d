"""Assemble the dashboard: routes, the guard in front of them, and error handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route

from pabal.bus.base import BaseEventBus
from pabal.dashboard import actions, queries
from pabal.dashboard.context import Context, Endpoint, as_endpoint
from pabal.dashboard.guard import Guard
from pabal.dashboard.live import Hub
from pabal.dashboard.pages import page, static
from pabal.dashboard.problems import Problem, answer_error, answer_http, answer_problem
from pabal.dashboard.sessions import Sessions
from pabal.dashboard.settings import DashboardSettings
from pabal.errors import MissingExtraError, PabalError, UsageError
from pabal.operations import Operations, operations_of

_GET_ENDPOINTS: tuple[tuple[str, Endpoint], ...] = (
    ("/session", queries.session),
    ("/report", queries.report),
    ("/series", queries.series),
    ("/types", queries.types),
    ("/events", queries.events),
    ("/events/{event_id}", queries.event),
    ("/streams", queries.streams),
    ("/streams/{kind}/{identity:path}", queries.stream),
    ("/projections", queries.projections),
    ("/dead-letters", queries.dead_letters),
    ("/dead-letters/groups", queries.dead_letter_groups),
    ("/dead-letters/{number:int}", queries.dead_letter),
    ("/subscriptions/reset", actions.plan_reset),
    ("/audit", queries.audit),
)
_POST_ENDPOINTS: tuple[tuple[str, Endpoint], ...] = (
    ("/login", actions.login),
    ("/logout", actions.logout),
    ("/subscriptions/pause", actions.pause),
    ("/subscriptions/resume", actions.resume),
    ("/subscriptions/reset", actions.reset),
    ("/dead-letters/retry", actions.retry),
    ("/dead-letters/discard", actions.discard),
    ("/dead-letters/{number:int}/edit", actions.edit),
)


def build(target: Any, **options: Any) -> Starlette:
    """Return the application; see ``create_dashboard``."""
    try:
        settings = DashboardSettings(**options)
    except TypeError as error:
        raise UsageError(f"create_dashboard: {error}") from error
    operations = target if isinstance(target, Operations) else operations_of(target)
    sessions = Sessions(settings.secret, settings.token)
    hub = Hub(operations.using(masking=settings.masking))
    context = Context(operations, settings, sessions, hub)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await hub.close()

    app = Starlette(
        routes=[
            Route("/static/{path:path}", static),
            Mount("/api", routes=_api(context)),
            *_metrics(target, settings),
            Route("/{path:path}", page),
        ],
        middleware=[Middleware(Guard, settings=settings, sessions=sessions)],
        exception_handlers={
            Problem: answer_problem,
            PabalError: answer_error,
            HTTPException: answer_http,
        },
        lifespan=lifespan,
    )
    app.state.end_streams = hub.end
    return app


def _metrics(target: Any, settings: DashboardSettings) -> list[BaseRoute]:
    """Return the route of the metrics, if enabled. Raises UsageError, MissingExtraError."""
    if not settings.metrics:
        return []
    if not isinstance(target, BaseEventBus):
        raise UsageError("metrics need a running bus; give the dashboard the bus instead of its log")
    try:
        from pabal.observability.prometheus import PrometheusExporter
    except ImportError as error:
        raise MissingExtraError(feature="the metrics endpoint", extra="prometheus") from error
    exporter = PrometheusExporter()
    exporter.watch(target, name=settings.title or "default")
    return [Mount("/metrics", exporter.asgi())]


def _api(context: Context) -> list[BaseRoute]:
    async def live(request: Request) -> Response:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(context.hub.listen(), headers=headers, media_type="text/event-stream")

    routes: list[BaseRoute] = [Route("/live", live)]
    # A path may have a GET and a POST route; Starlette tries the next route if the method does not match.
    routes += [
        Route(path, as_endpoint(context, endpoint), methods=["POST"]) for path, endpoint in _POST_ENDPOINTS
    ]
    routes += [
        Route(path, as_endpoint(context, endpoint), methods=["GET"]) for path, endpoint in _GET_ENDPOINTS
    ]
    return routes
