"""Connections for calls: few, the last one used first, made when needed, and none trusted after an error.

Why not the driver's pool: it resets a connection by a round trip of its own after each use, and while the server is
away each caller runs into the wall for itself. Here an attempt that failed closes the gate for a moment (growing,
drawn at random, half a second at most); who comes meanwhile is told UNAVAILABLE at once. So an outage costs nothing,
a server that is back is found within half a second, and a hundred Atlas servers do not come back in step.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from ...errors import Unavailable
from .faults import DRIVER_ERRORS, translated

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    import asyncpg

    from ...clock import Clock

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.5
_NO_CONNECTION: tuple[type[Exception], ...] = (Unavailable, *DRIVER_ERRORS)


class Pool:
    """Up to `size` connections."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        size: int,
        patience: float,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._connect = connect
        self._size = size
        self._patience = patience
        self._clock = clock
        self._rng = rng
        self._idle: list[asyncpg.Connection] = []
        self._waiting: deque[asyncio.Future[asyncpg.Connection | None]] = deque()
        self._made = 0
        self._failures = 0
        self._closed_until = 0.0
        self._closed = False

    @property
    def made(self) -> int:
        """Connections that are open, or being made."""
        return self._made

    @property
    def in_use(self) -> int:
        """Connections that are lent, or being made."""
        return self._made - len(self._idle)

    @property
    def waiting(self) -> int:
        """Calls that wait for a connection."""
        return len(self._waiting)

    async def lend(self) -> asyncpg.Connection:
        """A connection; `give_back` it. Raises Unavailable."""
        while True:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    return connection
                self._made -= 1
            if self._made < self._size:
                return await self._make()
            connection_or_place = await self._wait()
            if connection_or_place is not None:
                return connection_or_place

    def give_back(self, connection: asyncpg.Connection) -> None:
        """Takes a connection back; one that is closed is forgotten."""
        if self._closed and not connection.is_closed():
            connection.terminate()
        if connection.is_closed():
            self._made -= 1
            self._hand_on(None)
        elif not self._hand_on(connection):
            self._idle.append(connection)

    def _hand_on(self, connection: asyncpg.Connection | None) -> bool:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(connection)
                return True
        return False

    async def _wait(self) -> asyncpg.Connection | None:
        """A connection that was given back, or None when there is room for a new one."""
        future: asyncio.Future[asyncpg.Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await asyncio.wait([future], timeout=self._patience)
        except asyncio.CancelledError:
            if future.done():
                self._pass_on(future.result())
            raise
        finally:
            if not future.done():
                future.cancel()
        if future.cancelled():
            raise Unavailable("all connections to the database are busy", retry_after=self._rng.uniform(0.5, 1.5))
        return future.result()

    def _pass_on(self, connection: asyncpg.Connection | None) -> None:
        if connection is None:
            self._hand_on(None)
        else:
            self.give_back(connection)

    async def _make(self) -> asyncpg.Connection:
        if self._closed:
            raise Unavailable("the store is closed")
        left = self._closed_until - self._clock.monotonic()
        if left > 0:
            # Whoever else waits need not wait for it either.
            self._hand_on(None)
            raise Unavailable("the database cannot be reached", retry_after=left + self._rng.uniform(0.05, 0.3))
        self._made += 1
        connection: asyncpg.Connection | None = None
        try:
            connection = await self._connect()
        except _NO_CONNECTION as error:
            self._failures += 1
            pause = min(_FIRST_PAUSE * 2**self._failures, _LONGEST_PAUSE) * self._rng.uniform(0.5, 1.0)
            self._closed_until = self._clock.monotonic() + pause
            raise translated(error, self._rng) from error
        finally:
            if connection is None:
                self._made -= 1
                self._hand_on(None)
        self._failures = 0
        return connection

    def open(self) -> None:
        """Lets connections be made."""
        self._closed = False
        self._failures = 0
        self._closed_until = 0.0

    async def close(self) -> None:
        """Closes what is idle now, and what is lent when it comes back."""
        self._closed = True
        idle, self._idle = self._idle, []
        self._made -= len(idle)
        while self._hand_on(None):
            pass
        await asyncio.gather(*(connection.close(timeout=1) for connection in idle), return_exceptions=True)
