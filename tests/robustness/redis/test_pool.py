"""Connections of a pool that ends while they are being made: none is left open."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from atlas_grpc.clock import SystemClock
from atlas_grpc.stores.redis.faults import gone
from atlas_grpc.stores.redis.pool import Pool
from atlas_grpc.stores.redis.url import parse
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.redis import RedisServer

NAME = "pool-test"


class Arrivals:
    """The wires that a pool made. They are kept, so that none is closed because nobody holds it any more."""

    def __init__(self) -> None:
        self.wires: list[Any] = []
        self.fails: Callable[[], object] | None = None

    async def __call__(self, wire: Any, _server: Any) -> None:
        self.wires.append(wire)
        if self.fails is not None and len(self.wires) > 1:
            self.fails()
            raise gone("as the test wants it")


async def closed(server: RedisServer, arrivals: Arrivals) -> None:
    """Waits until the server has none of the pool's connections any more."""
    with server.client() as client:
        await until(lambda: NAME not in [known["name"] for known in client.client_list()], patience=5)
    assert arrivals.wires


def pool_of(server: RedisServer, arrived: Callable[[Any, Any], Awaitable[None]]) -> Pool:
    return Pool(parse(server.url(pool=2)), SystemClock(), NAME, arrived=arrived, lost=lambda: None)


async def test_a_pool_that_is_closed_as_soon_as_it_is_open(shared_valkey: RedisServer) -> None:
    arrivals = Arrivals()
    pool = pool_of(shared_valkey, arrivals)
    await pool.open()
    await pool.close()
    await closed(shared_valkey, arrivals)


@pytest.mark.parametrize("turns", range(6))
async def test_a_pool_that_is_closed_while_a_new_wire_fails(shared_valkey: RedisServer, turns: int) -> None:
    """So many turns of the event loop after it failed, of which closing the wire itself takes some."""
    arrivals = Arrivals()
    pool = pool_of(shared_valkey, arrivals)
    failed = asyncio.Event()
    arrivals.fails = failed.set
    await pool.open()
    await failed.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    await pool.close()
    await closed(shared_valkey, arrivals)
