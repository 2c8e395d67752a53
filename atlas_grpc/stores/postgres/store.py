"""The store on PostgreSQL: the parts put together, and the hints given.

`jobs`, `leases` and `outputs` know the tables, `feed` the order of changes, `notices` the other servers, `database` and
`pool` the connections. Every operation that writes is carried to its end even if its caller goes away: a statement that
is cut is neither done nor undone for whoever asks, and its hints would be missing.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ...errors import AtlasError, Unavailable
from .._carrier import Carrier
from .._documents import check_documents, check_info, possible
from ..base import Store, StoreListener, kinds_ready
from ..server_clock import ServerClock
from .database import Database
from .documents import Documents
from .faults import log
from .feed import Feed
from .jobs import Jobs
from .leases import Sessions
from .migrations import administering, check_schema
from .notices import Notices
from .options import parse
from .outputs import Outputs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence

    import asyncpg

    from ...clock import Clock
    from ...model import Ask, Job, LogLine, Update
    from ...observe.readings import Reading
    from ..base import Change, Counts, Filter, Output, Page
    from .options import Options

T = TypeVar("T")

_numbers = msgspec.json.Decoder(dict[str, float]).decode
_SAMPLE_EVERY = 15.0
_SAMPLES_AT_START = 3
_RESTART_AFTER = 1.0


class PostgresLimits(msgspec.Struct, frozen=True):
    """Where the store says no, or forgets."""

    max_pending: int | None = None
    """Unfinished jobs."""
    max_log_lines: int = 10_000
    max_log_bytes: int = 4 << 20
    tombstones: int = 1_000_000
    """Deletions that the feed can tell of."""


def from_url(url: str, clock: Clock, limits: PostgresLimits | None = None) -> PostgresStore:
    """The store of a URL, not opened yet. Raises WrongUrl, whose `option` is what is wrong."""
    return PostgresStore(parse(url), clock, limits)


class PostgresStore(Store):
    """Jobs in a schema of a PostgreSQL database, shared by any number of servers."""

    def __init__(
        self, options: Options, clock: Clock, limits: PostgresLimits | None = None, rng: random.Random | None = None
    ) -> None:
        self._options = options
        self._clock = clock
        limits = limits or PostgresLimits()
        self._database = Database(options, clock, rng or random.Random())
        self._time = ServerClock(clock)
        self._feed = Feed(self._database, clock, self._on_growth, limits.tombstones)
        self._notices = Notices(self._database, clock, self._feed)
        self._jobs = Jobs(self._database, limits.max_pending)
        self._sessions = Sessions(self._database)
        self._outputs = Outputs(self._database, limits.max_log_lines, limits.max_log_bytes)
        self._documents = Documents(self._database)
        self._epoch = ""
        self._listener: StoreListener | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._carrier = Carrier()

    @property
    def epoch(self) -> str:
        return self._epoch

    def now(self) -> int:
        return self._time.now()

    def vitals(self) -> Mapping[str, Reading]:
        if self._listener is None:
            return {}
        pool, feed = self._database.pool, self._feed
        return {
            "atlas_postgresql_pool_size": self._options.pool,
            "atlas_postgresql_pool_connections": {"used": pool.in_use, "idle": pool.made - pool.in_use},
            "atlas_postgresql_pool_waiting": pool.waiting,
            "atlas_postgresql_listening": self._notices.listening,
            "atlas_postgresql_feed_lag_seconds": feed.lag,
            "atlas_postgresql_oldest_transaction_age": feed.horizon_age,
        }

    async def examine(self) -> Mapping[str, Reading]:
        row = await self._database.row("vitals", self._options.schema)
        return {
            "atlas_postgresql_oldest_xmin_age": _numbers(row["held"]),
            "atlas_postgresql_dead_tuples": _numbers(row["dead"]),
            "atlas_postgresql_live_tuples": _numbers(row["live"]),
        }

    async def open(self, listener: StoreListener) -> None:
        """Checks the server, and brings the schema up to date if it may. Raises UnsuitableDatabase, Unavailable."""
        if self._listener is not None:
            raise RuntimeError("the store is open")
        self._database.pool.open()
        try:
            await self._prepare()
            self._database.greet = self._greet
            for _ in range(_SAMPLES_AT_START):
                await self._sample()
        except BaseException:
            await self._database.pool.close()
            raise
        self._listener = listener
        self._notices.open(listener)
        loops = (
            self._keep_time,
            self._feed.watch,
            self._feed.trim,
            self._notices.say,
            self._notices.hear,
            self._notices.poll,
        )
        self._loops = [asyncio.create_task(self._kept_up(loop)) for loop in loops]

    async def _prepare(self) -> None:
        # Not one of the pool: a migration may take long, and these are kept short.
        async with administering(self._options) as connection:
            await check_schema(connection, self._options)

    async def close(self) -> None:
        await self._carrier.settle()
        self._listener = None
        loops, self._loops = self._loops, []
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await self._notices.close()
        await self._database.pool.close()

    async def _sample(self) -> None:
        began = self._time.began()
        self._identify(began, await self._database.row("identity"))

    async def _greet(self, connection: asyncpg.Connection) -> None:
        """A server that took over may be reached before anything else tells of it."""
        began = self._time.began()
        row = await connection.fetchrow(self._database.text("identity"))
        if row is not None:
            self._identify(began, row)

    def _identify(self, began: float, row: asyncpg.Record) -> None:
        self._time.sample(began, row["now"])
        known, self._epoch = self._epoch, row["epoch"]
        if known not in {"", self._epoch}:
            log.warning("the database is another one, or was restored: older resume tokens have expired")
            self._feed.restart()
            self._notices.restart()

    async def _kept_up(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Runs a loop of the store. What it does not expect must not end it for good."""
        while True:
            try:
                await loop()
                return
            except Exception as error:
                log.error("a loop of the store failed", loop=loop.__qualname__, exc_info=error)
                await self._clock.sleep(_RESTART_AFTER)

    async def _keep_time(self) -> None:
        while True:
            await self._clock.sleep(_SAMPLE_EVERY * self._database.rng.uniform(0.7, 1.3))
            try:
                await self._sample()
            except AtlasError as error:
                log.info("the database's clock could not be read", reason=error.reason)

    async def _carried_through(self, work: Coroutine[object, object, T]) -> T:
        """Runs what writes to its end, whatever becomes of the caller."""
        if self._listener is None:
            work.close()
            raise Unavailable("the store is closed")
        return await self._carrier.through(work)

    def _on_growth(self) -> None:
        if self._listener is not None:
            self._listener.on_news(())

    def _wrote(self, jobs: Sequence[Job], xid: int) -> None:
        if not jobs:
            return
        ready = kinds_ready(jobs)
        self._feed.wrote(xid)
        self._notices.wrote([job.spec.id for job in jobs], xid, ready)
        if self._listener is not None:
            self._listener.on_changes(jobs)
            if ready:
                self._listener.on_ready(ready)

    async def insert(self, jobs: Sequence[Job]) -> list[Job | None]:
        return await self._carried_through(self._insert(jobs))

    async def _insert(self, jobs: Sequence[Job]) -> list[Job | None]:
        answers, xid = await self._jobs.insert(jobs)
        self._wrote([job for job, stored in zip(jobs, answers, strict=True) if stored is job], xid)
        return answers

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        return await self._jobs.get(ids)

    async def find(self, where: Filter, after: str | None, limit: int) -> Page:
        return await self._jobs.find(where, after, limit)

    async def counts(self) -> Counts:
        return await self._jobs.counts()

    async def ahead(self, job: Job) -> int:
        return await self._jobs.ahead(job)

    async def put(self, jobs: Sequence[Job], expected: Sequence[int]) -> list[bool]:
        return await self._carried_through(self._put(jobs, expected))

    async def _put(self, jobs: Sequence[Job], expected: Sequence[int]) -> list[bool]:
        written = await self._jobs.put(jobs, expected)
        self._wrote([job for job, done in zip(jobs, written.done, strict=True) if done], written.xid)
        return written.done

    async def delete(self, jobs: Sequence[Job]) -> list[bool]:
        return await self._carried_through(self._delete(jobs))

    async def _delete(self, jobs: Sequence[Job]) -> list[bool]:
        written = await self._jobs.delete(jobs)
        gone = [job.spec.id for job, done in zip(jobs, written.done, strict=True) if done]
        if gone:
            self._feed.wrote(written.xid)
            self._notices.wrote(gone, written.xid, ())
            if self._listener is not None:
                self._listener.on_news(gone)
        return written.done

    async def claim(self, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
        return await self._carried_through(self._claim(session, worker, asks, limit))

    async def _claim(self, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
        claimed = await self._sessions.claim(session, worker, asks, self.now(), limit)
        self._wrote(claimed.jobs, claimed.xid)
        if claimed.left:
            # Others may have found these locked, and nothing else.
            self._notices.left_ready()
            if self._listener is not None:
                self._listener.on_ready()
        return claimed.jobs

    async def due(self, limit: int) -> tuple[list[Job], int | None]:
        return await self._jobs.due(self.now(), limit)

    async def open_session(self, session: str, ttl: int, info: bytes = b"") -> None:
        check_info(info)
        await self._carried_through(self._sessions.open(session, self.now() + ttl, info))

    async def renew(self, sessions: Sequence[str], ttl: int) -> list[bool]:
        now = self.now()
        return await self._carried_through(self._sessions.renew(sessions, now, now + ttl))

    async def sessions(self) -> list[tuple[str, bytes]]:
        return await self._sessions.alive(self.now())

    async def close_session(self, session: str) -> None:
        await self._carried_through(self._sessions.close(session))

    async def expired(self, limit: int) -> list[str]:
        return await self._sessions.expired(self.now(), limit)

    async def held(self, session: str, limit: int) -> list[Job]:
        return await self._sessions.held(session, limit)

    async def head(self) -> int:
        return await self._feed.head()

    async def changes(self, after: int, limit: int) -> tuple[list[Change], int]:
        return await self._feed.changes(after, limit)

    async def report(self, updates: Sequence[Update]) -> list[bool]:
        return await self._carried_through(self._report(updates))

    async def _report(self, updates: Sequence[Update]) -> list[bool]:
        answers = await self._outputs.report(updates, self.now())
        ids = [update.job_id for update, kept in zip(updates, answers, strict=True) if kept]
        if ids:
            self._notices.reported(ids)
            if self._listener is not None:
                self._listener.on_output(ids)
        return answers

    async def outputs(self, ids: Sequence[str]) -> list[Output]:
        return await self._outputs.outputs(ids)

    async def logs(self, job_id: str, start: int, limit: int) -> list[LogLine]:
        return await self._outputs.logs(job_id, start, limit)

    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        check_documents(kind, documents)
        await self._carried_through(self._documents.put(kind, documents))

    async def documents(self, kind: str, keys: Collection[str] | None = None) -> dict[str, bytes]:
        return await self._documents.get(kind, possible(kind, keys))
