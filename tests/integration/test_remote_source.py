"""The Python worker's source of work, before the jobs that it was sent are begun."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from atlas_grpc import Client, handler, pb
from atlas_grpc.clock import SystemClock
from atlas_grpc.model import Ask, TypeInfo
from atlas_grpc.remote.link import Link
from atlas_grpc.remote.source import RemoteSource
from atlas_grpc.testing import serving
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from atlas_grpc.model import Assignment

PATIENCE = 15.0


@handler
async def rest() -> None:
    pass


class Gate:
    """Lets acknowledgements out of workers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._held: list[Callable[[], None]] | None = []
        say = Link.say

        def held(link: Link, message: pb.WorkRequest, *written: Callable[[], None]) -> None:
            if message.WhichOneof("message") == "received" and self._held is not None:
                self._held.append(lambda: say(link, message, *written))
            else:
                say(link, message, *written)

        monkeypatch.setattr(Link, "say", held)

    @property
    def holds(self) -> bool:
        return bool(self._held)

    def let_go(self) -> None:
        held, self._held = self._held, None
        for one in held or ():
            one()

    def lose(self) -> None:
        """Those that are held never leave, later ones do."""
        self._held = None


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


class Worker:
    def __init__(self, source: RemoteSource) -> None:
        self.source = source
        self.stops: list[tuple[str, int, str]] = []

    async def lease(self, *, at_once: bool = False) -> Assignment:
        async with asyncio.timeout(PATIENCE):
            (job,) = await self.source.lease(lambda: ([Ask("rest", 1)], 1), at_once=lambda: at_once)
        return job


@asynccontextmanager
async def a_worker() -> AsyncIterator[tuple[Client, Worker]]:
    async with serving(rest, worker=False, grace=0) as server, Client(server.grpc_address) as client:
        worker = Worker(RemoteSource([server.grpc_address], SystemClock(), random.Random(1)))
        await worker.source.open("far", [TypeInfo("rest")], 1, lambda *stop: worker.stops.append(stop))
        try:
            yield client, worker
        finally:
            await worker.source.close()


async def test_a_job_is_begun_once_its_acknowledgement_has_left(gate: Gate) -> None:
    async with a_worker() as (client, worker):
        job = await client.submit("rest")
        lease = asyncio.ensure_future(worker.lease())
        await until(lambda: gate.holds)
        await client.get(job.id)
        assert not lease.done()
        gate.let_go()
        assert (await lease).job_id == job.id


async def test_one_that_is_cancelled_before_it_is_begun_is_said_to_be(gate: Gate) -> None:
    async with a_worker() as (client, worker):
        job = await client.submit("rest")
        lease = asyncio.ensure_future(worker.lease())
        await until(lambda: gate.holds)
        await job.cancel()
        await until(lambda: bool(worker.source._cancelled))
        assert worker.stops == []
        gate.let_go()
        taken = await lease
        assert worker.stops == [(job.id, taken.fence, "cancelled")]


async def test_one_whose_acknowledgement_was_lost_with_the_stream_goes_back_and_is_not_begun(gate: Gate) -> None:
    async with a_worker() as (client, worker):
        job = await client.submit("rest")
        lease = asyncio.ensure_future(worker.lease())
        await until(lambda: gate.holds)
        gate.lose()
        worker.source._link.restart()
        assert (await lease).attempt == 2
        attempts = (await client.get(job.id)).attempts
        assert [attempt.outcome for attempt in attempts][:1] == ["RELEASED"]
        assert worker.stops == []


async def test_one_that_is_lost_before_it_is_begun_is_not_the_end_of_a_burst(gate: Gate) -> None:
    async with a_worker() as (client, worker):
        lost = await client.submit("rest")
        lease = asyncio.ensure_future(worker.lease(at_once=True))
        await until(lambda: gate.holds)
        worker.source._lose_all()
        left = await client.submit("rest")
        gate.let_go()
        assert (await lease).job_id == left.id
        assert [job_id for job_id, _, _ in worker.stops] == [lost.id]
