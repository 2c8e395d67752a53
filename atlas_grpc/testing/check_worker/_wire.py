"""A TCP proxy in front of the server: it can be cut, refuse, hold bytes back either way, and be turned elsewhere."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Wire:
    """Passes bytes between a port of the loopback interface and `upstream`, another one."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self._refusing = False
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._ends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self.open()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        self.open()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def open(self) -> None:
        """Passes everything, as from the start."""
        self._refusing = False
        self._up.set()
        self._down.set()

    def cut(self) -> None:
        """Ends all connections at once."""
        for end in self._ends:
            end.transport.abort()

    def refuse(self) -> None:
        """Ends all connections, and every new one."""
        self._refusing = True
        self.cut()

    def hold(self, *, answers_only: bool = False) -> None:
        """Holds back what is said on connections old and new; with `answers_only` just what the server says."""
        self._down.clear()
        if not answers_only:
            self._up.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = asyncio.current_task()
        assert mine is not None
        self._tasks.add(mine)
        try:
            await self._pass(reader, writer)
        finally:
            self._tasks.discard(mine)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            above, below = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, below}
        self._ends |= ends
        ways = [
            asyncio.create_task(_pump(reader, below, self._up)),
            asyncio.create_task(_pump(above, writer, self._down)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        self._ends -= ends
        for end in ends:
            end.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    with suppress(OSError):
        while data := await source.read(1 << 16):
            await gate.wait()
            sink.write(data)
            await sink.drain()
