"""Wake other processes after a commit, by sending a datagram to a socket beside the database file.

The datagram only says "look"; all information is in the file. So nothing depends on its arrival: where it
cannot be sent (no such sockets, or the path is too long for one), other processes notice by polling.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

_LONGEST_PATH = 100
"""Bytes in a socket's name; systems allow 104 to 108."""
_SETTLED = 0.1
"""Seconds after which an unchanged modification time proves that nothing was added: its ticks are coarse."""
_LIST_EVERY = 0.05
"""Seconds between two listings of the folder; in a busy folder, one per commit would cost too much."""


class Doorbell:
    """Ring all processes that listen at a database file, except this object's own listeners."""

    def __init__(self, database: Path, owner: str) -> None:
        self._folder = database.parent
        self._prefix = f"{database.name}-bell-"
        self._owner = owner[:12]
        self._own: set[str] = set()
        self._socket_count = 0
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._others: tuple[str, ...] = ()
        self._listed_at = -_LIST_EVERY
        self._unchanged_since = -1

    # -- hearing --------------------------------------------------------------------------------------

    def listen(self, on_ring: Callable[[], object]) -> Callable[[], None]:
        """Call ``on_ring`` in the running loop when another process rings; return a function to stop."""
        loop = asyncio.get_running_loop()
        receiver = self._bind_receiver()
        if receiver is None:
            return _nothing
        name = receiver.getsockname()

        def ring() -> None:
            try:
                while receiver.recv(16):
                    pass
            except OSError:
                pass  # all pending datagrams are read
            on_ring()

        def end() -> None:
            if not loop.is_closed():
                loop.remove_reader(receiver)
            receiver.close()
            _remove(name)
            self._own.discard(name)

        try:
            loop.add_reader(receiver, ring)
        except NotImplementedError:
            receiver.close()
            _remove(name)
            return _nothing
        return end

    def _bind_receiver(self) -> socket.socket | None:
        self._socket_count += 1
        name = str(self._folder / f"{self._prefix}{self._owner}-{self._socket_count}")
        receiver = None if len(os.fsencode(name)) > _LONGEST_PATH else _socket()
        if receiver is None:
            return None
        try:
            self._own.add(name)
            receiver.bind(name)
        except OSError:
            receiver.close()
            self._own.discard(name)
            return None
        return receiver

    # -- ringing --------------------------------------------------------------------------------------

    def ring(self) -> None:
        """Ring all other listeners. Never blocks; costs a few microseconds if there are none."""
        with self._lock:
            for name in self._listeners():
                self._send_to(name)

    def _listeners(self) -> tuple[str, ...]:
        now = time.monotonic()
        if now - self._listed_at < _LIST_EVERY:
            return self._others
        try:
            changed = os.stat(self._folder).st_mtime_ns
            if changed != self._unchanged_since:
                with os.scandir(self._folder) as entries:
                    found = [entry.path for entry in entries if entry.name.startswith(self._prefix)]
                self._others = tuple(name for name in found if name not in self._own)
                self._listed_at = now
                # The folder may still change within the same tick of its clock; then list it again next time.
                self._unchanged_since = changed if time.time_ns() - changed > _SETTLED * 1e9 else -1
        except OSError:
            return ()
        return self._others

    def _send_to(self, name: str) -> None:
        if self._socket is None:
            self._socket = _socket()
            if self._socket is None:
                return  # no such sockets here: the listener runs on another system that shares the folder
        try:
            self._socket.sendto(b"!", name)
        except (ConnectionRefusedError, FileNotFoundError):
            _remove(name)  # its process has died
            self._others = tuple(other for other in self._others if other != name)
        except OSError:
            pass  # its queue is full, so the listener will look anyway

    def close(self) -> None:
        """Close the socket used for ringing."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None


def _socket() -> socket.socket | None:
    """Return a non-blocking Unix datagram socket; None on Windows, which has none."""
    try:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except (AttributeError, OSError):
        return None
    made.setblocking(False)
    return made


def _remove(name: str) -> None:
    try:
        os.unlink(name)
    except OSError:
        pass  # already gone, or owned by another user


def _nothing() -> None:
    """Do nothing: there is no listener to stop."""
