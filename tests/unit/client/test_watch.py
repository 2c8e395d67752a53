from __future__ import annotations

import asyncio
import gc
import itertools
import random

import pytest
from grpc import StatusCode, aio

from atlas_grpc import errors, pb
from atlas_grpc._gen.atlas.v1.job_pb2 import Job
from atlas_grpc.client import (
    CHANNEL_OPTIONS,
    Client,
    JobChanged,
    JobDeleted,
    JobState,
    Logged,
    LogsDropped,
    Patience,
    Restarted,
    Synced,
    Transitioned,
)

LONG = "SUBMITTED " + "STARTED ATTEMPT_FAILED BECAME_READY " * 60 + "STARTED SUCCEEDED"
CUTS = (
    StatusCode.UNAVAILABLE,
    StatusCode.INTERNAL,
    StatusCode.CANCELLED,
    StatusCode.UNKNOWN,
    StatusCode.OK,
    errors.ServerDraining("draining", retry_after=0.25),
    errors.WatchTooSlow("too slow"),
)


async def versions_of(stream):
    return [event.version async for event in stream if isinstance(event, Transitioned)]


@pytest.mark.parametrize("seed", range(3))
async def test_a_log_cut_fifty_times_is_told_line_by_line(script, client, seed):
    script.rng, script.chance = random.Random(seed), 0.7
    script.cuts = script.rng.choices([cut for cut in CUTS if cut is not StatusCode.OK], k=50)
    job_id = script.add_job()
    for number in range(40):
        script.log(job_id, f"line {number}")

    assert [event.offset async for event in client.logs(job_id, follow=True, start_offset=5)] == list(range(5, 40))

    assert len(script.calls) > 10
    assert {request.start_offset for _, request in script.calls} == {5}


@pytest.mark.parametrize("seed", range(3))
async def test_watch_cut_fifty_times_is_gapless_and_ordered(script, client, seed):
    script.rng = random.Random(seed)
    script.repeats, script.chance = True, 0.7
    script.cuts = script.rng.choices(CUTS, k=50)
    job_id = script.add_job(LONG)
    for number in range(20):
        script.log(job_id, f"line {number}")

    events = [event async for event in client.watch(job_id)]

    steps = [event for event in events if isinstance(event, Transitioned)]
    assert [step.version for step in steps] == list(range(1, 184))
    assert [step.cause for step in steps] == LONG.split()
    assert steps[-1].state is JobState.SUCCESS
    assert events[-1] is steps[-1]
    assert [event.offset for event in events if isinstance(event, Logged)] == list(range(20))
    assert script.cuts == []
    assert len([name for name, _ in script.calls if name == "WatchJob"]) == 51


async def test_retry_info_is_waited_for(script, client, clock):
    job_id = script.add_job()
    script.fail["WatchJob"] = iter([errors.ServerDraining("draining", retry_after=30.0)])

    assert await versions_of(client.watch(job_id)) == [1, 2, 3]
    assert len(clock.slept) == 1
    assert 30.0 <= clock.slept[0] < 30.2


async def test_connections_reset_while_watching(script, proxy, clock):
    job_id = script.add_job("SUBMITTED")
    patience = Patience(limit=60, silence=5, rng=random.Random(3))
    async with Client(proxy.target, patience=patience) as client:
        seen = []
        async for event in client.watch(job_id):
            seen.append(event.version)
            if event.version < 12:
                proxy.reset()
                await script.advance(job_id, "SUCCEEDED" if event.version == 11 else "STARTED")
    assert seen == list(range(1, 13))


@pytest.mark.slow
async def test_a_connection_that_is_open_and_dead_is_left(script, proxy, clock):
    """With the options of the client's channel, a twentieth of the time for each."""
    options = [
        (name, value // 20 if name.startswith(("grpc.keepalive_t", "grpc.http2.ping_timeout")) else value)
        for name, value in CHANNEL_OPTIONS
    ]
    job_id = script.add_job("SUBMITTED")
    async with aio.insecure_channel(proxy.target, options=options) as channel:
        patience = Patience(limit=60, silence=3600, clock=clock)
        async with Client(channel=channel, patience=patience) as client, client.watch(job_id) as events:
            assert (await anext(events)).version == 1
            proxy.stall()
            await script.advance(job_id, "STARTED")
            await script.advance(job_id, "SUCCEEDED")
            async with asyncio.timeout(20):
                assert await versions_of(events) == [2, 3]
    assert [name for name, _ in script.calls] == ["WatchJob", "WatchJob"]


async def test_server_restarts_on_the_same_port(script, server):
    job_id = script.add_job("SUBMITTED")
    async with Client(server.target) as client, client.watch(job_id) as events:
        assert (await anext(events)).version == 1
        await server.stop()
        script.step(job_id, "STARTED")
        script.step(job_id, "SUCCEEDED")
        reading = asyncio.ensure_future(anext(events))
        await server.start()
        assert (await reading).version == 2
        assert (await anext(events)).state is JobState.SUCCESS


async def test_a_server_that_lost_the_job_ends_the_watch(script, client):
    job_id = script.add_job("SUBMITTED")
    async with client.watch(job_id) as events:
        await anext(events)
        script.cuts = [StatusCode.UNAVAILABLE]
        await script.advance(job_id, "STARTED")
        del script.jobs[job_id]
        with pytest.raises(errors.JobNotFound) as caught:
            await anext(events)
    assert caught.value.metadata == {"job_id": job_id}


async def test_gives_up_after_the_limit_with_the_last_error(script, client, clock):
    job_id = script.add_job()
    script.fail["WatchJob"] = itertools.repeat(errors.ServerDraining("draining"))
    with pytest.raises(errors.ServerDraining):
        await versions_of(client.watch(job_id))
    assert clock.monotonic() == pytest.approx(60)
    assert max(clock.slept) > 1


async def test_what_trying_again_cannot_cure_is_raised_at_once(script, client, clock):
    job_id = script.add_job()
    script.fail["WatchJob"] = itertools.repeat(errors.PermissionDenied("no"))
    with pytest.raises(errors.PermissionDenied):
        await versions_of(client.watch(job_id))
    assert clock.slept == []


async def test_silence_counts_as_a_cut(script, server, clock):
    job_id = script.add_job("SUBMITTED")
    script.gates["WatchJob"] = asyncio.Event()
    patience = Patience(limit=0.5, silence=0.05)
    async with Client(server.target, patience=patience) as client:
        with pytest.raises(errors.Unavailable):
            await versions_of(client.watch(job_id))
    assert len(script.calls) > 1


async def test_an_expired_token_starts_over_and_drops_what_was_told(script, client):
    job_id = script.add_job("SUBMITTED STARTED")
    async with client.watch(job_id) as events:
        told = [(await anext(events)).version, (await anext(events)).version]
        script.fail["WatchJob"] = iter([errors.ResumeTokenExpired("too old")])
        script.cuts = [StatusCode.UNAVAILABLE]
        await script.advance(job_id, "SUCCEEDED")
        told += [event.version async for event in events if isinstance(event, Transitioned)]
    assert told == [1, 2, 3]
    tokens = [request.resume_token for name, request in script.calls if name == "WatchJob"]
    assert tokens == ["", "2/0", ""]


async def test_a_gap_is_an_error_never_silent(script, client):
    job_id = script.add_job("SUBMITTED STARTED")
    async with client.watch(job_id) as events:
        await anext(events)
        await anext(events)
        script.kept_from = 4
        script.cuts = [StatusCode.UNAVAILABLE]
        for _ in range(4):
            await script.advance(job_id, "STARTED")
        with pytest.raises(errors.ResumeTokenExpired):
            await anext(events)


async def test_a_token_of_the_caller_is_not_replaced(script, client):
    job_id = script.add_job()
    script.kept_from = 2
    with pytest.raises(errors.ResumeTokenExpired):
        await versions_of(client.watch(job_id, resume_token="1/0"))


async def test_every_event_can_be_continued_from(script, client):
    script.rng = random.Random(4)
    job_id = script.add_job("SUBMITTED " + "STARTED RELEASED " * 8 + "STARTED SUCCEEDED")
    events = [event async for event in client.watch(job_id)]
    for event in events[:-1]:
        rest = await versions_of(client.watch(job_id, resume_token=event.resume_token))
        assert rest == list(range(rest[0], 20))
        assert rest[0] <= event.version + 1


async def test_a_finished_job_watched_from_its_end_ends_at_once(script, client):
    job_id = script.add_job()
    assert await versions_of(client.watch(job_id, resume_token="3/0")) == []


async def test_a_cancelled_read_is_no_end_of_the_job(script, client):
    job_id = script.add_job("SUBMITTED")
    async with client.watch(job_id) as events:
        await anext(events)
        reading = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        with pytest.raises(errors.Cancelled):
            await anext(events)
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_leaving_a_watch_cancels_the_call(script, client):
    job_id = script.add_job("SUBMITTED")
    async with client.watch(job_id) as events:
        await anext(events)
    async with asyncio.timeout(5):
        await script.cancelled.wait()


async def test_a_watch_that_is_only_dropped_lets_go_of_its_call(script, client):
    job_id = script.add_job("SUBMITTED")
    async for _ in client.watch(job_id):
        break
    gc.collect()
    async with asyncio.timeout(5):
        await script.cancelled.wait()


async def test_a_watch_that_was_told_all_is_not_cancelled(script, client):
    job_id = script.add_job()
    script.gates["end"] = asyncio.Event()
    assert (await client.wait(job_id)).state is JobState.SUCCESS
    await client.get(job_id)
    script.gates["end"].set()
    async with asyncio.timeout(5):
        await script.ended.wait()
    assert not script.cancelled.is_set()


def jobs(*ids: str, token: str = "", synced: bool = False, deleted: tuple[str, ...] = ()) -> pb.WatchJobsResponse:
    changed = [Job(id=job_id, version=1) for job_id in ids]
    return pb.WatchJobsResponse(jobs=changed, deleted_ids=deleted, synced=synced, resume_token=token)


def told(event) -> str:
    match event:
        case JobChanged():
            return event.job.id
        case JobDeleted():
            return f"-{event.job_id}"
        case Synced() | Restarted():
            return type(event).__name__


async def test_watch_all_resumes_with_its_token(script, client):
    script.replies.extend(
        [
            [(jobs("a", "b"), None), (jobs("c", synced=True, token="t1"), StatusCode.UNAVAILABLE)],
            [(jobs(synced=True, token="t1"), None), (jobs("a", deleted=("b",), token="t2"), StatusCode.OK)],
        ]
    )
    events = [event async for event in client.watch_all(ids=["a", "b", "c"])]
    assert [told(event) for event in events] == ["a", "b", "c", "Synced", "a", "-b"]
    assert events[3].resume_token == "t1"
    assert events[-1].resume_token == "t2"
    assert [request.resume_token for _, request in script.calls] == ["", "t1"]


@pytest.mark.parametrize("how", [StatusCode.UNAVAILABLE, errors.ResumeTokenExpired("too old")])
async def test_watch_all_says_that_it_starts_over(script, client, how):
    expired = isinstance(how, errors.ResumeTokenExpired)
    first = [(jobs("a", synced=expired, token="t1" if expired else ""), StatusCode.UNAVAILABLE)]
    script.replies.extend([first, *([[(None, how)]] if expired else [])])
    script.replies.append([(jobs("b", synced=True, token="t2"), StatusCode.OK)])
    events = [told(event) async for event in client.watch_all(ids=["a", "b"])]
    assert events == ["a", *(["Synced"] if expired else []), "Restarted", "b", "Synced"]


async def test_watch_all_without_snapshot_never_skips_in_silence(script, client):
    script.replies.append([(jobs("a", synced=True, token="t1"), StatusCode.UNAVAILABLE)])
    script.replies.append([(None, errors.ResumeTokenExpired("too old"))])
    with pytest.raises(errors.ResumeTokenExpired):
        async for _ in client.watch_all(skip_snapshot=True):
            pass


async def test_lost_log_lines_are_said(script, client):
    job_id = script.add_job("SUBMITTED STARTED")
    script.log(job_id, "first")
    async with client.watch(job_id) as events:
        while not isinstance(await anext(events), Logged):
            pass
        script.fail["WatchJob"] = iter([errors.ResumeTokenExpired("too old")])
        script.cuts = [StatusCode.UNAVAILABLE]
        for number in range(5):
            script.log(job_id, str(number))
        del script.logs[job_id][:3]
        await script.advance(job_id, "SUCCEEDED")
        rest = [event async for event in events]
    assert [event.count for event in rest if isinstance(event, LogsDropped)] == [2]
    assert [event.offset for event in rest if isinstance(event, Logged)] == [3, 4, 5]
