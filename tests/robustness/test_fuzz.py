"""Random requests, from the descriptors and as raw bytes: no fault of the server, and what is accepted can be read."""

from __future__ import annotations

import json
import random
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlas_grpc import handler, pb
from atlas_grpc.testing import serving
from tests.support.messages import REQUESTS, random_message
from tests.support.refusals import refusal_of

FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED)
STREAMS = ("RunJob", "WatchJob", "WatchJobs", "TailJobLogs")
TEXTS = st.text(max_size=8)
NUMBERS = st.floats() | st.integers(-(2**53), 2**53).map(float)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.sampled_from(["\0", "x" * 2000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | st.just("a\0"), inner, max_size=4),
    max_leaves=30,
)


@handler
async def anything(payload: dict[str, Any]) -> dict[str, Any]:
    """Takes what it is given."""
    return payload


class Door:
    """A server with both of its doors."""

    def __init__(self, server: Any, channel: grpc.aio.Channel, http: httpx.AsyncClient) -> None:
        self.server = server
        self.channel = channel
        self.http = http
        self.stub: Any = pb.JobServiceStub(channel)

    async def call(self, method: str, data: bytes) -> bytes | None:
        """The (first) answer, or None after a refusal that is no fault and says why."""
        path = f"/atlas.v1.JobService/{method}"
        try:
            if method in STREAMS:
                stream = self.channel.unary_stream(path)(data, timeout=20)
                answer = await stream.read()
                stream.cancel()
                return b"" if answer is grpc.aio.EOF else answer
            return await self.channel.unary_unary(path)(data, timeout=20)
        except grpc.aio.AioRpcError as error:
            found = refusal_of(error)
            assert found.code not in FAULTS, (method, data, found)
            assert found.reason, (method, data, found)
            return None

    async def read_everywhere(self, job: pb.Job) -> None:
        """Reads a job in every way there is."""
        name = job.id
        stub, key = self.stub, (("atlas-namespace", job.namespace),)
        full = (await stub.GetJob(pb.GetJobRequest(id=name), metadata=key, timeout=10)).job
        where = pb.JobFilter(ids=[name])
        (listed,) = (
            await stub.ListJobs(pb.ListJobsRequest(filter=where, view=pb.JOB_VIEW_FULL), metadata=key, timeout=10)
        ).jobs
        assert listed.payload == full.payload
        watch = stub.WatchJob(pb.WatchJobRequest(id=name, include_logs=True), metadata=key, timeout=10)
        assert (await watch.read()).job.id == name
        watch.cancel()
        many = stub.WatchJobs(pb.WatchJobsRequest(filter=where), metadata=key, timeout=10)
        assert [one.id for one in (await many.read()).jobs] == [name]
        many.cancel()
        await stub.ExplainJob(pb.ExplainJobRequest(id=name), metadata=key, timeout=10)
        for path in (f"/v1/jobs/{name}", f"/v1/jobs?filter.ids={name}&view=JOB_VIEW_FULL", f"/jobs/{name}"):
            answer = await self.http.get(path)
            assert answer.status_code == 200, (path, answer.text)
            json.loads(answer.text, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@pytest.fixture
async def door() -> Any:
    async with (
        serving(anything, grace=0, http_address="127.0.0.1:0", max_streams=10_000) as server,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http.port}") as http,
    ):
        yield Door(server, channel, http)


def fuzzed(examples: int) -> Any:
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck))


@fuzzed(300)
@given(seed=st.integers(0, 2**64))
async def test_random_messages(door: Door, seed: int):
    rng = random.Random(seed)
    kind = rng.choice(REQUESTS)
    method = kind.DESCRIPTOR.name.removesuffix("Request")
    message = random_message(kind, rng)
    if method == "GetJob" and message.HasField("wait") and message.wait.seconds > 0:
        message.wait.seconds = 0
    await door.call(method, message.SerializeToString())


@fuzzed(300)
@given(method=st.sampled_from(REQUESTS), data=st.binary(max_size=60))
async def test_random_bytes(door: Door, method: type, data: bytes):
    await door.call(method.DESCRIPTOR.name.removesuffix("Request"), data)


@fuzzed(200)
@given(seed=st.integers(0, 2**64), flips=st.integers(1, 4))
async def test_damaged_messages(door: Door, seed: int, flips: int):
    rng = random.Random(seed)
    data = bytearray(random_message(pb.SubmitJobRequest, rng).SerializeToString() or b"\0")
    for _ in range(flips):
        data[rng.randrange(len(data))] = rng.randrange(256)
    await door.call("SubmitJob", bytes(data[: rng.randrange(1, len(data) + 1)]))


@fuzzed(120)
@given(payload=st.dictionaries(TEXTS, JSON, max_size=4), seed=st.integers(0, 2**64), depth=st.integers(0, 40))
async def test_every_accepted_job_is_readable_everywhere(door: Door, payload: dict[str, Any], seed: int, depth: int):
    rng = random.Random(seed)
    request = random_message(pb.SubmitJobRequest, rng) if rng.random() < 0.3 else pb.SubmitJobRequest()
    request.type = "anything"
    request.validate_only = False
    for field in ("payload", "payload_data", *(("retry_policy",) if rng.random() < 0.5 else ())):
        request.ClearField(field)
    value: Any = payload
    for _ in range(depth):
        value = {"d": value}
    request.payload.update({"payload": value})
    answer = await door.call("SubmitJob", request.SerializeToString())
    if answer is not None:
        job = pb.SubmitJobResponse.FromString(answer).job
        if not job.HasField("retention") or job.retention.seconds > 60:
            await door.stub.GetJob(pb.GetJobRequest(id=job.id, wait={"nanos": 20_000_000}), timeout=10)
            await door.read_everywhere(job)
