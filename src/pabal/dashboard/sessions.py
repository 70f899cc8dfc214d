"""Sessions: a signed cookie for users who logged in with the token, and CSRF tokens for changes."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import deque
from collections.abc import Callable

COOKIE = "pabal_dashboard"
LIFETIME = 12 * 3600
"""Seconds for which a login is valid."""
_MAX_FAILURES = 10
_WINDOW = 60.0


class Sessions:
    """Sign and verify with one secret. Nothing is stored, so several processes may share it.

    >>> sessions = Sessions("secret", "a-token-of-16-chars", clock=lambda: 1000.0)
    >>> sessions.user_of(sessions.issue("token"))
    'token'
    >>> sessions.user_of(sessions.issue("token") + "0") is None
    True
    """

    def __init__(self, secret: str, token: str | None, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret.encode()
        self._token = token
        self._clock = clock
        self._failures: deque[float] = deque(maxlen=_MAX_FAILURES)

    def issue(self, user: str) -> str:
        """Return a cookie for this user, valid for ``LIFETIME`` seconds."""
        claim = f"{user}.{int(self._clock()) + LIFETIME}"
        return f"{claim}.{self._sign('session', claim)}"

    def user_of(self, cookie: str) -> str | None:
        """Return the user a cookie was issued to, or None if it is not ours or has expired."""
        claim, _, signature = cookie.rpartition(".")
        user, _, expires_at = claim.rpartition(".")
        if not _equals(signature, self._sign("session", claim)) or int(expires_at) < self._clock():
            return None
        return user

    def csrf_for(self, user: str) -> str:
        """Return the token that our page sends with each change; pages of other sites cannot read it."""
        return self._sign("csrf", user)

    def csrf_matches(self, user: str, given: str) -> bool:
        """Return whether a change comes from a page that was served to this user."""
        return _equals(given, self.csrf_for(user))

    def is_token(self, token: str) -> bool:
        """Return whether this is the dashboard's token."""
        return self._token is not None and _equals(token, self._token)

    # -- failed logins
    # -----------------------------------------------------------------------------------------

    def record_failure(self) -> None:
        """Record a login with a wrong token."""
        self._failures.append(self._clock())

    def lockout_seconds(self) -> float:
        """Return for how many seconds logins are refused, after ten wrong tokens within a minute."""
        if len(self._failures) < _MAX_FAILURES:
            return 0.0
        return max(0.0, self._failures[0] + _WINDOW - self._clock())

    def _sign(self, purpose: str, text: str) -> str:
        # The token is part of the key, so that a new token ends every session of the old one.
        key = self._secret + (self._token or "").encode()
        return hmac.new(key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def _equals(first: str, second: str) -> bool:
    return hmac.compare_digest(first.encode(), second.encode())
