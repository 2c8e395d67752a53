"""Sessions of workers elsewhere, who speak to this server by gRPC.

Such a session outlives the stream, and the server: it is what the store says it is, and any server may continue it. It
is renewed when the worker is heard of, and by nothing else, so that no worker can look healthy and be deaf. What was
sent to a worker and not acknowledged when its stream breaks goes back uncounted, by this server if it lives, else by
the one that continues the session. That one goes on looking for a while: what a server that was killed had asked the
database for may still be done.

A server may not notice for long that a stream is dead, while the worker continues by another server. What it claims for
the session then, it gives back: the session's info in the store says which stream is the latest. The other server wrote
that before it read what the session holds, and this one reads it after its claim; so one of the two sees the other's
deed, and the job goes back. It is looked up only when the worker owes an acknowledgement for unusually long: a worker
that lives answers within milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import lifecycle
from ..errors import ServerDraining, SessionEnded
from ..model import Report, State
from .announced import decode_session
from .batch import GroupCommit
from .session import STOP_CANCELLED, STOP_LOST, WorkerSession

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ..model import Ask, Assignment, Job, TypeInfo, Update
    from .leases import Leases

_HELD = 100_000
_RENEWALS = 1_000
_DRAIN_RETRY = 1.0

Stop = tuple[str, int, str]
"""Job id, token, and why: `cancelled` or `lost`."""


class RemoteSession(WorkerSession):
    """A session whose worker is at the other end of a stream. Closed by a goodbye, else left by `detach`."""

    attended = False

    def __init__(self, leases: Leases, keeper: Keeper) -> None:
        super().__init__(leases)
        self._keeper = keeper
        self.stream = self._core.new_id(self._core.store.now())
        self._named: frozenset[int] = frozenset()
        """The tokens that the worker had when it continued the session."""
        self.superseded: Callable[[], None] = lambda: None
        """Called when the worker continues the session by another stream of this server."""
        self.arrived: frozenset[tuple[str, int]] = frozenset()
        """The jobs and tokens that it had then, whether they were acknowledged or not."""

    async def resume(
        self,
        session: str,
        worker: str,
        types: Sequence[TypeInfo],
        slots: int,
        on_stop: Callable[[str, int, str], None],
        holding: Collection[tuple[str, int]],
    ) -> bool:
        """Continues a session, unless it is over. `holding` are the jobs and tokens that the worker has: what it lost
        it is told, and what it never got goes back.
        """
        if not await self._keeper.keep(session):
            return False
        before = self._leases.sessions.get(session)
        if isinstance(before, RemoteSession):
            before.arrived = frozenset(holding)
            before.superseded()
            self._leases.let_go(before, before.in_hand)  # the worker hears of them by this stream
        await self._introduce(worker, types, slots, on_stop)
        self.id = session
        await self._open_again()
        self._leases.sessions[session] = self
        held = {(job.spec.id, job.fence): job for job in await self._core.store.held(session, _HELD)}
        mine = set(holding)
        self._take([job for key, job in held.items() if key in mine])
        for job_id, fence in mine - held.keys():
            on_stop(job_id, fence, STOP_LOST)
        for job in self.in_hand.values():
            if job.cancel_time is not None:
                on_stop(job.spec.id, job.fence, STOP_CANCELLED)
        await self._leases.release([job for key, job in held.items() if key not in mine])
        self._named = frozenset(fence for _, fence in mine)
        now = self._core.store.now()
        self._unanswered.append((0, now))
        self._look_at = now + self._leases.ttl // 4
        return True

    def _is_stray(self, job: Job) -> bool:
        # What the worker named is no longer in hand while its outcome is being written.
        return job.fence not in self._named and super()._is_stray(job)

    async def _open_again(self) -> None:
        await self._core.store.open_session(self.id, self._leases.ttl, self.info)
        self._leases.note_kept([self.id])

    async def beat(self) -> None:
        """The worker was heard of. A session that had expired comes back, with the jobs that were not given away."""
        if not await self._keeper.keep(self.id):
            await self._open_again()
            self._leases.on_news(None)
            self._leases.wake()

    async def is_continued(self) -> bool:
        """Whether the worker has opened another stream for the session since, here or elsewhere."""
        for session, info in await self._core.store.sessions():
            if session == self.id and info:
                return decode_session(info).stream != self.stream
        return False

    async def detach(self, unacknowledged: Collection[tuple[str, int]]) -> None:
        """The stream broke. These jobs and tokens were sent, and may never have arrived."""
        if self._leases.sessions.get(self.id) is self:
            del self._leases.sessions[self.id]
        jobs = [self._let_go(*one) for one in unacknowledged if one not in self.arrived]
        self.let_all_go()
        self.over = True
        self.call()
        await self._leases.release([job for job in jobs if job is not None])


class Keeper:
    """Renewals of sessions, joined; and the calls of workers without a stream."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._core = leases.core
        self._renewals: GroupCommit[str, bool] = GroupCommit(self._renew, _RENEWALS)
        self._visits: set[RemoteSession] = set()
        """Those who wait for jobs without a stream."""
        self._draining = False

    async def _renew(self, sessions: list[str]) -> list[bool]:
        renewed = await self._core.store.renew(sessions, self._leases.ttl)
        self._leases.note_kept(session for session, alive in zip(sessions, renewed, strict=True) if alive)
        return renewed

    async def keep(self, session: str) -> bool:
        """Renews a session; False when it is over."""
        return await self._renewals.add(session)

    async def keep_or_raise(self, session: str) -> None:
        """Renews a session. Raises SessionEnded."""
        if not await self.keep(session):
            raise SessionEnded.of(session)

    def stream(self) -> RemoteSession:
        """A session for a stream, not opened yet."""
        return RemoteSession(self._leases, self)

    async def lease(
        self,
        session: str,
        worker: str,
        types: Sequence[TypeInfo],
        asks: Sequence[Ask],
        limit: int,
        seconds: float,
        holding: Collection[tuple[str, int]] | None = None,
    ) -> tuple[str, list[Assignment]]:
        """Takes up to `limit` jobs, and waits so long for the first. An empty `session` opens one. `holding`, if known,
        are the jobs and tokens that the worker has: the others of the session never arrived, and go back. Raises
        SessionEnded, and ServerDraining.
        """
        visit = RemoteSession(self._leases, self)
        visit.queues = asks[0].queues
        visit.over = self._draining
        self._visits.add(visit)
        key = f"{session}/{id(visit)}"
        try:
            if session:
                await self.keep_or_raise(session)
                if holding is not None:
                    await self._give_others_back(session, holding)
                visit.id, visit.worker = session, worker
                self._leases.sessions[key] = visit
            else:
                await visit.open(worker, types, limit, _ignore)
                key = visit.id
            return visit.id, await visit.lease(lambda: ((), 0) if visit.over else (asks, limit), patience=seconds)
        except SessionEnded:
            if visit.over:
                raise ServerDraining("the server is about to stop", retry_after=_DRAIN_RETRY) from None
            raise
        finally:
            self._visits.discard(visit)
            self._leases.sessions.pop(key, None)
            visit.let_all_go()

    async def _give_others_back(self, session: str, holding: Collection[tuple[str, int]]) -> None:
        mine = set(holding)
        held = await self._core.store.held(session, _HELD)
        await self._leases.release([job for job in held if (job.spec.id, job.fence) not in mine])

    def drain(self) -> None:
        """Nobody waits for jobs any more: those who do get ServerDraining."""
        self._draining = True
        for visit in self._visits:
            visit.over = True
            visit.call()

    async def stops(self, session: str, holding: Collection[tuple[str, int]]) -> list[Stop]:
        """Those of the jobs and tokens that must stop."""
        found: list[Stop] = []
        jobs = await self._core.store.get([job_id for job_id, _ in holding])
        for (job_id, fence), job in zip(holding, jobs, strict=True):
            if job is None or not lifecycle.holds(job, fence) or job.session != session:
                cancelled = job is not None and job.state is State.CANCELLED and job.fence == fence
                found.append((job_id, fence, STOP_CANCELLED if cancelled else STOP_LOST))
            elif job.cancel_time is not None:
                found.append((job_id, fence, STOP_CANCELLED))
        return found

    async def finish(self, reports: Sequence[Report]) -> list[bool]:
        """As `WorkerSession.finish`."""
        known: list[Job | None] = [None] * len(reports)
        return await self._leases.finish(reports, known)

    async def update(self, updates: Sequence[Update]) -> list[bool]:
        """As `WorkerSession.update`."""
        return await self._core.store.report(updates)

    async def goodbye(self, session: str) -> None:
        """Ends a session: its jobs go back at once, uncounted."""
        await self._leases.release_held(session)
        await self._core.store.close_session(session)
        await self._leases.release_held(session)


def _ignore(_job_id: str, _fence: int, _why: str) -> None:
    """A worker without a stream is told when it asks."""
