"""What happens while a claim or a hand-over is under way."""

from __future__ import annotations

import asyncio

import pytest

from atlas_grpc.engine.engine import Engine
from atlas_grpc.engine.logs import Wanted
from atlas_grpc.errors import ResumeTokenExpired
from atlas_grpc.model import Ask, Report
from tests.unit.engine.test_remote import LEASE, Far, keep
from tests.unit.engine.world import DONE, NS, a_world


@pytest.mark.parametrize("where", ["here", "elsewhere", "somewhere"])
async def test_a_cancellation_that_crosses_the_answer_of_a_claim_is_told(where: str) -> None:
    async with a_world(slow=True, engines=2) as world:
        if where != "here":
            world.hear_only(world.engine, vague=where == "somewhere")
        worker = await world.worker()
        job_id = await world.submit()
        answer = world.store.hold("claim")
        leasing = asyncio.ensure_future(worker.session.lease(lambda: ([Ask("work", 1)], 1)))
        await world.clock.settle()
        await world.engines[where != "here"].cancel(NS, job_id, "", None)
        await world.clock.settle()
        answer.set()
        (taken,) = await leasing
        await world.clock.settle()
        assert worker.stops == [(job_id, taken.fence, "cancelled")]


async def test_what_was_not_acknowledged_stays_with_a_worker_that_names_it_by_its_next_stream() -> None:
    async with a_world(slow=True, lease=LEASE) as world:
        far = Far()
        await far.connect(world.engine)
        job_id = await world.submit()
        (taken,) = await far.take()
        before = far.session
        assert await far.connect(world.engine, holding=[(job_id, taken.fence)])
        await before.detach([(job_id, taken.fence)])
        assert await far.session.finish([Report(job_id, taken.fence, DONE)]) == [True]
        assert await world.causes(job_id) == ["SUBMITTED", "STARTED", "SUCCEEDED"]


async def test_a_job_that_was_being_given_back_when_its_worker_named_it_is_lost_to_it() -> None:
    async with a_world(slow=True, lease=LEASE) as world:
        far = Far()
        await far.connect(world.engine)
        job_id = await world.submit()
        (taken,) = await far.take()
        world.store.gates["put"] = asyncio.Event()
        detaching = asyncio.ensure_future(far.session.detach([(job_id, taken.fence)]))
        await world.clock.settle()
        assert await far.connect(world.engine, holding=[(job_id, taken.fence)])
        assert far.stops == []
        world.store.gates.pop("put").set()
        await detaching
        assert far.stops == [(job_id, taken.fence, "lost")]


async def test_what_a_dead_server_had_asked_for_is_given_back_while_the_worker_has_no_room() -> None:
    async with a_world(slow=True, lease=LEASE, engines=2) as world:
        doomed, alive = world.engines
        far = Far()
        await far.connect(doomed)
        await world.crash(doomed)
        assert await far.connect(alive)
        job_id = await world.submit()
        await world.memory.claim(far.session.id, "far", [Ask("work", 1)], 1)
        await keep(world, far.session, 10)
        assert await world.causes(job_id) == ["SUBMITTED", "STARTED", "RELEASED"]


async def test_a_log_that_lost_its_end_is_not_continued() -> None:
    async with a_world() as world:
        job_id = await world.submit()
        worker = await world.worker()
        await worker.tell(await worker.take_one(), "one", "two")
        (await world.engine.watch_log(NS, job_id, Wanted(), Engine.log_token(job_id, 2))).close()
        with pytest.raises(ResumeTokenExpired):
            await world.engine.watch_log(NS, job_id, Wanted(), Engine.log_token(job_id, 3))
        assert not world.engine.hub._topics
