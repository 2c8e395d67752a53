"""What the checks of the store conformance suite are made of: the factory, the kit of each check, the expectations."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

from msgspec.structs import replace

from ... import lifecycle
from ...clock import uuid7
from ...errors import ResumeTokenExpired
from ...model import SECOND, Ask, Content, Job, JobSpec, RetryPolicy, Succeeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from ...model import Outcome
    from ...stores.base import Change, Kind, Store

PATIENCE = 10.0
"""Seconds after which something that must come to pass is said not to."""
POLL = 0.005
HOUR = 3600 * SECOND
SHORT = 50_000
"""A span that may really pass in a test: 50 ms."""
EMPTY = Content(b"{}")


class CheckSkipped(Exception):
    """The factory lacks what the check needs."""


class StoreFactory(ABC):
    """Makes the stores that are checked. Subclass it, say what the store can do, and hand it to `check_store`.

    class SqliteFactory(StoreFactory):
        durable = True
        limits = frozenset({"max_pending"})

        @asynccontextmanager
        async def __call__(self, **limits):
            with TemporaryDirectory() as folder:
                yield SqliteStore(f"{folder}/jobs.db", **limits)
    """

    durable: bool = False
    """Whether what was acknowledged is there again for another Store object, after the first was closed."""
    shared: bool = False
    """Whether two Store objects may be open on the same data at the same time."""
    limits: frozenset[str] = frozenset()
    """Which bounds can be chosen: of `max_pending`, `max_finished`, `max_bytes`, `max_log_lines`, `max_log_bytes`,
    `feed_length`."""

    @abstractmethod
    def __call__(self, **limits: int) -> AbstractAsyncContextManager[Store]:
        """A store that is empty, apart from all others and not open yet; what it leaves goes with the context."""

    def another(self, store: Store) -> Store:  # noqa: ARG002 - for those who override it
        """A second Store object on the same data, not open yet. Needed where the store is durable or shared."""
        raise CheckSkipped("the factory makes no second store on the same data")

    async def pass_time(self, store: Store, micros: int) -> None:
        """Returns when so much time has passed on the store's clock: by waiting, unless the clock obeys the factory."""
        until = store.now() + micros
        while (left := until - store.now()) > 0:  # noqa: ASYNC110 - nobody tells when a clock has come somewhere
            await asyncio.sleep(left / SECOND)


class Listener:
    """Counts the hints of a store."""

    def __init__(self) -> None:
        self.ready = 0
        self.kinds: list[Collection[Kind] | None] = []
        """What was said to be ready, each time."""
        self.changes = 0
        """Hints that something was written or removed, here or elsewhere."""
        self.written: list[Job] = []
        self.outputs: list[str] = []

    def on_ready(self, kinds: Collection[Kind] | None = None) -> None:
        self.ready += 1
        self.kinds.append(kinds)

    def on_changes(self, jobs: Sequence[Job]) -> None:
        self.changes += 1
        self.written.extend(jobs)

    def on_news(self, ids: Collection[str] | None) -> None:  # noqa: ARG002 - which jobs it was is only a hint
        self.changes += 1

    def on_output(self, ids: Collection[str]) -> None:
        self.outputs.extend(ids)


class Kit:
    """An open store, and short words for what checks do with it. Jobs are of type `work` in queue `main`."""

    def __init__(self, factory: StoreFactory, store: Store) -> None:
        self.factory = factory
        self.store = store
        self.listener = Listener()
        self.rng = random.Random(7)
        self._ids = itertools.count(1)
        self._began: int | None = None

    def job(
        self,
        *,
        type: str = "work",
        queue: str = "main",
        namespace: str = "default",
        delay: int = 0,
        since: int = 0,
        payload: Content = EMPTY,
        retention: int = HOUR,
        max_attempts: int = 3,
        **fields: Any,
    ) -> Job:
        """A new job with a larger id than all before, created at now + `since` microseconds, to start `delay` later."""
        now = self.store.now()
        # Not earlier: a store far from here knows the time only once it is open.
        self._began = self._began or now
        created = now + since
        spec = JobSpec(
            uuid7(self._began + next(self._ids), self.rng),
            namespace,
            type,
            queue,
            payload,
            RetryPolicy(max_attempts, initial_backoff=0),
            created,
            created + delay,
            retention,
            **fields,
        )
        return lifecycle.submitted(spec)

    async def insert(self, *jobs: Job) -> list[Job]:
        """Inserts jobs that the store must take."""
        return [present(job) for job in await self.store.insert(jobs)]

    async def new(self, count: int, **fields: Any) -> list[Job]:
        """Inserts so many new jobs."""
        return await self.insert(*(self.job(**fields) for _ in range(count)))

    async def get(self, job: Job) -> Job:
        """The job as it is stored now."""
        (found,) = await self.store.get([job.id])
        return present(found)

    async def session(self, name: str = "s1", ttl: int = HOUR, info: bytes = b"") -> str:
        """Opens a session."""
        await self.store.open_session(name, ttl, info)
        return name

    async def lapse(self, name: str) -> None:
        """Opens a session, or renews it, for a moment, and returns when it has expired."""
        await self.store.open_session(name, SHORT)
        await self.pass_time(SHORT + 1)

        async def is_over() -> bool:
            return name in await self.store.expired(1_000)

        await self.eventually(is_over, "a session that is not renewed expires")

    async def claim(self, limit: int = 10, *, session: str = "s1", asks: Sequence[Ask] | None = None) -> list[Job]:
        """Claims for a session, any queue of type `work` unless told otherwise."""
        return await self.store.claim(session, f"worker of {session}", asks or [Ask("work", limit)], limit)

    async def running(self, **fields: Any) -> Job:
        """A new job in the hands of session `s1`."""
        (job,) = await self.new(1, **fields)
        await self.session()
        (taken,) = await self.claim(1, asks=[Ask(job.spec.type, 1)])
        equal(taken.id, job.id, "the only job is the one that is claimed")
        return taken

    async def put(self, job: Job, expected: int) -> bool:
        """One compare-and-set."""
        (stored,) = await self.store.put([job], [expected])
        return stored

    async def finish(self, job: Job, outcome: Outcome | None = None) -> Job:
        """Ends an attempt that nobody disputes."""
        after = lifecycle.ended(job, self.store.now(), outcome or Succeeded(EMPTY), self.rng)
        equal(await self.put(after, job.version), True, "the end of an undisputed attempt is stored")
        return after

    async def step(self, job: Job) -> Job:
        """Some change of a job: its cancellation is asked for, or it is moved on."""
        after = replace(job, version=job.version + 1, cancel_reason=f"step {job.version}")
        equal(await self.put(after, job.version), True, "an undisputed change is stored")
        return after

    async def feed(self, after: int = 0, limit: int = 1_000) -> list[Change]:
        """All changes after a cursor up to now. A marker, which is left out, tells when the feed has come so far."""
        (marker,) = await self.new(1, type="marker", namespace="markers")
        found: list[Change] = []
        until = time.monotonic() + PATIENCE
        while True:
            changes, cursor = await self.store.changes(after, limit)
            for change in changes:
                if change.spec.id == marker.id:
                    return found
                if change.spec.namespace != marker.spec.namespace:
                    found.append(change)
            if cursor == after:
                true(time.monotonic() < until, f"the feed comes to a change within {PATIENCE:g} s")
                await asyncio.sleep(POLL)
            after = cursor

    async def pass_time(self, micros: int) -> None:
        await self.factory.pass_time(self.store, micros)

    async def eventually(self, happens: Callable[[], Awaitable[bool]], what: str) -> None:
        """Waits until something is so. A clock that obeys stands still meanwhile."""
        until = time.monotonic() + PATIENCE
        while not await happens():
            true(time.monotonic() < until, f"{what}, within {PATIENCE:g} s")
            await asyncio.sleep(POLL)

    async def hinted(self, happens: Callable[[], bool], what: str) -> None:
        """Waits for a hint of the store."""

        async def check() -> bool:
            return happens()

        await self.eventually(check, what)


def present(job: Job | None) -> Job:
    """The job that must be there."""
    if job is None:
        raise AssertionError("a job is missing")
    return job


def equal(found: object, wanted: object, rule: str) -> None:
    """Fails the check, naming the rule, unless both are equal."""
    if found != wanted:
        raise AssertionError(f"{rule}: expected {wanted!r}, got {found!r}")


def true(holds: object, rule: str) -> None:
    """Fails the check, naming the rule, unless it holds."""
    if not holds:
        raise AssertionError(rule)


def ids(jobs: Iterable[Job | None]) -> list[str | None]:
    """The ids of jobs."""
    return [None if job is None else job.id for job in jobs]


async def expired_token(call: Awaitable[object]) -> bool:
    """Whether a call raises ResumeTokenExpired."""
    return await refused(call, ResumeTokenExpired)


async def refused(call: Awaitable[object], error: type[Exception]) -> bool:
    """Whether a call raises this error."""
    try:
        await call
    except error:
        return True
    return False


class Check(Protocol):
    """A check: makes its own store. Raises AssertionError when the store is wrong, CheckSkipped when it cannot tell."""

    def __call__(self, factory: StoreFactory, /) -> Awaitable[None]: ...


CHECKS: dict[str, Check] = {}


def check(
    *, durable: bool = False, shared: bool = False, **limits: int
) -> Callable[..., Callable[[Kit], Awaitable[None]]]:
    """Registers a check under the name of its function. It runs on a store with those limits."""

    def register(body: Callable[[Kit], Awaitable[None]]) -> Callable[[Kit], Awaitable[None]]:
        async def run(factory: StoreFactory) -> None:
            if (durable and not factory.durable) or (shared and not factory.shared):
                raise CheckSkipped("for a store that is " + ("durable" if durable else "shared"))
            if missing := limits.keys() - factory.limits:
                raise CheckSkipped("for a store that can be bounded by " + ", ".join(sorted(missing)))
            async with factory(**limits) as store:
                kit = Kit(factory, store)
                await store.open(kit.listener)
                try:
                    await body(kit)
                finally:
                    await store.close()

        name = body.__name__
        run.__name__ = run.__qualname__ = name
        run.__doc__ = body.__doc__
        CHECKS[name] = run
        return body

    return register
