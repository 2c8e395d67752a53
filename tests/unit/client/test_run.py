from __future__ import annotations

import asyncio

import pytest
from grpc import StatusCode

from atlas_grpc import errors
from atlas_grpc.client import Client, JobState, Logged, Transitioned


async def finish(script, causes="STARTED SUCCEEDED"):
    """Ends the first job as soon as it has been submitted."""
    async with asyncio.timeout(5):
        await script.submitted.wait()
    for cause in causes.split():
        await script.advance("job-1", cause)


async def test_run_answers_the_finished_job(script, client):
    running = asyncio.ensure_future(client.run("sleep", {"seconds": 0}))
    await finish(script)
    job = await running
    assert (job.state, job.output, job.deduplicated) == (JobState.SUCCESS, 42, False)
    assert await job.result() == 42
    assert [name for name, _ in script.calls] == ["RunJob"]


@pytest.mark.parametrize(
    ("causes", "kind"),
    [("STARTED DEADLINE_EXCEEDED", errors.JobFailed), ("STARTED CANCELLED", errors.JobCancelled)],
)
async def test_run_raises_the_fate_of_the_job(script, client, causes, kind):
    running = asyncio.ensure_future(client.run("sleep"))
    await finish(script, causes)
    with pytest.raises(kind) as caught:
        await running
    assert caught.value.reason == "TOO_SLOW"
    assert str(caught.value) == "it took too long"
    assert caught.value.job.id == "job-1"


async def test_run_cut_before_the_first_message_submits_again_with_the_same_request_id(script, client):
    script.cuts = [StatusCode.UNAVAILABLE, errors.ServerDraining("draining")]
    running = asyncio.ensure_future(client.run("sleep"))
    await finish(script)
    assert (await running).output == 42
    assert [name for name, _ in script.calls] == ["RunJob"] * 3
    assert len({request.job.request_id for _, request in script.calls}) == 1
    assert list(script.jobs) == ["job-1"]


async def test_run_cut_later_watches_with_its_token(script, client):
    async with client.run_events("sleep") as events:
        assert (await anext(events)).version == 1
        script.cuts = [StatusCode.UNAVAILABLE]
        await script.advance("job-1", "STARTED")
        await script.advance("job-1", "SUCCEEDED")
        assert [event.version async for event in events] == [2, 3]
    assert [name for name, _ in script.calls] == ["RunJob", "WatchJob"]
    assert script.calls[1][1].resume_token == "1/0"


async def test_run_refused_is_an_error_of_the_submit(script, client):
    script.fail["RunJob"] = iter([errors.InvalidArgument.of("payload.seconds", "must be a number")])
    with pytest.raises(errors.InvalidArgument) as caught:
        await client.run("sleep", {"seconds": "x"})
    assert caught.value.violations == (errors.Violation("payload.seconds", "must be a number"),)


async def test_events_come_in_the_order_of_their_times(script, client):
    job_id = script.add_job("SUBMITTED STARTED")
    script.log(job_id, "working")
    script.step(job_id, "SUCCEEDED")
    script.rng.randint = lambda *_: 3
    events = [event async for event in client.watch(job_id)]
    assert [type(event) for event in events] == [Transitioned, Transitioned, Logged, Transitioned]


async def test_wait_and_result_of_a_job_that_is_not_finished(script, client):
    job_id = script.add_job("SUBMITTED")
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await client.result(job_id, timeout=0.1)
    assert caught.value.metadata == {"job_id": job_id}
    waiting = asyncio.ensure_future(client.wait(job_id, timeout=5))
    await script.advance(job_id, "SUCCEEDED")
    assert (await waiting).output == 42


async def test_result_reads_what_a_short_view_left_out(script, client):
    job_id = script.add_job()
    job = await client.get(job_id)
    short = type(job)(client, type(job.message)(id=job_id, state="SUCCESS"))
    assert short.output is None
    assert await short.result() == 42
    assert [name for name, _ in script.calls] == ["GetJob", "GetJob"]


async def test_result_of_a_job_that_was_retried_since_it_was_listed(script, client):
    job_id = script.add_job()
    (listed,) = [job async for job in client.list()]
    listed.message.ClearField("output")
    script.step(job_id, "RETRIED")
    reading = asyncio.ensure_future(listed.result())
    await script.called(3)
    await script.advance(job_id, "SUCCEEDED")
    assert await reading == 42


async def test_closing_the_client_ends_a_wait_with_a_typed_error(script, server):
    job_id = script.add_job("SUBMITTED")
    client = Client(server.target)
    waiting = asyncio.ensure_future(client.wait(job_id))
    await script.called(1)
    await client.close()
    with pytest.raises(errors.Cancelled):
        await waiting
    with pytest.raises(RuntimeError):
        await client.get(job_id)


async def test_cancelling_a_wait_is_a_cancellation(script, client):
    job_id = script.add_job("SUBMITTED")
    waiting = asyncio.ensure_future(client.wait(job_id))
    await script.called(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(5):
        await script.cancelled.wait()
