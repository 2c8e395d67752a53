"""A server that executes nothing itself, and workers that are made of nothing but stubs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc

from atlas_grpc import Client, JobContext, handler, pb
from atlas_grpc.testing import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atlas_grpc.client import JobState
    from atlas_grpc.server.app import AtlasServer

PATIENCE = 15.0


@handler
async def echo(number: int = 0) -> int:
    return number


@handler
async def waits(*, ctx: JobContext) -> None:
    ctx.info("begun")
    await asyncio.Event().wait()


class Stream:
    """A worker made of nothing but stubs."""

    def __init__(self, stub: Any) -> None:
        self._call = stub.Work()

    async def hello(self, **fields: Any) -> pb.WorkerWelcome:
        types = [pb.JobType(name="echo"), pb.JobType(name="waits")]
        await self.say(hello=pb.WorkerHello(**{"worker": "raw", "slots": 10, "types": types} | fields))
        return (await self.hear("welcome")).welcome

    async def say(self, **message: Any) -> None:
        await self._call.write(pb.WorkRequest(**message))

    async def hear(self, kind: str) -> pb.WorkResponse:
        async with asyncio.timeout(PATIENCE):
            message = await self._call.read()
        assert isinstance(message, pb.WorkResponse), await self.end()
        assert message.WhichOneof("message") == kind, message
        return message

    async def offer(
        self, limit: int, received: int = 0, types: tuple[str, ...] = ("echo",), *, at_once: bool = False
    ) -> None:
        room = [pb.TypeRoom(type=name, slots=limit) for name in types]
        await self.say(ready=pb.WorkerReady(limit=limit, room=room, received=received, at_once=at_once))

    async def take(self, *offer: Any, **more: Any) -> pb.WorkerAssignments:
        await self.offer(*offer, **more)
        return (await self.hear("assignments")).assignments

    async def report(self, *reports: pb.JobReport) -> list[int]:
        await self.say(reports=pb.WorkerReports(id=7, reports=reports))
        answer = (await self.hear("reports_answer")).reports_answer
        assert answer.id == 7
        return [one.status for one in answer.answers]

    async def goodbye(self) -> None:
        await self.say(goodbye=pb.WorkerGoodbye())
        async with asyncio.timeout(PATIENCE):
            assert await self._call.read() is grpc.aio.EOF
            assert await self._call.code() is grpc.StatusCode.OK

    async def end(self) -> tuple[grpc.StatusCode, str]:
        async with asyncio.timeout(PATIENCE):
            return await self._call.code(), await self._call.details()

    def cut(self) -> None:
        self._call.cancel()


class World:
    def __init__(self, server: AtlasServer, client: Client, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.client = client
        self.stub = pb.WorkerServiceStub(channel)
        self.jobs = pb.JobServiceStub(channel)

    def stream(self) -> Stream:
        return Stream(self.stub)

    async def state(self, job_id: str) -> JobState:
        return (await self.client.get(job_id)).state

    async def until(self, job_id: str, state: JobState) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.state(job_id) is not state:  # noqa: ASYNC110 - polled as clients do
                await asyncio.sleep(0.01)


@asynccontextmanager
async def a_world(**options: Any) -> AsyncIterator[World]:
    async with (
        serving(echo, waits, worker=False, grace=0, **options) as server,
        Client(server.grpc_address) as client,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
    ):
        yield World(server, client, channel)


def success(job: pb.Assignment, **fields: Any) -> pb.JobReport:
    return pb.JobReport(id=job.id, token=job.token, success=pb.JobSuccess(**fields))


def release(job: pb.Assignment) -> pb.JobReport:
    return pb.JobReport(id=job.id, token=job.token, release=pb.JobRelease())


def tokens(*jobs: pb.Assignment) -> list[pb.HeldJob]:
    return [pb.HeldJob(id=job.id, token=job.token) for job in jobs]
