"""What the parts of the engine share: the store, time, chance, the optimistic loop, and the numbers kept about jobs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from ..clock import uuid7
from ..lifecycle import OUTCOME_OF
from ..model import SECOND, State
from ..observe.logs import bind_job, get_logger

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Sequence

    from ..clock import Clock
    from ..model import Cause, Job
    from ..observe.metrics import Metrics
    from ..stores.base import Store
    from .announced import Announced

T = TypeVar("T")

log = get_logger("atlas.engine")


class Core:
    """One engine's hands on a store."""

    def __init__(self, store: Store, clock: Clock, rng: random.Random, metrics: Metrics, announced: Announced) -> None:
        self.store = store
        self.clock = clock
        self.rng = rng
        self.metrics = metrics
        self.announced = announced
        self.on_timer_set: Callable[[int], None] = lambda _due: None
        """Called with the earliest `due` of jobs that were just written."""
        self._last_id = 0
        self._tasks: set[asyncio.Task[object]] = set()

    def new_id(self, now: int) -> str:
        """A new id, larger than any that this engine made before."""
        self._last_id = max(self._last_id + 1, now)
        return uuid7(self._last_id, self.rng)

    def spawn(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Runs something that must be done although its caller is gone; awaited by `settle`."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background work failed", exc_info=error)

    async def settle(self) -> None:
        """Waits for all that was spawned."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def apply(
        self, ids: Sequence[str], known: Sequence[Job | None], decide: Callable[[Job], Job | None]
    ) -> list[Job]:
        """The optimistic loop: moves each job by `decide` (None: leave it), however often somebody else was faster.

        `known` holds records in hand, to save the read; they may be stale. Answers the jobs as moved.
        """
        jobs = [job for job in known if job is not None]
        if len(jobs) < len(ids):
            unknown = [job_id for job_id, job in zip(ids, known, strict=True) if job is None]
            jobs += [job for job in await self.store.get(unknown) if job is not None]
        moved: list[Job] = []
        while jobs:
            old: list[Job] = []
            new: list[Job] = []
            for job in jobs:
                after = decide(job)
                if after is not None and after is not job:
                    old.append(job)
                    new.append(after)
            if not new:
                break
            stored = await self.store.put(new, [job.version for job in old])
            stale = [job.spec.id for job, ok in zip(new, stored, strict=True) if not ok]
            moved += new if not stale else [job for job, ok in zip(new, stored, strict=True) if ok]
            jobs = [job for job in await self.store.get(stale) if job is not None] if stale else []
        self.watch_timers(moved)
        return moved

    def watch_timers(self, jobs: Sequence[Job]) -> None:
        """Jobs were written: their timers count from now on."""
        earliest = min((job.due for job in jobs if job.due is not None), default=None)
        if earliest is not None:
            self.on_timer_set(earliest)

    def note_started(self, jobs: Sequence[Job]) -> None:
        """Counts claimed jobs."""
        waits: dict[str, list[float]] = {}
        for job in jobs:
            waits.setdefault(job.spec.type, []).append((job.attempt_start - job.next_start) / SECOND)
        for job_type, seconds in waits.items():
            self.metrics.waited_many(job_type, seconds)

    def note_ended(self, jobs: Sequence[Job]) -> None:
        """Counts jobs whose attempt, or whose waiting, just ended."""
        ends: dict[tuple[str, Cause, State, bool], list[float]] = {}
        for job in jobs:
            history = job.history
            last = history[-1]
            ran = len(history) > 1 and history[-2].state is State.RUNNING
            key = (job.spec.type, last.cause, job.state, ran)
            ends.setdefault(key, []).append((last.time - job.attempt_start) / SECOND)
            if last.error is not None:
                self._log_end(job)
        for (job_type, cause, state, ran), seconds in ends.items():
            if ran:
                self.metrics.ran_many(job_type, seconds)
                self.metrics.attempts(job_type, OUTCOME_OF[cause].name, len(seconds))
            if state.terminal:
                self.metrics.finished(job_type, state.name, len(seconds))

    @staticmethod
    def _log_end(job: Job) -> None:
        last = job.history[-1]
        reason = "" if last.error is None else last.error.reason
        with bind_job(job.spec.id, job.spec.namespace, job.spec.traceparent):
            log.info(
                "job ended" if job.state.terminal else "attempt ended, job waits",
                type=job.spec.type,
                state=job.state.name,
                cause=last.cause.name,
                run=job.run,
                attempt=job.attempt,
                reason=reason,
            )
