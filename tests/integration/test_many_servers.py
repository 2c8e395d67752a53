"""Several servers on one store: one truth, told by each of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from atlas_grpc import Client, JobContext, errors, handler, pb
from atlas_grpc.client import Job, JobChanged, JobState, Synced, Transitioned, new_job
from atlas_grpc.testing import serving
from tests.support.history import Acknowledged, History, Reading, Step, check, summary
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.usefixtures("shared_store")


@handler
async def echo(number: int) -> int:
    return number


_gates: list[asyncio.Event] = []


@pytest.fixture
async def gate() -> AsyncIterator[asyncio.Event]:
    """What `gated` waits for."""
    _gates.append(asyncio.Event())
    yield _gates[-1]
    _gates.clear()


@handler
async def gated(number: int) -> int:
    await _gates[-1].wait()
    return number


@handler
async def waits(*, ctx: JobContext) -> None:
    ctx.info("begun")
    await asyncio.Event().wait()


@asynccontextmanager
async def two(**options: Any) -> AsyncIterator[tuple[Client, Client]]:
    """Clients of two servers on one store."""
    async with (
        serving(echo, gated, waits, name="one", grace=0, **options) as first,
        serving(echo, gated, waits, name="two", grace=0, **options) as second,
        Client(first.grpc_address) as one,
        Client(second.grpc_address) as other,
    ):
        yield one, other


async def test_a_thousand_jobs_are_submitted_here_watched_there_and_run_on_both(gate: asyncio.Event):
    """No job can end before all are watched, so that the other server has to tell of each step as it is made."""
    history, begun = History(), Counter[str]()
    async with two(slots=8, max_streams=2_000) as (here, there):

        async def follow(job_id: str) -> None:
            async for event in there.watch(job_id):
                if isinstance(event, Transitioned):
                    step = Step(event.version, event.state.name, event.cause, event.run)
                    history.steps["there", job_id].append(step)
                    begun[job_id] += 1

        requests = [new_job("gated", {"number": n}, request_id=f"r{n}") for n in range(1000)]
        ids = [job.id for job in await here.submit_many(requests)]
        history.acknowledged += [Acknowledged(f"r{n}", job_id) for n, job_id in enumerate(ids)]
        following = asyncio.gather(*map(follow, ids))
        await until(lambda: len(begun) == 1000, 40)
        gate.set()
        await following
        workers: Counter[str] = Counter()
        async for job in there.list(full=True):
            history.final.append(_reading(job))
            workers[job.attempts[-1].worker] += 1
        history.readings += [_reading(job) async for job in here.list(full=True)]
    found = check(history)
    assert not found, summary(found)
    assert {job.state for job in history.final} == {"SUCCESS"}
    assert sorted(int(float(job.result)) for job in history.final) == list(range(1000))
    assert set(workers) == {"one", "two"}
    assert sum(workers.values()) == 1000
    causes = {tuple(step.cause for step in steps) for steps in history.steps.values()}
    assert causes == {("SUBMITTED", "STARTED", "SUCCEEDED")}


def _reading(job: Job) -> Reading:
    return Reading(job.id, job.version, job.state.name, job.run, job.request_id, str(job.output))


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


async def test_a_stream_whose_worker_goes_on_by_another_server_keeps_no_job():
    """The first server cannot know: the stream is open, and the network lets nothing through."""

    async def greet(channel: grpc.aio.Channel, session: str = "") -> tuple[Any, pb.WorkerWelcome]:
        stream = pb.WorkerServiceStub(channel).Work()
        hello = pb.WorkerHello(worker="raw", session=session, slots=4, types=[pb.JobType(name="echo")])
        await stream.write(pb.WorkRequest(hello=hello))
        return stream, (await stream.read()).welcome

    ready = pb.WorkRequest(ready=pb.WorkerReady(limit=4, room=[pb.TypeRoom(type="echo", slots=4)]))
    async with (
        serving(echo, worker=False, grace=0) as first,
        serving(echo, worker=False, grace=0) as second,
        Client(second.grpc_address) as client,
        grpc.aio.insecure_channel(first.grpc_address) as here,
        grpc.aio.insecure_channel(second.grpc_address) as there,
    ):
        dead, welcome = await greet(here)
        await dead.write(ready)
        stream, again = await greet(there, welcome.session)
        assert again.resumed
        job = await client.submit("echo", {"number": 1})
        async for event in client.watch(job.id):
            if isinstance(event, Transitioned) and event.cause == "STARTED":
                break
        await stream.write(ready)
        async with asyncio.timeout(15):
            assert [one.id for one in (await stream.read()).assignments.jobs] == [job.id]
            assert [one.id for one in (await dead.read()).assignments.jobs] == [job.id]
            assert await dead.code() is grpc.StatusCode.ABORTED
        found = await client.get(job.id)
        assert found.attempts[0].outcome == "RELEASED"
        await stream.write(pb.WorkRequest(goodbye=pb.WorkerGoodbye()))
        assert await stream.read() is grpc.aio.EOF
