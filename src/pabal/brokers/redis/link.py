"""One connection for many callers: commands go out in the order of the calls, together where they can."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from pabal.brokers.redis.scripts import Script, scripts
from pabal.errors import BrokerError, BrokerUnavailableError, StorageClosedError, UsageError

_log = logging.getLogger("pabal")
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_ANSWER_WITHIN = 10.0
"""Seconds without any answer after which a connection counts as dead, though nobody has closed it."""
_TRANSIENT = (BusyLoadingError, MasterDownError, OutOfMemoryError, ReadOnlyError)
_FINAL = (AuthenticationError, NoPermissionError, ssl.SSLCertVerificationError)
"""What no waiting mends: the server does not let this user in, or is not the one that it should be."""
_NOT_ALLOWED = re.compile(r"^(User .*|this user) has no permissions")

Argument = bytes | str | int | float
Call = Callable[..., "asyncio.Future[Any]"]


def masked(url: str) -> str:
    """Return a server's URL without user, password and settings, fit for logs.

    >>> masked("rediss://risk:secret@10.0.0.1:6379/0?group=risk")
    'rediss://10.0.0.1:6379/0'

    A password that is not escaped may end the host's part early; then nothing of what follows is shown.

    >>> masked("redis://risk:half/other@10.0.0.1:6379/0")
    'redis://…'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{url.partition(':')[0]}://…"
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return f"{parts.scheme}://…"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def pack(args: tuple[Argument, ...]) -> bytes:
    """Return a command as it travels."""
    pieces = [b"*%d\r\n" % len(args)]
    for arg in args:
        if not isinstance(arg, bytes):
            arg = (arg if isinstance(arg, str) else str(arg)).encode()
        pieces.append(b"$%d\r\n%b\r\n" % (len(arg), arg))
    return b"".join(pieces)


class Link:
    """Talk to one server through one connection that is made again, with back-off, whenever it breaks.

    ``call`` puts a command behind those called before and returns a future; what is called in one turn of the
    event loop travels in one write. When the connection breaks, every pending future fails with
    BrokerUnavailableError, and calls made until the next connection stands wait for it, at most ``patience``
    seconds. ``on_connect`` is awaited on each new connection, with a ``call`` of its own, before anything
    else is sent.
    """

    def __init__(
        self,
        url: str,
        *,
        patience: float = 30.0,
        answer_within: float = _ANSWER_WITHIN,
        loads_scripts: bool = True,
        on_connect: Callable[[Call], Awaitable[None]] | None = None,
        on_loss: Callable[[Exception], None] | None = None,
    ) -> None:
        self.address = masked(url)
        self._pool = _pool_of(url, self.address)
        self._patience = patience
        self._answer_within = answer_within
        self._loads_scripts = loads_scripts
        self._on_connect = on_connect
        self._on_loss = on_loss
        self._connection: Any = None
        self._buffer: list[bytes] = []
        self._held: deque[tuple[float, bytes, asyncio.Future[Any]]] = deque()
        """Calls made while there is no connection."""
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._flushing = False
        self._heard_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._open = False
        self.trouble: Exception | None = None
        """Why there is no connection now."""
        self.connections = 0
        """How many connections were made; more than one means that some broke."""

    # -- calling --------------------------------------------------------------------------------------

    def call(self, *args: Argument) -> asyncio.Future[Any]:
        """Send a command; the future holds the answer, or a BrokerError."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._task is None:
            future.set_exception(StorageClosedError(path=self.address, reason="closed"))
        elif self._task.done():
            future.set_exception(self.trouble or StorageClosedError(path=self.address, reason="closed"))
        elif self.is_connected:
            self._send(pack(args), future)
        else:
            self._held.append((loop.time() + self._patience, pack(args), future))
        return future

    async def run(self, script: Script, keys: tuple[str, ...], *args: Argument) -> Any:
        """Run a script, and send its text where the server does not know it (any more)."""
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except BrokerError as error:
            if not isinstance(error.__cause__, NoScriptError):
                raise
        return await self.call("EVAL", script.text, len(keys), *keys, *args)

    def _call_now(self, *args: Argument) -> asyncio.Future[Any]:
        """Send a command while the connection is not open to all yet."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._send(pack(args), future)
        return future

    def _send(self, data: bytes, future: asyncio.Future[Any]) -> None:
        loop = asyncio.get_running_loop()
        if not self._pending:
            self._heard_at = loop.time()
        self._pending.append(future)
        self._buffer.append(data)
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        connection, data = self._connection, b"".join(self._buffer)
        self._buffer.clear()
        if connection is not None and data:
            connection._writer.write(data)

    # -- life -----------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Tell whether calls go out at once."""
        return self._open

    async def open(self) -> None:
        """Connect; return when the server answers.

        Raises BrokerUnavailableError after ``patience``, and at once where the server refuses the password or
        the user, or shows a certificate that is not to be trusted.
        """
        if self._task is not None and self._open:
            return
        self.begin()
        assert self._task is not None
        assert self._ready is not None
        await asyncio.wait(
            {self._task, self._ready}, timeout=self._patience, return_when=asyncio.FIRST_COMPLETED
        )
        if self._ready.done():
            return
        task, trouble = self._task, self.trouble
        await self.close()
        if not task.cancelled() and task.exception() is not None:
            raise task.exception() or AssertionError
        raise BrokerUnavailableError(
            path=self.address, reason=f"no connection within {self._patience:g} s: {_reason(trouble)}"
        )

    def begin(self) -> None:
        """Begin to connect; harmless when that was done."""
        if self._task is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(), name="pabal-redis-link")

    async def close(self) -> None:
        """Close the connection and fail what is pending."""
        task, self._task = self._task, None
        self._open = False
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._fail(StorageClosedError(path=self.address, reason="closed"), held=True)
        await self._drop()

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            before = self.connections
            try:
                await self._serve()
            except asyncio.CancelledError:
                await self._drop()  # the loop may be ending, with nobody left to close
                raise
            except (RedisError, OSError, BrokerError, EOFError) as error:
                lost = BrokerUnavailableError(path=self.address, reason=_reason(error))
                lost.__cause__ = error
                self.trouble = lost
                self._open = False
                await self._drop()
                is_final = _is_final(error) and not self.connections
                self._fail(lost, held=is_final)
                if is_final:
                    raise lost from error
                if self._on_loss is not None and self.connections > before:
                    self._on_loss(lost)
            if self.connections > before:
                pause = _FIRST_PAUSE
            self._expire_held()
            await asyncio.sleep(pause * (0.5 + random.random() / 2))
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _serve(self) -> None:
        """Connect, greet, and hand out answers until the connection breaks, which raises."""
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        async with asyncio.timeout(self._answer_within):
            await connection.connect()
        self._connection = connection
        tasks = [
            asyncio.create_task(self._read(connection), name="pabal-redis-answers"),
            asyncio.create_task(self._greet(), name="pabal-redis-greeting"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in reversed(tasks):
                if task.done():
                    task.result()
            self._established()
            await tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _established(self) -> None:
        self.connections += 1
        self.trouble = None
        self._open = True
        held, self._held = self._held, deque()
        for _, data, future in held:
            if not future.done():
                self._send(data, future)
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    async def _greet(self) -> None:
        """Load the scripts, and let the owner look around before anything of others is sent."""
        wanted = scripts() if self._loads_scripts else []
        for loading in [self._call_now("SCRIPT", "LOAD", script.text) for script in wanted]:
            await loading
        if self._on_connect is not None:
            await self._on_connect(self._call_now)

    async def _read(self, connection: Any) -> None:
        """Hand answers to those who wait, in order, until the connection breaks."""
        loop = asyncio.get_running_loop()
        watch = asyncio.create_task(self._watch(connection), name="pabal-redis-watch")
        try:
            while True:
                try:
                    answer = await connection.read_response(timeout=math.inf, disconnect_on_error=False)
                except ResponseError as error:
                    answer = error
                self._heard_at = loop.time()
                future = self._pending.popleft()
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(self._described(answer))
                else:
                    future.set_result(answer)
        finally:
            watch.cancel()

    async def _watch(self, connection: Any) -> None:
        """Break a connection on which answers are due and nothing comes: the other end may be gone."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._answer_within / 4)
            if self._pending and loop.time() - self._heard_at > self._answer_within:
                connection._writer.transport.abort()
                return

    def _described(self, error: Exception) -> BrokerError:
        kind = BrokerUnavailableError if isinstance(error, _TRANSIENT) else BrokerError
        described = kind(path=self.address, reason=f"the server refused: {_reason(error)}")
        described.__cause__ = error
        return described

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._buffer.clear()
        if connection is not None:
            try:
                await connection.disconnect(nowait=True)
            except (OSError, RedisError):
                pass

    def _fail(self, error: Exception, *, held: bool = False) -> None:
        pending, self._pending = self._pending, deque()
        for future in pending:
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever awaits it still gets it; nobody has to
        if held:
            waiting, self._held = self._held, deque()
            for _, _, future in waiting:
                if not future.done():
                    future.set_exception(error)
                    future.exception()

    def _expire_held(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._held and self._held[0][0] <= now:
            future = self._held.popleft()[2]
            if not future.done():
                future.set_exception(BrokerUnavailableError(path=self.address, reason=_reason(self.trouble)))


def _is_final(error: BaseException | None) -> bool:
    """Tell whether no waiting mends this; the client wraps what the connection says of certificates."""
    while error is not None:
        if isinstance(error, _FINAL):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: Exception | None) -> str:
    if isinstance(error, BrokerError):
        return error.reason
    said = f"{error or type(error).__name__}".rstrip(".")
    return _NOT_ALLOWED.sub("the user has no permissions", said)


def _pool_of(url: str, address: str) -> ConnectionPool:
    try:
        parts = urlsplit(url)
        pool = ConnectionPool.from_url(
            url, protocol=2, socket_timeout=None, socket_connect_timeout=5.0, client_name="pabal"
        )
        pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{address!r} is no server's URL: {_why_no_url(error, address)}") from None
    if parts.scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
        raise UsageError(f"{address!r} is no server's URL: behind the host stands the number of a database")
    return pool


def _why_no_url(error: Exception, address: str) -> str:
    """Say what is wrong with a URL; what could not be read may be a piece of a password, and is not shown."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown is not None and not address.endswith("…"):
        return f"neither pabal nor the client knows the setting {unknown[1]!r}"
    if str(error).startswith("Invalid value for"):
        return str(error)
    return "the host or the port cannot be read; in a password, write %2F for / and so on"
