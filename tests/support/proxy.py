"""A TCP proxy in the test's own loop: it can be cut, between a request and its answer too, and be turned elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Proxy:
    """Passes bytes between a loopback port and a Unix socket."""

    def __init__(self, upstream: Path) -> None:
        self.upstream = upstream
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._word: bytes | None = None
        self.swallowed = asyncio.Event()
        """Set when an answer was kept back and its connection cut."""

    def swallow_answer_to(self, word: bytes) -> None:
        """The next request that holds the word reaches the server; its answer does not come back."""
        self._word = word
        self.swallowed.clear()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuses connections and cuts those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = asyncio.current_task()
        assert mine is not None
        self._tasks.add(mine)
        try:
            await self._pass(reader, writer)
        finally:
            self._tasks.discard(mine)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(str(self.upstream))
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, up_writer}
        self._writers |= ends
        held = asyncio.Event()
        tasks = [
            asyncio.create_task(self._requests(reader, up_writer, held)),
            asyncio.create_task(self._answers(up_reader, writer, held)),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.transport.abort()
        await asyncio.wait(tasks)
        self._writers -= ends

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self._word is not None and self._word in data:
                    self._word = None
                    held.set()
                writer.write(data)
                await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if held.is_set():
                    self.swallowed.set()
                    return
                writer.write(data)
                await writer.drain()


@contextlib.asynccontextmanager
async def proxied(upstream: Path) -> AsyncIterator[Proxy]:
    proxy = Proxy(upstream)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
