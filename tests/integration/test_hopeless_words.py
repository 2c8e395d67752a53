"""The Python worker, and what its server will never take: it ends by itself, and holds up nothing else."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from atlas_grpc import Client, JobContext, errors, handler, pb
from atlas_grpc.clock import SystemClock
from atlas_grpc.model import LogLine, Severity, TypeInfo, Update
from atlas_grpc.remote.link import Link
from atlas_grpc.remote.source import RemoteSource
from atlas_grpc.testing import serving
from atlas_grpc.worker import Registry, Runner
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE = 30.0
KIB = 1024
SMALL = 128 * KIB
"""Bytes of a message that the server takes."""


@handler
async def big(size: int) -> str:
    return "x" * size


@handler
async def says(size: int, *, ctx: JobContext) -> None:
    ctx.info("x" * size)


@asynccontextmanager
async def a_runner(*handlers: Any, **options: Any) -> AsyncIterator[Client]:
    """A server that executes nothing, and a runner elsewhere."""
    registry = Registry()
    for one in handlers:
        registry.include(one)
    async with serving(*handlers, worker=False, grace=0, **options) as server, Client(server.grpc_address) as client:
        source = RemoteSource([server.grpc_address], SystemClock(), random.Random(1))
        runner = Runner(registry, source, name="far")
        running = asyncio.create_task(runner.run())
        try:
            yield client
        finally:
            await runner.stop()
            await running


async def test_reports_that_are_too_large_together_are_handed_in_one_by_one_if_need_be() -> None:
    limits = {"max_message_bytes": SMALL, "max_payload_bytes": SMALL, "max_result_bytes": SMALL}
    async with a_runner(big, **limits) as client, asyncio.timeout(PATIENCE):
        many = [await client.submit("big", {"size": 20 * KIB}) for _ in range(20)]
        too_big = await client.submit("big", {"size": 2 * SMALL})
        assert [len(await job.result()) for job in many] == [20 * KIB] * 20
        with pytest.raises(errors.JobFailed) as caught:
            await too_big.result()
        assert caught.value.reason == "RESULT_TOO_LARGE"
        assert len(await (await client.submit("big", {"size": 3})).result()) == 3


async def test_no_more_updates_are_in_a_message_than_the_contract_allows() -> None:
    async with serving(worker=False, grace=0) as server:
        source = RemoteSource([server.grpc_address], SystemClock(), random.Random(1))
        await source.open("far", [TypeInfo("x")], 1, lambda *_: None)
        line = LogLine(Severity.INFO, "x")
        updates = [Update(f"j{number}", number, None, (line,)) for number in range(10_001)]
        async with asyncio.timeout(PATIENCE):
            assert await source.update(updates) == [False] * len(updates)
        await source.close()


class Stubborn:
    """A server that answers all but some words, which end the stream; it notes how many it heard on each."""

    def __init__(self, *hated: str) -> None:
        self.hated = set(hated)
        self.streams: list[list[str]] = []
        self.welcome_only = False
        self.may_end = asyncio.Event()
        """Looked at from the second stream on."""
        self.may_end.set()

    async def work(self, requests: AsyncIterator[pb.WorkRequest], context: Any) -> None:
        heard: list[str] = []
        self.streams.append(heard)
        async for request in requests:
            if request.HasField("hello"):
                await context.write(pb.WorkResponse(welcome=pb.WorkerWelcome(session="s")))
                if self.welcome_only:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "again")
            elif request.HasField("goodbye"):
                return
            elif request.HasField("reports"):
                heard.append(request.reports.reports[0].id)
                if heard[-1] in self.hated:
                    if len(self.streams) > 1:
                        await self.may_end.wait()
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "never")
                answer = pb.WorkerAnswer(id=request.reports.id, answers=[pb.JobAnswer(status=pb.JobAnswer.ACCEPTED)])
                await context.write(pb.WorkResponse(reports_answer=answer))


class CountingClock(SystemClock):
    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def linked(server: Stubborn) -> AsyncIterator[tuple[Link, CountingClock]]:
    running = grpc.aio.server()
    handlers = {
        "Work": grpc.stream_stream_rpc_method_handler(
            server.work, pb.WorkRequest.FromString, pb.WorkResponse.SerializeToString
        )
    }
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("atlas.v1.WorkerService", handlers),))
    port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    clock = CountingClock()
    link = Link(
        [f"127.0.0.1:{port}"], None, clock, random.Random(1),
        hello=lambda: pb.WorkRequest(hello=pb.WorkerHello(worker="w")), welcomed=lambda *_: None, said=lambda _: None,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE):
            await link.open()
            yield link, clock
    finally:
        await link.close()
        await running.stop(None)


def report(job_id: str) -> pb.WorkRequest:
    return pb.WorkRequest(reports=pb.WorkerReports(reports=[pb.JobReport(id=job_id)]))


async def test_what_ends_every_stream_fails_alone() -> None:
    server = Stubborn("bad", "worse")
    async with linked(server) as (link, _):
        words = ["a", "bad", "b", "worse", "c"]
        answers = await asyncio.gather(*(link.ask(report(word)) for word in words), return_exceptions=True)
        assert [type(one) for one in answers] == [
            pb.WorkerAnswer, errors.InvalidArgument, pb.WorkerAnswer, errors.InvalidArgument, pb.WorkerAnswer,
        ]  # fmt: skip
        assert isinstance(await link.ask(report("d")), pb.WorkerAnswer)
        assert server.streams[-1] == ["c", "d"]
        assert len(server.streams) < 8


async def test_what_is_asked_meanwhile_is_answered_afterwards() -> None:
    server = Stubborn("bad")
    async with linked(server) as (link, _):
        server.may_end.clear()
        bad = asyncio.ensure_future(link.ask(report("bad")))
        await until(lambda: server.streams[1:] == [["bad"]])
        later = [asyncio.ensure_future(link.ask(report(f"later {number}"))) for number in range(3)]
        await asyncio.sleep(0)
        server.may_end.set()
        with pytest.raises(errors.InvalidArgument):
            await bad
        assert all(isinstance(one, pb.WorkerAnswer) for one in await asyncio.gather(*later))


async def test_streams_that_end_as_soon_as_they_began_are_opened_less_and_less_often() -> None:
    server = Stubborn()
    server.welcome_only = True
    async with linked(server) as (_, clock):
        await until(lambda: len(clock.slept) >= 5)
        assert clock.slept[4] >= 0.4
