"""Who asks: a signed cookie after a login with the token, and the proof that a change comes from our page."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import deque
from collections.abc import Callable

COOKIE = "pabal_dashboard"
LIFETIME = 12 * 3600
"""Seconds that a login holds."""
_TRIES = 10
_WINDOW = 60.0


class Sessions:
    """Sign and verify, with one secret; nothing is stored, so several processes may share it.

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
        self._failures: deque[float] = deque(maxlen=_TRIES)

    def issue(self, user: str) -> str:
        """Return a cookie for this user, good for ``LIFETIME`` seconds."""
        claim = f"{user}.{int(self._clock()) + LIFETIME}"
        return f"{claim}.{self._sign('session', claim)}"

    def user_of(self, cookie: str) -> str | None:
        """Return whom a cookie was issued to, or None if it was not by us, or is over."""
        claim, _, signature = cookie.rpartition(".")
        user, _, until = claim.rpartition(".")
        if not _same(signature, self._sign("session", claim)) or int(until) < self._clock():
            return None
        return user

    def csrf_for(self, user: str) -> str:
        """Return what a page of ours sends along with a change; other sites cannot read it."""
        return self._sign("csrf", user)

    def csrf_matches(self, user: str, given: str) -> bool:
        """Tell whether a change comes from a page that we gave to this user."""
        return _same(given, self.csrf_for(user))

    def knows(self, token: str) -> bool:
        """Tell whether this is the token."""
        return self._token is not None and _same(token, self._token)

    # -- guessing ------------------------------------------------------------------------------------------

    def failed(self) -> None:
        """Note a login with a wrong token."""
        self._failures.append(self._clock())

    def pause(self) -> float:
        """Return for how many seconds no login is looked at: ten wrong ones in a minute close the door."""
        if len(self._failures) < _TRIES:
            return 0.0
        return max(0.0, self._failures[0] + _WINDOW - self._clock())

    def _sign(self, purpose: str, text: str) -> str:
        # The token is part of the key: a new token ends every session of the old one.
        key = self._secret + (self._token or "").encode()
        return hmac.new(key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def _same(first: str, second: str) -> bool:
    return hmac.compare_digest(first.encode(), second.encode())
