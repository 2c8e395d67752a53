"""Watching over real gRPC: many watchers, readers that stop reading, streams that are cut."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from atlas_grpc import JobContext, handler, pb
from atlas_grpc.testing import serving
from tests.robustness.conftest import Rig
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.usefixtures("every_store")

GATE: list[asyncio.Semaphore] = []


@pytest.fixture(autouse=True)
async def gate() -> AsyncIterator[asyncio.Semaphore]:
    """What `stepwise` takes one of for each line."""
    GATE[:] = [asyncio.Semaphore(0)]
    yield GATE[0]
    GATE.clear()


@handler(retry={"max_attempts": 20, "initial_backoff": 0})
async def stepwise(attempts: int, lines: int = 3, size: int = 10, *, ctx: JobContext) -> int:
    """Fails so many times, logging and telling progress; takes one of the gate for each line."""
    for line in range(lines):
        await GATE[0].acquire()
        ctx.log(f"{line} " + "x" * size)
        ctx.progress(line, lines)
        await asyncio.sleep(0)
    if ctx.attempt < attempts:
        raise ValueError(ctx.attempt)
    return ctx.attempt


class Told:
    """What a watcher was told, over however many streams."""

    def __init__(self) -> None:
        self.versions: list[int] = []
        self.offsets: list[int] = []
        self.token = ""
        self.state = 0

    def note(self, update: pb.WatchJobResponse) -> None:
        self.versions += [step.version for step in update.transitions]
        self.offsets += [line.offset for line in update.logs]
        self.token = update.resume_token
        if update.HasField("job"):
            self.state = update.job.state


async def follow(stub: Any, job_id: str, *, logs: bool = False) -> Told:
    told = Told()
    async for update in stub.WatchJob(pb.WatchJobRequest(id=job_id, include_logs=logs), timeout=60):
        told.note(update)
    return told


def open_gate(gate: asyncio.Semaphore, lines: int = 100_000) -> None:
    for _ in range(lines):
        gate.release()


def resident() -> int:
    """Bytes that this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


async def test_1000_watchers_see_the_same_history(gate: asyncio.Semaphore):
    async with (
        serving(stepwise, grace=0, max_streams=5000) as server,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
    ):
        rig = Rig(server, channel)
        job_id = await rig.submit("stepwise", {"attempts": 3})
        watching = [asyncio.ensure_future(follow(rig.stub, job_id)) for _ in range(1_000)]
        await until(lambda: server.engine.hub.open_watches()["WatchJob"] == 1_000)
        open_gate(gate)
        told = await asyncio.wait_for(asyncio.gather(*watching), 50)
        job = (await rig.stub.GetJob(pb.GetJobRequest(id=job_id), timeout=10)).job
        assert {tuple(one.versions) for one in told} == {tuple(range(1, job.version + 1))}
        assert {one.state for one in told} == {pb.Job.SUCCESS}
        await until(lambda: not any(server.engine.hub.open_watches().values()))


async def test_cut_50_times_at_random(gate: asyncio.Semaphore):
    rng = random.Random(7)
    async with (
        serving(stepwise, grace=0, watch_heartbeat=0.1) as server,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
    ):
        rig = Rig(server, channel)
        job_id = await rig.submit("stepwise", {"attempts": 10, "lines": 20})
        told, cuts = Told(), 0
        while told.state < pb.Job.SUCCESS:
            request = pb.WatchJobRequest(id=job_id, resume_token=told.token, include_logs=True)
            call = rig.stub.WatchJob(request, timeout=30)
            keep = rng.randrange(3) if cuts < 50 else 10_000
            open_gate(gate, 3 if cuts < 50 else 1_000)
            while keep > 0 and told.state < pb.Job.SUCCESS:
                update = await call.read()
                if update is grpc.aio.EOF:
                    break
                told.note(update)
                keep -= 1
            call.cancel()
            cuts += 1
        assert cuts > 50
        job = (await rig.stub.GetJob(pb.GetJobRequest(id=job_id), timeout=10)).job
        assert told.versions == list(range(1, job.version + 1))
        final = await follow(rig.stub, job_id, logs=True)
        assert final.offsets == list(range(200))
        assert told.offsets == final.offsets[: len(told.offsets)]
        assert final.versions == told.versions


async def test_readers_that_stop_reading_cost_little_and_slow_nobody(gate: asyncio.Semaphore):
    async with (
        serving(stepwise, grace=0, max_log_lines=200) as server,
        grpc.aio.insecure_channel(server.grpc_address, options=[("a", 1)]) as dead,
        grpc.aio.insecure_channel(server.grpc_address, options=[("a", 2)]) as alive,
    ):
        rig = Rig(server, alive)
        job_id = await rig.submit("stepwise", {"attempts": 20, "lines": 500, "size": 8_000})
        request = pb.WatchJobRequest(id=job_id, include_logs=True)
        deaf = [pb.JobServiceStub(dead).WatchJob(request) for _ in range(30)]
        for call in deaf:
            await call.read()
        reading = asyncio.ensure_future(follow(rig.stub, job_id, logs=True))
        before = resident()
        open_gate(gate)
        told = await asyncio.wait_for(reading, 40)
        assert told.state == pb.Job.SUCCESS
        job = (await rig.stub.GetJob(pb.GetJobRequest(id=job_id), timeout=5)).job
        assert told.versions == list(range(1, job.version + 1))
        # 80 MB of lines were logged; client and server are in this process.
        assert resident() - before < 30 * 10 * 2**20
        assert server.engine.hub.open_watches()["WatchJob"] <= 30
        for call in deaf:
            call.cancel()
        await until(lambda: not server.engine.hub.open_watches()["WatchJob"])


async def test_a_watch_of_everything_keeps_up_with_a_storm():
    async with serving(grace=0) as server, grpc.aio.insecure_channel(server.grpc_address) as channel:
        rig = Rig(server, channel)
        watch = rig.stub.WatchJobs(pb.WatchJobsRequest(), timeout=60)
        await watch.read()
        request = pb.SubmitJobRequest(type="sleep")
        request.payload["seconds"] = 0
        batch = pb.SubmitJobsRequest(requests=[request] * 500)
        ids: set[str] = set()
        for _ in range(4):
            answer = await rig.stub.SubmitJobs(batch, timeout=20)
            ids |= {outcome.response.job.id for outcome in answer.outcomes}
        states: dict[str, int] = {}
        async with asyncio.timeout(40):
            while len(states) < 2_000 or set(states.values()) != {pb.Job.SUCCESS}:
                for job in (await watch.read()).jobs:
                    states[job.id] = job.state
        assert set(states) == ids
        watch.cancel()
