"""A TCP proxy that cuts a connection at a chosen moment: before a request goes on, after it went and before its answer
comes back, or now."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Moment = Literal["before", "after"]


class CuttingProxy:
    """`cut(marker, …)` cuts the connection whose next bytes to the server hold the marker."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._marker: bytes | None = None
        self._moment: Moment = "after"
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0
        self.cuts = 0

    def cut(self, marker: bytes, moment: Moment) -> None:
        self._marker, self._moment = marker, moment

    def drop(self) -> None:
        """Cuts every connection that there is."""
        self.cuts += 1
        for writer in self._writers:
            writer.transport.abort()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *(w.wait_closed() for w in self._writers), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        above, below = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._writers += [writer, below]
        down = asyncio.create_task(self._down(above, writer))
        up = asyncio.create_task(self._up(reader, writer, below, down))
        self._tasks |= {down, up}

    async def _down(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def _up(
        self,
        source: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        sink: asyncio.StreamWriter,
        down: asyncio.Task[None],
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 20):
                marker = self._marker
                if marker is not None and marker in data:
                    self._marker = None
                    self.cuts += 1
                    # From here on no answer reaches the client.
                    down.cancel()
                    if self._moment == "after":
                        sink.write(data)
                        await sink.drain()
                    client.transport.abort()
                    break
                sink.write(data)
                await sink.drain()
        sink.close()


@contextlib.asynccontextmanager
async def cutting(port: int) -> AsyncIterator[CuttingProxy]:
    proxy = CuttingProxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
