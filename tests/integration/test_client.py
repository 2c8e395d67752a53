"""The client against the real server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random

import pytest

from atlas_grpc import FailNow, JobContext, errors, handler, new_job
from atlas_grpc.client import (
    Client,
    JobChanged,
    JobDeleted,
    JobState,
    Logged,
    LogsDropped,
    Patience,
    Progressed,
    SyncClient,
    Synced,
    Transitioned,
)
from atlas_grpc.testing import serving
from tests.unit.client.proxy import Proxy

pytestmark = pytest.mark.usefixtures("every_store")


@dataclass
class Steps:
    count: int


@handler
async def steps(payload: Steps, context: JobContext) -> dict[str, int]:
    """Logs and reports each step."""
    for number in range(payload.count):
        context.info(f"step {number}")
        context.progress(number + 1, payload.count)
        await asyncio.sleep(0.002)
    return {"done": payload.count}


@handler
async def reverse(payload: bytes) -> bytes:
    """Turns bytes round."""
    return payload[::-1]


@handler
async def nothing() -> None:
    """Returns nothing."""


@handler
async def broken() -> None:
    """Fails at once."""
    raise FailNow("out of ink", reason="OUT_OF_INK")


@pytest.fixture
async def server():
    async with serving(steps, reverse, nothing, broken) as running:
        yield running


@pytest.fixture
async def client(server):
    async with Client(server.grpc_address, timeout=10) as open_client:
        yield open_client


async def test_submit_and_result(client):
    job = await client.submit("steps", Steps(3), labels={"team": "a"}, priority=5)
    assert (job.state, job.version, job.labels, job.priority) == (JobState.PENDING, 1, {"team": "a"}, 5)
    assert await job.result(timeout=10) == {"done": 3}
    done = await job.refresh()
    assert done.payload == {"count": 3}
    assert done.progress.fraction == 1.0
    assert [attempt.outcome for attempt in done.attempts] == ["SUCCEEDED"]
    assert done.finish_time >= done.create_time


async def test_results_of_all_kinds(client):
    assert (await client.run("reverse", b"abc")).output == b"cba"
    nothing_returned = await client.run("nothing")
    assert (nothing_returned.output, nothing_returned.has_output) == (None, True)


async def test_failures_are_typed(client):
    with pytest.raises(errors.JobFailed) as caught:
        await client.run("broken")
    assert (caught.value.reason, str(caught.value)) == ("OUT_OF_INK", "out of ink")
    with pytest.raises(errors.InvalidArgument) as refused:
        await client.submit("steps", {"count": "many"})
    assert [violation.field for violation in refused.value.violations] == ["payload.count"]
    with pytest.raises(errors.AtlasError):
        await client.submit("no-such-type")
    with pytest.raises(errors.JobNotFound):
        await client.get("01890000-0000-7000-8000-000000000000")
    with pytest.raises(errors.JobNotFound):
        await client.wait("01890000-0000-7000-8000-000000000000")


async def test_one_request_id_is_one_job(client):
    jobs = await asyncio.gather(*(client.submit("nothing", request_id="r", delay=60) for _ in range(100)))
    assert len({job.id for job in jobs}) == 1
    assert sum(job.deduplicated for job in jobs) == 99
    with pytest.raises(errors.RequestIdReused) as caught:
        await client.submit("nothing", request_id="r", delay=61)
    assert "start" in caught.value.metadata["differs"]


async def test_many_at_once(client):
    jobs = await asyncio.gather(*(client.submit("steps", {"count": 0}) for _ in range(300)))
    results = await asyncio.gather(*(job.result(timeout=20) for job in jobs[:50]))
    assert results == [{"done": 0}] * 50
    outcomes = await client.submit_many(new_job(kind) for kind in ("nothing", "no-such-type", "nothing"))
    assert [isinstance(one, errors.AtlasError) for one in outcomes] == [False, True, False]


async def test_life_of_a_job(client):
    job = await client.submit("nothing", delay=3600)
    assert job.pending_reason == "WAITING_FOR_START_TIME"
    assert (await job.explain()).pending_reason == "WAITING_FOR_START_TIME"
    with pytest.raises(errors.DeadlineExceeded):
        await job.wait(timeout=0.05)
    with pytest.raises(errors.VersionMismatch):
        await job.cancel(if_version=7)
    with pytest.raises(errors.JobNotTerminal):
        await job.delete()
    cancelled = await job.cancel(reason="enough")
    assert cancelled.state is JobState.CANCELLED
    with pytest.raises(errors.JobCancelled):
        await job.result()
    again = await cancelled.retry()
    assert again.run == 2
    await again.wait(timeout=10)
    await again.delete()
    with pytest.raises(errors.JobNotFound):
        await again.refresh()


async def test_validate_only_answers_the_timetable(client):
    job = await client.submit("nothing", max_attempts=3, initial_backoff=1, jitter=0, validate_only=True)
    assert job.id == ""
    assert [(line.number, line.earliest.total_seconds()) for line in job.planned_attempts] == [(1, 0), (2, 1), (3, 3)]


async def test_list_and_types(client):
    for number in range(7):
        await client.submit("nothing", labels={"n": str(number % 2)})
    jobs = [job async for job in client.list(labels={"n": "1"}, page_size=2)]
    assert len(jobs) == 3
    assert [job.id for job in jobs] == sorted((job.id for job in jobs), reverse=True)
    types = {one.name: one for one in await client.types()}
    assert {"sleep", "steps", "reverse"} <= set(types)
    assert types["steps"].payload_schema["properties"]["count"]["type"] == "integer"
    assert types["reverse"].payload_schema is None


async def test_namespaces_are_apart(server, client):
    job = await client.submit("nothing")
    async with Client(server.grpc_address, namespace="other") as other:
        with pytest.raises(errors.JobNotFound):
            await other.get(job)
        assert [one async for one in other.list()] == []


async def test_watch_tells_all(client):
    job = await client.submit("steps", {"count": 5})
    events = [event async for event in job.watch()]
    assert [event.cause for event in events if isinstance(event, Transitioned)] == ["SUBMITTED", "STARTED", "SUCCEEDED"]
    assert [event.message for event in events if isinstance(event, Logged)] == [f"step {n}" for n in range(5)]
    assert any(isinstance(event, Progressed) for event in events)
    late = [event async for event in client.watch(job)]
    assert [event.version for event in late if isinstance(event, Transitioned)] == [1, 2, 3]
    assert [event.offset for event in late if isinstance(event, Logged)] == list(range(5))


async def test_watch_across_fifty_cuts(server):
    proxy = Proxy(int(server.grpc_address.rpartition(":")[2]))
    target = await proxy.start()
    patience = Patience(limit=30, silence=10, rng=Random(5))
    try:
        async with Client(target, patience=patience) as client:
            events = []
            cuts = 0
            async with client.run_events("steps", {"count": 1500}) as stream:
                async for event in stream:
                    events.append(event)
                    if cuts < 50:
                        proxy.reset()
                        cuts += 1
    finally:
        await proxy.stop()
    assert cuts == 50
    assert [event.version for event in events if isinstance(event, Transitioned)] == [1, 2, 3]
    assert events[-1].state is JobState.SUCCESS
    lines = [event.offset for event in events if isinstance(event, Logged)]
    assert lines == sorted(set(lines))
    assert len(lines) + sum(event.count for event in events if isinstance(event, LogsDropped)) == 1500


async def test_watch_all(client):
    async with client.watch_all(types=["nothing"]) as events:
        assert isinstance(await anext(events), Synced)
        job = await client.submit("nothing")
        async for event in events:
            if isinstance(event, JobChanged) and event.job.state.terminal:
                break
        assert event.job.id == job.id
        await client.delete(job)
        assert isinstance(deleted := await anext(events), JobDeleted)
        assert deleted.job_id == job.id
    ended = [event async for event in client.watch_all(ids=[(await client.run("nothing")).id])]
    assert isinstance(ended[-1], Synced)


async def test_a_server_that_comes_back_without_the_job(unused_tcp_port):
    address = f"127.0.0.1:{unused_tcp_port}"
    async with Client(address, wait_for_ready=True, reconnect_timeout=20) as client:
        async with serving(grpc_address=address, grace=0.1, store="memory://"):
            job = await client.submit("sleep", {"seconds": 3600})
            waiting = asyncio.ensure_future(job.wait())
            await client.get(job)
        async with serving(grpc_address=address, grace=0.1, store="memory://"):
            with pytest.raises(errors.JobNotFound):
                await waiting
            assert (await client.run("sleep", {"seconds": 0})).state is JobState.SUCCESS


async def test_a_server_that_comes_back_with_the_job(unused_tcp_port, every_store):
    if every_store == "memory://":
        pytest.skip("its jobs end with the server")
    address = f"127.0.0.1:{unused_tcp_port}"
    async with Client(address, wait_for_ready=True, reconnect_timeout=20) as client:
        async with serving(grpc_address=address, grace=0):
            job = await client.submit("sleep", {"seconds": 1})
            watching = asyncio.ensure_future(_versions(client.watch(job)))
            await client.get(job)
        async with serving(grpc_address=address, grace=0):
            done = await job.wait()
            assert done.state is JobState.SUCCESS
            assert await watching == list(range(1, done.version + 1))


async def _versions(events):
    return [event.version async for event in events if isinstance(event, Transitioned)]


async def test_the_sync_client(server):
    def program():
        with SyncClient(server.grpc_address) as client:
            job = client.submit("steps", {"count": 2})
            versions = [event.version for event in job.watch() if isinstance(event, Transitioned)]
            return versions, job.result(timeout=10), client.run("reverse", b"ab").output, len(list(client.list()))

    assert await asyncio.to_thread(program) == ([1, 2, 3], {"done": 2}, b"ba", 2)
