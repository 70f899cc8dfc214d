"""The Lua scripts: what must happen on the server in one step."""

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
    "sign",
    "survey",
    "take",
    "trim",
)
_WITHOUT_ROOM = frozenset(_NAMES) - {"append", "enter", "extent", "trim"}
"""What a group needs to go on, which is how room is made, so a full server has to carry it out, too."""

_FIRST_WRITE = "redis.call('HDEL', KEYS[1], '')\n"
"""Stands before those: a full server refuses what takes memory only as a script's first write."""


class Script(NamedTuple):
    """Hold a script and the name under which the server knows it."""

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
