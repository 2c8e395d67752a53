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

from contextlib import contextmanager
from typing import TYPE_CHECKING

from .. import lifecycle
from ..model import Job, Released, State, Succeeded
from .turns import Turns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from ..model import JobSpec, Report
    from ..stores.base import Kind
    from .announced import Serving
    from .core import Core
    from .session import WorkerSession

_HELD_BATCH = 500


class Leases:
    """All sessions of this server."""

    def __init__(self, core: Core, ttl: int) -> None:
        self.core = core
        self.ttl = ttl
        self.sessions: dict[str, WorkerSession] = {}
        self.kept: dict[str, int] = {}
        """Up to when sessions were kept by this server."""
        self.turns = Turns()
        self.holders: dict[str, WorkerSession] = {}
        """Who has a job in hand."""
        self._hearing: list[list[Collection[str] | None]] = []
        """For each claim that is under way, which jobs were said to have moved meanwhile."""
        self._doubtful: set[str] = set()
        self._checking = False

    def wake(self, kinds: Collection[Kind] | None = None) -> None:
        """Jobs became ready, of these kinds if it is known."""
        self.turns.ready(kinds)

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

    def hold(self, session: WorkerSession, jobs: Iterable[Job]) -> None:
        """A session has these jobs in hand now: another one that had one of them has lost it."""
        holders = self.holders
        for job in jobs:
            before = holders.get(job.spec.id)
            if before is not None and before is not session:
                before.stop_if_moved(job)
            holders[job.spec.id] = session

    def let_go(self, session: WorkerSession, ids: Iterable[str]) -> None:
        """The session has them in hand no more."""
        for job_id in ids:
            if self.holders.get(job_id) is session:
                del self.holders[job_id]

    @contextmanager
    def hearing(self) -> Iterator[list[Collection[str] | None]]:
        """Collects which jobs are said to have moved (None: any may have) while a claim is under way, which may answer
        with them as they were."""
        news: list[Collection[str] | None] = []
        self._hearing.append(news)
        try:
            yield news
        finally:
            self._hearing = [other for other in self._hearing if other is not news]

    def _tell_claims(self, ids: Collection[str] | None) -> None:
        for news in self._hearing:
            news.append(ids)

    def moved(self, jobs: Iterable[Job]) -> None:
        """Jobs were moved by somebody other than the worker that holds them."""
        for job in jobs:
            self._tell_claims((job.spec.id,))
            holder = self.holders.get(job.spec.id)
            if holder is not None:
                holder.stop_if_moved(job)

    def on_news(self, ids: Collection[str] | None) -> None:
        """These jobs changed elsewhere (None: any may have): those in hand are read anew, as some may have to stop."""
        self._tell_claims(ids)
        holders = self.holders
        self._doubtful.update(holders if ids is None else [job_id for job_id in ids if job_id in holders])
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
