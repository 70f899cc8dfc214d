"""A web dashboard over a bus or its log: see what is stuck and why, and fix it.

``create_dashboard`` returns an ASGI application to serve or to mount in another one; ``serve`` serves one.
Needs the extra ``dashboard``; importing this module does not.
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

    The target stays the caller's to start, stop and close. Options:

    - ``allow_actions`` (False): without it everything can be seen and nothing changed;
    - ``token`` (None): at least 16 characters; who has it may log in, from anywhere. Without ``token`` and
      ``auth`` only this machine is served, and nobody through a proxy;
    - ``auth``: a function, or async function, of the Starlette request that returns the name of who asks
      (for the audit log) or None to refuse; it replaces the token;
    - ``allowed_hosts``: a tuple of names, besides those of this machine, that the dashboard goes by;
    - ``payloads``: ``"full"``, ``"masked"`` (fields whose name is in ``masked_fields`` are hidden, and so are
      error messages, which may quote them) or ``"none"``. Default: full for who sits at this machine, masked
      with a token or ``auth``. ``masked_fields`` defaults to ``pabal.operations.DEFAULT_FIELDS``;
    - ``title``: what to call the log at the top of each page;
    - ``metrics`` (False): answer Prometheus under ``/metrics``, to who may look; needs a live bus and the
      extra ``prometheus``;
    - ``secret``: signs logins; set it where several processes serve one dashboard. Default: a random one.

    Raises MissingExtraError without the extra ``dashboard``, UsageError for an option that makes no sense.

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
    """Serve a dashboard until Ctrl-C; the address to open is printed. It blocks.

    ``options`` are those of ``create_dashboard``; port 0 takes a free one. For any ``host`` but this
    machine's own a token is made and printed with the address, unless ``token`` or ``auth`` is given. Raises
    MissingExtraError, UsageError, and OSError where the port is taken.
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
