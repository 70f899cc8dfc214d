"""The Lua scripts: operations that must be atomic on the server."""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple

_NAMES = (
    "append",
    "cancel",
    "declare",
    "discard",
    "enter",
    "extent",
    "forget",
    "halt",
    "join",
    "known",
    "move",
    "open",
    "pause",
    "recall",
    "release",
    "replay",
    "reset",
    "restore",
    "retry",
    "save",
    "heartbeat",
    "survey",
    "take",
    "trim",
)
_WITHOUT_ROOM = frozenset(_NAMES) - {"append", "enter", "extent", "trim"}
"""Scripts that a group needs in order to make progress. They must run on a full server, too: only progress
allows a trim, which frees memory."""

_FIRST_WRITE = "redis.call('HDEL', KEYS[1], '')\n"
"""The prefix of those scripts: a full server refuses a script only if its first write needs memory."""


class Script(NamedTuple):
    """A script and the SHA-1 digest by which the server knows it."""

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """Return a script by its name."""
    text = files("pabal.brokers.redis").joinpath("lua", f"{name}.lua").read_text("utf-8")
    if name in _WITHOUT_ROOM:
        text = _FIRST_WRITE + text
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def scripts() -> list[Script]:
    """Return every script."""
    return [script(name) for name in _NAMES]
