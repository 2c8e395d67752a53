"""The engine: everything that can be asked of jobs, over any store. It knows no transport."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import msgspec

from .. import lifecycle, retry
from ..errors import (
    AtlasError,
    InvalidArgument,
    JobNotFound,
    JobNotTerminal,
    JobTerminal,
    ResumeTokenExpired,
    StoreFull,
    VersionMismatch,
)
from ..model import SECOND, Job, JobSpec, Record, State
from ..observe.logs import get_logger
from ..stores.base import Counts, Kind, Output
from .announced import Announced
from .batch import GroupCommit
from .core import Core
from .explain import Explanation, explain
from .hub import Hub
from .leases import Leases
from .logs import LogPage, LogWatch, Wanted, read_page
from .session import WorkerSession
from .submit import Catalog, Submission, build, reused, type_of
from .sweeper import Sweeper
from .tokens import FeedToken, JobToken, LogToken, PageToken, decode, encode

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Collection, Sequence

    from ..clock import Clock
    from ..observe.metrics import Metrics
    from ..stores.base import Filter, Store
    from .watches import JobsWatch, JobWatch

_COUNTS_EVERY = 5.0
_COUNTS_SHARE = 0.01
"""How much of its time a store may be kept busy with counting."""
_INSERT_BATCH = 1_000

log = get_logger("atlas.engine")


class EngineSettings(msgspec.Struct, frozen=True):
    """What an operator may choose. Times in microseconds, the heartbeat in seconds."""

    retention: int = 7 * 86_400 * SECOND
    cancel_grace: int = 10 * SECOND
    lease: int = 30 * SECOND
    watch_heartbeat: float = 15.0


class Submitted(Record, frozen=True):
    """An accepted submission: the stored job, and whether it was there already."""

    job: Job
    deduplicated: bool = False


class Engine:
    """Jobs over a store. `start` it, and `stop` it."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        *,
        clock: Clock,
        rng: random.Random,
        metrics: Metrics,
        settings: EngineSettings | None = None,
        announced: Announced | None = None,
    ) -> None:
        self.settings = settings or EngineSettings()
        self.catalog = catalog
        self.store = store
        self.core = Core(store, clock, rng, metrics, announced or Announced(store, clock))
        self.hub = Hub(store, clock, self.settings.watch_heartbeat)
        self.leases = Leases(self.core, self.settings.lease)
        self.sweeper = Sweeper(self.core, self.leases)
        self.counts = Counts({}, (), 0)
        """How full the store was a few seconds ago, for metrics."""
        self._inserts: GroupCommit[Job, Job | None] = GroupCommit(self.store.insert, _INSERT_BATCH)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Opens the store and starts the background loops."""
        await self.store.open(self)
        self.hub.start()
        self._tasks = [asyncio.create_task(self.sweeper.run()), asyncio.create_task(self._keep_counts())]

    async def stop(self) -> None:
        """Stops the loops, lets pending work settle and closes the store. Workers and watches were ended before."""
        await self.core.settle()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.hub.stop()
        await self.store.close()

    def on_ready(self, kinds: Collection[Kind] | None = None) -> None:
        self.leases.wake(kinds)

    def on_changes(self, jobs: Sequence[Job]) -> None:
        self.hub.on_changes(jobs)

    def on_news(self, ids: Collection[str] | None) -> None:
        self.hub.on_news(ids)
        self.leases.on_news(ids)

    def on_output(self, ids: Collection[str]) -> None:
        self.hub.on_output(ids)

    def worker_session(self) -> WorkerSession:
        """A worker's way in; see `leases`."""
        return WorkerSession(self.leases)

    async def plan(self, sub: Submission) -> tuple[JobSpec, list[retry.PlannedAttempt]]:
        """What a submission would become, and its retry timetable. Raises what `submit` would."""
        await self._look_up([sub])
        spec = self._spec(sub, "", self.store.now())
        return spec, retry.timetable(spec.retry, spec.total_timeout)

    async def _look_up(self, subs: Sequence[Submission | AtlasError]) -> None:
        get = self.catalog.get
        unknown = {sub.type for sub in subs if not isinstance(sub, AtlasError) and get(sub.type) is None}
        if unknown:
            await self.catalog.look_up(unknown)

    async def submit(self, sub: Submission) -> Submitted:
        """Stores a job. Raises InvalidArgument, RequestIdReused, StoreFull."""
        await self._look_up([sub])
        now = self.store.now()
        new = lifecycle.submitted(self._spec(sub, self.core.new_id(now), now))
        stored = (await self.store.insert([new]))[0] if self.store.instant else await self._inserts.add(new)
        answer = self._answer(new, stored)
        if isinstance(answer, AtlasError):
            raise answer
        if answer.deduplicated:
            self.core.metrics.deduplicated(sub.type)
        else:
            self.core.metrics.submitted(sub.type, answer.job.spec.queue)
            if answer.job.due is not None:
                self.core.on_timer_set(answer.job.due)
        return answer

    async def submit_many(self, subs: Sequence[Submission | AtlasError]) -> list[Submitted | AtlasError]:
        """Stores several jobs, each on its own; submissions that are errors already stay what they are."""
        await self._look_up(subs)
        now = self.store.now()
        jobs = [sub if isinstance(sub, AtlasError) else self._new(sub, now) for sub in subs]
        new = [job for job in jobs if not isinstance(job, AtlasError)]
        stored = iter(await self.store.insert(new) if new else ())
        answers = [job if isinstance(job, AtlasError) else self._answer(job, next(stored)) for job in jobs]
        self._note_submitted([answer for answer in answers if isinstance(answer, Submitted)])
        return answers

    def _new(self, sub: Submission, now: int) -> Job | AtlasError:
        try:
            return lifecycle.submitted(self._spec(sub, self.core.new_id(now), now))
        except AtlasError as error:
            return error

    def _spec(self, sub: Submission, job_id: str, now: int) -> JobSpec:
        return build(sub, job_id, now, type_of(sub, self.catalog), self.settings.retention)

    @staticmethod
    def _answer(new: Job, stored: Job | None) -> Submitted | AtlasError:
        if stored is None:
            return StoreFull(
                "the store holds as many jobs as it may; try again when some have finished", retry_after=1.0
            )
        if stored is new or stored.spec.id == new.spec.id:
            return Submitted(stored)
        if stored.spec.fingerprint != new.spec.fingerprint:
            return reused(stored, new.spec)
        return Submitted(stored, deduplicated=True)

    def _note_submitted(self, answers: Sequence[Submitted]) -> None:
        fresh = [answer.job for answer in answers if not answer.deduplicated]
        for answer in answers:
            if answer.deduplicated:
                self.core.metrics.deduplicated(answer.job.spec.type)
        self.core.metrics.submitted_many((job.spec.type, job.spec.queue) for job in fresh)
        self.core.watch_timers(fresh)

    async def get(self, namespace: str, job_id: str) -> Job:
        """Reads a job. Raises JobNotFound, also for one of another namespace."""
        (job,) = await self.store.get([job_id])
        if job is None or job.spec.namespace != namespace:
            raise JobNotFound.of(job_id)
        return job

    async def get_many(self, ids: Sequence[str]) -> list[Job | None]:
        """Reads jobs of any namespace; None for each that does not exist. The caller checks whom they belong to."""
        return await self.store.get(ids)

    async def wait(self, namespace: str, job_id: str, seconds: float) -> Job:
        """Reads a job once it is terminal or the time is up."""
        job = await self.get(namespace, job_id)
        if job.state.terminal or seconds <= 0:
            return job
        watch = await self.hub.watch_job(job_id, version=job.version, include_logs=False)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    update = await watch.next()
                    if update.final and update.job is not None:
                        # Not read anew: it may be deleted already.
                        return update.job
        except TimeoutError:
            pass
        finally:
            watch.close()
        return await self.get(namespace, job_id)

    async def outputs(self, jobs: Sequence[Job]) -> list[Output]:
        """Progress of each job."""
        return await self.store.outputs([job.spec.id for job in jobs])

    async def list(self, where: Filter, token: str, limit: int) -> tuple[tuple[Job, ...], str]:
        """A page of jobs, newest first, and the token of the next ("" after the last). Raises InvalidArgument for
        `page_token`.
        """
        after = None
        if token:
            page_token = decode(token, PageToken, "page_token")
            if page_token.query != _digest(where):
                raise InvalidArgument.of("page_token", "belongs to another filter", reason="INVALID_TOKEN")
            after = page_token.after
        page = await self.store.find(where, after, limit)
        return page.jobs, "" if page.after is None else self.page_token(where, page.after)

    @staticmethod
    def page_token(where: Filter, after: str) -> str:
        """The token of the page after the job with that id."""
        return encode(PageToken(after, _digest(where)))

    async def watch(self, namespace: str, job_id: str, token: str, *, include_logs: bool) -> JobWatch:
        """Follows a job. Raises JobNotFound, InvalidArgument for `resume_token`, ResumeTokenExpired."""
        await self.get(namespace, job_id)
        if not token:
            return await self.hub.watch_job(job_id, include_logs=include_logs)
        seen = decode(token, JobToken, "resume_token")
        if seen.job_id != job_id or seen.version < 0 or seen.log < 0:
            raise InvalidArgument.of("resume_token", "belongs to another job", reason="INVALID_TOKEN")
        return await self.hub.watch_job(
            job_id, version=seen.version, time=seen.time, log=seen.log, include_logs=include_logs
        )

    async def logs(self, namespace: str, job_id: str, wanted: Wanted, limit: int) -> LogPage:
        """Reads lines of a job's log. Raises JobNotFound."""
        return await read_page(self.store, await self.get(namespace, job_id), wanted, limit)

    async def watch_log(self, namespace: str, job_id: str, wanted: Wanted, token: str) -> LogWatch:
        """Follows a job's log, after the token if there is one. Raises JobNotFound, InvalidArgument for
        `resume_token`, ResumeTokenExpired.
        """
        await self.get(namespace, job_id)
        if not token:
            return await self.hub.watch_log(job_id, wanted)
        seen = decode(token, LogToken, "resume_token")
        if seen.job_id != job_id or seen.log < 0:
            raise InvalidArgument.of("resume_token", "belongs to another job", reason="INVALID_TOKEN")
        watch = await self.hub.watch_log(job_id, Wanted(seen.log, None, wanted.attempt))
        if seen.log > watch.topic.output.log_end:
            watch.close()
            raise ResumeTokenExpired("the log ends before this position: the store has lost some of it")
        return watch

    @staticmethod
    def log_token(job_id: str, offset: int) -> str:
        """The resume token of a job's log from an offset on."""
        return encode(LogToken(job_id, offset))

    async def watch_submitted(self, job: Job, *, include_logs: bool) -> JobWatch:
        """Follows a job that was submitted a moment ago, from the beginning."""
        return await self.hub.watch_job(job.spec.id, include_logs=include_logs)

    async def watch_many(self, where: Filter, token: str, *, snapshot: bool) -> JobsWatch:
        """Follows the jobs of a filter. Raises InvalidArgument for `resume_token`, ResumeTokenExpired."""
        if not token:
            return await self.hub.watch_jobs(where, cursor=None, snapshot=snapshot)
        seen = decode(token, FeedToken, "resume_token")
        if seen.query != _digest(where):
            raise InvalidArgument.of("resume_token", "belongs to another filter", reason="INVALID_TOKEN")
        if seen.epoch != self.store.epoch:
            msg = "the server no longer has the changes after this token; watch again without it"
            raise ResumeTokenExpired(msg)
        return await self.hub.watch_jobs(where, cursor=seen.cursor, snapshot=False)

    def feed_token(self, where: Filter, cursor: int) -> str:
        """The resume token of a watch of many jobs."""
        return encode(FeedToken(self.store.epoch, cursor, _digest(where)))

    async def cancel(self, namespace: str, job_id: str, reason: str, if_version: int | None) -> Job:
        """Stops a job. Raises JobNotFound, JobTerminal, VersionMismatch."""
        now = self.store.now()

        def decide(job: Job) -> Job | None:
            if job.state is State.CANCELLED:
                return None
            if job.state.terminal:
                raise JobTerminal(
                    f"job {job_id} ended as {job.state.name}", metadata={"job_id": job_id, "state": job.state.name}
                )
            after = lifecycle.request_cancel(job, now, reason, self.settings.cancel_grace)
            return None if after is job else after

        return await self._act(namespace, job_id, if_version, decide)

    async def retry(self, namespace: str, job_id: str, if_version: int | None) -> Job:
        """Starts a new run of a terminal job. Raises JobNotFound, JobNotTerminal, VersionMismatch."""
        now = self.store.now()

        def decide(job: Job) -> Job | None:
            if not job.state.terminal:
                raise _not_terminal(job)
            return lifecycle.new_run(job, now)

        return await self._act(namespace, job_id, if_version, decide)

    async def delete(self, namespace: str, job_id: str, if_version: int | None) -> None:
        """Deletes a terminal job. Raises JobNotFound, JobNotTerminal, VersionMismatch."""
        while True:
            job = await self.get(namespace, job_id)
            _check_version(job, if_version)
            if not job.state.terminal:
                raise _not_terminal(job)
            if (await self.store.delete([job]))[0]:
                return

    async def explain(self, namespace: str, job_id: str) -> Explanation:
        """Says why a job is where it is. Raises JobNotFound."""
        job = await self.get(namespace, job_id)
        ahead = await self.store.ahead(job) if job.ready else 0
        slots, busy = await self.leases.capacity(job.spec)
        return explain(job, self.store.now(), ahead=ahead, slots=slots, busy=busy)

    async def _act(
        self, namespace: str, job_id: str, if_version: int | None, decide: Callable[[Job], Job | None]
    ) -> Job:
        latest = await self.get(namespace, job_id)

        def checked(job: Job) -> Job | None:
            nonlocal latest
            latest = job
            _check_version(job, if_version)
            return decide(job)

        moved = await self.core.apply([job_id], [latest], checked)
        if not moved:
            return latest
        self.leases.moved(moved)
        if moved[0].state.terminal:
            self.core.note_ended(moved)
        return moved[0]

    async def _keep_counts(self) -> None:
        clock = self.core.clock
        while True:
            began = clock.monotonic()
            try:
                self.counts = await self.store.counts()
                await self.core.announced.refresh()
            except Exception as error:
                log.error("the store could not be counted", exc_info=error)
            await clock.sleep(max(_COUNTS_EVERY, (clock.monotonic() - began) / _COUNTS_SHARE))


def _check_version(job: Job, if_version: int | None) -> None:
    if if_version is not None and job.version != if_version:
        raise VersionMismatch(
            f"job {job.spec.id} is at version {job.version}, not {if_version}",
            metadata={"job_id": job.spec.id, "version": str(job.version)},
        )


def _not_terminal(job: Job) -> JobNotTerminal:
    job_id = job.spec.id
    return JobNotTerminal(f"job {job_id} is {job.state.name}", metadata={"job_id": job_id, "state": job.state.name})


def _digest(where: Filter) -> bytes:
    return hashlib.blake2b(where.key(), digest_size=8).digest()
