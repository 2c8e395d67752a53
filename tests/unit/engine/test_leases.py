"""Leases: nobody finishes an attempt that is not his any more, and nothing is lost when somebody goes."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from atlas_grpc.errors import SessionEnded, Unavailable
from atlas_grpc.lifecycle import attempts
from atlas_grpc.model import SECOND, Ask, AttemptOutcome, Cause, Failed, Released, Report, State, Stopped
from tests.unit.engine.world import DONE, NS, World, a_world, boom


async def test_fences_grow_over_all_jobs_and_sessions(world: World):
    for _ in range(6):
        await world.submit()
    one, two = await world.worker("one"), await world.worker("two")
    fences = [(await worker.take_one()).fence for worker in (one, two, one, two, two, one)]
    assert fences == sorted(set(fences))


@pytest.mark.parametrize("outcome", [DONE, boom(), Released(), Stopped()])
async def test_a_repeated_word_is_accepted_again(world: World, outcome):
    await world.submit()
    worker = await world.worker()
    taken = await worker.take_one()
    assert await worker.end(taken, outcome)
    before = await world.job(taken.job_id)
    assert await worker.end(taken, outcome)
    assert await world.job(taken.job_id) == before, "and changes nothing"


async def test_a_zombie_is_refused_after_its_attempt_timed_out(world: World):
    job_id = await world.submit("timed")
    worker = await world.worker()
    old = await worker.take_one()
    await world.advance(6)
    assert not await worker.end(old)
    new = await worker.take_one()
    assert new.fence > old.fence
    assert not await worker.end(old)
    assert not await worker.tell(old, "still here", progress=1)
    assert await worker.tell(new, "working", progress=2)
    assert await worker.end(new)
    assert not await worker.end(old, boom())
    assert (await world.job(job_id)).state is State.SUCCESS


async def test_a_zombie_is_refused_after_the_job_is_gone(world: World):
    await world.submit(attempt_timeout=SECOND, retention=0, total_timeout=SECOND)
    worker = await world.worker()
    worker.session._on_stop = lambda *_stop: None
    taken = await worker.take_one()
    job = worker.session.in_hand[taken.job_id]
    await world.advance(6)
    assert await world.memory.get([taken.job_id]) == [None]
    worker.session.in_hand[taken.job_id] = job  # as if the word had crossed the news of its end
    assert not await worker.end(taken)


async def test_an_old_report_does_not_touch_what_the_session_holds_now(world: World):
    job_id = await world.submit("timed")
    worker = await world.worker()
    old = await worker.take_one()
    await world.advance(6)
    new = await worker.take_one()
    assert new.job_id == old.job_id
    assert not await worker.end(old)
    worker.stops.clear()
    await world.engine.cancel(NS, job_id, "", None)
    assert worker.stops == [(job_id, new.fence, "cancelled")]
    assert await world.engine.leases.capacity((await world.job(job_id)).spec) == (1000, 1)


async def test_a_batch_of_reports_is_answered_one_by_one(world: World):
    ids = [await world.submit() for _ in range(4)]
    worker = await world.worker()
    taken = {one.job_id: one for one in await worker.take(4)}
    reports = [
        Report(ids[0], taken[ids[0]].fence, DONE),
        Report(ids[1], taken[ids[1]].fence - 1_000_000, DONE),
        Report(ids[2], taken[ids[2]].fence, boom(retryable=False)),
        Report("no-such-job", 1, DONE),
        Report(ids[3], taken[ids[3]].fence, Released(SECOND)),
    ]
    assert await worker.session.finish(reports) == [True, False, True, False, True]
    states = [(await world.job(job_id)).state.name for job_id in ids]
    assert states == ["SUCCESS", "RUNNING", "FAILED", "PENDING"]


async def test_two_reports_about_one_job_in_one_batch(world: World):
    job_id = await world.submit()
    worker = await world.worker()
    taken = await worker.take_one()
    reports = [Report(job_id, taken.fence - 1, boom()), Report(job_id, taken.fence, DONE)]
    assert await worker.session.finish(reports) == [False, True]
    assert (await world.job(job_id)).result == DONE.result


async def test_a_report_crosses_a_cancellation_by_another_server():
    async with a_world(engines=2, slow=True) as world:
        job_id = await world.submit()
        worker = await world.worker()
        taken = await worker.take_one()
        await world.engines[1].cancel(NS, job_id, "", None)
        assert await worker.end(taken, Failed(boom().failure))
        job = await world.job(job_id)
        assert job.state is State.CANCELLED
        assert [step.version for step in job.history] == [1, 2, 3, 4]


async def test_a_lease_that_is_cut_gives_its_jobs_back_uncounted():
    for seed in range(20):
        async with a_world(seed, slow=True) as world:
            ids = [await world.submit() for _ in range(5)]
            worker = await world.worker()
            leasing = asyncio.ensure_future(worker.session.lease(lambda: ([Ask("work", 10)], 10)))
            for _ in range(world.rng.randrange(8)):
                await asyncio.sleep(0)
            leasing.cancel()
            await asyncio.gather(leasing, return_exceptions=True)
            await world.engine.core.settle()
            if leasing.cancelled():
                for job_id in ids:
                    job = await world.job(job_id)
                    assert (job.state, job.ready, job.failures, job.crashes) == (State.PENDING, True, 0, 0)
                    assert all(view.outcome is AttemptOutcome.RELEASED for view in attempts(job))
                assert await world.engine.leases.capacity(job.spec) == (1000, 0)
                await world.engine.cancel(NS, ids[0], "", None)
                assert worker.stops == [], "it was never told of these jobs"
            else:
                assert len(leasing.result()) == 5


async def test_a_waiting_lease_is_woken_by_a_job(world: World):
    worker = await world.worker()
    leasing = asyncio.ensure_future(worker.session.lease(lambda: ([Ask("work", 1)], 1)))
    await world.clock.settle()
    assert not leasing.done()
    await world.submit("other")
    await world.clock.settle()
    assert not leasing.done()
    job_id = await world.submit()
    (taken,) = await asyncio.wait_for(leasing, 5)
    assert taken.job_id == job_id


async def test_a_waiting_lease_asks_again_when_there_is_more_room(world: World):
    worker = await world.worker()
    asks = [Ask("work", 1)]
    leasing = asyncio.ensure_future(worker.session.lease(lambda: (asks, 1)))
    job_id = await world.submit("other")
    await world.clock.settle()
    assert not leasing.done()
    asks.append(Ask("other", 1))
    worker.session.more_room()
    (taken,) = await asyncio.wait_for(leasing, 5)
    assert taken.job_id == job_id


def asks_of(types: list[str]) -> tuple[list[Ask], int]:
    return [Ask(name, 1) for name in types], 1


async def test_room_that_comes_up_during_a_claim_is_not_forgotten():
    for seed in range(20):
        async with a_world(seed, slow=True) as world:
            worker = await world.worker()
            types = ["work"]
            room = partial(asks_of, types)
            leasing = asyncio.ensure_future(worker.session.lease(room))
            job_id = await world.submit("other")
            for _ in range(world.rng.randrange(8)):
                await asyncio.sleep(0)
            types.append("other")
            worker.session.more_room()
            (taken,) = await asyncio.wait_for(leasing, 5)
            assert taken.job_id == job_id


async def test_one_that_will_not_wait_asks_the_store_and_does_not_trust_in_hints(world: World):
    worker = await world.worker()
    asks = [Ask("work", 1)]
    lease = partial(worker.session.lease, lambda: (asks, 1), at_once=lambda: True)
    assert await lease() == []
    world.engine.leases.wake = lambda *_: None  # the hint is lost
    job_id = await world.submit()
    (taken,) = await lease()
    assert taken.job_id == job_id


async def test_one_that_waits_can_be_told_to_wait_no_longer(world: World):
    worker = await world.worker()
    impatient: list[bool] = []
    asking = worker.session.lease(lambda: ([Ask("work", 1)], 1), at_once=lambda: bool(impatient))
    leasing = asyncio.ensure_future(asking)
    await world.clock.settle()
    assert not leasing.done()
    impatient.append(True)
    worker.session.more_room()
    assert await asyncio.wait_for(leasing, 5) == []


async def test_one_that_will_not_wait_and_was_taken_for_dead_asks_again(world: World):
    worker = await world.worker()
    world.memory._sessions[worker.session.id] = world.clock.now()
    job_id = await world.submit()
    leasing = worker.session.lease(lambda: ([Ask("work", 1)], 1), at_once=lambda: True)
    (taken,) = await asyncio.wait_for(leasing, 5)
    assert taken.job_id == job_id


async def test_a_session_that_was_taken_for_dead_asks_again(world: World):
    """A server that was held up longer than its lease: what it asks for before it renews is answered with nothing."""
    worker = await world.worker()
    world.memory._sessions[worker.session.id] = world.clock.now()
    job_id = await world.submit()
    leasing = asyncio.ensure_future(worker.session.lease(lambda: ([Ask("work", 1)], 1)))
    await world.clock.settle()
    assert not leasing.done()
    await world.engine.leases.renew()
    (taken,) = await asyncio.wait_for(leasing, 5)
    assert taken.job_id == job_id


@pytest.mark.parametrize("late", [False, True])
async def test_a_claim_whose_answer_is_lost_is_given_back(late: bool):
    """The store made it, at once or when it came to, but the worker was told that it cannot be reached."""
    async with a_world(slow=True) as world:
        worker = await world.worker()
        kept = await world.submit()
        known = await worker.take_one()
        ids = [await world.submit() for _ in range(3)]
        lost: list[object] = []

        async def lose(*args: object) -> object:
            lost.append(await world.memory.claim(*args) if not late else args)
            raise Unavailable("the connection was cut")

        world.store.claim = lose
        with pytest.raises(Unavailable):
            await worker.session.lease(lambda: ([Ask("work", 5)], 5))
        del world.store.claim
        leasing = asyncio.ensure_future(worker.session.lease(lambda: ([Ask("work", 5)], 5)))
        if late:
            taken = {one.job_id: one for one in await asyncio.wait_for(leasing, 5)}
            assert taken.keys() == set(ids), "what was not made yet is in nobody's way"
            job_id = await world.submit()
            await world.memory.claim(*lost[0])
            leasing = asyncio.ensure_future(worker.session.lease(lambda: ([Ask("work", 5)], 5)))
            await world.advance(21)
            ids = [job_id]
        taken = {one.job_id: one for one in await asyncio.wait_for(leasing, 5)}
        assert taken.keys() == set(ids)
        for job_id in ids:
            assert await world.causes(job_id) == ["SUBMITTED", "STARTED", "RELEASED", "STARTED"]
            assert await worker.end(taken[job_id])
        assert await world.causes(kept) == ["SUBMITTED", "STARTED"]
        assert await worker.end(known)


async def test_closing_gives_everything_back_at_once(world: World):
    ids = [await world.submit() for _ in range(600)]
    worker = await world.worker()
    taken = await worker.take(1_000)
    assert len(taken) == 600
    await worker.session.close()
    jobs = [await world.job(job_id) for job_id in ids]
    assert {(job.state, job.ready, job.crashes, job.failures) for job in jobs} == {(State.PENDING, True, 0, 0)}
    assert {job.history[-1].cause for job in jobs} == {Cause.RELEASED}
    other = await world.worker("w2")
    assert len(await other.take(1_000)) == 600


async def test_a_closing_session_is_not_taken_for_a_crashed_one():
    for seed in range(30):
        async with a_world(seed, slow=True, engines=2) as world:
            ids = [await world.submit() for _ in range(3)]
            worker = await world.worker()
            await worker.take(3)
            closing = asyncio.ensure_future(worker.session.close())
            while not closing.done():
                await asyncio.gather(*(engine.sweeper.sweep() for engine in world.engines))
            assert {(await world.job(job_id)).crashes for job_id in ids} == {0}


async def test_a_closed_session_leases_no_more(world: World):
    worker = await world.worker()
    leasing = asyncio.ensure_future(worker.session.lease(lambda: ([Ask("work", 1)], 1)))
    await world.clock.settle()
    await worker.session.close()
    with pytest.raises(SessionEnded) as caught:
        await asyncio.wait_for(leasing, 5)
    assert caught.value.reason == "SESSION_ENDED"
    await world.submit()
    with pytest.raises(SessionEnded):
        await worker.session.lease(lambda: ([Ask("work", 1)], 1))


async def test_a_job_of_a_lost_session_stops_its_worker(world: World):
    job_id = await world.submit()
    worker = await world.worker()
    taken = await worker.take_one()
    world.memory._sessions[worker.session.id] = 0
    world.engine.leases.sessions.pop(worker.session.id)  # nobody renews it any more
    world.engine.leases.sessions["kept"] = worker.session
    await world.engine.leases.rescue(10)
    assert worker.stops == [(job_id, taken.fence, "lost")]


async def test_asks_choose_type_and_queue(world: World):
    await world.submit("work", queue="a")
    await world.submit("work", queue="b")
    await world.submit("other")
    worker = await world.worker()
    assert [one.queue for one in await worker.take(5, types=["work"], queues=frozenset({"b"}))] == ["b"]
    assert [one.type for one in await worker.take(5, types=["other"])] == ["other"]
    assert [one.queue for one in await worker.take(5, types=["work"])] == ["a"]


async def test_output_of_an_attempt_ends_with_it(world: World):
    await world.submit()
    worker = await world.worker()
    taken = await worker.take_one()
    assert await worker.tell(taken, "one", "two", progress=50)
    assert await worker.end(taken)
    assert not await worker.tell(taken, "three")
    (output,) = await world.memory.outputs([taken.job_id])
    assert (output.log_end, output.progress.current) == (2, 50.0)


async def test_an_assignment_carries_what_a_handler_needs(world: World):
    await world.submit("timed", labels={"k": "v"}, traceparent="00-trace")
    worker = await world.worker()
    taken = await worker.take_one()
    assert (taken.namespace, taken.queue, taken.labels, taken.traceparent) == (NS, "default", {"k": "v"}, "00-trace")
    assert taken.create_time == world.clock.now()
