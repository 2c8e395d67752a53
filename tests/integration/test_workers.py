"""Workers elsewhere: the contract of WorkerService as a raw client sees it, and the Python worker, on every store."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from atlas_grpc import errors, new_job, pb
from atlas_grpc.client import JobState
from atlas_grpc.client._transport import from_rpc_error
from atlas_grpc.engine.leases import Leases
from tests.integration.worker_world import PATIENCE, a_world, release, success, tokens
from tests.support.waiting import until

if TYPE_CHECKING:
    from atlas_grpc import Client

pytestmark = pytest.mark.usefixtures("every_store")


async def test_the_life_of_a_worker_in_one_stream():
    async with a_world() as world:
        jobs = [(await world.client.submit("echo", {"number": number})).id for number in range(5)]
        stream = world.stream()
        welcome = await stream.hello(json_text=True)
        assert (bool(welcome.session), welcome.lease_duration.seconds, welcome.resumed) == (True, 30, False)
        first = await stream.take(2)
        assert [job.id for job in first.jobs] == jobs[:2]
        assert (first.batch, first.jobs[0].payload_json, first.jobs[0].attempt) == (1, '{"number":0}', 1)
        one, two = first.jobs
        await stream.say(
            updates=pb.WorkerUpdates(
                id=3,
                updates=[
                    pb.JobUpdate(
                        id=one.id,
                        token=one.token,
                        progress=pb.Progress(current=1, total=2, message="half"),
                        logs=[pb.LogEntry(severity=pb.LogEntry.WARNING, message="look")],
                    ),
                    pb.JobUpdate(id=two.id, token="1", logs=[pb.LogEntry(message="not mine")]),
                ],
            )
        )
        answer = (await stream.hear("updates_answer")).updates_answer
        assert answer.id == 3
        assert [one.status for one in answer.answers] == [pb.JobAnswer.ACCEPTED, pb.JobAnswer.LOST]
        assert (await world.client.get(one.id)).progress.message == "half"
        statuses = await stream.report(
            success(one, result_json='{"n":5}'), success(two, result_json="{"), pb.JobReport(id=two.id, token=two.token)
        )
        assert statuses == [pb.JobAnswer.ACCEPTED, pb.JobAnswer.REFUSED, pb.JobAnswer.REFUSED]
        assert await stream.report(success(one, result_json="1")) == [pb.JobAnswer.ACCEPTED], "a repeat is harmless"
        assert await (await world.client.get(one.id)).result() == {"n": 5}, "and changes nothing"
        failure = pb.JobFailure(reason="DISK_FULL", message="no room", final=True)
        assert await stream.report(pb.JobReport(id=two.id, token=two.token, failure=failure)) == [1]
        job = await world.client.get(two.id)
        assert (job.state, job.error.reason, job.error.message) == (JobState.FAILED, "DISK_FULL", "no room")
        second = await stream.take(10, received=1)
        assert [job.id for job in second.jobs] == jobs[2:]
        await stream.say(beat=42)
        assert (await stream.hear("beat")).beat == 42
        await stream.goodbye()
        for job_id in jobs[2:]:
            job = await world.client.get(job_id)
            assert (job.state, job.attempts[-1].outcome) == (JobState.PENDING, "RELEASED")


async def test_a_worker_gets_no_more_than_it_has_room_for():
    async with a_world() as world:
        stream = world.stream()
        await stream.hello()
        await stream.say(ready=pb.WorkerReady(limit=1, room=[pb.TypeRoom(type="echo", slots=1)]))
        for _ in range(3):
            await world.client.submit("echo")
        await stream.hear("assignments")
        # This one was on its way when the batch was sent, and does not account for it.
        await stream.say(ready=pb.WorkerReady(limit=1, room=[pb.TypeRoom(type="echo", slots=1)]))
        await stream.say(beat=1)
        await stream.hear("beat")
        assert len((await stream.take(1, received=1)).jobs) == 1


async def test_many_jobs_come_in_several_messages_and_all_go_back_when_the_stream_breaks_among_them():
    async with a_world() as world:
        jobs = await world.client.submit_many([new_job("echo", {"number": number}) for number in range(300)])
        stream = world.stream()
        session = (await stream.hello(slots=300)).session
        first = await stream.take(300)
        others = [(await stream.hear("assignments")).assignments for _ in range(2)]
        assert [batch.batch for batch in (first, *others)] == [1, 2, 3]
        assert {job.id for batch in (first, *others) for job in batch.jobs} == {job.id for job in jobs}
        await stream.say(received=1)
        await stream.say(beat=1)
        await stream.hear("beat")
        stream.cut()
        held = {job.id for job in first.jobs}
        for job in jobs:
            if job.id not in held:
                await world.until(job.id, JobState.PENDING)
        again = world.stream()
        assert (await again.hello(session=session, holding=tokens(*first.jobs))).resumed
        assert {await world.state(job_id) for job_id in held} == {JobState.RUNNING}


@pytest.mark.parametrize("payload", [{"": [0] * 49_000}, {"": "x" * 900_000}], ids=["numbers", "text"])
async def test_large_jobs_come_in_messages_that_clients_take(payload):
    """The numbers take six times as much in a message as in the store."""
    async with a_world() as world:
        stream = world.stream()
        kinds = [pb.JobType(name="large")]
        await stream.hello(slots=12, types=kinds)
        jobs = {job.id for job in await world.client.submit_many([new_job("large", payload) for _ in range(12)])}
        got = (await stream.take(12, types=("large",))).jobs
        while len(got) < 12:
            got.extend((await stream.hear("assignments")).assignments.jobs)
        assert {job.id for job in got} == jobs
        await stream.report(*map(release, got))
        await stream.goodbye()
        session, taken = "", set()
        while taken < jobs:
            lease = pb.LeaseJobsRequest(worker="sh", session=session, types=kinds, max_jobs=12)
            answer = await world.stub.LeaseJobs(lease)
            session = answer.session
            assert answer.jobs
            taken |= {job.id for job in answer.jobs}
        assert taken == jobs


async def test_jobs_are_handed_out_while_a_report_is_still_being_stored(monkeypatch):
    async with a_world() as world:
        jobs = await world.client.submit_many([new_job("echo"), new_job("echo")])
        stream = world.stream()
        await stream.hello()
        (first,) = (await stream.take(1)).jobs
        go_on = asyncio.Event()
        finish = Leases.finish

        async def late(*arguments):
            await go_on.wait()
            return await finish(*arguments)

        monkeypatch.setattr(Leases, "finish", late)
        await stream.say(reports=pb.WorkerReports(id=7, reports=[success(first)]))
        (second,) = (await stream.take(1, received=1)).jobs
        assert {first.id, second.id} == {job.id for job in jobs}
        go_on.set()
        assert (await stream.hear("reports_answer")).reports_answer.answers[0].status == pb.JobAnswer.ACCEPTED
        assert await stream.report(success(second)) == [pb.JobAnswer.ACCEPTED]
        await stream.goodbye()


async def test_a_worker_that_will_not_wait_is_told_that_there_is_nothing():
    async with a_world() as world:
        later = await world.client.submit("echo", delay=3600)
        stream = world.stream()
        await stream.hello()
        empty = await stream.take(2, at_once=True)
        assert (empty.batch, list(empty.jobs)) == (1, [])
        ids = [(await world.client.submit("echo")).id for _ in range(3)]
        assert [job.id for job in (await stream.take(2, received=1, at_once=True)).jobs] == ids[:2]
        # A question that is under way when the worker asks again.
        await stream.offer(1, 2, ("waits",))
        assert [job.id for job in (await stream.take(2, received=2, at_once=True)).jobs] == ids[2:]
        await stream.offer(1, 3)
        assert not (await stream.take(1, received=3, at_once=True)).jobs
        assert await world.state(later.id) is JobState.PENDING
        await stream.goodbye()


async def test_a_worker_whose_session_had_expired_is_not_told_that_there_is_nothing():
    """To a claim for a session that is over, a store answers with nothing, whatever there is."""
    async with a_world() as world:
        job = await world.client.submit("echo")
        stream = world.stream()
        session = (await stream.hello()).session
        await world.server.engine.core.store.close_session(session)
        assert [one.id for one in (await stream.take(1, at_once=True)).jobs] == [job.id]


async def test_a_session_is_continued_by_another_stream():
    async with a_world() as world:
        ids = [(await world.client.submit("echo", {"number": number})).id for number in range(3)]
        stream = world.stream()
        session = (await stream.hello()).session
        held = (await stream.take(2)).jobs
        await stream.say(received=1)
        never = (await stream.take(1, received=1)).jobs
        assert [never[0].id] == ids[2:]
        stream.cut()
        await world.until(ids[2], JobState.PENDING)  # it was not acknowledged
        assert (await world.client.get(ids[2])).attempts[-1].outcome == "RELEASED"
        again = world.stream()
        welcome = await again.hello(
            session=session, holding=[*tokens(*held), pb.HeldJob(id=ids[2], token=never[0].token)]
        )
        assert (welcome.session, welcome.resumed) == (session, True)
        (stop,) = (await again.hear("stops")).stops.stops
        assert (stop.id, stop.reason) == (ids[2], pb.JobStop.LOST)
        assert await again.report(*(success(job, result_json="1") for job in held)) == [pb.JobAnswer.ACCEPTED] * 2
        await again.goodbye()


async def test_jobs_that_a_continued_session_does_not_hold_go_back():
    async with a_world() as world:
        job = await world.client.submit("echo")
        stream = world.stream()
        session = (await stream.hello()).session
        await stream.take(1)
        await stream.say(
            beat=1,
        )
        await stream.hear("beat")
        again = world.stream()
        assert (await again.hello(session=session)).resumed
        assert (await stream.end())[0] is grpc.StatusCode.ABORTED, "one stream at a time"
        await world.until(job.id, JobState.PENDING)
        await again.goodbye()


async def test_a_cancelled_job_is_told_to_its_worker():
    async with a_world() as world:
        job = await world.client.submit("waits")
        stream = world.stream()
        await stream.hello()
        (taken,) = (await stream.take(1, types=("waits",))).jobs
        await job.cancel()
        (stop,) = (await stream.hear("stops")).stops.stops
        assert (stop.id, stop.token, stop.reason) == (taken.id, taken.token, pb.JobStop.CANCELLED)
        report = pb.JobReport(id=taken.id, token=taken.token, cancelled=pb.JobCancelled())
        assert await stream.report(report) == [pb.JobAnswer.ACCEPTED]
        assert await world.state(job.id) is JobState.CANCELLED


async def test_a_silent_worker_loses_its_jobs_and_is_told():
    async with a_world(lease=1.0) as world:
        job = await world.client.submit("echo")
        stream = world.stream()
        await stream.hello()
        (taken,) = (await stream.take(1)).jobs
        stop = (await stream.hear("stops")).stops.stops[0]
        assert (stop.id, stop.reason) == (job.id, pb.JobStop.LOST)
        assert await stream.report(success(taken, result_json="1")) == [pb.JobAnswer.LOST]
        assert (await world.client.get(job.id)).attempts[0].outcome == "LOST"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"beat": 1}, "hello"),
        ({"hello": pb.WorkerHello(worker="")}, "hello.worker"),
        ({"hello": pb.WorkerHello(worker="w", types=[pb.JobType(name="9")])}, "hello.types[0].name"),
        ({"hello": pb.WorkerHello(worker="w", queues=["-"])}, "hello.queues[0]"),
    ],
)
async def test_what_breaks_a_rule_ends_the_stream_with_its_name(message, field):
    async with a_world() as world:
        stream = world.stream()
        await stream.say(**message)
        code, details = await stream.end()
        assert (code, details.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_a_draining_server_sends_its_workers_away():
    async with a_world() as world:
        stream = world.stream()
        await stream.hello()
        stopping = asyncio.ensure_future(world.server.stop(1))
        code, _ = await stream.end()
        assert code is grpc.StatusCode.UNAVAILABLE
        await stopping


@pytest.mark.parametrize("opened", [False, True])
async def test_a_draining_server_sends_a_caller_who_waits_for_jobs_away(opened: bool):
    async with a_world() as world:
        lease = pb.LeaseJobsRequest(worker="sh", types=[pb.JobType(name="echo")])
        if opened:
            lease.session = (await world.stub.LeaseJobs(lease)).session
        lease.wait.FromSeconds(60)
        waiting = asyncio.ensure_future(world.stub.LeaseJobs(lease))
        await until(lambda: world.server._workers._keeper._visits)
        stopping = asyncio.ensure_future(world.server.stop(1))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(waiting, PATIENCE)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        error = from_rpc_error(caught.value)
        assert (error.reason, error.retry_after) == ("SERVER_DRAINING", 1.0)
        await stopping


async def test_unary_calls_make_a_worker():
    async with a_world() as world:
        kinds = [pb.JobType(name="echo"), pb.JobType(name="waits")]
        empty = await world.stub.LeaseJobs(pb.LeaseJobsRequest(worker="sh", types=kinds))
        assert (list(empty.jobs), empty.lease_duration.seconds) == ([], 30)
        lease = pb.LeaseJobsRequest(worker="sh", session=empty.session, types=kinds, max_jobs=10)
        lease.wait.FromSeconds(10)
        waiting = asyncio.ensure_future(world.stub.LeaseJobs(lease))
        await asyncio.sleep(0)
        first = await world.client.submit("echo", {"number": 4})
        got = await asyncio.wait_for(waiting, PATIENCE)
        assert (got.session, [job.id for job in got.jobs]) == (empty.session, [first.id])
        assert dict(got.jobs[0].payload) == {"number": 4}
        second = await world.client.submit("waits")
        (other,) = (await world.stub.LeaseJobs(lease)).jobs
        await second.cancel()
        beat = await world.stub.Heartbeat(
            pb.HeartbeatRequest(
                session=empty.session,
                holding=tokens(got.jobs[0], other),
                updates=[pb.JobUpdate(id=first.id, token=got.jobs[0].token, progress=pb.Progress(current=1))],
            )
        )
        assert [(stop.id, stop.reason) for stop in beat.stops] == [(second.id, pb.JobStop.CANCELLED)]
        assert [answer.status for answer in beat.answers] == [pb.JobAnswer.ACCEPTED]
        done = pb.FinishJobsRequest(
            session=empty.session, reports=[success(got.jobs[0]), success(other, result_json="[")]
        )
        answers = (await world.stub.FinishJobs(done)).answers
        assert [answer.status for answer in answers] == [pb.JobAnswer.ACCEPTED, pb.JobAnswer.REFUSED]
        assert await world.state(first.id) is JobState.SUCCESS
        await world.stub.Heartbeat(pb.HeartbeatRequest(session=empty.session, goodbye=True))
        assert await world.state(second.id) is JobState.CANCELLED
        for request, call in (
            (lease, world.stub.LeaseJobs),
            (pb.HeartbeatRequest(session=empty.session), world.stub.Heartbeat),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_jobs_of_an_answer_that_never_arrived_come_again():
    async with a_world() as world:
        kinds = [pb.JobType(name="echo")]
        session = (await world.stub.LeaseJobs(pb.LeaseJobsRequest(worker="sh", types=kinds))).session
        lease = pb.LeaseJobsRequest(worker="sh", session=session, types=kinds, max_jobs=10)
        kept = await world.client.submit("echo")
        (mine,) = (await world.stub.LeaseJobs(lease)).jobs
        lost = await world.client.submit("echo", max_attempts=1)
        (gone,) = (await world.stub.LeaseJobs(lease)).jobs
        lease.holding.extend(tokens(mine))
        assert not (await world.stub.LeaseJobs(lease)).jobs
        lease.return_others = True
        (again,) = (await world.stub.LeaseJobs(lease)).jobs
        assert (again.id, again.token == gone.token) == (lost.id, False)
        lease.holding.extend(tokens(again))
        assert not (await world.stub.LeaseJobs(lease)).jobs
        done = pb.FinishJobsRequest(session=session, reports=[success(mine), success(gone), success(again)])
        answers = [pb.JobAnswer.Status.Name(answer.status) for answer in (await world.stub.FinishJobs(done)).answers]
        assert answers == ["ACCEPTED", "LOST", "ACCEPTED"]
        assert await world.state(kept.id) is await world.state(lost.id) is JobState.SUCCESS


async def test_a_caller_that_leaves_while_it_waits_takes_nothing_along():
    async with a_world() as world:
        lease = pb.LeaseJobsRequest(worker="sh", types=[pb.JobType(name="echo")])
        lease.wait.FromSeconds(30)
        for _ in range(5):
            waiting = world.stub.LeaseJobs(lease)
            await asyncio.sleep(0.02)
            waiting.cancel()
        job = await world.client.submit("echo")
        began = time.monotonic()
        stream = world.stream()
        await stream.hello()
        assert [one.id for one in (await stream.take(1)).jobs] == [job.id]
        assert time.monotonic() - began < PATIENCE


def resize() -> pb.JobType:
    kind = pb.JobType(name="resize", description="Makes pictures smaller.", queue="pictures", concurrency=3)
    kind.retry_policy.max_attempts = 7
    kind.payload_schema.update(
        {"type": "object", "required": ["width"], "properties": {"width": {"type": "integer", "minimum": 1}}}
    )
    return kind


async def check_resize_is_known(client: Client) -> None:
    job = await client.submit("resize", {"width": 3})
    assert (job.queue, job.message.retry_policy.max_attempts) == ("pictures", 7)
    with pytest.raises(errors.InvalidArgument) as caught:
        await client.submit("resize", {"width": 0})
    assert [one.field for one in caught.value.violations] == ["payload.width"]
    assert "resize" in [kind.name for kind in await client.types()]


async def test_a_type_that_a_worker_announced_can_be_submitted():
    async with a_world() as world:
        with pytest.raises(errors.InvalidArgument) as caught:
            await world.client.submit("resize", {"width": 3})
        assert caught.value.reason == "UNKNOWN_JOB_TYPE"
        stream = world.stream()
        await stream.hello(types=[resize()], queues=["pictures"])
        await check_resize_is_known(world.client)
        job = await world.client.submit("resize", {"width": 3})
        assert "0 of 10 slots" in (await job.explain()).summary
        other = await world.client.submit("resize", {"width": 3}, queue="elsewhere")
        assert "no connected worker" in (await other.explain()).summary
        await stream.goodbye()
        assert "no connected worker" in (await job.explain()).summary
        await check_resize_is_known(world.client)


async def test_many_types_with_large_schemas_are_listed_in_pages_that_clients_take():
    async with a_world() as world:
        schema = {"description": "x" * 60_000}
        names = [f"large-{number}" for number in range(100)]
        for half in (names[:50], names[50:]):
            kinds = [pb.JobType(name=name, payload_schema=schema) for name in half]
            await world.stub.LeaseJobs(pb.LeaseJobsRequest(worker="sh", types=kinds))
        listed, request = [], pb.ListJobTypesRequest()
        while not listed or request.page_token:
            page = await world.jobs.ListJobTypes(request)
            listed += [kind.name for kind in page.job_types]
            request.page_token = page.next_page_token
        assert set(names) <= set(listed)
        assert len(listed) == len(set(listed))


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "http://127.0.0.1:1/schema"}, {"pattern": "("}])
async def test_a_schema_that_is_none_is_refused(schema):
    async with a_world() as world:
        stream = world.stream()
        kind = pb.JobType(name="bad")
        kind.payload_schema.update(schema)
        await stream.say(hello=pb.WorkerHello(worker="raw", types=[kind]))
        code, details = await stream.end()
        assert (code, details.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "hello.types[0].payload_schema")
