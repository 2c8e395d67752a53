"""What the tests of the PostgreSQL store share: a schema with stores on it, and a listener that notes everything."""

from __future__ import annotations

import random
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from atlas_grpc import lifecycle
from atlas_grpc.clock import SystemClock
from atlas_grpc.model import SECOND, Content, Job, Succeeded
from atlas_grpc.stores.postgres import PostgresLimits, from_url
from atlas_grpc.testing.stores._kit import Kit
from tests.conformance.stores.factories_postgres import PostgresFactory, drop, new_schema

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from atlas_grpc.stores.base import Kind
    from atlas_grpc.stores.postgres import PostgresStore

T = TypeVar("T")

HOUR = 3600 * SECOND


class Listener:
    """Notes every hint."""

    def __init__(self) -> None:
        self.ready = 0
        self.kinds: list[Collection[Kind] | None] = []
        self.news: list[Collection[str] | None] = []
        self.written: list[Job] = []
        self.outputs: list[str] = []

    def on_ready(self, kinds: Collection[Kind] | None = None) -> None:
        self.ready += 1
        self.kinds.append(kinds)

    def on_changes(self, jobs: Sequence[Job]) -> None:
        self.written += jobs

    def on_news(self, ids: Collection[str] | None) -> None:
        self.news.append(ids)

    def on_output(self, ids: Collection[str]) -> None:
        self.outputs += ids


class Bench:
    """A schema, and stores on it that are closed at the end."""

    def __init__(self, url: str, schema: str, stack: AsyncExitStack) -> None:
        self.url = url
        self.schema = schema
        self._stack = stack

    async def store(
        self, more: str = "", *, url: str | None = None, limits: PostgresLimits | None = None, clock: Any = None
    ) -> PostgresStore:
        store = from_url(f"{url or self.url}?schema={self.schema}{more}", clock or SystemClock(), limits)
        self._stack.push_async_callback(store.close)
        listener = Listener()
        await store.open(listener)
        return store

    async def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enters a context that ends after the stores that are opened from now on."""
        return await self._stack.enter_async_context(context)

    async def raw(self) -> asyncpg.Connection:
        """A connection beside the stores."""
        connection = await asyncpg.connect(self.url)
        self._stack.callback(connection.terminate)
        return connection


@asynccontextmanager
async def bench_on(url: str) -> AsyncIterator[Bench]:
    schema = new_schema()
    async with AsyncExitStack() as stack:
        yield Bench(url, schema, stack)
    await drop(url, schema)


class Tools(Kit):
    """The kit of the conformance suite, on a store that is open."""

    def __init__(self, store: PostgresStore) -> None:
        super().__init__(PostgresFactory("postgresql://unused"), store)
        self.rng = random.Random(store.now())


def listener_of(store: PostgresStore) -> Listener:
    listener = store._listener
    assert isinstance(listener, Listener)
    return listener


def finished(job: Job, store: PostgresStore) -> Job:
    return lifecycle.ended(job, store.now(), Succeeded(Content(b'{"done": true}')), random.Random(1))
