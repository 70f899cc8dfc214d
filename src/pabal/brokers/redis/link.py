"""One connection shared by many callers: commands are sent in the order of the calls, pipelined."""

from __future__ import annotations

import asyncio
import copy
import math
import random
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from pabal.brokers.redis.address import masked, pool_of
from pabal.brokers.redis.scripts import Script, scripts
from pabal.delivery.shutdown import close_dead_tasks, end_tasks, is_dead
from pabal.errors import (
    BrokerError,
    BrokerUnavailableError,
    PartitionCountError,
    StorageClosedError,
    UsageError,
    WrongLoopError,
)

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_ANSWER_WITHIN = 10.0
"""Seconds without any answer after which a connection counts as dead, although it was not closed."""
_LARGE = 16 << 10
"""Bytes of a command that is worth a write of its own."""
_TRANSIENT = (BusyLoadingError, ClusterDownError, MasterDownError, OutOfMemoryError, ReadOnlyError)
_NOT_NOW = re.compile(r"^(NOREPLICAS|BUSY|MISCONF|TRYAGAIN|OOM|READONLY|MASTERDOWN|CLUSTERDOWN) ")
"""Transient errors without a class in the client: few replicas, a long script, a full disk, a moving slot.

The others have one, but not if a command in a script met them on Redis before 7.
"""
_IN_SCRIPT = re.compile(r"^Error running script \(.*?\): .*?: -(?=[A-Z]+ )")
"""What Redis before 7 puts in front of the error that a command in a script met."""
_FINAL = (AuthenticationError, NoPermissionError, ssl.SSLCertVerificationError)
"""Errors that do not go away by waiting: the server refuses this user, or its certificate is not trusted."""
_NOT_ALLOWED = re.compile(r"^(User .*|this user) has no permissions")

Argument = bytes | str | int | float
Call = Callable[..., "asyncio.Future[Any]"]


def pack(args: tuple[Argument, ...]) -> bytes:
    """Encode a command in the Redis protocol. Raises UsageError for text that has no UTF-8 encoding."""
    pieces = [b"*%d\r\n" % len(args)]
    for arg in args:
        if not isinstance(arg, bytes):
            try:
                arg = (arg if isinstance(arg, str) else str(arg)).encode()
            except UnicodeEncodeError:
                raise UsageError(f"{arg!r} contains a lone surrogate, which cannot be stored") from None
        pieces.append(b"$%d\r\n%b\r\n" % (len(arg), arg))
    return b"".join(pieces)


class Link:
    """Talk to one server through one connection, which is made again, with back-off, whenever it breaks.

    ``call`` queues a command and returns a future; commands of one iteration of the event loop are sent in
    one write, but a large one at once. When the connection breaks, all pending futures fail with
    BrokerUnavailableError. Calls made while there is no connection wait for the next one, at most
    ``patience`` seconds. ``on_connect`` is awaited on each new connection before other commands are sent; it
    gets its own ``call`` function.
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
        self._pool = pool_of(url, self.address)
        self._patience = patience
        self._answer_within = answer_within
        self._loads_scripts = loads_scripts
        self._on_connect = on_connect
        self._on_loss = on_loss
        self._connection: Any = None
        self._buffer: list[bytes] = []
        self._queued: deque[tuple[float, bytes, asyncio.Future[Any]]] = deque()
        """Calls made while there is no connection: when they expire, the encoded command, the future."""
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._flushing = False
        self._heard_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._open = False
        self.trouble: Exception | None = None
        """Why there is no connection at present."""
        self.connections = 0
        """Number of connections made so far; more than one means that some broke."""

    # -- calling --------------------------------------------------------------------------------------

    def call(self, *args: Argument) -> asyncio.Future[Any]:
        """Send a command; the future gets the answer, or a BrokerError."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._task is None:
            _refuse(future, StorageClosedError(path=self.address, reason="closed"))
        elif self._task.get_loop() is not loop:
            raise WrongLoopError(action="ask the server")  # answers would go to the wrong callers
        elif self._task.done():
            _refuse(future, self.trouble or StorageClosedError(path=self.address, reason="closed"))
        elif self.is_connected:
            self._send(pack(args), future)
        else:
            self._queued.append((loop.time() + self._patience, pack(args), future))
            loop.call_later(self._patience, self._expire_queued)
        return future

    async def run(self, script: Script, keys: tuple[str, ...], *args: Argument) -> Any:
        """Run a script by its digest, or send its text if the server does not know it (any more)."""
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except BrokerError as error:
            if not isinstance(error.__cause__, NoScriptError):
                raise
        return await self.call("EVAL", script.text, len(keys), *keys, *args)

    def _call_now(self, *args: Argument) -> asyncio.Future[Any]:
        """Send a command before the connection is open to other callers."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._send(pack(args), future)
        return future

    def _send(self, data: bytes, future: asyncio.Future[Any]) -> None:
        loop = asyncio.get_running_loop()
        if not self._pending:
            self._heard_at = loop.time()
        self._pending.append(future)
        self._buffer.append(data)
        if len(data) >= _LARGE:
            self._flush()  # so that the server can begin while this process prepares the next one
        elif not self._flushing:
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
        """Return whether calls are sent at once."""
        return self._open

    async def open(self) -> None:
        """Connect; return when the server answers.

        Raises BrokerUnavailableError after ``patience``, or at once if the server refuses the user or the
        password, or its certificate is not trusted; StorageClosedError if it is closed meanwhile.
        """
        if self._task is not None and self._open:
            return
        self.begin()
        task, ready = self._task, self._ready
        assert task is not None
        assert ready is not None
        try:
            await asyncio.wait({task, ready}, timeout=self._patience, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.close()  # otherwise the task would go on connecting for ever
            raise
        if ready.done():
            return
        if self._task is not task:
            raise StorageClosedError(path=self.address, reason="closed")
        trouble = self.trouble
        await self.close()
        if not task.cancelled() and task.exception() is not None:
            raise task.exception() or AssertionError
        raise BrokerUnavailableError(
            path=self.address,
            reason=f"no connection within {self._patience:g} s: {_reason(trouble)}",
            was_connected=bool(self.connections),
        )

    def begin(self) -> None:
        """Begin to connect, without waiting; harmless if already begun."""
        if self._task is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(), name="pabal-redis-link")

    async def close(self) -> None:
        """Close the connection and fail all pending calls."""
        task, self._task = self._task, None
        self._open = False
        if task is not None and is_dead(task):
            # Its loop was closed, and so was that of all pending calls, which is the same.
            close_dead_tasks(task)
            self._connection = None
            self._pending.clear()
            self._queued.clear()
            self._buffer.clear()
            self._flushing = False
            return
        await end_tasks(task)
        self._fail(StorageClosedError(path=self.address, reason="closed"), queued=True)
        await self._drop()

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        has_failed = False
        while True:
            before = self.connections
            try:
                await self._serve()
            except asyncio.CancelledError:
                self._open = False
                await self._drop()  # the loop may be closing, and then nothing calls `close`
                raise
            except Exception as error:
                lost = BrokerUnavailableError(
                    path=self.address, reason=_reason(error), was_connected=bool(self.connections)
                )
                lost.__cause__ = error
                self.trouble = lost
                self._open = False
                await self._drop()
                is_final = _is_final(error) and not self.connections
                self._fail(lost, queued=is_final)
                if is_final:
                    raise (error if isinstance(error, PartitionCountError) else lost) from error.__cause__
                if self._on_loss is not None and (self.connections > before or not has_failed):
                    self._on_loss(lost)
                has_failed = True
            if self.connections > before:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause * (0.5 + random.random() / 2))
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _serve(self) -> None:
        """Connect, prepare the connection, and read answers until it breaks, which raises."""
        # Keep it from the start: a connection that is cancelled while connecting must be closed, too.
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        self._connection = connection
        async with asyncio.timeout(self._answer_within):
            await connection.connect()
        tasks = [
            asyncio.create_task(self._read(connection), name="pabal-redis-answers"),
            asyncio.create_task(self._watch(connection), name="pabal-redis-watch"),
            asyncio.create_task(self._prepare(), name="pabal-redis-greeting"),
        ]
        try:
            await _first_of(tasks)
            self._mark_connected()
            await _first_of(tasks[:2])
        finally:
            await end_tasks(*tasks)

    def _mark_connected(self) -> None:
        self.connections += 1
        self.trouble = None
        self._open = True
        queued, self._queued = self._queued, deque()
        for _, data, future in queued:
            if not future.done():
                self._send(data, future)
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    async def _prepare(self) -> None:
        """Load the scripts and run ``on_connect``, before other callers' commands are sent."""
        wanted = scripts() if self._loads_scripts else []
        for loading in [self._call_now("SCRIPT", "LOAD", script.text) for script in wanted]:
            await loading
        if self._on_connect is not None:
            await self._on_connect(self._call_now)

    async def _read(self, connection: Any) -> None:
        """Resolve pending futures with the answers, in order, until the connection breaks."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                answer = await connection.read_response(timeout=math.inf, disconnect_on_error=False)
            except ResponseError as error:
                answer = error
            self._heard_at = loop.time()
            future = self._pending.popleft()
            if isinstance(answer, Exception):
                _refuse(future, self._to_broker_error(answer))
            elif not future.done():
                future.set_result(answer)

    async def _watch(self, connection: Any) -> None:
        """Break the connection if answers are due and none arrives: the other end may be gone."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._answer_within / 4)
            if self._pending and loop.time() - self._heard_at > self._answer_within:
                connection._writer.transport.abort()
                raise TimeoutError

    def _to_broker_error(self, error: Exception) -> BrokerError:
        is_transient = isinstance(error, _TRANSIENT) or _NOT_NOW.match(_text_of(error))
        kind = BrokerUnavailableError if is_transient else BrokerError
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

    def _fail(self, error: Exception, *, queued: bool = False) -> None:
        pending, self._pending = self._pending, deque()
        for future in pending:
            _refuse(future, error)
        if queued:
            waiting, self._queued = self._queued, deque()
            for _, _, future in waiting:
                _refuse(future, error)

    def _expire_queued(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._queued and self._queued[0][0] <= now:
            future = self._queued.popleft()[2]
            _refuse(future, BrokerUnavailableError(path=self.address, reason=_reason(self.trouble)))


async def _first_of(tasks: list[asyncio.Task[None]]) -> None:
    """Return when the first of several tasks has ended; raise its error, of several ended ones the last's."""
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in reversed(tasks):
        if task in ended:
            task.result()


def _refuse(future: asyncio.Future[Any], error: Exception) -> None:
    """Fail a call with its own copy of an error.

    Every raise adds frames to an error's traceback, and so keeps their variables alive in all that share it.
    """
    if not future.done():
        own = copy.copy(error)
        own.__cause__ = error.__cause__
        future.set_exception(own)
        future.exception()  # mark it as retrieved, so that asyncio logs nothing if nobody awaits the call


def _is_final(error: BaseException | None) -> bool:
    """Return whether an error does not go away by waiting; the client wraps errors about certificates."""
    if not isinstance(error, (RedisError, OSError, BrokerError, EOFError)):
        return True
    while error is not None:
        if isinstance(error, _FINAL):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: Exception | None) -> str:
    if isinstance(error, BrokerError):
        return error.reason
    if isinstance(error, PartitionCountError):
        return str(error).removeprefix(f"{error.path}: ")
    if error is None or isinstance(error, TimeoutError):
        return "no answer in time"
    message = _text_of(error).rstrip(".") or type(error).__name__
    return _NOT_ALLOWED.sub("the user has no permissions", message)


def _text_of(error: Exception) -> str:
    return _IN_SCRIPT.sub("", f"{error}")
