"""The settings of a dashboard: what it may do, for whom, and how much of payloads it shows."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from pabal.errors import UsageError
from pabal.operations import DEFAULT_FIELDS, Masking
from pabal.operations.masking import Mode

if TYPE_CHECKING:
    from starlette.requests import Request

Auth = Callable[["Request"], "str | Awaitable[str | None] | None"]
"""Returns the user's name, for the audit log, or None to refuse the request."""

_SHORTEST = 16


class DashboardSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one dashboard, as described in ``create_dashboard``."""

    allow_actions: bool = False
    token: str | None = None
    auth: Auth | None = None
    allowed_hosts: Sequence[str] = ()
    payloads: Mode | None = None
    masked_fields: Iterable[str] = DEFAULT_FIELDS
    title: str = ""
    metrics: bool = False
    secret: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(32))

    def __post_init__(self) -> None:
        for name, value in (("token", self.token), ("secret", self.secret)):
            if value is not None and len(value) < _SHORTEST:
                raise UsageError(
                    f"the length of the dashboard's {name} is {len(value)}; give it at least "
                    f"{_SHORTEST} characters, such as secrets.token_urlsafe() returns"
                )
        if not isinstance(self.allowed_hosts, tuple | list):
            raise UsageError(f"allowed_hosts is {self.allowed_hosts!r}; write a tuple of names")

    @property
    def requires_user(self) -> bool:
        """Return whether a token or ``auth`` decides who has access, rather than the client's address."""
        return self.token is not None or self.auth is not None

    @property
    def masking(self) -> Masking:
        """Return the masking: by default, users on this machine see everything, and others less."""
        mode = self.payloads or ("masked" if self.requires_user else "full")
        return Masking(mode, self.masked_fields)
