"""Several servers on one store: one truth, told by each of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from atlas_grpc import Client, JobContext, errors, handler, pb
from atlas_grpc.client import JobChanged, JobState, Synced, Transitioned, new_job
from atlas_grpc.testing import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.usefixtures("shared_store")


@handler
async def echo(number: int) -> int:
    return number


@handler
async def waits(*, ctx: JobContext) -> None:
    ctx.info("begun")
    await asyncio.Event().wait()


@asynccontextmanager
async def two(**options: Any) -> AsyncIterator[tuple[Client, Client]]:
    """Clients of two servers on one store."""
    async with (
        serving(echo, waits, name="one", grace=0, **options) as first,
        serving(echo, waits, name="two", grace=0, **options) as second,
        Client(first.grpc_address) as one,
        Client(second.grpc_address) as other,
    ):
        yield one, other


async def test_a_thousand_jobs_are_submitted_here_watched_there_and_run_on_both():
    async with two(slots=8) as (here, there):
        versions: dict[str, list[int]] = {}
        workers: Counter[str] = Counter()

        async def follow(job_id: str) -> None:
            versions[job_id] = [event.version async for event in there.watch(job_id) if isinstance(event, Transitioned)]

        jobs = await here.submit_many([new_job("echo", {"number": number}) for number in range(1000)])
        ids = [job.id for job in jobs]
        for start in range(0, len(ids), 250):
            await asyncio.gather(*map(follow, ids[start : start + 250]))
        for job_id in ids:
            job = await there.get(job_id)
            assert job.state is JobState.SUCCESS
            assert versions[job_id] == list(range(1, job.version + 1))
            workers[job.attempts[-1].worker] += 1
        assert set(workers) == {"one", "two"}
        assert sum(workers.values()) == 1000


async def test_what_was_acknowledged_here_is_there_at_once():
    async with two(worker=False) as (here, there):
        for number in range(30):
            job = await here.submit("echo", {"number": number}, request_id=f"r{number}")
            assert (await there.get(job.id)).state is JobState.PENDING
            again = await there.submit("echo", {"number": number}, request_id=f"r{number}")
            assert again.id == job.id
            assert again.deduplicated


async def test_a_hundred_submits_of_one_request_id_through_both_make_one_job():
    async with two(worker=False) as pair:
        jobs = await asyncio.gather(
            *(pair[turn % 2].submit("echo", {"number": 1}, request_id="once") for turn in range(100))
        )
        assert len({job.id for job in jobs}) == 1
        assert sum(not job.deduplicated for job in jobs) == 1


async def test_a_cancellation_there_stops_a_handler_here():
    async with two() as (here, there):
        job = await here.submit("waits")
        async for event in there.watch(job.id):
            if isinstance(event, Transitioned) and event.cause == "STARTED":
                await there.cancel(job.id)
                await here.cancel(job.id)
        assert (await here.get(job.id)).state is JobState.CANCELLED


async def test_a_filtered_watch_there_is_told_what_happens_here():
    async with two() as (here, there), there.watch_all(types=["echo"]) as events:
        assert isinstance(await anext(events), Synced)
        ended: dict[str, JobState] = {}
        jobs = await here.submit_many([new_job("echo", {"number": number}) for number in range(50)])
        while len(ended) < 50:
            event = await anext(events)
            if isinstance(event, JobChanged) and event.job.state.terminal:
                ended[event.job.id] = event.job.state
        assert set(ended) == {job.id for job in jobs}


async def test_a_type_that_a_worker_announced_here_is_known_there():
    async with (
        serving(worker=False, grace=0) as first,
        serving(worker=False, grace=0) as second,
        Client(first.grpc_address) as here,
        Client(second.grpc_address) as there,
    ):
        kind = pb.JobType(name="resize")
        kind.payload_schema.update({"type": "object", "required": ["width"]})
        async with grpc.aio.insecure_channel(first.grpc_address) as channel:
            stream = pb.WorkerServiceStub(channel).Work()
            await stream.write(pb.WorkRequest(hello=pb.WorkerHello(worker="raw", slots=4, types=[kind])))
            assert (await stream.read()).welcome.session
            job = await there.submit("resize", {"width": 3})
            with pytest.raises(errors.InvalidArgument):
                await there.submit("resize", {})
            assert "resize" in [one.name for one in await there.types()]
            assert (await job.explain()).slots == 4
            await stream.write(pb.WorkRequest(goodbye=pb.WorkerGoodbye()))
            assert await stream.read() is grpc.aio.EOF
        assert (await job.explain()).slots == 0
        assert "no connected worker" in (await (await here.get(job.id)).explain()).summary
