"""`atlas worker` as a process of its own: what it executes, and what it lives through."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from atlas_grpc import Client, errors, pb
from atlas_grpc.client import JobHandle, JobState, Logged
from atlas_grpc.clock import SystemClock
from atlas_grpc.model import Ask, TypeInfo
from atlas_grpc.remote.beats import Beats
from atlas_grpc.remote.source import RemoteSource
from atlas_grpc.testing import serving
from tests.support.postgres import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE = 30.0
HANDLERS = str(Path(__file__).with_name("worker_handlers.py"))


class WorkerProcess:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        return await asyncio.wait_for(self._process.wait(), PATIENCE)

    async def end(self) -> None:
        if self._process.returncode is None:
            self.send(signal.SIGCONT)
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def a_worker(server: str, *options: str) -> AsyncIterator[WorkerProcess]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atlas_grpc.cli", "worker", HANDLERS, "--server", server, "--name", "far", *options),
        stdin=asyncio.subprocess.DEVNULL,
    )
    worker = WorkerProcess(process)
    try:
        yield worker
    finally:
        await worker.end()


@asynccontextmanager
async def a_pair(*worker_options: str, **options: Any) -> AsyncIterator[tuple[Client, WorkerProcess]]:
    """A server that knows the types but executes nothing, and a worker process."""
    async with (
        serving(HANDLERS, worker=False, grace=0, **options) as server,
        a_worker(server.grpc_address, *worker_options) as worker,
        Client(server.grpc_address) as client,
    ):
        yield client, worker


async def said(job: JobHandle, text: str) -> None:
    """Waits until the job has logged that."""
    async with asyncio.timeout(PATIENCE):
        async for event in job.watch():
            if isinstance(event, Logged) and event.message == text:
                return
    pytest.fail(f"the job ended without saying {text!r}")


@pytest.mark.usefixtures("every_store")
async def test_a_worker_executes_what_a_server_would():
    async with a_pair() as (client, worker):
        async with asyncio.timeout(PATIENCE):
            assert await (await client.submit("add", {"a": 2})).result() == 3
            shouted = await client.submit("shout", {"text": "ä"})
            assert await shouted.result() == "Ä"
            assert isinstance(await (await client.submit("pid")).result(), int)
            with pytest.raises(errors.JobFailed) as caught:
                await (await client.submit("fails")).result()
        assert caught.value.reason == "NO_USE"
        job = await client.get(shouted.id)
        assert (job.attempts[0].worker, job.progress.message) == ("far", "half")
        messages = [event.message async for event in job.watch() if isinstance(event, Logged)]
        assert messages == ["loud"]
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0


@pytest.mark.usefixtures("every_store")
async def test_a_cancelled_job_stops_in_its_worker():
    async with a_pair() as (client, _):
        job = await client.submit("stubborn")
        await said(job, "begun")
        await job.cancel()
        job = await job.wait(timeout=PATIENCE)
        assert job.state is JobState.CANCELLED
        messages = [event.message async for event in job.watch() if isinstance(event, Logged)]
        assert messages == ["begun", "told to stop"]


async def test_a_worker_that_is_told_to_end_lets_jobs_finish_and_gives_the_rest_back():
    async with a_pair("--drain-timeout", "2s") as (client, worker):
        short, long = await client.submit("nap", {"seconds": 0.5}), await client.submit("nap", {"seconds": 600})
        await asyncio.gather(said(short, "begun"), said(long, "begun"))
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
        assert (await client.get(short.id)).state is JobState.SUCCESS
        job = await client.get(long.id)
        assert (job.state, job.attempts[-1].outcome) == (JobState.PENDING, "RELEASED")


async def test_a_second_signal_gives_everything_back_at_once():
    async with a_pair("--drain-timeout", "10m") as (client, worker):
        job = await client.submit("nap", {"seconds": 600})
        await said(job, "begun")
        worker.send(signal.SIGTERM)
        worker.send(signal.SIGINT)
        assert await worker.ended() == 0
        job = await client.get(job.id)
        assert (job.state, job.attempts[-1].outcome) == (JobState.PENDING, "RELEASED")


async def test_a_handler_that_blocks_the_loop_does_not_cost_the_lease():
    async with a_pair(lease=1.0) as (client, _):
        job = await (await client.submit("blocks", {"seconds": 4})).wait(timeout=PATIENCE)
        assert job.state is JobState.SUCCESS
        assert len(job.attempts) == 1


async def test_a_worker_that_stood_still_beyond_its_lease_loses_its_jobs_and_goes_on():
    async with a_pair(lease=1.0) as (client, worker):
        job = await client.submit("stubborn", max_attempts=1)
        await said(job, "begun")
        worker.send(signal.SIGSTOP)
        job = await job.wait(timeout=PATIENCE)
        assert job.error is not None
        assert job.error.reason == "WORKER_LOST"
        worker.send(signal.SIGCONT)
        assert await (await client.submit("add", {"a": 1})).result(timeout=PATIENCE) == 2


async def test_a_killed_worker_loses_its_jobs_to_another():
    address = f"127.0.0.1:{free_port()}"
    async with a_pair(lease=1.0, grpc_address=address) as (client, worker):
        job = await client.submit("nap", {"seconds": 1.5})
        await said(job, "begun")
        worker.send(signal.SIGKILL)
        await worker.ended()
        async with a_worker(address):
            job = await job.wait(timeout=PATIENCE)
        assert [attempt.outcome for attempt in job.attempts] == ["LOST", "SUCCEEDED"]


@pytest.mark.usefixtures("every_store")
async def test_a_job_outlives_its_server(every_store: str):
    if every_store.startswith("memory"):
        pytest.skip("the memory store does not outlive its server")
    address = f"127.0.0.1:{free_port()}"
    async with a_worker(address):
        async with serving(HANDLERS, worker=False, grace=0, grpc_address=address), Client(address) as client:
            job = await client.submit("nap", {"seconds": 1.5})
            await said(job, "begun")
        await asyncio.sleep(0.5)
        async with serving(HANDLERS, worker=False, grace=0, grpc_address=address), Client(address) as client:
            found = await (await client.get(job.id)).wait(timeout=PATIENCE)
            assert (found.state, len(found.attempts)) == (JobState.SUCCESS, 1)


async def test_jobs_that_a_worker_gave_up_go_back_though_its_lease_was_kept(monkeypatch: pytest.MonkeyPatch):
    """The server hears its beats all the time, but the worker does not hear the answers."""
    monkeypatch.setattr(Beats, "_beat", lambda _self, _stub: None)
    lost: list[tuple[str, int, str]] = []
    async with serving(HANDLERS, worker=False, grace=0, lease=1.0) as server, Client(server.grpc_address) as client:
        source = RemoteSource([server.grpc_address], SystemClock(), random.Random(1))
        await source.open("far", [TypeInfo("nap")], 1, lambda *stop: lost.append(stop))
        beating = asyncio.create_task(beat_for(source, server.grpc_address))
        try:
            job = await client.submit("nap", {"seconds": 1})
            async with asyncio.timeout(PATIENCE):
                (first,) = await source.lease(lambda: ([Ask("nap", 1)], 1))
                (second,) = await source.lease(lambda: ([Ask("nap", 1)], 1))
            assert lost[0] == (job.id, first.fence, "lost")
            assert (second.job_id, second.attempt) == (job.id, 2)
            job = await client.get(job.id)
            assert [attempt.outcome for attempt in job.attempts][:1] == ["RELEASED"]
        finally:
            beating.cancel()
            await source.close()


async def beat_for(source: RemoteSource, server: str) -> None:
    async with grpc.aio.insecure_channel(server) as channel:
        stub = pb.WorkerServiceStub(channel)
        while True:
            await stub.Heartbeat(pb.HeartbeatRequest(session=source._session))
            await asyncio.sleep(0.2)
