"""Sessions of workers elsewhere: when they end, and what becomes of jobs that nobody knows of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from atlas_grpc.engine.remote import Keeper
from atlas_grpc.errors import Unavailable
from atlas_grpc.model import SECOND, Ask, Cause, Report, State
from tests.unit.engine.world import DONE, TYPES, a_world

if TYPE_CHECKING:
    from collections.abc import Collection

    from atlas_grpc.engine.engine import Engine
    from atlas_grpc.engine.remote import RemoteSession
    from atlas_grpc.model import Assignment
    from tests.unit.engine.world import World

LEASE = 10 * SECOND


class Far:
    """A worker elsewhere, and the streams that it has to servers."""

    def __init__(self) -> None:
        self.session: RemoteSession
        self.stops: list[tuple[str, int, str]] = []

    async def connect(self, engine: Engine, *, holding: Collection[tuple[str, int]] = ()) -> bool:
        """Whether its session goes on there."""
        before = getattr(self, "session", None)
        self.session = Keeper(engine.leases).stream()
        if before is None:
            await self.session.open("far", TYPES, 10, self._stop)
            return False
        return await self.session.resume(before.id, "far", TYPES, 10, self._stop, holding)

    def _stop(self, *stop: object) -> None:
        self.stops.append(stop)  # type: ignore[arg-type]

    def leasing(self) -> asyncio.Task[list[Assignment]]:
        return asyncio.ensure_future(self.session.lease(lambda: ([Ask("work", 10)], 10)))

    async def take(self) -> list[Assignment]:
        return await asyncio.wait_for(self.leasing(), 5)


async def keep(world: World, session: RemoteSession, seconds: int) -> None:
    """The worker is heard of as often as it should be."""
    for _ in range(seconds):
        await session.beat()
        await world.advance(1)


@pytest.mark.parametrize("stream", ["stands", "broke"])
async def test_a_job_is_taken_from_a_silent_worker_the_moment_its_lease_ends(stream: str) -> None:
    """Not at the sweeper's next round."""
    async with a_world(lease=LEASE) as world:
        await world.advance(0.3)
        far = Far()
        await far.connect(world.engine)
        job_id = await world.submit()
        await far.take()
        await world.advance(2.45)
        await far.session.beat()
        heard = world.clock.now()
        if stream == "broke":
            await far.session.detach(())
        await world.advance(9.9)
        assert (await world.job(job_id)).state is State.RUNNING
        await world.advance(0.2)
        last = (await world.job(job_id)).history[-1]
        assert (last.cause, last.time) == (Cause.WORKER_LOST, heard + LEASE)


async def test_a_session_that_is_kept_elsewhere_ends_when_it_ends() -> None:
    """One server knows only that it kept it for a while."""
    async with a_world(lease=LEASE, engines=2) as world:
        far = Far()
        await far.connect(world.engine)
        job_id = await world.submit()
        (taken,) = await far.take()
        await far.session.detach(())
        await world.advance(4)
        assert await far.connect(world.engines[1], holding=[(job_id, taken.fence)])
        await keep(world, far.session, 25)
        assert (await world.job(job_id)).state is State.RUNNING
        assert await far.session.finish([Report(job_id, taken.fence, DONE)]) == [True]


async def test_what_a_dead_server_had_asked_for_is_given_back() -> None:
    """Its claim is made after the worker went on with another server. Neither of them was told of the job."""
    async with a_world(slow=True, lease=LEASE, engines=2) as world:
        doomed, alive = world.engines
        far = Far()
        await far.connect(doomed)
        await world.crash(doomed)
        assert await far.connect(alive)
        job_id = await world.submit()
        (late,) = await world.memory.claim(far.session.id, "far", [Ask("work", 1)], 1)
        leasing = far.leasing()
        await keep(world, far.session, 10)
        (taken,) = await asyncio.wait_for(leasing, 5)
        assert (taken.job_id, late.fence < taken.fence) == (job_id, True)
        assert await world.causes(job_id) == ["SUBMITTED", "STARTED", "RELEASED", "STARTED"]


async def test_a_job_whose_outcome_is_under_way_is_not_given_back() -> None:
    """The worker had it when it continued its session, and has reported it since; the write failed, to be repeated."""
    async with a_world(slow=True, lease=LEASE) as world:
        far = Far()
        await far.connect(world.engine)
        job_id = await world.submit()
        (taken,) = await far.take()
        await far.session.detach(())
        assert await far.connect(world.engine, holding=[(job_id, taken.fence)])

        def fail(name: str) -> None:
            if name == "put":
                raise Unavailable("the store is away")

        world.store.fault = fail
        report = Report(job_id, taken.fence, DONE)
        with pytest.raises(Unavailable):
            await far.session.finish([report])
        world.store.fault = lambda _name: None
        leasing = far.leasing()
        await keep(world, far.session, 8)
        assert await far.session.finish([report]) == [True]
        leasing.cancel()
        assert await world.causes(job_id) == ["SUBMITTED", "STARTED", "SUCCEEDED"]
