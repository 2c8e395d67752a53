"""Who holds a job is known: news of it are for that worker, however many others are connected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atlas_grpc.engine.session import WorkerSession
from tests.unit.engine.world import NS, World, a_world

if TYPE_CHECKING:
    import pytest


async def test_a_job_that_moves_is_looked_at_by_nobody_but_its_holder(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    tell = WorkerSession.stop_if_moved
    monkeypatch.setattr(WorkerSession, "stop_if_moved", lambda *of: (told.append(of[0].worker), tell(*of))[1])
    running = await world.submit()
    workers = [await world.worker(f"w{number}") for number in range(30)]
    taken = await workers[7].take_one()
    pending = [await world.submit("other") for _ in range(20)]
    for job_id in pending:
        await world.engine.cancel(NS, job_id, "", None)
    world.engine.on_news(pending)
    await world.clock.settle()
    assert told == []
    await world.engine.cancel(NS, running, "", None)
    assert told == ["w7"]
    assert [worker.stops for worker in workers if worker.stops] == [[(running, taken.fence, "cancelled")]]


async def test_a_worker_whose_job_another_one_here_was_given_is_told() -> None:
    """That it was taken away was not heard on this server: what it is given out with next says it."""
    async with a_world(engines=2) as world:
        job_id = await world.submit()
        silent, other = await world.worker("silent"), await world.worker("other")
        old = await silent.take_one()
        world.memory._listeners.remove(world.engine)
        world.memory._sessions[silent.session.id] = 0
        await world.engines[1].leases.rescue(10)
        assert silent.stops == []
        world.engine.on_ready()
        new = await other.take_one()
        assert (new.job_id, silent.stops, other.stops) == (job_id, [(job_id, old.fence, "lost")], [])
        assert not silent.session.in_hand
        await world.engine.cancel(NS, job_id, "", None)
        world.engine.on_news(None)
        await world.clock.settle()
        assert other.stops == [(job_id, new.fence, "cancelled")]


async def test_nobody_is_told_of_what_a_session_had_when_it_closed(world: World) -> None:
    await world.submit()
    worker = await world.worker()
    await worker.take_one()
    assert world.engine.leases.holders
    await worker.session.close()
    assert not world.engine.leases.holders
    assert worker.stops == []
