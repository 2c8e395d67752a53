"""Servers that a test may break, and a hand on a store."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest

from atlas_grpc import lifecycle
from atlas_grpc.clock import SystemClock, uuid7
from atlas_grpc.errors import Unavailable
from atlas_grpc.model import SECOND, Ask, Content, Job, JobSpec, RetryPolicy, Succeeded
from atlas_grpc.stores.redis import RedisLimits, RedisStore, from_url
from atlas_grpc.testing.stores._kit import Listener
from tests.support import redis
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from tests.support.redis import RedisServer

HOUR = 3600 * SECOND
DONE = Succeeded(Content(b'{"ok":true}'))


class Heard(Listener):
    """Also counts the hints that anything may have changed."""

    def __init__(self) -> None:
        super().__init__()
        self.doubts = 0
        self.news: list[str] = []

    def on_news(self, ids: Any) -> None:
        super().on_news(ids)
        if ids is None:
            self.doubts += 1
        else:
            self.news.extend(ids)


class Hand:
    """A store that is open, and jobs for it."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self.heard = Heard()
        self.rng = random.Random(7)
        self._numbers = itertools.count(1)
        self._base = SystemClock().now()

    def job(self, *, payload: bytes = b"{}", type: str = "work", delay: int = 0, **fields: Any) -> Job:
        now = self.store.now()
        spec = JobSpec(
            uuid7(self._base + next(self._numbers), self.rng), "default", type, "main", Content(payload), RetryPolicy(),
            now, now + delay, HOUR, **fields,
        )  # fmt: skip
        return lifecycle.submitted(spec)

    async def new(self, count: int, **fields: Any) -> list[Job]:
        jobs = [self.job(**fields) for _ in range(count)]
        assert await self.store.insert(jobs) == jobs
        return jobs

    async def claim(self, limit: int) -> list[Job]:
        return await self.store.claim("s", "w", [Ask("work", limit)], limit)

    def ended(self, jobs: Sequence[Job]) -> list[Job]:
        return [lifecycle.ended(job, self.store.now(), DONE, self.rng) for job in jobs]

    async def finish(self, jobs: Sequence[Job]) -> list[Job]:
        ends = self.ended(jobs)
        assert all(await self.store.put(ends, [job.version for job in jobs]))
        return ends

    async def works_again(self) -> None:
        """Waits until the server can be reached."""
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(Unavailable):
                    await self.store.head()
                    return
                await asyncio.sleep(0.005)

    async def meets_another(self, arrivals: int = 2) -> None:
        """Waits until the store is connected to so many server processes, one after the other."""
        await until(lambda: self.store._link.arrivals >= arrivals)
        await self.works_again()

    async def must_be_sound(self) -> None:
        found = await self.store.audit()
        assert not found.repaired
        assert found.counted


def opened(url: str, limits: RedisLimits | None = None) -> AbstractAsyncContextManager[Hand]:
    @contextlib.asynccontextmanager
    async def manage() -> AsyncIterator[Hand]:
        hand = Hand(from_url(url, SystemClock(), limits))
        await hand.store.open(hand.heard)
        try:
            yield hand
        finally:
            await hand.store.close()

    return manage()


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[RedisServer]:
    """A server that tests leave as they find it."""
    with redis.running("valkey", "--appendonly", "no") as server:
        yield server


@pytest.fixture
async def hand(shared_valkey: RedisServer) -> AsyncIterator[Hand]:
    prefix = redis.new_prefix()
    async with opened(shared_valkey.url(prefix, audit=0)) as hand:
        yield hand
    with shared_valkey.client() as client:
        redis.forget(client, prefix)


@pytest.fixture(params=["always"])
def durable(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of one test, which keeps every write."""
    with redis.running("valkey", "--appendonly", "yes", "--appendfsync", request.param) as server:
        yield server
