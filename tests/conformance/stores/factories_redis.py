"""The Redis store for the conformance tests: one server, a prefix for each store."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import redis

from atlas_grpc.clock import SystemClock
from atlas_grpc.stores.redis import RedisLimits, RedisStore, from_url
from atlas_grpc.stores.server_clock import ServerClock
from atlas_grpc.testing.stores import StoreFactory
from tests.support.redis import forget, new_prefix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atlas_grpc.stores.base import Store


class ShiftedClock(ServerClock):
    """The server's time, and what a test lets pass at once. All that is timed in the store goes by it."""

    shift = 0

    def now(self) -> int:
        return super().now() + self.shift


class RedisFactory(StoreFactory):
    """Stores on the server of a URL without options."""

    durable = True
    shared = True
    limits = frozenset(RedisLimits.__struct_fields__)

    def __init__(self, url: str, more: str = "") -> None:
        self.url = url
        self.more = more

    def store(self, prefix: str, limits: RedisLimits | None = None) -> RedisStore:
        clock = SystemClock()
        store = from_url(f"{self.url}?prefix={prefix}{self.more}", clock, limits)
        store._link.clock = ShiftedClock(clock)
        return store

    async def pass_time(self, store: Store, micros: int) -> None:
        cast("ShiftedClock", cast("RedisStore", store)._link.clock).shift += micros

    @asynccontextmanager
    async def __call__(self, **limits: int) -> AsyncIterator[Store]:
        prefix = new_prefix()
        store = self.store(prefix, RedisLimits(**limits))
        try:
            yield store
        finally:
            await store.close()
            with redis.from_url(self.url.removeprefix("redis+")) as client:
                forget(client, prefix)

    def another(self, store: Store) -> Store:
        mine = cast("RedisStore", store)
        other = self.store(mine._link.target.options.prefix, mine._limits)
        other._link.clock = mine._link.clock
        return other
