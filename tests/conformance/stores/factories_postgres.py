"""The PostgreSQL store for the conformance tests: one server, a schema for each store."""

from __future__ import annotations

import itertools
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import asyncpg

from atlas_grpc.clock import SystemClock
from atlas_grpc.stores.postgres import PostgresLimits, PostgresStore, from_url
from atlas_grpc.stores.server_clock import ServerClock
from atlas_grpc.testing.stores import StoreFactory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atlas_grpc.stores.base import Store

_numbers = itertools.count(1)


def new_schema() -> str:
    return f"t{os.getpid()}_{next(_numbers)}"


async def drop(url: str, schema: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f'set client_min_messages = warning; drop schema if exists "{schema}" cascade')
    await connection.close()


class ShiftedClock(ServerClock):
    """The server's time, and what a test lets pass at once. All that is timed in the store goes by it."""

    shift = 0

    def now(self) -> int:
        return super().now() + self.shift


class PostgresFactory(StoreFactory):
    """Stores on the server of a URL. `more` are further options of the URL; `cleaner` is a URL for what comes after."""

    durable = True
    shared = True
    limits = frozenset({"max_pending", "max_log_lines", "max_log_bytes"})

    def __init__(self, url: str, more: str = "", *, cleaner: str | None = None) -> None:
        self.url = url
        self.more = more
        self.cleaner = cleaner or url

    def store(self, schema: str, limits: PostgresLimits | None = None) -> PostgresStore:
        clock = SystemClock()
        store = from_url(f"{self.url}?schema={schema}{self.more}", clock, limits)
        store._time = ShiftedClock(clock)
        return store

    async def pass_time(self, store: Store, micros: int) -> None:
        cast("ShiftedClock", cast("PostgresStore", store)._time).shift += micros

    @asynccontextmanager
    async def __call__(self, **limits: int) -> AsyncIterator[Store]:
        schema = new_schema()
        chosen = PostgresLimits(**limits) if limits else None
        store = self.store(schema, chosen)
        try:
            yield store
        finally:
            await store.close()
            await drop(self.cleaner, schema)

    def another(self, store: Store) -> Store:
        mine = cast("PostgresStore", store)
        other = PostgresStore(mine._options, SystemClock())
        other._time = mine._time
        return other
