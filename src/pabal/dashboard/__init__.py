"""A web dashboard for a bus or its log: see which subscriptions are stuck and why, and fix them.

``create_dashboard`` returns an ASGI application to serve, or to mount in another one; ``serve`` serves one.
The dashboard needs the extra ``dashboard``; this module can be imported without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pabal.errors import MissingExtraError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from pabal.bus.base import BaseEventBus
    from pabal.operations import Operations
    from pabal.ports.inspection import InspectableStorage

__all__ = ["create_dashboard", "serve"]


def create_dashboard(target: BaseEventBus | InspectableStorage | Operations, **options: Any) -> Starlette:
    """Return the dashboard of a bus, a storage or its operations, as an ASGI application.

    The caller still has to start, stop and close the target. Options:

    - ``allow_actions`` (False): without it the dashboard is read-only;
    - ``token`` (None): at least 16 characters; its holder may log in from anywhere. Without ``token`` and
      ``auth``, only requests from this machine are served, and none that come through a proxy;
    - ``auth``: a function or async function that takes the Starlette request and returns the user's name
      (for the audit log), or None to refuse the request; it replaces the token;
    - ``allowed_hosts``: a tuple of host names under which the dashboard is reached, besides this machine's;
    - ``payloads``: ``"full"``, ``"masked"`` (hides fields whose name is in ``masked_fields``, and error
      messages, which may quote them) or ``"none"``. Default: full for users on this machine, masked with a
      token or ``auth``. ``masked_fields`` defaults to ``pabal.operations.DEFAULT_FIELDS``;
    - ``title``: the name of the log at the top of each page;
    - ``metrics`` (False): serve Prometheus metrics under ``/metrics``, to users who may see the dashboard;
      needs a live bus and the extra ``prometheus``;
    - ``secret``: the key that signs logins; set it if several processes serve one dashboard. Default: random.

    Raises MissingExtraError without the extra ``dashboard``, UsageError for an invalid option.

    >>> from pabal import InMemoryEventStorage
    >>> app = create_dashboard(InMemoryEventStorage())
    >>> [route.path for route in app.routes]
    ['/static/{path:path}', '/api', '/{path:path}']
    """
    try:
        from pabal.dashboard.app import build
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return build(target, **options)


def serve(
    target: BaseEventBus | InspectableStorage | Operations,
    *,
    host: str = "127.0.0.1",
    port: int = 8420,
    **options: Any,
) -> None:
    """Serve a dashboard until Ctrl-C, and print the address to open. Blocks.

    ``options`` are those of ``create_dashboard``; port 0 picks a free one. If ``host`` is not this machine's
    own address, a token is generated and printed with the address, unless ``token`` or ``auth`` is given.
    Raises MissingExtraError, UsageError, and OSError if the port is taken.
    """
    try:
        from pabal.dashboard.server import run
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    run(target, host=host, port=port, **options)


def _missing(error: ModuleNotFoundError) -> ModuleNotFoundError | MissingExtraError:
    if (error.name or "").partition(".")[0] in ("starlette", "uvicorn"):
        return MissingExtraError(feature="the dashboard", extra="dashboard")
    return error
