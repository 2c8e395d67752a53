"""JobService over real gRPC, method by method, as the contract says it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from atlas_grpc import JobContext, handler, pb
from atlas_grpc.engine.tokens import JobToken, decode, encode
from atlas_grpc.testing import serving
from tests.support.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.usefixtures("every_store")


def sleeping(seconds: float = 0, **more: Any) -> pb.SubmitJobRequest:
    request = pb.SubmitJobRequest(type="sleep", **more)
    request.payload["seconds"] = seconds
    return request


class Rig:
    def __init__(self, server: Any, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.channel = channel
        self.stub: Any = pb.JobServiceStub(channel)

    async def submit(self, seconds: float = 0, **more: Any) -> pb.Job:
        return (await self.stub.SubmitJob(sleeping(seconds, **more), timeout=10)).job


@pytest.fixture
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    options = getattr(request, "param", {})
    async with serving(grace=0, **options) as server, grpc.aio.insecure_channel(server.grpc_address) as channel:
        yield Rig(server, channel)


idle = pytest.mark.parametrize("rig", [{"worker": False}], indirect=True)


async def test_a_job_is_submitted_waited_for_and_read(rig: Rig):
    job = await rig.submit(0.01, labels={"a": "b"})
    assert job.state == pb.Job.PENDING
    assert not job.HasField("payload"), "the BASIC view"
    done = (await rig.stub.GetJob(pb.GetJobRequest(id=job.id, wait={"seconds": 10}), timeout=15)).job
    assert done.state == pb.Job.SUCCESS
    assert done.payload["seconds"] == 0.01
    assert done.result.struct_value["slept"] == 0.01
    basic = (await rig.stub.GetJob(pb.GetJobRequest(id=job.id, view=pb.JOB_VIEW_BASIC), timeout=5)).job
    assert not basic.HasField("payload")
    assert not basic.HasField("result")


@idle
async def test_a_request_id_100_times_at_once(rig: Rig):
    calls = [rig.stub.SubmitJob(sleeping(request_id="same"), timeout=10) for _ in range(100)]
    answers = await asyncio.gather(*calls)
    assert len({answer.job.id for answer in answers}) == 1
    assert sum(answer.deduplicated for answer in answers) == 99
    found = await refusal(rig.stub.SubmitJob(sleeping(1, request_id="same", priority=3), timeout=10))
    assert (found.code, found.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert found.info.metadata["differs"] == "payload,priority"
    assert "payload, priority" in found.message


@idle
async def test_good_and_bad_requests_at_once_do_not_mix(rig: Rig):
    async def one(number: int) -> Any:
        match number % 5:
            case 0:
                return await refusal(rig.stub.SubmitJob(sleeping(-1), timeout=10))
            case 1:
                return await refusal(rig.stub.SubmitJob(pb.SubmitJobRequest(type="?"), timeout=10))
            case 2:
                raw = rig.channel.unary_unary("/atlas.v1.JobService/SubmitJob")
                return await refusal(raw(b"\xff", timeout=10))
            case 3:
                plan = sleeping(number, validate_only=True, retry_policy={"max_attempts": 2})
                return await rig.stub.SubmitJob(plan, timeout=10)
            case _:
                request = sleeping(number, request_id=f"r{number}", labels={"n": str(number)})
                answer = await rig.stub.SubmitJob(request, timeout=10)
                return (await rig.stub.GetJob(pb.GetJobRequest(id=answer.job.id), timeout=10)).job

    answers = await asyncio.gather(*(one(number) for number in range(200)))
    for number, answer in enumerate(answers):
        match number % 5:
            case 0:
                assert answer.fields == ("payload.seconds",)
            case 1:
                assert set(answer.fields) == {"type"}
            case 2:
                assert answer.reason == "MALFORMED_REQUEST"
            case 3:
                assert not answer.job.id
                assert [line.number for line in answer.planned_attempts] == [1, 2]
            case _:
                assert answer.labels["n"] == str(number)
                assert answer.payload["seconds"] == number
    assert len((await rig.stub.ListJobs(pb.ListJobsRequest(page_size=1000), timeout=10)).jobs) == 40


@idle
async def test_callers_that_leave_disturb_nobody(rig: Rig):
    """The caller of a call that shares its service with others goes, waits and all."""
    job = await rig.submit()
    calls = []
    for number in range(60):
        wait = {"seconds": 30} if number % 2 else None
        calls.append(rig.stub.GetJob(pb.GetJobRequest(id=job.id, wait=wait), timeout=30))
        calls.append(rig.stub.SubmitJob(sleeping(), timeout=10))
    for call in calls[::3]:
        call.cancel()
    await asyncio.sleep(0)
    for call in calls[1::6]:
        call.cancel()
    await rig.stub.CancelJob(pb.CancelJobRequest(id=job.id), timeout=10)
    for call in calls:
        try:
            assert (await call).job.id
        except asyncio.CancelledError:
            assert call.cancelled()
    await rig.stub.ListJobs(pb.ListJobsRequest(), timeout=5)


@idle
async def test_a_wait_ends_with_its_time_or_before_the_deadline(rig: Rig):
    job = await rig.submit()
    for wait, timeout in (({"nanos": 100_000_000}, 10), ({"seconds": 60}, 1)):
        began = time.monotonic()
        answer = await rig.stub.GetJob(pb.GetJobRequest(id=job.id, wait=wait), timeout=timeout)
        assert answer.job.state == pb.Job.PENDING
        assert time.monotonic() - began < 1


async def test_a_wait_may_be_longer_than_the_default_deadline():
    async with (
        serving(grace=0, worker=False, unary_timeout=0.3) as server,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
    ):
        rig = Rig(server, channel)
        job = await rig.submit()
        began = time.monotonic()
        answer = await rig.stub.GetJob(pb.GetJobRequest(id=job.id, wait={"seconds": 1}))
        assert answer.job.state == pb.Job.PENDING
        assert time.monotonic() - began > 0.9


@idle
async def test_a_batch_and_its_listing(rig: Rig):
    batch = pb.SubmitJobsRequest(requests=[sleeping(n, queue=f"q{n % 3}", labels={"n": str(n)}) for n in range(30)])
    answer = await rig.stub.SubmitJobs(batch, timeout=10)
    ids = [outcome.response.job.id for outcome in answer.outcomes]
    assert len(set(ids)) == 30
    seen: list[str] = []
    token = ""
    while True:
        page = await rig.stub.ListJobs(pb.ListJobsRequest(page_size=7, page_token=token), timeout=10)
        seen += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert seen == ids[::-1]
    where = pb.JobFilter(queues=["q1"], labels={"n": "4"}, states=[pb.Job.PENDING])
    page = await rig.stub.ListJobs(pb.ListJobsRequest(filter=where, view=pb.JOB_VIEW_FULL), timeout=10)
    assert [job.payload["seconds"] for job in page.jobs] == [4]


@idle
async def test_a_page_stays_below_what_clients_take(rig: Rig):
    for _ in range(3):
        batch = [sleeping() for _ in range(4)]
        for request in batch:
            request.ClearField("payload")
            request.payload["seconds"] = 1
            request.labels.update({f"k{n}": "x" * 255 for n in range(32)})
        await rig.stub.SubmitJobs(pb.SubmitJobsRequest(requests=batch * 60), timeout=20)
    seen: list[str] = []
    token = ""
    while True:
        page = await rig.stub.ListJobs(pb.ListJobsRequest(page_size=1000, page_token=token), timeout=10)
        assert page.ByteSize() < 4 << 20
        seen += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen)) == 720


@idle
async def test_a_watch_stays_below_what_clients_take(rig: Rig):
    """So many large jobs that change at once take several messages, and a cut between them resumes before them."""
    labels = {f"k{n}": "x" * 255 for n in range(32)}
    request = sleeping(labels=labels, start_time={"seconds": int(time.time()) + 2})
    for _ in range(2):
        await rig.stub.SubmitJobs(pb.SubmitJobsRequest(requests=[request] * 300), timeout=20)
    watch = rig.stub.WatchJobs(pb.WatchJobsRequest(), timeout=20)
    seen: set[str] = set()
    update = pb.WatchJobsResponse()
    while not update.synced:
        update = await watch.read()
        seen |= {job.id for job in update.jobs}
    assert len(seen) == 600
    token = update.resume_token
    while not update.jobs or update.jobs[0].pending_reason != pb.Job.WAITING_FOR_WORKER:
        update = await watch.read()
    watch.cancel()
    places = [(token, frozenset[str]())]
    await _follow_ends(rig, places, seen)
    assert len(places) > 2, "it takes several messages"
    for place in places[:3]:
        await _follow_ends(rig, [place], seen)


async def _follow_ends(rig: Rig, places: list[tuple[str, frozenset[str]]], everything: set[str]) -> None:
    """Goes on from the last place until it has been told that every job waits for a worker; notes each place."""
    token, told = places[-1]
    watch = rig.stub.WatchJobs(pb.WatchJobsRequest(resume_token=token), timeout=20)
    while told != everything:
        update = await watch.read()
        assert update.ByteSize() < 4 << 20
        told |= {job.id for job in update.jobs if job.pending_reason == pb.Job.WAITING_FOR_WORKER}
        places.append((update.resume_token, told))
    watch.cancel()


@handler
async def talkative(*, ctx: JobContext) -> str:
    """As much as one may say."""
    for _ in range(28):
        for _ in range(8):
            ctx.log("x" * 16_000)
        await ctx.sleep(0.03)
    return "x" * 1_000_000


async def test_the_last_words_and_a_large_result_fit():
    async with (
        serving(talkative, grace=0, max_log_lines=200) as server,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
    ):
        rig = Rig(server, channel)
        job = (await rig.stub.SubmitJob(pb.SubmitJobRequest(type="talkative"), timeout=5)).job
        await rig.stub.GetJob(pb.GetJobRequest(id=job.id, wait={"seconds": 20}), timeout=30)
        call = rig.stub.WatchJob(pb.WatchJobRequest(id=job.id, include_logs=True), timeout=20)
        messages = [message async for message in call]
        offsets = [line.offset for message in messages for line in message.logs]
        log = await rig.stub.ListJobLogs(pb.ListJobLogsRequest(id=job.id), timeout=5)
        assert offsets == list(range(log.logs[0].offset, log.end_offset)), "as many as are kept, up to the last"
        assert len(messages[-1].job.result.string_value) == 1_000_000


@handler
async def waits(*, ctx: JobContext) -> None:
    for number in range(6):
        ctx.log(f"line {number}")
    await ctx.sleep(60)


async def test_watchers_from_different_lines_on_are_told_their_own():
    """They have come equally far, so that they could be taken for being at the same place."""
    async with serving(waits, grace=0) as server, grpc.aio.insecure_channel(server.grpc_address) as channel:
        rig = Rig(server, channel)
        job = (await rig.stub.SubmitJob(pb.SubmitJobRequest(type="waits"), timeout=5)).job
        first = rig.stub.WatchJob(pb.WatchJobRequest(id=job.id, include_logs=True), timeout=20)
        lines = 0
        while lines < 6:
            update = await first.read()
            lines += len(update.logs)
        seen = decode(update.resume_token, JobToken, "resume_token")
        assert (seen.job_id, seen.log) == (job.id, 6)
        for start in (0, 4, 2, 0):
            token = encode(JobToken(job.id, seen.version, start, seen.time))
            request = pb.WatchJobRequest(id=job.id, include_logs=True, resume_token=token)
            resumed = rig.stub.WatchJob(request, timeout=20)
            update = await resumed.read()
            assert [line.message for line in update.logs] == [f"line {number}" for number in range(start, 6)]


async def test_run_tells_the_whole_life(rig: Rig):
    call = rig.stub.RunJob(pb.RunJobRequest(job=sleeping(0.01, request_id="once")), timeout=10)
    messages = [message async for message in call]
    versions = [step.version for message in messages for step in message.update.transitions]
    assert versions == [1, 2, 3]
    assert messages[-1].update.job.state == pb.Job.SUCCESS
    assert messages[-1].update.job.result.struct_value["slept"] == 0.01
    again = [
        message
        async for message in rig.stub.RunJob(pb.RunJobRequest(job=sleeping(0.01, request_id="once")), timeout=10)
    ]
    assert [message.deduplicated for message in again] == [True]
    assert [step.version for step in again[0].update.transitions] == [1, 2, 3]


async def test_cancel_retry_delete_and_explain(rig: Rig):
    stub = rig.stub
    job = await rig.submit(600)
    watch = stub.WatchJob(pb.WatchJobRequest(id=job.id), timeout=20)
    while (await watch.read()).job.state != pb.Job.RUNNING:
        pass
    assert "has been running" in (await stub.ExplainJob(pb.ExplainJobRequest(id=job.id), timeout=5)).summary
    found = await refusal(stub.DeleteJob(pb.DeleteJobRequest(id=job.id), timeout=5))
    assert (found.code, found.reason) == (StatusCode.FAILED_PRECONDITION, "JOB_NOT_TERMINAL")
    answer = await stub.CancelJob(pb.CancelJobRequest(id=job.id, reason="enough"), timeout=5)
    assert answer.job.HasField("cancel_time")
    done = (await stub.GetJob(pb.GetJobRequest(id=job.id, wait={"seconds": 10}), timeout=15)).job
    assert done.state == pb.Job.CANCELLED
    assert "enough" in done.error.message
    found = await refusal(stub.RetryJob(pb.RetryJobRequest(id=job.id, if_version=1), timeout=5))
    assert (found.code, found.reason) == (StatusCode.ABORTED, "VERSION_MISMATCH")
    answer = await stub.RetryJob(pb.RetryJobRequest(id=job.id, if_version=done.version), timeout=5)
    assert (answer.job.run, answer.job.state) == (2, pb.Job.PENDING)
    await stub.CancelJob(pb.CancelJobRequest(id=job.id), timeout=5)
    await stub.GetJob(pb.GetJobRequest(id=job.id, wait={"seconds": 10}), timeout=15)
    await stub.DeleteJob(pb.DeleteJobRequest(id=job.id), timeout=5)
    found = await refusal(stub.GetJob(pb.GetJobRequest(id=job.id), timeout=5))
    assert (found.code, found.reason) == (StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


@idle
async def test_namespaces_do_not_see_each_other(rig: Rig):
    stub, ours, theirs = rig.stub, (("atlas-namespace", "ours"),), (("atlas-namespace", "theirs"),)
    job = (await stub.SubmitJob(sleeping(request_id="r"), metadata=ours, timeout=5)).job
    assert job.namespace == "ours"
    other = (await stub.SubmitJob(sleeping(request_id="r"), metadata=theirs, timeout=5)).job
    assert other.id != job.id
    name = {"id": job.id}
    for call in (
        stub.GetJob(pb.GetJobRequest(**name), metadata=theirs, timeout=5),
        stub.GetJob(pb.GetJobRequest(**name, wait={"seconds": 1}), metadata=theirs, timeout=5),
        stub.CancelJob(pb.CancelJobRequest(**name), metadata=theirs, timeout=5),
        stub.ExplainJob(pb.ExplainJobRequest(**name), timeout=5),
        stub.WatchJob(pb.WatchJobRequest(**name), metadata=theirs, timeout=5).read(),
    ):
        assert (await refusal(call)).code is StatusCode.NOT_FOUND
    where = pb.ListJobsRequest(filter=pb.JobFilter(ids=[job.id, other.id]))
    assert [one.id for one in (await stub.ListJobs(where, metadata=ours, timeout=5)).jobs] == [job.id]
    assert not (await stub.ListJobs(where, timeout=5)).jobs


@idle
async def test_types_are_listed_by_page(rig: Rig):
    answer = await rig.stub.ListJobTypes(pb.ListJobTypesRequest(page_size=1), timeout=5)
    (kind,) = answer.job_types
    assert kind.name == "sleep"
    assert "seconds" in kind.payload_schema["properties"]


@idle
async def test_health_and_readiness(rig: Rig):
    stub = health_pb2_grpc.HealthStub(rig.channel)
    serves = health_pb2.HealthCheckResponse.SERVING
    for name in ("", "atlas.v1.JobService", "readiness"):
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status == serves
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="readiness"), timeout=20)
    assert (await watch.read()).status == serves
    stopping = asyncio.ensure_future(rig.server.stop(1))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()
    await asyncio.wait_for(stopping, 10)


@idle
@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_the_service(rig: Rig, version: str):
    ask = rig.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = ask(timeout=10)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {one.name for one in (await call.read()).list_services_response.service}
    assert {"atlas.v1.JobService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= names
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="atlas.v1.JobService"))
    assert (await call.read()).file_descriptor_response.file_descriptor_proto
    await call.done_writing()
