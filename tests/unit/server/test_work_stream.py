"""A stream of WorkerService.Work by itself, with clients that do not do as they should."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from atlas_grpc import pb
from atlas_grpc.errors import AtlasError, DeadlineExceeded, InvalidArgument, ServerDraining
from atlas_grpc.model import EMPTY_OBJECT, Assignment
from atlas_grpc.server import work_stream
from atlas_grpc.server.work_stream import WorkStream
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from atlas_grpc.model import Room

PATIENCE = 10.0
HELLO = {"hello": pb.WorkerHello(worker="w")}


class Session:
    """Has so many jobs, and hands out as many as are asked for."""

    id = "s"
    over = False

    def __init__(self, jobs: int = 0) -> None:
        self.jobs = jobs
        self.limits: list[int] = []
        self.left: Sequence[tuple[str, int]] = ()
        self._more = asyncio.Event()

    async def open(self, *_: object) -> None:
        pass

    def more_room(self) -> None:
        self._more.set()

    async def lease(self, room: Room, **_: object) -> list[Assignment]:
        await self._more.wait()
        self._more.clear()
        _, limit = room()
        self.limits.append(limit)
        return [
            Assignment(f"j{fence}", "default", "t", "default", EMPTY_OBJECT, 1, 1, 1, fence, None, {}, 0)
            for fence in range(min(limit, self.jobs))
        ]

    async def is_continued(self) -> bool:
        return False

    async def close(self) -> None:
        self.over = True

    async def detach(self, sent: Sequence[tuple[str, int]]) -> None:
        self.left = sent


class Client:
    """What a stream reads from and writes to."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.reads = asyncio.Event()
        self.reads.set()
        self.heard: list[pb.WorkResponse] = []
        self._said: asyncio.Queue[pb.WorkRequest] = asyncio.Queue()
        self.stream = WorkStream(session, 30_000_000, 1024, self._write)  # type: ignore[arg-type]

    def say(self, **message: Any) -> None:
        self._said.put_nowait(pb.WorkRequest(**message))

    async def requests(self) -> AsyncIterator[pb.WorkRequest]:
        while True:
            yield await self._said.get()

    async def _write(self, data: bytes) -> None:
        await self.reads.wait()
        self.heard.append(pb.WorkResponse.FromString(data))


@asynccontextmanager
async def a_client(jobs: int = 0) -> AsyncIterator[tuple[Client, Callable[[], Any]]]:
    """A client, and what raises why its stream ended."""
    client = Client(Session(jobs))
    serving = asyncio.create_task(client.stream.serve(client.requests()))

    async def ended() -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(serving)

    try:
        yield client, ended
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def ready(limit: int, received: int = 0) -> dict[str, Any]:
    room = [pb.TypeRoom(type="t", slots=limit)]
    return {"ready": pb.WorkerReady(room=room, limit=limit, received=received)}


async def test_a_worker_with_room_for_everything_gets_a_thousand_jobs_at_a_time() -> None:
    async with a_client(jobs=5_000) as (client, _):
        client.say(**HELLO)
        client.say(**ready(1_000_000))
        await until(lambda: sum(len(one.assignments.jobs) for one in client.heard) == 1_000)
        client.say(**ready(1_000_000, received=client.heard[-1].assignments.batch))
        await until(lambda: sum(len(one.assignments.jobs) for one in client.heard) == 2_000)
        assert client.session.limits == [1_000, 1_000]


async def test_jobs_are_not_made_into_messages_for_a_client_that_does_not_read(monkeypatch) -> None:
    monkeypatch.setattr(work_stream, "_BATCH_JOBS", 1)
    made = []
    fill = work_stream.convert.fill_assignment
    monkeypatch.setattr(
        work_stream.convert, "fill_assignment", lambda *job, **more: (made.append(job), fill(*job, **more))
    )
    async with a_client(jobs=500) as (client, ended):
        client.say(**HELLO)
        await until(lambda: client.heard)
        client.reads.clear()
        client.say(**ready(500))
        await until(lambda: made)
        for _ in range(1_000):
            await asyncio.sleep(0)
        assert len(made) < 70
        client.stream.end(ServerDraining("x"))
        with pytest.raises(ServerDraining):
            await ended()
        assert len(client.session.left) == 500  # all go back, also those that were not sent yet


@pytest.mark.parametrize("field", ["received", "ready.received"])
async def test_a_batch_that_was_never_sent_cannot_be_acknowledged(field: str) -> None:
    async with a_client(jobs=1) as (client, ended):
        client.say(**HELLO)
        client.say(**(ready(1, received=999) if field == "ready.received" else {"received": 999}))
        client.say(**ready(1, received=0))
        with pytest.raises(InvalidArgument) as caught:
            await ended()
        assert [one.field for one in caught.value.violations] == [field]


async def test_a_client_that_says_nothing_does_not_hold_up_the_end_of_its_stream() -> None:
    async with a_client() as (client, ended):
        await asyncio.sleep(0)
        client.stream.end(ServerDraining("x"))
        with pytest.raises(ServerDraining):
            await ended()


async def test_a_client_has_little_time_to_say_who_it_is(monkeypatch) -> None:
    monkeypatch.setattr(work_stream, "_HELLO_WITHIN", 0.01, raising=False)
    async with a_client() as (_, ended):
        with pytest.raises(AtlasError) as caught:
            await ended()
        assert isinstance(caught.value, DeadlineExceeded)


async def test_a_client_that_says_goodbye_and_does_not_read_does_not_hold_up_the_end_of_its_stream() -> None:
    async with a_client() as (client, ended):
        client.reads.clear()
        client.say(**HELLO)
        client.say(goodbye=pb.WorkerGoodbye())
        await until(lambda: client.session.over)
        client.stream.end(ServerDraining("x"))
        with pytest.raises(ServerDraining):
            await ended()
