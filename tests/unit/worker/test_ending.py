"""A runner that ends by itself: when there is nothing more to do, or after so many jobs."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from atlas_grpc import errors
from atlas_grpc.model import Failed, Released, Succeeded
from atlas_grpc.worker import Registry, Runner, handler
from tests.unit.worker.memory_source import BOUND, MemorySource, QuickClock


@handler
async def quick() -> None:
    pass


class Gates:
    """A handler each of whose jobs waits until it is let go."""

    def __init__(self):
        self.registry = Registry()
        self.open = asyncio.Event()
        self.begun = 0

        @self.registry.handler(name="slow")
        async def slow() -> None:
            self.begun += 1
            await self.open.wait()


@asynccontextmanager
async def ending(*functions, source=None, **options):
    """A runner at work that ends by itself within the block; yields its source and itself."""
    registry = Registry()
    for one in functions:
        if isinstance(one, Registry):
            registry = one
        else:
            registry.add(one)
    source = source or MemorySource()
    runner = Runner(registry, source, name="tester", **options)
    task = asyncio.create_task(runner.run())
    try:
        yield source, runner
        async with asyncio.timeout(BOUND):
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert source.closed


async def test_a_burst_does_what_there_is_and_ends():
    source = MemorySource()
    ids = [source.add("quick") for _ in range(20)]
    async with ending(quick, source=source, burst=True, slots=4):
        pass
    assert set(source.outcomes) == set(ids)
    assert source.waiting == []


async def test_a_burst_without_anything_to_do_ends_at_once():
    async with ending(quick, burst=True) as (source, _):
        pass
    assert source.empties == 1


async def test_what_becomes_ready_while_a_job_runs_belongs_to_the_burst():
    gates = Gates()
    gates.registry.add(quick)
    async with ending(gates.registry, burst=True) as (source, _):
        first = source.add("slow")
        await source.until(lambda: gates.begun == 1)
        late = source.add("quick")
        await source.outcome(late)
        assert source.empties == 0, "while a job runs there may always be more"
        gates.open.set()
    assert set(source.outcomes) == {first, late}


async def test_a_burst_asks_for_the_last_time_only_when_all_outcomes_are_in():
    """A job that failed may be ready again once its outcome was taken, and the handler may have submitted others."""
    source = MemorySource()
    first = source.add("quick")
    source.gates["finish"] = asyncio.Event()
    async with ending(quick, source=source, burst=True):
        await source.started(first)
        for _ in range(50):
            await asyncio.sleep(0)
        assert source.empties == 0
        second = source.add("quick")
        source.gates["finish"].set()
    assert set(source.outcomes) == {first, second}
    assert source.empties == 1


async def test_a_job_that_was_lost_does_not_keep_a_burst():
    gates = Gates()
    async with ending(gates.registry, burst=True) as (source, _):
        job_id = source.add("slow")
        await source.until(lambda: gates.begun == 1)
        source.stop(job_id, "lost")
    assert source.outcomes == {}


async def test_a_source_that_fails_is_not_an_empty_one():
    source = MemorySource()
    job_id = source.add("quick")
    source.errors["open"] = [errors.Unavailable("away")]
    source.errors["lease"] = [errors.Unavailable("away")] * 3
    async with ending(quick, source=source, burst=True, clock=QuickClock()):
        pass
    assert isinstance(source.outcomes[job_id], Succeeded)


async def test_a_thread_that_does_not_heed_its_stop_does_not_keep_a_burst_for_its_outcome():
    begun, end = threading.Event(), threading.Event()

    @handler
    def deaf() -> None:
        begun.set()
        end.wait(BOUND)

    try:
        async with ending(deaf, burst=True, cancel_grace=0.01) as (source, _):
            job_id = source.add("deaf")
            await asyncio.to_thread(begun.wait)
            source.stop(job_id)
            await source.outcome(job_id)
            await source.until(lambda: source.closed)
    finally:
        end.set()


@pytest.mark.parametrize("options", [{"burst": True}, {"max_jobs": 5}])
async def test_a_runner_that_would_end_by_itself_can_be_drained(options):
    gates = Gates()
    async with ending(gates.registry, cancel_grace=0, **options) as (source, runner):
        job_id = source.add("slow")
        await source.until(lambda: gates.begun == 1)
        async with asyncio.timeout(BOUND):
            await runner.drain(0)
    assert isinstance(source.outcomes[job_id], Released)


@pytest.mark.parametrize("slots", [1, 2, 10])
async def test_no_more_jobs_than_that_are_started(slots: int):
    source = MemorySource()
    ids = [source.add("quick") for _ in range(5)]
    async with ending(quick, source=source, max_jobs=3, slots=slots):
        pass
    assert list(source.outcomes) == ids[:3]
    assert [one.job_id for one in source.waiting] == ids[3:]
    assert all(limit <= 3 for _, limit in source.asks)


async def test_it_waits_for_the_last_of_its_jobs():
    gates = Gates()
    async with ending(gates.registry, max_jobs=2) as (source, _):
        ids = [source.add("slow") for _ in range(3)]
        await source.until(lambda: gates.begun == 2)
        assert not source.closed
        gates.open.set()
    assert set(source.outcomes) == set(ids[:2])


async def test_a_job_that_failed_counts_as_one_too():
    @handler
    async def bad() -> None:
        raise ValueError

    source = MemorySource()
    ids = [source.add("bad") for _ in range(3)]
    async with ending(bad, source=source, max_jobs=2):
        pass
    assert [type(source.outcomes.get(job_id)) for job_id in ids] == [Failed, Failed, type(None)]


async def test_both_bounds_hold():
    source = MemorySource()
    source.add("quick")
    async with ending(quick, source=source, burst=True, max_jobs=10):
        pass
    assert len(source.outcomes) == 1
