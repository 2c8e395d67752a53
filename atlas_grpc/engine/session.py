"""A worker's way to the engine: how it waits for jobs and claims them, and what it has in hand.

A claim may happen although nobody is told: the database does what a caller, who was cancelled or cut off, asked for.
Then jobs run that nobody executes, strays, which the session finds by the time at which they started, and gives back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from .. import lifecycle
from ..errors import SessionEnded
from ..model import Assignment, Job, State, patiently
from .announced import SessionInfo, encode_session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ..model import Ask, AtOnce, Report, Room, TypeInfo, Update
    from .leases import Leases
    from .turns import Key

STOP_CANCELLED = "cancelled"
STOP_LOST = "lost"
_STRAYS = 500


class WorkerSession:
    """A worker's way to the engine, in process. It has the shape of `atlas_grpc.worker.source.WorkSource`."""

    attended = True
    """Whether this server renews the session by itself."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._core = leases.core
        self.id = ""
        self.worker = ""
        self.slots = 0
        self.queues: frozenset[str] | None = None
        """The queues that its worker takes jobs from; None for all. For people: the asks say it again."""
        self.stream = ""
        """Which stream its worker speaks by; empty where the worker is in this process."""
        self.info = b""
        """What the store keeps of it, for all servers."""
        self.in_hand: dict[str, Job] = {}
        self._woken = asyncio.Event()
        self.tried = 0
        self.over = False
        """Whether there is nothing more to get from it."""
        self._unanswered: list[tuple[int, int]] = []
        """From when to when, on the store's clock, claims were not answered: they may have happened."""
        self._look_at = 0
        """When to look for what came of them."""
        self._leasing = False
        self._failing = False
        self._on_stop: Callable[[str, int, str], None] = lambda _job_id, _fence, _why: None

    async def open(
        self, worker: str, types: Sequence[TypeInfo], slots: int, on_stop: Callable[[str, int, str], None]
    ) -> None:
        await self._introduce(worker, types, slots, on_stop)
        self.id = self._core.new_id(self._core.store.now())
        await self._core.store.open_session(self.id, self._leases.ttl, self.info)
        self._leases.note_kept([self.id])
        self._leases.sessions[self.id] = self

    async def _introduce(
        self, worker: str, types: Sequence[TypeInfo], slots: int, on_stop: Callable[[str, int, str], None]
    ) -> None:
        self.worker, self.slots, self._on_stop = worker, slots, on_stop
        queues = None if self.queues is None else tuple(sorted(self.queues))
        names = tuple(info.name for info in types)
        self.info = encode_session(SessionInfo(worker, slots, names, queues, self.stream))
        await self._core.announced.announce(types)

    async def lease(
        self, room: Room, *, at_once: AtOnce = patiently, patience: float | None = None
    ) -> list[Assignment]:
        """As `WorkSource.lease`; with `patience`, none when there was nothing for so many seconds."""
        self._leasing = True
        try:
            return await self._lease(room, at_once, patience)
        finally:
            self._leasing = False
            self._leases.turns.leave(self)

    async def _lease(self, room: Room, at_once: AtOnce, patience: float | None) -> list[Assignment]:
        turns = self._leases.turns
        until = None if patience is None else self._core.clock.monotonic() + patience
        while True:
            self._woken.clear()
            await self._look_for_strays()
            asks, limit = room()
            keys = frozenset((ask.type, ask.queues) for ask in asks)
            now = at_once()  # then not hints count, but what the store says
            looked = bool(asks) and (now or turns.may_find(self, keys))
            if looked:
                jobs = await self._claim_safely(asks, limit, keys)
                if jobs:
                    return [_assignment(job) for job in jobs]
            if self.over:
                raise SessionEnded.of(self.id)
            if now and await self._was_alive():
                return []
            if now or looked:
                continue
            turns.wait(self, keys)
            if until is None:
                await self._woken.wait()
            elif not await self._woken_before(until):
                return []

    async def _was_alive(self) -> bool:
        """Whether the session has not expired, in which case its claims are answered with nothing, whatever there is.
        If it has, it comes back."""
        (alive,) = await self._core.store.renew([self.id], self._leases.ttl)
        if not alive and not self.over:
            await self._core.store.open_session(self.id, self._leases.ttl, self.info)
            self._leases.wake()
        self._leases.note_kept([self.id])
        return alive

    async def _woken_before(self, until: float) -> bool:
        left = until - self._core.clock.monotonic()
        if left <= 0:
            return False
        woken = asyncio.ensure_future(self._woken.wait())
        nap = asyncio.ensure_future(self._core.clock.sleep(left))
        try:
            await asyncio.wait([woken, nap], return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            nap.cancel()
        return self._woken.is_set()

    def more_room(self) -> None:
        self._woken.set()

    def call(self) -> None:
        """It is to look whether there are jobs, or whether it has ended."""
        self._woken.set()

    async def _claim_safely(self, asks: Sequence[Ask], limit: int, keys: frozenset[Key]) -> list[Job]:
        """A claim whose jobs are given back when the caller is cancelled before it gets them."""
        if self._core.store.instant:
            return await self._look(asks, limit, keys)
        claim = asyncio.ensure_future(self._look(asks, limit, keys))
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:
            _ = self._core.spawn(self._give_back(claim))
            raise

    async def _look(self, asks: Sequence[Ask], limit: int, keys: frozenset[Key]) -> list[Job]:
        turns = self._leases.turns
        version = turns.begin(self)
        nothing_left: Collection[Key] = ()
        full = False
        try:
            jobs = await self._claim(asks, limit)
            full = len(jobs) >= limit
            if not jobs and not self._leases.is_surely_kept(self.id):
                self.tried = version
            elif not full:
                taken = Counter(job.spec.type for job in jobs)
                nothing_left = {(ask.type, ask.queues) for ask in asks if taken[ask.type] < ask.slots}
            return jobs
        finally:
            turns.end(version, keys, nothing_left, full=full)

    async def _claim(self, asks: Sequence[Ask], limit: int) -> list[Job]:
        began = self._core.store.now()
        with self._leases.hearing() as news:
            try:
                jobs = await self._core.store.claim(self.id, self.worker, asks, limit)
            except Exception:
                if self.attended:
                    self._note_unanswered(began)
                raise
        self._failing = False
        if jobs:
            self._take(jobs)
            self._core.watch_timers(jobs)
            self._core.note_started(jobs)
            claimed = {job.spec.id for job in jobs}
            moved = {job_id for ids in news for job_id in (claimed if ids is None else ids) if job_id in claimed}
            if moved:
                self._leases.on_news(moved)
        return jobs

    async def renewed(self) -> None:
        """Some time has passed, and the session was kept."""
        if not self._leasing:
            await self._look_for_strays()
        elif self._unanswered:
            self._woken.set()

    async def _look_for_strays(self) -> None:
        if self._unanswered and self._core.store.now() >= self._look_at:
            await self._give_back_strays()

    async def _give_back_strays(self) -> None:
        """Gives back the jobs of claims that were made although nobody was told: nobody executes them. Such a claim may
        even be made later, by a server that stood still; so for as long as a lease it is looked again and again."""
        now = self._core.store.now()
        held = await self._core.store.held(self.id, len(self.in_hand) + _STRAYS)
        strays = [job for job in held if self._is_stray(job)]
        await self._leases.release(strays)
        if len(strays) < _STRAYS:
            self._look_at = now + self._leases.ttl // 4
            self._unanswered = [span for span in self._unanswered if span[1] + self._leases.ttl > now]

    def _is_stray(self, job: Job) -> bool:
        mine = self.in_hand.get(job.spec.id)
        if mine is not None and mine.fence == job.fence:
            return False
        return any(began <= job.attempt_start <= ended for began, ended in self._unanswered)

    def _note_unanswered(self, began: int) -> None:
        if self._failing and self._unanswered:
            # No claim that was answered lies between them.
            began, _ = self._unanswered.pop()
        self._failing = True
        self._unanswered.append((began, self._core.store.now()))
        self._look_at = 0

    async def _give_back(self, claim: asyncio.Task[list[Job]]) -> None:
        jobs = await claim
        for job in jobs:
            self._let_go(job.spec.id, job.fence)
        await self._leases.release(jobs)

    def _take(self, jobs: Collection[Job]) -> None:
        self._leases.hold(self, jobs)
        self.in_hand.update((job.spec.id, job) for job in jobs)

    def _let_go(self, job_id: str, fence: int) -> Job | None:
        # A job that was lost may be in hand again, with a fresh token: a late word about the old one leaves it there.
        job = self.in_hand.get(job_id)
        if job is None or job.fence != fence:
            return None
        self._leases.let_go(self, (job_id,))
        return self.in_hand.pop(job_id)

    def let_all_go(self) -> None:
        """It has nothing in hand any more, and hears of none of it."""
        self._leases.let_go(self, self.in_hand)
        self.in_hand.clear()

    async def finish(self, reports: Sequence[Report]) -> list[bool]:
        return await self._leases.finish(reports, [self._let_go(report.job_id, report.fence) for report in reports])

    async def update(self, updates: Sequence[Update]) -> list[bool]:
        return await self._core.store.report(updates)

    async def close(self) -> None:
        self._leases.sessions.pop(self.id, None)
        self.over = True
        self.let_all_go()
        # First the jobs: those of a session that is gone would count as lost.
        await self._leases.release_held(self.id)
        await self._core.store.close_session(self.id)
        await self._leases.release_held(self.id)
        self.let_all_go()
        self.call()

    def stop_if_moved(self, job: Job) -> None:
        """Tells the worker when the job, as it is now, is no longer its to execute."""
        mine = self.in_hand.get(job.spec.id)
        if mine is None or mine.version > job.version:
            return
        if not lifecycle.holds(job, mine.fence):
            self._let_go(job.spec.id, mine.fence)
            self._on_stop(job.spec.id, mine.fence, STOP_CANCELLED if job.state is State.CANCELLED else STOP_LOST)
        elif job.cancel_time is not None and mine.cancel_time is None:
            self.in_hand[job.spec.id] = job
            self._on_stop(job.spec.id, mine.fence, STOP_CANCELLED)


def _assignment(job: Job) -> Assignment:
    spec = job.spec
    return Assignment(
        spec.id,
        spec.namespace,
        spec.type,
        spec.queue,
        spec.payload,
        job.run,
        job.attempt,
        spec.retry.max_attempts,
        job.fence,
        lifecycle.time_left(job),
        spec.labels,
        spec.create_time,
        spec.traceparent,
    )
