from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from grpc import StatusCode, aio

from atlas_grpc import errors, pb
from atlas_grpc.client import Client, JobHandle, Patience, new_job
from tests.unit.client.conftest import VirtualClock


async def test_a_lone_submit_is_one_submit_job(script, client):
    job = await client.submit("sleep", {"seconds": 1})
    assert job.id == "job-1"
    assert [name for name, _ in script.calls] == ["SubmitJob"]
    assert len(script.calls[0][1].request_id) == 36
    assert script.metadata[0]["atlas-namespace"] == "default"


async def test_namespace_and_metadata_go_with_every_call(script, server):
    async with Client(server.target, namespace="team-a", metadata={"authorization": "Bearer x"}) as client:
        job_id = script.add_job()
        await client.get(job_id)
        await client.wait(job_id)
    sent = [(one["atlas-namespace"], one["authorization"]) for one in script.metadata]
    assert sent == [("team-a", "Bearer x")] * 2


async def test_concurrent_submits_share_a_call(script, client):
    script.gates["SubmitJob"] = asyncio.Event()
    tasks = [asyncio.ensure_future(client.submit("sleep", {"n": number})) for number in range(100)]
    await script.called(1)
    script.gates["SubmitJob"].set()
    jobs = await asyncio.gather(*tasks)
    assert [name for name, _ in script.calls] == ["SubmitJob", "SubmitJobs"]
    sent = [script.calls[0][1], *script.calls[1][1].requests]
    assert [request.payload["n"] for request in sent] == list(range(100))
    assert [script.jobs[job.id].request_id for job in jobs] == [request.request_id for request in sent]


async def test_batches_are_bounded_by_count_and_bytes(script, client):
    script.gates["SubmitJob"] = asyncio.Event()
    tasks = [asyncio.ensure_future(client.submit("sleep")) for _ in range(1 + 501)]
    tasks += [asyncio.ensure_future(client.submit("blob", bytes(1_000_000))) for _ in range(5)]
    await script.called(1)
    script.gates["SubmitJob"].set()
    await asyncio.gather(*tasks)
    sizes = [len(request.requests) for name, request in script.calls if name == "SubmitJobs"]
    assert sizes[0] == 500
    assert sum(sizes) == 506 - sum(name == "SubmitJob" for name, _ in script.calls) + 1
    assert max(request.ByteSize() for _, request in script.calls) < 3 * 1024 * 1024


async def test_each_submit_of_a_batch_has_its_own_outcome(script, client):
    script.gates["SubmitJob"] = asyncio.Event()
    first = asyncio.ensure_future(client.submit("sleep"))
    others = [asyncio.ensure_future(client.submit(kind)) for kind in ("sleep", "bad", "sleep", "sleep")]
    await script.called(1)
    others[2].cancel()
    script.gates["SubmitJob"].set()
    await first
    results = await asyncio.gather(*others, return_exceptions=True)
    assert [type(result) for result in results] == [
        JobHandle,
        errors.InvalidArgument,
        asyncio.CancelledError,
        JobHandle,
    ]
    assert results[1].violations[0].field == "payload.seconds"
    assert len(script.calls[1][1].requests) == 3


async def test_cancelling_the_submit_under_way_does_not_hurt_those_behind_it(script, client):
    script.gates["SubmitJob"] = asyncio.Event()
    first = asyncio.ensure_future(client.submit("sleep"))
    await script.called(1)
    behind = [asyncio.ensure_future(client.submit("sleep")) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    jobs = await asyncio.gather(*behind)
    assert len({job.id for job in jobs}) == 3
    assert [name for name, _ in script.calls] == ["SubmitJob", "SubmitJobs"]


async def test_a_batch_that_fails_gives_each_its_own_error(script, client):
    script.gates["SubmitJob"] = asyncio.Event()
    script.fail["SubmitJobs"] = iter([errors.StoreFull("full", retry_after=1.5)])
    first = asyncio.ensure_future(client.submit("sleep"))
    behind = [asyncio.ensure_future(client.submit("sleep")) for _ in range(2)]
    await script.called(1)
    script.gates["SubmitJob"].set()
    await first
    one, other = await asyncio.gather(*behind, return_exceptions=True)
    assert isinstance(one, errors.StoreFull)
    assert (one.retry_after, one.message) == (other.retry_after, other.message) == (1.5, "full")
    assert one is not other


async def test_closing_the_client_ends_submits_that_gather(script, server):
    client = Client(server.target)
    script.gates["SubmitJob"] = asyncio.Event()
    tasks = [asyncio.ensure_future(client.submit("sleep")) for _ in range(3)]
    await script.called(1)
    await client.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {errors.Cancelled}
    assert client._submitter._draining is None, "a task that finds the client closed fails unseen"


@pytest.mark.parametrize("method", ["get", "wait"])
async def test_closing_the_client_ends_the_pause_between_two_tries(script, server, method):
    pausing = asyncio.Event()

    class Endless(VirtualClock):
        async def sleep(self, seconds):
            pausing.set()
            await asyncio.Event().wait()

    script.fail["GetJob"] = script.fail["WatchJob"] = itertools.repeat(errors.ServerDraining("draining"))
    client = Client(server.target, wait_for_ready=True, patience=Patience(limit=60, silence=5, clock=Endless()))
    reading = asyncio.ensure_future(getattr(client, method)("job-1"))
    async with asyncio.timeout(5):
        await pausing.wait()
        await client.close()
        with pytest.raises(errors.Cancelled):
            await reading


async def test_a_gathering_submit_keeps_the_timeout(script, server):
    script.gates["SubmitJob"] = asyncio.Event()
    async with Client(server.target, timeout=0.2) as client:
        tasks = [asyncio.ensure_future(client.submit("sleep")) for _ in range(2)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {errors.DeadlineExceeded}


async def test_submit_many_answers_in_order(script, client):
    requests = [new_job("bad" if number % 100 == 0 else "sleep", {"n": number}) for number in range(1200)]
    outcomes = await client.submit_many(requests)
    assert [len(request.requests) for _, request in script.calls] == [500, 500, 200]
    assert [index for index, one in enumerate(outcomes) if isinstance(one, errors.InvalidArgument)] == [
        number for number in range(1200) if number % 100 == 0
    ]
    assert script.jobs[outcomes[1101].id].request_id == requests[1101].request_id


async def test_submit_many_gives_each_request_an_id(script, client):
    request = pb.SubmitJobRequest(type="sleep")
    one, other = await client.submit_many([request, request])
    assert one.request_id
    assert one.request_id != other.request_id
    assert not request.request_id


async def test_submit_many_stops_when_the_server_is_gone(script, server, client):
    await server.stop()
    outcomes = await client.submit_many([new_job("sleep") for _ in range(1001)])
    assert {type(one) for one in outcomes} == {errors.Unavailable}
    assert len(outcomes) == 1001


async def test_unavailable_is_retried_with_the_same_request_id(script, client):
    script.fail["SubmitJob"] = iter([StatusCode.UNAVAILABLE, errors.ServerDraining("draining")])
    job = await client.submit("sleep")
    assert len(script.calls) == 3
    assert {request.request_id for _, request in script.calls} == {script.jobs[job.id].request_id}


async def test_four_tries_and_no_more(script, client):
    job_id = script.add_job()
    script.fail["GetJob"] = iter([errors.ServerDraining("draining")] * 9)
    with pytest.raises(errors.ServerDraining):
        await client.get(job_id)
    assert len(script.calls) == 4


async def test_other_errors_are_not_retried(script, client):
    script.fail["SubmitJob"] = iter([errors.StoreFull("full")])
    with pytest.raises(errors.StoreFull):
        await client.submit("sleep")
    assert len(script.calls) == 1


async def test_a_call_ends_at_the_timeout(script, server):
    script.gates["GetJob"] = asyncio.Event()
    async with Client(server.target, timeout=0.1) as client:
        with pytest.raises(errors.DeadlineExceeded):
            await client.get("job-1")


async def test_a_timeout_beyond_all_clocks_is_a_long_one(script, server):
    async with Client(server.target, timeout=1e12) as client:
        job_id = script.add_job()
        assert (await client.get(job_id)).id == job_id


async def test_get_waits_longer_by_what_it_waits(script, server):
    script.gates["GetJob"] = asyncio.Event()
    async with Client(server.target, timeout=0.1) as client:
        job_id = script.add_job()
        reading = asyncio.ensure_future(client.get(job_id, wait=30))
        done, _ = await asyncio.wait([reading], timeout=0.3)
        assert not done
        script.gates["GetJob"].set()
        assert (await reading).id == job_id
    assert script.calls[0][1].wait.seconds == 30


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (errors.JobNotFound.of("x"), errors.JobNotFound),
        (errors.VersionMismatch("v"), errors.VersionMismatch),
        (errors.Overloaded("busy", reason="MADE_LATER"), errors.ResourceExhausted),
        (StatusCode.PERMISSION_DENIED, errors.PermissionDenied),
        (StatusCode.DATA_LOSS, errors.Unknown),
    ],
)
async def test_errors_are_typed(script, client, sent, kind):
    script.fail["GetJob"] = iter([sent])
    with pytest.raises(kind) as caught:
        await client.get("x")
    assert type(caught.value) is kind
    if isinstance(sent, errors.AtlasError):
        assert (caught.value.reason, caught.value.metadata) == (sent.reason, sent.metadata)


async def test_nobody_listens(script, server, clock):
    await server.stop()
    async with Client(server.target) as client:
        with pytest.raises(errors.Unavailable):
            await client.get("x")


async def test_waiting_for_a_server_that_comes_later(script, server):
    await server.stop()
    async with Client(server.target, wait_for_ready=True) as client:
        job_id = script.add_job()
        reading = asyncio.ensure_future(client.get(job_id))
        await asyncio.sleep(0)
        await server.start()
        assert (await reading).id == job_id


@pytest.mark.slow
async def test_waiting_for_a_server_that_drains(script, server, clock):
    patience = Patience(limit=1, silence=5, clock=clock, rng=random.Random(1))
    async with Client(server.target, timeout=5, wait_for_ready=True, patience=patience) as client:
        script.fail["SubmitJob"] = iter([errors.ServerDraining("draining", retry_after=2.0)] * 6)
        assert (await client.submit("sleep")).id == "job-1"
        assert len({request.request_id for _, request in script.calls}) == 1
        assert clock.slept[0] >= 2.0
        script.fail["SubmitJob"] = itertools.repeat(errors.ServerDraining("draining", retry_after=2.0))
        started = clock.monotonic()
        with pytest.raises((errors.ServerDraining, errors.DeadlineExceeded)):
            await client.submit("sleep")
        assert 4 <= clock.monotonic() - started <= 5


@pytest.mark.slow
@pytest.mark.parametrize("first", ["wait", "get"])
async def test_a_server_that_answered_in_any_way_was_reached(script, server, clock, first):
    """A stream or a refusal shows as well as an answer that the address is right."""
    patience = Patience(limit=60, silence=5, clock=clock, rng=random.Random(1))
    async with Client(server.target, timeout=5, patience=patience) as client:
        job_id = script.add_job()
        if first == "wait":
            await client.wait(job_id)
        else:
            with pytest.raises(errors.JobNotFound):
                await client.get("nothing")
        script.fail["GetJob"] = iter([errors.ServerDraining("draining")] * 9)
        assert (await client.get(job_id)).id == job_id


async def test_a_repeated_call_ends_at_its_timeout(script, server, clock):
    """However late the first failure came."""
    patience = Patience(limit=60, silence=5, clock=clock, rng=random.Random(1))
    script.gates["RetryJob"] = asyncio.Event()
    script.fail["RetryJob"] = itertools.repeat(errors.ServerDraining("draining"))
    async with Client(server.target, timeout=5, wait_for_ready=True, patience=patience) as client:
        retrying = asyncio.ensure_future(client.retry("job-1"))
        await script.called(1)
        clock.slept.append(4)
        script.gates["RetryJob"].set()
        with pytest.raises(errors.ServerDraining):
            await retrying
    assert clock.monotonic() == pytest.approx(5)


async def test_what_may_have_been_done_is_not_repeated(script, server, clock):
    patience = Patience(limit=1, silence=5, clock=clock)
    async with Client(server.target, wait_for_ready=True, patience=patience) as client:
        script.fail["RetryJob"] = iter([errors.ServerDraining("draining"), StatusCode.UNAVAILABLE])
        with pytest.raises(errors.Unavailable) as caught:
            await client.retry("job-1")
    assert caught.value.reason == "UNAVAILABLE"
    assert len(script.calls) == 2


async def test_list_reads_page_by_page(script, client):
    for _ in range(25):
        script.add_job()
    async with client.list(page_size=10) as jobs:
        assert [job.id async for job in jobs] == [f"job-{number}" for number in range(1, 26)]
    assert [request.page_token for _, request in script.calls] == ["", "10", "20"]
    assert len([job async for job in client.list(limit=12, page_size=5)]) == 12
    assert [job async for job in client.list(limit=0)] == []


async def test_methods_of_a_handle(script, client):
    job = await client.submit("sleep")
    assert (await job.refresh()).version == 1
    assert (await job.cancel(reason="enough")).state == "CANCELLED"
    assert script.calls[-1][1].reason == "enough"
    with pytest.raises(errors.JobCancelled):
        await job.result()


async def test_a_given_channel_stays_open(script, server):
    async with aio.insecure_channel(server.target) as channel:
        async with Client(channel=channel) as client:
            await client.submit("sleep")
        async with Client(channel=channel) as client:
            assert (await client.submit("sleep")).id == "job-2"


async def test_calls_without_an_id_are_refused_here(client):
    with pytest.raises(errors.InvalidArgument):
        await client.get("")


async def test_another_loop_is_refused(script, client):
    await client.submit("sleep")

    def elsewhere():
        asyncio.run(client.submit("sleep"))

    with pytest.raises(RuntimeError):
        await asyncio.to_thread(elsewhere)


async def test_a_call_that_a_stopping_server_cut_is_repeated(script, client):
    job_id = script.add_job()
    await client.get(job_id)
    script.fail["GetJob"] = iter([StatusCode.CANCELLED, StatusCode.CANCELLED])
    assert (await client.get(job_id)).id == job_id
    assert [name for name, _ in script.calls] == ["GetJob"] * 4
    script.fail["SubmitJob"] = iter([StatusCode.CANCELLED])
    await client.submit("sleep")
    sent = [request.request_id for name, request in script.calls if name == "SubmitJob"]
    assert len(sent) == 2
    assert len(set(sent)) == 1


async def test_a_cut_call_that_may_have_done_its_work_is_not_repeated(script, client):
    job_id = script.add_job()
    await client.get(job_id)
    script.fail["RetryJob"] = iter([StatusCode.CANCELLED])
    with pytest.raises(errors.Unavailable):
        await client.retry(job_id)
