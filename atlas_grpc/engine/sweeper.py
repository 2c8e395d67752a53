"""The sweeper: one loop that does what time asks for. It re-decides from the stored record, so it may run anywhere,
twice.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .. import lifecycle
from ..model import SECOND, Cause
from ..observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model import Job
    from .core import Core
    from .leases import Leases

_BATCH = 500
_LONGEST_SLEEP = SECOND
"""Another server's job may be due earlier than anything this one knows of."""

log = get_logger("atlas.sweeper")


class Sweeper:
    """Timers of jobs, sessions of workers."""

    def __init__(self, core: Core, leases: Leases) -> None:
        self._core = core
        self._leases = leases
        self._next: int = 0
        self._renew_at = 0
        self._poked = asyncio.Event()
        core.on_timer_set = self._notice

    def _notice(self, due: int) -> None:
        if due < self._next:
            self._next = due
            self._poked.set()

    async def run(self) -> None:
        """Sweeps for ever. A fault of one round is logged; the next one tries again."""
        while True:
            try:
                wait = await self.sweep()
            except Exception as error:
                log.error("a sweep failed", exc_info=error)
                wait = _LONGEST_SLEEP
            await self._sleep(wait / SECOND)

    async def _sleep(self, seconds: float) -> None:
        nap = asyncio.ensure_future(self._core.clock.sleep(seconds))
        poke = asyncio.ensure_future(self._poked.wait())
        try:
            await asyncio.wait([nap, poke], return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()
            poke.cancel()

    async def sweep(self) -> int:
        """Does all that is due, and answers how long nothing will be (microseconds)."""
        self._poked.clear()
        await self._renew()
        looked = self._core.store.now()
        while await self._leases.rescue(_BATCH):
            pass
        while True:
            jobs, next_due = await self._core.store.due(_BATCH)
            if not jobs:
                break
            await self._move(jobs)
            await asyncio.sleep(0)
        now = self._core.store.now()
        # A short lease must not end between two rounds, and one that ends shall be noticed at once.
        times = (now + _LONGEST_SLEEP, self._renew_at, next_due, self._leases.next_end(looked))
        self._next = max(now, min(time for time in times if time is not None))
        return self._next - now

    async def _renew(self) -> None:
        now = self._core.store.now()
        if now >= self._renew_at:
            await self._leases.renew()
            self._renew_at = now + self._leases.ttl // 3

    async def _move(self, jobs: Sequence[Job]) -> None:
        core = self._core
        now = core.store.now()
        expired = [job for job in jobs if job.state.terminal and job.due is not None and job.due <= now]
        if expired:
            await core.store.delete(expired)
        waiting = [job for job in jobs if not job.state.terminal]

        def decide(job: Job) -> Job | None:
            return None if job.state.terminal else lifecycle.on_timer(job, now, core.rng)

        moved = await core.apply([job.spec.id for job in waiting], waiting, decide)
        core.note_ended([job for job in moved if job.history[-1].cause is not Cause.BECAME_READY])
        self._leases.moved(moved)
