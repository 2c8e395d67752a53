"""A server as a process of its own: signals under load, and a port that is taken."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest

from atlas_grpc import pb
from tests.support.refusals import refusal, refusal_of
from tests.support.served import SERVE, Served, atlas
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("every_store")

HANDLERS = str(Path(__file__).with_name("handlers.py"))


def sleeping(seconds: float) -> pb.SubmitJobRequest:
    request = pb.SubmitJobRequest(type="sleep")
    request.payload["seconds"] = seconds
    return request


async def load(server: Served, seen: Counter[str], stop: asyncio.Event) -> None:
    """Submits and reads until the server says that it goes."""
    while not stop.is_set():
        try:
            job = (await server.stub.SubmitJob(sleeping(0.01), timeout=10)).job
            await server.stub.GetJob(pb.GetJobRequest(id=job.id, wait={"seconds": 5}), timeout=10)
            seen["ok"] += 1
        except grpc.aio.AioRpcError as error:
            found = refusal_of(error)
            seen[f"{found.code.name} {found.reason}"] += 1
            if not found.reason:
                return  # the connection is gone
            await asyncio.sleep(0.01)


async def watch(server: Served, job_id: str, seen: Counter[str]) -> str:
    """Follows a job to the end of the stream; answers the last token."""
    token = ""
    try:
        async for update in server.stub.WatchJob(pb.WatchJobRequest(id=job_id), timeout=30):
            token = update.resume_token
        seen["watch ended"] += 1
    except grpc.aio.AioRpcError as error:
        found = refusal_of(error)
        seen[f"watch {found.code.name} {found.reason}"] += 1
        assert found.retry_after
    return token


async def test_sigterm_under_load():
    async with atlas("--drain-timeout", "3s") as server:
        short = (await server.stub.SubmitJob(sleeping(1), timeout=10)).job.id
        long = (await server.stub.SubmitJob(sleeping(600), timeout=10)).job.id
        seen: Counter[str] = Counter()
        stop = asyncio.Event()
        watching = [asyncio.ensure_future(watch(server, job_id, seen)) for job_id in (short, long) * 20]
        everything = server.stub.WatchJobs(pb.WatchJobsRequest(), timeout=30)
        await everything.read()
        loading = [asyncio.ensure_future(load(server, seen, stop)) for _ in range(16)]
        await until(lambda: seen["ok"] >= 200)
        server.send(signal.SIGTERM)
        tokens = await asyncio.wait_for(asyncio.gather(*watching), 20)
        stop.set()
        await asyncio.wait_for(asyncio.gather(*loading), 20)
        assert await server.ended() == 0
        assert all(tokens)
        unavailable = {key for key in seen if key.startswith("UNAVAILABLE")}
        assert set(seen) - unavailable <= {"ok", "watch ended", "watch UNAVAILABLE SERVER_DRAINING"}, seen
        assert seen["watch ended"] == 20, "the short job was finished, and its watchers were told"
        assert seen["watch UNAVAILABLE SERVER_DRAINING"] == 20, "the long one is to be resumed"
        assert seen["UNAVAILABLE SERVER_DRAINING"], "new work was refused politely"
        everything.cancel()


async def test_a_call_in_flight_is_finished():
    async with atlas("--drain-timeout", "5s") as server:
        job = (await server.stub.SubmitJob(sleeping(1), timeout=10)).job
        waiting = asyncio.ensure_future(
            server.stub.GetJob(pb.GetJobRequest(id=job.id, wait={"seconds": 20}), timeout=25)
        )
        running = server.stub.RunJob(pb.RunJobRequest(job=sleeping(1)), timeout=25)
        states = []
        while pb.Job.RUNNING not in states:
            states.append((await running.read()).update.job.state)
        server.send(signal.SIGTERM)
        assert (await waiting).job.state == pb.Job.SUCCESS
        while (message := await running.read()) is not grpc.aio.EOF:
            if message.update.HasField("job"):
                states.append(message.update.job.state)
        assert states[-1] == pb.Job.SUCCESS
        assert await server.ended() == 0


async def test_an_idle_server_stops_at_once():
    async with atlas() as server:
        began = time.monotonic()
        server.send(signal.SIGINT)
        assert await server.ended() == 0
        assert time.monotonic() - began < 5


async def test_a_second_signal_forces():
    async with atlas("--drain-timeout", "10m", "--cancel-grace", "10m") as server:
        job = (await server.stub.SubmitJob(sleeping(600), timeout=10)).job
        stream = server.stub.WatchJob(pb.WatchJobRequest(id=job.id), timeout=60)
        states = []
        while pb.Job.RUNNING not in states:
            states.append((await stream.read()).job.state)
        server.send(signal.SIGTERM)
        probe = pb.GetJobRequest(id=job.id)
        assert (await server.stub.GetJob(probe, timeout=5)).job.state == pb.Job.RUNNING, "it drains, and still answers"
        began = time.monotonic()
        server.send(signal.SIGTERM)
        assert await server.ended() == 0
        assert time.monotonic() - began < 8
        stream.cancel()


async def test_a_port_that_is_taken_is_said_clearly():
    async with atlas() as server:
        second = await asyncio.create_subprocess_exec(
            *SERVE,
            "--grpc-address",
            server.address,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ},
        )
        _, text = await asyncio.wait_for(second.communicate(), 30)
        assert second.returncode == 1
        (line,) = [line for line in text.decode().splitlines() if line.startswith("atlas: ")]
        assert server.address in line
        assert "in use" in line
        assert "Traceback" not in text.decode()
        await server.stub.ListJobs(pb.ListJobsRequest(), timeout=5)
        server.send(signal.SIGTERM)
        assert await server.ended() == 0


@pytest.mark.parametrize("kind", ["swallows", "leaves_a_thread"])
async def test_a_handler_that_does_not_stop_does_not_keep_the_process(kind: str) -> None:
    async with atlas("--handlers", HANDLERS, "--drain-timeout", "0s", "--cancel-grace", "100ms") as server:
        job = (await server.stub.SubmitJob(pb.SubmitJobRequest(type=kind), timeout=10)).job
        stream = server.stub.WatchJob(pb.WatchJobRequest(id=job.id), timeout=60)
        while (await stream.read()).job.state != pb.Job.RUNNING:
            pass
        server.send(signal.SIGTERM)
        assert await server.ended(10) == 0
        stream.cancel()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
async def test_a_stdout_that_takes_nothing_does_not_end_the_server() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with atlas(stdout=full, log_format="text") as server:
            await server.stub.ListJobs(pb.ListJobsRequest(), timeout=5)
            server.send(signal.SIGTERM)
            assert await server.ended() == 0
    finally:
        os.close(full)


async def test_a_connection_takes_calls_however_many_were_refused() -> None:
    """A refused call that is not collected keeps its stream, and a connection has 1,000 of them."""
    async with atlas() as server:
        for _ in range(3_000):
            refused = await refusal(server.stub.GetJob(pb.GetJobRequest(id="nobody"), timeout=5))
            assert refused.reason == "JOB_NOT_FOUND"
