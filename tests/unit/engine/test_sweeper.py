"""The loop that does what time asks for."""

from __future__ import annotations

import asyncio

import pytest

from atlas_grpc.engine.submit import RetryOverride
from atlas_grpc.errors import JobNotFound, Unavailable
from atlas_grpc.model import SECOND, Cause, State
from tests.unit.engine.world import NS, World, a_world, boom


async def test_it_is_woken_by_a_timer_that_is_earlier_than_its_sleep(world: World):
    await world.advance(10.5)
    slow = await world.submit(start_delay=900_000)
    fast = await world.submit(start_delay=1_000)
    await world.advance(0.001)
    assert (await world.job(fast)).ready
    assert not (await world.job(slow)).ready
    assert (await world.job(fast)).update_time == world.clock.now(), "at the instant, not at the next round"


@pytest.mark.parametrize("operation", ["due", "put", "renew", "expired"])
async def test_it_survives_a_store_that_was_away(world: World, operation: str):
    job_id = await world.submit(start_delay=12 * SECOND)
    failures = 0

    def fault(name: str) -> None:
        nonlocal failures
        if name == operation:
            failures += 1
            raise Unavailable("the store is away")

    world.store.fault = fault
    await world.advance(30)
    assert failures > 1
    assert not (await world.job(job_id)).ready
    world.store.fault = lambda _name: None
    await world.advance(1.5)
    assert (await world.job(job_id)).ready


async def test_many_timers_at_one_instant_are_served_in_batches(world: World):
    ids = [await world.submit(start_delay=SECOND) for _ in range(1_201)]
    world.store.calls.clear()
    await world.advance(1)
    assert all(job.ready for job in await world.memory.get(ids))
    assert 3 <= world.store.calls.count("put") <= 6


async def test_what_is_expired_is_deleted_in_batches(world: World):
    ids = [await world.submit(retention=5 * SECOND) for _ in range(1_201)]
    worker = await world.worker()
    for taken in await worker.take(2_000):
        await worker.end(taken)
    await world.advance(4.999)
    assert all(await world.memory.get(ids))
    await world.advance(0.001)
    assert not any(await world.memory.get(ids))
    assert (await world.memory.counts()).states[State.SUCCESS] == 0


async def test_two_sweepers_do_each_thing_once():
    async with a_world(engines=3, slow=True) as world:
        ids = [await world.submit(start_delay=SECOND, start_timeout=SECOND) for _ in range(50)]
        await world.advance(5)
        for job_id in ids:
            assert await world.causes(job_id) == ["SUBMITTED", "BECAME_READY", "START_DEADLINE_EXCEEDED"]


async def test_a_short_lease_does_not_end_between_two_rounds():
    async with a_world(lease=SECOND) as world:
        await world.worker()
        await world.advance(5)
        assert world.store.calls.count("open_session") == 1, "it never had to be opened again"


async def test_a_silent_session_loses_its_jobs_after_its_lease():
    async with a_world(engines=2, lease=10 * SECOND) as world:
        doomed, alive = world.engines
        job_id = await world.submit(engine=doomed)
        worker = await world.worker("doomed", doomed)
        await world.worker("alive", alive)
        taken = await worker.take_one()
        await world.advance(30)
        assert (await world.job(job_id)).state is State.RUNNING, "it is renewed as long as its engine lives"
        await world.crash(doomed)
        await world.advance(5)
        job = await alive.get(NS, job_id)
        assert job.state is State.RUNNING, "its last renewal is less than a lease ago"
        await world.advance(6)
        job = await alive.get(NS, job_id)
        assert (job.state, job.ready, job.crashes, job.failures) == (State.PENDING, True, 1, 0)
        assert job.history[-1].cause is Cause.WORKER_LOST
        assert (await worker.session.finish([]), await worker.end(taken)) == ([], False), "a zombie is told so"


async def test_a_poison_job_fails_after_as_many_crashes_as_attempts():
    async with a_world(lease=10 * SECOND) as world:
        job_id = await world.submit()
        crashes = 0
        while (await world.job(job_id)).state is not State.FAILED:
            doomed = await world.add_engine(lease=10 * SECOND)
            worker = await world.worker("doomed", doomed)
            if await worker.take():
                crashes += 1
            await world.crash(doomed)
            await world.advance(12)
            assert crashes <= 3
        job = await world.job(job_id)
        assert (crashes, job.crashes, job.failures, job.error.reason) == (3, 3, 0, "WORKER_LOST")


async def test_a_server_that_stood_still_keeps_its_own_jobs(world: World):
    job_id = await world.submit()
    worker = await world.worker()
    taken = await worker.take_one()
    world.clock.tick(300 * SECOND)
    await world.advance(2)
    assert (await world.job(job_id)).state is State.RUNNING
    assert await worker.end(taken)


async def test_every_timed_out_attempt_is_counted(world: World):
    await world.submit(attempt_timeout=SECOND, retry=RetryOverride(max_attempts=2, initial_backoff=0))
    worker = await world.worker()
    await worker.take_one()
    await world.advance(1)
    await worker.take_one()
    await world.advance(1)
    text = world.engine.core.metrics.render()[0].decode()
    (line,) = [
        line for line in text.splitlines() if line.startswith("atlas_job_attempts_total") and "TIMED_OUT" in line
    ]
    assert line.endswith(" 2.0"), line


async def test_a_stopped_engine_sweeps_no_more():
    async with a_world() as world:
        engine = world.engine
        await engine.stop()
        world.store.calls.clear()
        await world.advance(10)
        assert world.store.calls == []
        assert not engine.core._tasks
        await asyncio.sleep(0)


async def test_deleting_by_hand_and_by_time_do_not_disturb_each_other(world: World):
    job_id = await world.submit(retention=5 * SECOND)
    worker = await world.worker()
    await worker.end(await worker.take_one(), boom(retryable=False))
    await world.engine.delete(NS, job_id, None)
    with pytest.raises(JobNotFound):
        await world.engine.delete(NS, job_id, None)
    await world.advance(5)
    assert (await world.memory.counts()).states[State.FAILED] == 0
