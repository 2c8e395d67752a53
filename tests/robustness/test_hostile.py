"""Hostile input over real gRPC: a typed refusal with its fields, never a fault of the server."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.struct_pb2 import Struct, Value
from grpc import StatusCode

from atlas_grpc import pb
from atlas_grpc.engine.tokens import FeedToken, JobToken, PageToken, encode
from tests.support.refusals import refusal

if TYPE_CHECKING:
    from tests.robustness.conftest import Rig

pytestmark = pytest.mark.usefixtures("every_store")

INVALID = StatusCode.INVALID_ARGUMENT


def submit(**more: Any) -> pb.SubmitJobRequest:
    return pb.SubmitJobRequest(type="sleep", **more)


def with_payload(**fields: Value) -> pb.SubmitJobRequest:
    return submit(payload=Struct(fields=fields))


def nested(depth: int) -> Value:
    value = Value(number_value=1)
    for _ in range(depth):
        value = Value(struct_value=Struct(fields={"a": value}))
    return value


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def wire(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def deep_wire(depth: int) -> bytes:
    """The bytes of a payload so many objects deep, which no library of ours would make."""
    value = wire(3, b"x")
    for _ in range(depth):
        value = wire(5, wire(1, wire(1, b"a") + wire(2, value)))
    return wire(1, b"sleep") + wire(2, wire(1, wire(1, b"seconds") + wire(2, value)))


SECONDS = Value(number_value=1)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (with_payload(seconds=Value(number_value=math.nan)), "payload.seconds"),
        (with_payload(seconds=Value(number_value=float("1e999"))), "payload.seconds"),
        (with_payload(seconds=Value(number_value=-math.inf)), "payload.seconds"),
        (with_payload(seconds=Value()), "payload.seconds"),
        (with_payload(seconds=Value(string_value="x\0y")), "payload"),
        (with_payload(**{"a\0b": SECONDS}), "payload"),
        (with_payload(seconds=SECONDS, **{"k" * 1025: SECONDS}), "payload"),
        (with_payload(seconds=nested(25)), "payload"),
        (with_payload(seconds=nested(30)), "payload"),
        (with_payload(seconds=Value(string_value="x" * (1 << 20))), "payload"),
        (submit(payload_data=pb.Data(data=b"x" * ((1 << 20) + 1))), "payload_data"),
        (submit(payload_data=pb.Data(data=b"x", content_type="no good\n")), "payload_data.content_type"),
        (submit(labels={"a\0": "x"}), "labels['a\\x00']"),
        (submit(labels={"a": "x\0"}), "labels['a']"),
        (submit(labels={f"k{n}": "" for n in range(33)}), "labels"),
        (submit(queue="../etc"), "queue"),
        (submit(priority=2**31 - 1), "priority"),
        (submit(request_id="two words"), "request_id"),
        (submit(request_id="x" * 129), "request_id"),
        (submit(start_delay={"seconds": -1}), "start_delay"),
        (submit(start_delay={"seconds": 2**62}), "start_delay"),
        (submit(total_timeout={"nanos": -5}), "total_timeout"),
        (submit(attempt_timeout={"seconds": 0}), "attempt_timeout"),
        (submit(retention={"seconds": -1, "nanos": -1}), "retention"),
        (submit(retention={"seconds": 1, "nanos": -1}), "retention"),
        (submit(retention={"seconds": 1, "nanos": 2**31 - 1}), "retention"),
        (submit(retention={"seconds": 2**63 - 1}), "retention"),
        (submit(start_timeout={"seconds": -(2**63)}), "start_timeout"),
        (submit(start_time={"seconds": 2**62}), "start_time"),
        (submit(start_time={"seconds": -(2**62)}), "start_time"),
        (submit(start_time={"nanos": -1}), "start_time"),
        (submit(start_time={"nanos": 10**9}), "start_time"),
        (submit(start_time={"seconds": 253_402_300_799}), "start_time"),
        (submit(retry_policy={"jitter": math.nan}), "retry_policy.jitter"),
        (submit(retry_policy={"backoff_multiplier": math.inf}), "retry_policy.backoff_multiplier"),
        (submit(retry_policy={"max_attempts": -1}), "retry_policy.max_attempts"),
        (submit(retry_policy={"non_retryable_reasons": ["x" * 1000]}), "retry_policy.non_retryable_reasons[0]"),
        (pb.SubmitJobRequest(type="no-such-type"), "type"),
        (pb.SubmitJobRequest(type="a\0b"), "type"),
        (pb.SubmitJobRequest(type="x" * 100_000), "type"),
        (with_payload(seconds=Value(string_value="much")), "payload.seconds"),
        (with_payload(), "payload.seconds"),
    ],
)
@pytest.mark.parametrize("method", ["SubmitJob", "RunJob", "SubmitJobs"])
async def test_a_bad_submission_names_its_field(rig: Rig, request_: pb.SubmitJobRequest, field: str, method: str):
    if method == "SubmitJobs":
        good = submit(payload=Struct(fields={"seconds": SECONDS}))
        answer = await rig.stub.SubmitJobs(pb.SubmitJobsRequest(requests=[good, request_, good]), timeout=10)
        kinds = [outcome.WhichOneof("outcome") for outcome in answer.outcomes]
        assert kinds == ["response", "error", "response"]
        assert answer.outcomes[1].error.code == INVALID.value[0]
        assert field in answer.outcomes[1].error.message.replace("\\\\", "\\") or field.startswith("labels")
        return
    if method == "RunJob":
        found = await refusal(rig.stub.RunJob(pb.RunJobRequest(job=request_), timeout=10).read())
        field = f"job.{field}"
    else:
        found = await refusal(rig.stub.SubmitJob(request_, timeout=10))
    assert found.code is INVALID
    assert found.reason in ("INVALID_ARGUMENT", "UNKNOWN_JOB_TYPE")
    assert any(name.startswith(field[:100]) for name in found.fields), found


@pytest.mark.parametrize("depth", [31, 33, 100, 1_000])
async def test_depth_on_the_wire(rig: Rig, depth: int):
    found = await refusal(rig.raw("SubmitJob", deep_wire(depth)))
    assert (found.code, found.reason in ("MALFORMED_REQUEST", "INVALID_ARGUMENT")) == (INVALID, True)


@pytest.mark.parametrize(
    "data",
    [
        wire(1, b"\xff\xfe"),
        submit(queue="q" * 50).SerializeToString()[:-3],
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x80" * 20,
        b"\x0f",
        b"\x00",
    ],
)
@pytest.mark.parametrize("method", ["SubmitJob", "GetJob", "ListJobs", "CancelJob"])
async def test_bytes_that_are_no_message(rig: Rig, data: bytes, method: str):
    found = await refusal(rig.raw(method, data))
    assert found.code is INVALID
    assert found.reason in ("MALFORMED_REQUEST", "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    "data",
    [
        wire(14, b"\xc3\x28"),
        wire(5, wire(1, b"\xed\xa0\x80") + wire(2, b"x")),
        wire(2, wire(1, wire(1, b"\xff") + wire(2, b""))),
        wire(3, wire(2, b"\xff")),
    ],
)
async def test_bytes_that_are_no_text(rig: Rig, data: bytes):
    found = await refusal(rig.raw("SubmitJob", wire(1, b"sleep") + data))
    assert (found.code, found.reason) == (INVALID, "MALFORMED_REQUEST")


async def test_a_message_that_is_too_large(rig: Rig):
    found = await refusal(rig.raw("SubmitJob", wire(1, b"x" * 5_000_000)))
    assert found.code is StatusCode.RESOURCE_EXHAUSTED
    assert await rig.submit()


async def test_a_batch_that_is_too_large(rig: Rig):
    found = await refusal(rig.stub.SubmitJobs(pb.SubmitJobsRequest(requests=[submit()] * 1_001), timeout=10))
    assert (found.code, found.fields) == (INVALID, ("requests",))
    found = await refusal(rig.stub.SubmitJobs(pb.SubmitJobsRequest(), timeout=10))
    assert (found.code, found.fields) == (INVALID, ("requests",))


async def test_unknown_enum_numbers(rig: Rig):
    for method, data, field in (
        ("GetJob", wire(1, b"x") + b"\x18\x63", "view"),
        ("ListJobs", b"\x20\x63", "view"),
        ("ListJobs", wire(1, wire(2, b"\x63")), "filter.states[0]"),
        ("ListJobs", wire(1, b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "filter.states[0]"),
    ):
        found = await refusal(rig.raw(method, data))
        assert (found.code, found.fields) == (INVALID, (field,)), method


async def test_huge_pages_are_cut_and_negative_ones_refused(rig: Rig):
    for _ in range(3):
        await rig.submit()
    for method in (rig.stub.ListJobs, rig.stub.ListJobTypes):
        kind = pb.ListJobsRequest if method is rig.stub.ListJobs else pb.ListJobTypesRequest
        await method(kind(page_size=2**31 - 1), timeout=10)
        found = await refusal(method(kind(page_size=-1), timeout=10))
        assert (found.code, found.fields) == (INVALID, ("page_size",))


def forged() -> list[str]:
    jobs = [encode(JobToken("x", 1)), encode(JobToken("", 2**63 - 1, 2**62)), encode(JobToken("x", -1))]
    feeds = [encode(FeedToken("", 2**63 - 1, b"")), encode(FeedToken("x", -1, b"x" * 100))]
    pages = [encode(PageToken("", b"")), encode(PageToken("\0", b"types"))]
    return ["x", "=", "AAAA", "\0", "ä", "%00", "a" * 1024, *jobs, *feeds, *pages]


@pytest.mark.parametrize("token", forged())
async def test_forged_tokens(rig: Rig, token: str):
    job_id = await rig.submit()
    ours = token != encode(PageToken("\0", b"types"))
    for call, field in (
        (rig.stub.ListJobs(pb.ListJobsRequest(page_token=token), timeout=10), "page_token"),
        (rig.stub.ListJobTypes(pb.ListJobTypesRequest(page_token=token), timeout=10), "page_token" if ours else None),
        (rig.stub.WatchJob(pb.WatchJobRequest(id=job_id, resume_token=token), timeout=10).read(), "resume_token"),
        (rig.stub.WatchJobs(pb.WatchJobsRequest(resume_token=token), timeout=10).read(), "resume_token"),
        (rig.stub.TailJobLogs(pb.TailJobLogsRequest(id=job_id, resume_token=token), timeout=10).read(), "resume_token"),
    ):
        if field is None:
            await call
            continue
        found = await refusal(call)
        assert (found.code, found.reason, found.fields) == (INVALID, "INVALID_TOKEN", (field,))


async def test_a_token_longer_than_any(rig: Rig):
    found = await refusal(rig.stub.ListJobs(pb.ListJobsRequest(page_token="x" * 1025), timeout=10))
    assert (found.code, found.fields) == (INVALID, ("page_token",))


async def test_tokens_of_a_future_or_a_past(rig: Rig):
    job_id = await rig.submit()
    token = encode(JobToken(job_id, 99))
    found = await refusal(rig.stub.WatchJob(pb.WatchJobRequest(id=job_id, resume_token=token), timeout=10).read())
    assert (found.code, found.reason) == (StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")


@pytest.mark.parametrize("name", ["", "Upper", "a b", "x" * 64, "-", "../x"])
async def test_bad_namespaces(rig: Rig, name: str):
    found = await refusal(rig.stub.ListJobs(pb.ListJobsRequest(), metadata=(("atlas-namespace", name),), timeout=10))
    assert (found.code, found.reason, found.fields) == (INVALID, "INVALID_NAMESPACE", ("atlas-namespace",))


@pytest.mark.parametrize("job_id", ["nope", "\0", "../../etc/passwd", "x" * 64, "\U0001f600", "a\nb", "%s"])
async def test_ids_that_name_nothing(rig: Rig, job_id: str):
    stub = rig.stub
    for call in (
        stub.GetJob(pb.GetJobRequest(id=job_id), timeout=10),
        stub.CancelJob(pb.CancelJobRequest(id=job_id), timeout=10),
        stub.RetryJob(pb.RetryJobRequest(id=job_id), timeout=10),
        stub.DeleteJob(pb.DeleteJobRequest(id=job_id), timeout=10),
        stub.ExplainJob(pb.ExplainJobRequest(id=job_id), timeout=10),
        stub.WatchJob(pb.WatchJobRequest(id=job_id), timeout=10).read(),
        stub.ListJobLogs(pb.ListJobLogsRequest(id=job_id), timeout=10),
        stub.TailJobLogs(pb.TailJobLogsRequest(id=job_id), timeout=10).read(),
        stub.GetJob(pb.GetJobRequest(id=job_id, wait={"seconds": 1}), timeout=10),
    ):
        found = await refusal(call)
        assert (found.code, found.reason) == (StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


async def test_waits_that_make_no_sense(rig: Rig):
    job_id = await rig.submit()
    for wait in ({"seconds": -1}, {"seconds": 601}, {"seconds": 2**63 - 1}, {"nanos": -1}, {"seconds": 1, "nanos": -1}):
        found = await refusal(rig.stub.GetJob(pb.GetJobRequest(id=job_id, wait=wait), timeout=10))
        assert (found.code, found.fields) == (INVALID, ("wait",)), wait


async def test_reasons_and_versions(rig: Rig):
    job_id = await rig.submit()
    found = await refusal(rig.stub.CancelJob(pb.CancelJobRequest(id=job_id, reason="a\0b"), timeout=10))
    assert (found.code, found.fields) == (INVALID, ("reason",))
    found = await refusal(rig.stub.CancelJob(pb.CancelJobRequest(id=job_id, reason="x" * 501), timeout=10))
    assert (found.code, found.fields) == (INVALID, ("reason",))
    for version in (0, -1, 2**63 - 1, -(2**63)):
        found = await refusal(rig.stub.CancelJob(pb.CancelJobRequest(id=job_id, if_version=version), timeout=10))
        assert (found.code, found.reason) == (StatusCode.ABORTED, "VERSION_MISMATCH")
    reason = "\U0001f600" * 500
    await rig.stub.CancelJob(pb.CancelJobRequest(id=job_id, reason=reason), timeout=10)
    job = (await rig.stub.GetJob(pb.GetJobRequest(id=job_id), timeout=10)).job
    assert job.state == pb.Job.CANCELLED
    assert reason[:100] in job.error.message


async def test_errors_stay_small_enough_for_any_peer(rig: Rig):
    labels = {f"ключ{n}\n" * 20: "\0" * 250 for n in range(60)}
    found = await refusal(rig.stub.SubmitJob(submit(labels=labels, queue="ä" * 1000), timeout=10))
    assert found.code is INVALID
    assert found.fields
    found = await refusal(rig.stub.SubmitJob(with_payload(**{"ж" * 100_000: Value()}), timeout=10))
    assert found.code is INVALID


@pytest.mark.parametrize("method", ["NoSuch", "", "SubmitJob/x", "submitjob"])
async def test_methods_that_are_not_there(rig: Rig, method: str):
    found = await refusal(rig.raw(method, b""))
    assert found.code is StatusCode.UNIMPLEMENTED


async def test_a_request_with_unknown_fields_is_served(rig: Rig):
    data = submit(payload=Struct(fields={"seconds": SECONDS})).SerializeToString() + wire(999, b"from the future")
    assert pb.SubmitJobResponse.FromString(await rig.raw("SubmitJob", data)).job.id


async def test_watches_that_make_no_sense(rig: Rig):
    where = pb.JobFilter(ids=["x"] * 1_001)
    found = await refusal(rig.stub.WatchJobs(pb.WatchJobsRequest(filter=where), timeout=10).read())
    assert (found.code, found.fields) == (INVALID, ("filter.ids",))
    for stamp in ({"seconds": 2**62}, {"nanos": -1}, {"seconds": -(2**63)}):
        where = pb.JobFilter(create_time_from=stamp)
        found = await refusal(rig.stub.WatchJobs(pb.WatchJobsRequest(filter=where), timeout=10).read())
        assert (found.code, found.fields) == (INVALID, ("filter.create_time_from",))
    call = rig.stub.WatchJobs(pb.WatchJobsRequest(filter=pb.JobFilter(ids=["no", "such"])), timeout=10)
    messages = [message async for message in call]
    assert sorted(job_id for message in messages for job_id in message.deleted_ids) == ["no", "such"]
