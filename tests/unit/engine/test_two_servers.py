"""Two servers on one store: what happens through one is told by the other, though only by hearsay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from atlas_grpc.errors import Unavailable
from atlas_grpc.model import SECOND, Cause, Released, State
from atlas_grpc.stores.base import Filter
from tests.unit.engine.reader import Reader, check
from tests.unit.engine.world import NS, a_world, boom, collect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.unit.engine.world import World


@pytest.fixture(params=["ids", "something"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Two engines; the second hears the ids of what was written, or only that something was."""
    async with a_world(slow=True, engines=2) as world:
        world.hear_only(world.engines[1], vague=request.param == "something")
        yield world


async def test_a_watch_on_the_other_server_is_told_all(pair: World):
    here, there = pair.engines
    worker = await pair.worker(engine=here)
    jobs = [await pair.submit(engine=here) for _ in range(5)]
    readers = [Reader(job_id) for job_id in jobs]
    following = [asyncio.ensure_future(reader.follow(there)) for reader in readers]
    for _ in jobs:
        taken = await worker.take_one()
        await worker.tell(taken, "a line", progress=50)
        await worker.end(taken, boom())
    await pair.advance(10)
    for taken in await worker.take(5):
        await worker.tell(taken, "another", "and the last", progress=100)
        await worker.end(taken)
    await pair.clock.settle()
    await asyncio.gather(*following)
    for reader in readers:
        await check(pair, reader)


async def test_a_wait_on_the_other_server_ends_with_the_job(pair: World):
    here, there = pair.engines
    worker = await pair.worker(engine=here)
    job_id = await pair.submit(engine=here)
    waiting = asyncio.ensure_future(there.wait(NS, job_id, 60))
    await pair.clock.settle()
    await worker.end(await worker.take_one())
    await pair.clock.settle()
    assert (await waiting).state is State.SUCCESS


async def test_a_filter_on_the_other_server_is_told_all(pair: World):
    here, there = pair.engines
    job_id = await pair.submit(labels={"a": "1"}, engine=here)

    watch = await there.watch_many(Filter(NS, ids=frozenset({job_id})), "", snapshot=True)
    messages = asyncio.ensure_future(collect(watch))
    await pair.clock.settle()
    await here.cancel(NS, job_id, "", None)
    await pair.clock.settle()
    assert (await messages)[-1].jobs[-1].state is State.CANCELLED
    watch.close()


async def test_a_worker_is_told_of_a_cancellation_elsewhere(pair: World):
    here, there = pair.engines
    worker = await pair.worker(engine=there)
    await pair.submit(engine=here)
    taken = await worker.take_one()
    await here.cancel(NS, taken.job_id, "why not", None)
    await pair.clock.settle()
    assert worker.stops == [(taken.job_id, taken.fence, "cancelled")]


async def test_a_worker_is_told_once_that_its_job_was_lost(pair: World):
    here, there = pair.engines
    worker = await pair.worker(engine=there)
    job_id = await pair.submit(attempt_timeout=5 * SECOND, engine=here)
    taken = await worker.take_one()
    await pair.advance(6)
    assert worker.stops == [(taken.job_id, taken.fence, "lost")]
    assert Cause.ATTEMPT_TIMED_OUT.name in await pair.causes(job_id)


async def test_old_news_stops_nobody(pair: World):
    """A job is read while it waits, and is in the same worker's hands again before the answer comes."""
    here, there = pair.engines
    worker = await pair.worker(engine=there)
    await pair.submit(engine=here)
    first = await worker.take_one()
    gate = pair.store.gates["get"] = asyncio.Event()
    there.on_news([first.job_id])
    await pair.clock.settle()
    assert await worker.end(first, Released())
    answer = pair.store.hold("get")
    del pair.store.gates["get"]
    gate.set()
    await pair.clock.settle()
    second = await worker.take_one()
    answer.set()
    await pair.clock.settle()
    assert worker.stops == []
    assert await worker.end(second)


async def test_news_that_cannot_be_read_is_read_later(pair: World):
    here, there = pair.engines
    worker = await pair.worker(engine=here)
    job_id = await pair.submit(engine=here)
    reader = Reader(job_id)
    following = asyncio.ensure_future(reader.follow(there))
    await pair.clock.settle()

    def fail(name: str) -> None:
        if name in ("get", "outputs"):
            raise Unavailable("the store is away")

    taken = await worker.take_one()
    pair.store.fault = fail
    await worker.tell(taken, "the last line", progress=3)
    await worker.end(taken)
    await pair.advance(3)
    assert not following.done()
    pair.store.fault = lambda _name: None
    await pair.advance(3)
    await following
    await check(pair, reader)
