"""A clock that stands still until it is told to move."""

from __future__ import annotations

import asyncio
import heapq
import itertools

_START = 1_700_000_000_000_000
_TURNS = 40
"""Turns of the loop that are enough for work without I/O to come to rest."""


class FakeClock:
    """An `atlas_grpc.clock.Clock` under the control of a test.

    clock = FakeClock()
    ...
    await clock.advance(30)     # wakes all that sleeps until then, in order, and lets it run
    """

    def __init__(self, start: int = _START) -> None:
        self._now = start
        self._began = start
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return (self._now - self._began) / 1_000_000

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + round(seconds * 1_000_000), next(self._order), future))
        await future

    def tick(self, micros: int = 1) -> None:
        """Moves time without letting anything run."""
        self._now += micros

    async def advance(self, seconds: float) -> None:
        """Moves time forward, stopping at each instant that somebody sleeps until."""
        until = self._now + round(seconds * 1_000_000)
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, at)
            if not future.done():
                future.set_result(None)
                await self.settle()
        self._now = until
        await self.settle()

    async def settle(self) -> None:
        """Lets everything run that can run now."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)
