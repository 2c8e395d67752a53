"""Leases: how workers get jobs, keep them and hand them back, without two of them ever finishing the same attempt.

Why it looks like this. Execution is at least once, because a worker that fell silent may be dead or merely slow. What
can be exact is the *accepted* result, and three things make it so:

- **The fence.** Every claim draws a fresh token from the store that is larger than any before, of any job. Each word
  of a worker about an attempt (update, finish) carries it; the engine accepts it only while the job is RUNNING with
  exactly this token, in the same compare-and-set that moves the job. A zombie's late word gets False ("lost"), never
  an acknowledgement. Attempt numbers would not do: they repeat after a manual retry. The same token repeated after
  its word was accepted gets True again, so that a worker may repeat itself when an answer was lost.
- **The session.** Leases are not per job: a worker has one session, renewed as a whole. When the session ends, with or
  without notice, its jobs go back: at once and uncounted when it said goodbye, as a crash when it fell silent.
- **One clock.** Session and attempt times run on the store's clock. A worker is told spans, never instants.

A worker learns that it must stop an attempt (cancelled; lost, for whatever reason) by a callback of its session. It
is a courtesy that saves work: correctness rests on the fence alone.

Cost: one session renewal per worker and third of a lease; nothing per job. Prior art: ZooKeeper's zxid and Kleppmann's
fencing tokens; River and Oban guard completion by state or id only, and pay with zombies that overwrite.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from .. import lifecycle
from ..errors import SessionEnded
from ..model import Assignment, Job, Released, State, Succeeded, patiently
from .announced import SessionInfo, encode_session
from .turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from ..model import Ask, AtOnce, JobSpec, Report, Room, TypeInfo, Update
    from .announced import Serving
    from .core import Core
    from .turns import Key

_HELD_BATCH = 500

STOP_CANCELLED = "cancelled"
STOP_LOST = "lost"


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
        self._news: list[list[Collection[str] | None]] = []
        """For each claim that is under way, which jobs were said to have moved meanwhile."""
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
        news: list[Collection[str] | None] = []
        self._news.append(news)
        try:
            jobs = await self._core.store.claim(self.id, self.worker, asks, limit)
        except Exception:
            if self.attended:
                self._note_unanswered(began)
            raise
        finally:
            self._news = [other for other in self._news if other is not news]
        self._failing = False
        if jobs:
            self.in_hand.update((job.spec.id, job) for job in jobs)
            self._core.watch_timers(jobs)
            self._core.note_started(jobs)
            claimed = {job.spec.id for job in jobs}
            moved = {job_id for ids in news for job_id in (claimed if ids is None else ids) if job_id in claimed}
            if moved:
                self._leases.on_news(moved)
        return jobs

    def hear(self, ids: Collection[str] | None) -> None:
        """These jobs changed (None: any may have). Claims that are under way may answer with them as they were."""
        for news in self._news:
            news.append(ids)

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
        held = await self._core.store.held(self.id, len(self.in_hand) + _HELD_BATCH)
        strays = [job for job in held if self._is_stray(job)]
        await self._leases.release(strays)
        if len(strays) < _HELD_BATCH:
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

    def _let_go(self, job_id: str, fence: int) -> Job | None:
        # A job that was lost may be in hand again, with a fresh token: a late word about the old one leaves it there.
        job = self.in_hand.get(job_id)
        return self.in_hand.pop(job_id) if job is not None and job.fence == fence else None

    async def finish(self, reports: Sequence[Report]) -> list[bool]:
        return await self._leases.finish(reports, [self._let_go(report.job_id, report.fence) for report in reports])

    async def update(self, updates: Sequence[Update]) -> list[bool]:
        return await self._core.store.report(updates)

    async def close(self) -> None:
        self._leases.sessions.pop(self.id, None)
        self.over = True
        # First the jobs: those of a session that is gone would count as lost.
        await self._leases.release_held(self.id)
        await self._core.store.close_session(self.id)
        await self._leases.release_held(self.id)
        self.in_hand.clear()
        self.call()

    def stop_if_moved(self, job: Job) -> None:
        """Tells the worker when the job, as it is now, is no longer its to execute."""
        mine = self.in_hand.get(job.spec.id)
        if mine is None or mine.version > job.version:
            return
        if not lifecycle.holds(job, mine.fence):
            del self.in_hand[job.spec.id]
            self._on_stop(job.spec.id, mine.fence, STOP_CANCELLED if job.state is State.CANCELLED else STOP_LOST)
        elif job.cancel_time is not None and mine.cancel_time is None:
            self.in_hand[job.spec.id] = job
            self._on_stop(job.spec.id, mine.fence, STOP_CANCELLED)


class Leases:
    """All sessions of this server."""

    def __init__(self, core: Core, ttl: int) -> None:
        self.core = core
        self.ttl = ttl
        self.sessions: dict[str, WorkerSession] = {}
        self.kept: dict[str, int] = {}
        """Up to when sessions were kept by this server."""
        self.turns = Turns()
        self._doubtful: set[str] = set()
        self._checking = False

    def wake(self) -> None:
        """Jobs became ready."""
        self.turns.ready()

    async def capacity(self, spec: JobSpec) -> tuple[int, int]:
        """Slots of the live sessions of all servers that serve a job's type and queue, and how many are busy."""
        slots = busy = 0
        for serving in await self.core.announced.serving(spec.type):
            if serving.queues is None or spec.queue in serving.queues:
                slots += serving.slots
                busy += await self._busy(serving)
        return slots, busy

    async def _busy(self, serving: Serving) -> int:
        here = self.sessions.get(serving.session)
        if here is not None:
            return len(here.in_hand)
        return len(await self.core.store.held(serving.session, min(serving.slots, _HELD_BATCH)))

    def moved(self, jobs: Iterable[Job]) -> None:
        """Jobs were moved by somebody other than the worker that holds them."""
        if self.sessions:
            for job in jobs:
                for session in self.sessions.values():
                    session.hear((job.spec.id,))
                    session.stop_if_moved(job)

    def on_news(self, ids: Collection[str] | None) -> None:
        """These jobs changed elsewhere (None: any may have): those in hand are read anew, as some may have to stop."""
        for session in self.sessions.values():
            session.hear(ids)
            in_hand = session.in_hand
            self._doubtful.update(in_hand if ids is None else [job_id for job_id in ids if job_id in in_hand])
        if self._doubtful and not self._checking:
            self._checking = True
            _ = self.core.spawn(self._check())

    async def _check(self) -> None:
        try:
            while self._doubtful:
                doubtful, self._doubtful = list(self._doubtful), set()
                self.moved(job for job in await self.core.store.get(doubtful) if job is not None)
        finally:
            self._checking = False

    async def finish(self, reports: Sequence[Report], known: Sequence[Job | None]) -> list[bool]:
        """Ends attempts as their workers say; False for each whose token is not the running one (any more)."""
        core = self.core
        outcomes = {report.job_id: report for report in reports}
        if len(outcomes) < len(reports):
            return [(await self.finish([report], [None]))[0] for report in reports]
        now = core.store.now()
        rng = core.rng
        accepted: set[str] = set()

        def decide(job: Job) -> Job | None:
            report = outcomes[job.spec.id]
            if lifecycle.holds(job, report.fence):
                return lifecycle.ended(job, now, report.outcome, rng)
            # A job that was given back for its worker (`close`) was not answered by a success that comes later.
            kept = job.state is State.SUCCESS or not isinstance(report.outcome, Succeeded)
            if kept and lifecycle.was_answered(job, report.fence):
                accepted.add(job.spec.id)
            return None

        moved = await core.apply([report.job_id for report in reports], known, decide)
        core.note_ended(moved)
        accepted.update(job.spec.id for job in moved)
        return [report.job_id in accepted for report in reports]

    async def release(self, jobs: Sequence[Job]) -> None:
        """Gives jobs back, uncounted, unless they moved on since."""
        now = self.core.store.now()
        fences = {job.spec.id: job.fence for job in jobs}

        def decide(job: Job) -> Job | None:
            if not lifecycle.holds(job, fences[job.spec.id]):
                return None
            return lifecycle.ended(job, now, Released(), self.core.rng)

        moved = await self.core.apply([job.spec.id for job in jobs], jobs, decide)
        self.core.note_ended(moved)
        self.moved(moved)

    async def release_held(self, session: str) -> None:
        """Gives all jobs of a session back."""
        while jobs := await self.core.store.held(session, _HELD_BATCH):
            await self.release(jobs)

    async def renew(self) -> None:
        """Renews all sessions of this server. One that expired before it was rescued comes back with its jobs."""
        ids = [session.id for session in self.sessions.values() if session.attended]
        for session_id, alive in zip(ids, await self.core.store.renew(ids, self.ttl), strict=True):
            session = self.sessions.get(session_id)
            if session is not None and not alive:
                await self.core.store.open_session(session_id, self.ttl, session.info)
                self.wake()  # what it asked for meanwhile was answered with nothing, whatever there was
        self.note_kept(ids)
        for session in tuple(self.sessions.values()):
            await session.renewed()

    def note_kept(self, sessions: Iterable[str]) -> None:
        """These sessions were opened or renewed just now."""
        until = self.core.store.now() + self.ttl
        self.kept.update((session, until) for session in sessions)

    def is_surely_kept(self, session: str) -> bool:
        """Whether it cannot have expired already: one that has is given nothing, whatever there is."""
        return self.kept.get(session, 0) - self.core.store.now() > self.ttl // 4

    def next_end(self, now: int) -> int | None:
        """When the next of these sessions ends, if its worker is not heard of."""
        self.kept = {session: until for session, until in self.kept.items() if until > now}
        return min(self.kept.values(), default=None)

    async def rescue(self, limit: int) -> bool:
        """Ends the attempts of sessions that fell silent. True when there may be more."""
        expired = await self.core.store.expired(limit)
        for session in expired:
            now = self.core.store.now()

            def decide(job: Job, session: str = session, now: int = now) -> Job | None:
                if job.state is not State.RUNNING or job.session != session:
                    return None
                return lifecycle.lost(job, now, self.core.rng)

            while jobs := await self.core.store.held(session, _HELD_BATCH):
                moved = await self.core.apply([job.spec.id for job in jobs], jobs, decide)
                self.core.note_ended(moved)
                self.moved(moved)
            await self.core.store.close_session(session)
        return len(expired) >= limit


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
