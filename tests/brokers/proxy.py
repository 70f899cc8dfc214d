"""A proxy between the bus and the server that can delay, swallow and cut, and terminate TLS."""

from __future__ import annotations

import asyncio
import ssl
from typing import Self


class Proxy:
    """Forward bytes in both directions unless a test disturbs it; with ``tls``, accept only TLS clients."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._tls = tls
        self.port = 0
        self.delay = 0.0
        self.swallow = False
        """Accept bytes but forward none, like a network that fails silently."""
        self.refuse = False
        self.cut_at: bytes | None = None
        """Break all connections once, when these bytes occur, and do not forward them."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Break all connections."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            return
        accepting = asyncio.current_task()
        assert accepting is not None
        self._tasks.add(accepting)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except BaseException as error:  # also if the proxy ends meanwhile
            writer.transport.abort()
            if isinstance(error, OSError):
                return
            raise
        finally:
            self._tasks.discard(accepting)
        self._writers |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pass_on(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                if self.cut_at is not None and self.cut_at in data:
                    self.cut_at = None
                    self.cut()
                    return
                if self.delay:
                    await asyncio.sleep(self.delay)
                if not self.swallow:
                    sink.write(data)
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            self._writers.discard(sink)
            sink.transport.abort()
