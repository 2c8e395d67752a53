"""Every RPC and every kind of error of the real server, over gRPC and over REST: the answers are the same."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import httpx
import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status

from atlas_grpc import FailNow, handler, pb
from atlas_grpc._gen.atlas.v1 import job_service_pb2
from atlas_grpc.engine.tokens import JobToken, encode
from atlas_grpc.errors import HTTP_STATUS, Code
from atlas_grpc.testing import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SERVICE = job_service_pb2.DESCRIPTOR.services_by_name["JobService"]
SSE = {"Accept": "text/event-stream"}
gates: dict[str, asyncio.Event] = {}


@handler
async def gated(gate: str) -> dict[str, Any]:
    """Waits until the test lets it go."""
    await gates.setdefault(gate, asyncio.Event()).wait()
    return {"gate": gate, "half": 0.5, "whole": 2}


@handler
async def broken() -> None:
    """Fails at once."""
    raise FailNow("out of ink", reason="OUT_OF_INK")


class Doors:
    """Both ways into one server."""

    def __init__(self, server: Any, channel: grpc.aio.Channel, http: httpx.AsyncClient) -> None:
        self.server = server
        self.stub = pb.JobServiceStub(channel)
        self.http = http

    async def rest(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        answer = await self.http.request(method, path, json=body, **options)
        return answer.status_code, answer.json()

    async def submit(self, **fields: Any) -> pb.Job:
        response = await self.stub.SubmitJob(pb.SubmitJobRequest(**fields))
        return response.job

    async def finished(self, type_: str) -> str:
        """A job of this type that is terminal."""
        job = await self.submit(type=type_)
        request = pb.GetJobRequest(id=job.id)
        request.wait.seconds = 10
        done = await self.stub.GetJob(request)
        assert done.job.state in (pb.Job.SUCCESS, pb.Job.FAILED)
        return str(job.id)


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[Doors]:
    """A server with these options."""
    gates.clear()
    async with (
        serving(gated, broken, http_address="127.0.0.1:0", grace=0, **options) as server,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
    ):
        assert server.http is not None
        url = f"http://127.0.0.1:{server.http.port}"
        async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as http:
            yield Doors(server, channel, http)


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    async with opened() as made:
        yield made


def shown(message: Any) -> Any:
    """The message in protobuf's JSON, by the reference implementation."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def without(value: Any, *names: str) -> Any:
    """The value without what two jobs cannot share."""
    if isinstance(value, dict):
        return {key: without(item, *names) for key, item in value.items() if key not in names}
    return [without(item, *names) for item in value] if isinstance(value, list) else value


OWN = ("id", "createTime", "updateTime", "startTime", "resumeToken", "time", "nextStartTime")


async def test_submit(doors: Doors) -> None:
    body = {"type": "sleep", "payload": {"seconds": 0}, "startDelay": "3600s", "labels": {"a": "b"}, "priority": 4}
    response = await doors.stub.SubmitJob(json_format.ParseDict(body, pb.SubmitJobRequest()))
    status, job = await doors.rest("POST", "/v1/jobs", body)
    assert status == 200
    assert without(job, *OWN) == without(shown(response.job), *OWN)
    status, whole = await doors.rest("POST", "/v1/jobs:submit", body)
    assert (status, without(whole, *OWN)) == (200, without(shown(response), *OWN))


async def test_validate_only(doors: Doors) -> None:
    body = {"type": "sleep", "payload": {"seconds": 1}, "validateOnly": True, "retryPolicy": {"maxAttempts": 3}}
    response = await doors.stub.SubmitJob(json_format.ParseDict(body, pb.SubmitJobRequest()))
    status, whole = await doors.rest("POST", "/v1/jobs:submit", body)
    assert (status, without(whole, *OWN)) == (200, without(shown(response), *OWN))
    assert len(whole["plannedAttempts"]) == 3


async def test_submit_many(doors: Doors) -> None:
    good = {"type": "sleep", "payload": {"seconds": 0}, "startDelay": "3600s"}
    body = {"requests": [good, {"type": "nope"}, {"type": "sleep", "payload": {"seconds": -1}}, {}]}
    response = await doors.stub.SubmitJobs(json_format.ParseDict(body, pb.SubmitJobsRequest()))
    status, answer = await doors.rest("POST", "/v1/jobs:batchSubmit", body)
    assert (status, without(answer, *OWN)) == (200, without(shown(response), *OWN))
    assert [sorted(outcome) for outcome in answer["outcomes"]] == [["response"], ["error"], ["error"], ["error"]]


async def test_get_list_explain_and_types(doors: Doors) -> None:
    done, failed = await doors.finished("broken"), await doors.finished("broken")
    waiting = await doors.submit(type="gated", queue="nobody", start_delay={"seconds": 3600}, payload={"gate": "g"})
    for job_id in (done, failed, waiting.id):
        for view in ("JOB_VIEW_FULL", "JOB_VIEW_BASIC"):
            got = await doors.stub.GetJob(pb.GetJobRequest(id=job_id, view=view))
            assert await doors.rest("GET", f"/v1/jobs/{job_id}?view={view}") == (200, shown(got.job))
        explained = await doors.stub.ExplainJob(pb.ExplainJobRequest(id=job_id))
        assert await doors.rest("GET", f"/v1/jobs/{job_id}:explain") == (200, shown(explained))
    listed = await doors.stub.ListJobs(pb.ListJobsRequest(page_size=2, filter=pb.JobFilter(types=["broken"])))
    assert await doors.rest("GET", "/v1/jobs?page_size=2&filter.types=broken") == (200, shown(listed))
    page = await doors.stub.ListJobs(pb.ListJobsRequest(page_size=1))
    assert await doors.rest("GET", "/v1/jobs?pageSize=1") == (200, shown(page))
    query = f"pageSize=1&pageToken={page.next_page_token}"
    second = await doors.stub.ListJobs(pb.ListJobsRequest(page_size=1, page_token=page.next_page_token))
    assert await doors.rest("GET", f"/v1/jobs?{query}") == (200, shown(second))
    types = await doors.stub.ListJobTypes(pb.ListJobTypesRequest())
    assert await doors.rest("GET", "/v1/jobTypes") == (200, shown(types))


async def test_a_result_is_the_same_both_ways(doors: Doors) -> None:
    gates["g"] = asyncio.Event()
    gates["g"].set()
    job = await doors.submit(type="gated", payload={"gate": "g"})
    status, done = await doors.rest("GET", f"/v1/jobs/{job.id}?wait=10s")
    assert (status, done["state"], done["payload"]) == (200, "SUCCESS", {"gate": "g"})
    assert done["result"] == {"gate": "g", "half": 0.5, "whole": 2}
    got = await doors.stub.GetJob(pb.GetJobRequest(id=job.id))
    assert done == shown(got.job)


async def test_cancel_retry_and_delete(doors: Doors) -> None:
    one, two = [await doors.submit(type="gated", start_delay={"seconds": 3600}, payload={"gate": "x"}) for _ in "ab"]
    over_grpc = await doors.stub.CancelJob(pb.CancelJobRequest(id=one.id, reason="no"))
    status, over_rest = await doors.rest("POST", f"/v1/jobs/{two.id}:cancel", {"reason": "no"})
    own = (*OWN, "finishTime", "expireTime")
    assert (status, without(over_rest, *own)) == (200, without(shown(over_grpc.job), *own))
    retried = await doors.stub.RetryJob(pb.RetryJobRequest(id=one.id))
    status, over_rest = await doors.rest("POST", f"/v1/jobs/{two.id}:retry")
    assert status == 200
    assert (over_rest["run"], retried.job.run) == (2, 2)
    done = await doors.finished("broken")
    assert await doors.rest("DELETE", f"/v1/jobs/{done}") == (200, {})
    assert (await doors.rest("GET", f"/v1/jobs/{done}"))[0] == 404


async def test_run_and_watch(doors: Doors) -> None:
    request = pb.RunJobRequest(job=pb.SubmitJobRequest(type="broken"))
    over_grpc = [shown(update) async for update in doors.stub.RunJob(request)]
    answer = await doors.http.post("/v1/jobs:run", json={"type": "broken"})
    over_rest = [json.loads(line)["result"] for line in answer.text.splitlines()]

    def causes(updates: list[Any]) -> list[str]:
        return [one["cause"] for update in updates for one in update["update"]["transitions"]]

    assert causes(over_rest) == causes(over_grpc)
    assert causes(over_rest)[-1] == "ATTEMPT_FAILED"
    job_id = over_grpc[0]["update"]["job"]["id"]
    watched = [shown(update) async for update in doors.stub.WatchJob(pb.WatchJobRequest(id=job_id))]
    lines = (await doors.http.get(f"/v1/jobs/{job_id}:watch")).text.splitlines()
    assert [json.loads(line) for line in lines] == [{"result": update} for update in watched]


async def test_events_resume_where_they_were_cut(doors: Doors) -> None:
    job = await doors.submit(type="gated", payload={"gate": "g"})
    async with doors.http.stream("GET", f"/v1/jobs/{job.id}:watch", headers=SSE) as cut:
        token = (await anext(cut.aiter_lines())).removeprefix("id: ")
    gates.setdefault("g", asyncio.Event()).set()
    headers = {**SSE, "Last-Event-ID": token}
    text = (await doors.http.get(f"/v1/jobs/{job.id}:watch", headers=headers)).text
    events = [block for block in text.split("\n\n") if block]
    assert events[-1] == "event: end\ndata: {}\nretry: 86400000"
    seen = [json.loads(block.partition("data: ")[2]) for block in events[:-1]]
    versions = [int(one["version"]) for update in seen for one in update["transitions"]]
    assert versions == list(range(versions[0], versions[0] + len(versions)))
    assert seen[-1]["job"]["state"] == "SUCCESS"


async def test_watch_many(doors: Doors) -> None:
    ids = [await doors.finished("broken"), await doors.finished("broken")]
    request = pb.WatchJobsRequest(filter=pb.JobFilter(ids=ids))
    over_grpc = [shown(update) async for update in doors.stub.WatchJobs(request)]
    answer = await doors.http.get(f"/v1/jobs:watch?filter.ids={ids[0]}&filter.ids={ids[1]}")
    over_rest = [json.loads(line)["result"] for line in answer.text.splitlines()]
    assert without(over_rest, "resumeToken") == without(over_grpc, "resumeToken")


Call = tuple[Code, str, Any, str, str, Any]
"""One that fails: code, method, request, and the same over REST: method, path, body."""


async def failures(doors: Doors) -> list[Call]:
    """Calls of every method, with every code that a request alone can bring about."""
    done = await doors.finished("broken")
    open_job = await doors.submit(type="gated", start_delay={"seconds": 3600}, payload={"gate": "x"}, request_id="r1")
    reused = {"type": "gated", "payload": {"gate": "y"}, "requestId": "r1"}
    stale = {"ifVersion": "99"}
    ahead = encode(JobToken(done, 99))
    return [
        (Code.NOT_FOUND, "GetJob", {"id": "nope"}, "GET", "/v1/jobs/nope", None),
        (Code.NOT_FOUND, "WatchJob", {"id": "nope"}, "GET", "/v1/jobs/nope:watch", None),
        (Code.NOT_FOUND, "ListJobLogs", {"id": "nope"}, "GET", "/v1/jobs/nope/logs", None),
        (Code.NOT_FOUND, "TailJobLogs", {"id": "nope"}, "GET", "/v1/jobs/nope/logs:tail", None),
        (Code.NOT_FOUND, "DeleteJob", {"id": "nope"}, "DELETE", "/v1/jobs/nope", None),
        (Code.NOT_FOUND, "ExplainJob", {"id": "nope"}, "GET", "/v1/jobs/nope:explain", None),
        (Code.INVALID_ARGUMENT, "SubmitJob", {"type": "unknown"}, "POST", "/v1/jobs", {"type": "unknown"}),
        (Code.INVALID_ARGUMENT, "SubmitJob", {}, "POST", "/v1/jobs", {}),
        (Code.INVALID_ARGUMENT, "SubmitJobs", {}, "POST", "/v1/jobs:batchSubmit", None),
        (Code.INVALID_ARGUMENT, "RunJob", {}, "POST", "/v1/jobs:run", None),
        (Code.INVALID_ARGUMENT, "ListJobs", {"pageSize": -1}, "GET", "/v1/jobs?pageSize=-1", None),
        (Code.INVALID_ARGUMENT, "ListJobs", {"pageToken": "forged"}, "GET", "/v1/jobs?pageToken=forged", None),
        (Code.INVALID_ARGUMENT, "ListJobTypes", {"pageSize": -1}, "GET", "/v1/jobTypes?pageSize=-1", None),
        (
            Code.INVALID_ARGUMENT,
            "WatchJobs",
            {"resumeToken": "forged"},
            "GET",
            "/v1/jobs:watch?resumeToken=forged",
            None,
        ),
        (Code.INVALID_ARGUMENT, "GetJob", {"id": "x", "wait": "-1s"}, "GET", "/v1/jobs/x?wait=-1s", None),
        (Code.ALREADY_EXISTS, "SubmitJob", reused, "POST", "/v1/jobs", reused),
        (Code.FAILED_PRECONDITION, "CancelJob", {"id": done}, "POST", f"/v1/jobs/{done}:cancel", None),
        (Code.FAILED_PRECONDITION, "RetryJob", {"id": open_job.id}, "POST", f"/v1/jobs/{open_job.id}:retry", None),
        (
            Code.OUT_OF_RANGE,
            "WatchJob",
            {"id": done, "resumeToken": ahead},
            "GET",
            f"/v1/jobs/{done}:watch?resumeToken={ahead}",
            None,
        ),
        (Code.ABORTED, "CancelJob", {"id": open_job.id, **stale}, "POST", f"/v1/jobs/{open_job.id}:cancel", stale),
    ]


async def fails_alike(doors: Doors, failure: Call) -> httpx.Response:
    """Makes a call that fails both ways and compares; answers the one over REST."""
    code, name, request, method, path, body = failure
    message = json_format.ParseDict(request, getattr(pb, f"{name}Request")())
    call = getattr(doors.stub, name)(message)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call.read() if hasattr(call, "read") else call)
    trailers = caught.value.trailing_metadata() or ()
    status = Status.FromString(next(value for key, value in trailers if key == "grpc-status-details-bin"))
    assert status.code == code, (name, status)
    answer = await doors.http.request(method, path, json=body)
    assert (answer.status_code, answer.json()) == (HTTP_STATUS[code], shown(status)), (name, path)
    return answer


async def test_errors(doors: Doors) -> None:
    calls = await failures(doors)
    assert {name for _, name, *_ in calls} == {method.name for method in SERVICE.methods}
    for call in calls:
        await fails_alike(doors, call)


SUBMIT = ("SubmitJob", {"type": "broken"}, "POST", "/v1/jobs", {"type": "broken"})


async def test_drained_server(doors: Doors) -> None:
    doors.server.guard.draining = True
    answer = await fails_alike(doors, (Code.UNAVAILABLE, *SUBMIT))
    assert int(answer.headers["retry-after"]) >= 1


async def test_full_store() -> None:
    async with opened(max_pending_jobs=1) as doors:
        await doors.submit(type="gated", start_delay={"seconds": 3600}, payload={"gate": "x"})
        await fails_alike(doors, (Code.RESOURCE_EXHAUSTED, *SUBMIT))


async def test_deadline(doors: Doors) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in doors.stub.WatchJobs(pb.WatchJobsRequest(), timeout=0.2):
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    answer = await doors.http.get("/v1/jobs:watch", headers={"Grpc-Timeout": "200m"})
    assert answer.status_code == 200
    first, *_, last = [json.loads(line) for line in answer.text.splitlines()]
    assert first["result"]["synced"]
    assert last["error"]["code"] == Code.DEADLINE_EXCEEDED


async def test_namespaces_are_apart(doors: Doors) -> None:
    job = await doors.submit(type="gated", start_delay={"seconds": 3600}, payload={"gate": "x"})
    assert (await doors.rest("GET", f"/v1/jobs/{job.id}", headers={"Atlas-Namespace": "other"}))[0] == 404
    status, body = await doors.rest("GET", "/v1/jobs", headers={"Atlas-Namespace": "NOT OK"})
    assert (status, body["code"]) == (400, 3)


HOSTILE = [
    b'{"type":"sleep","payload":{"seconds":"\\u0000"}}',
    b'{"type":"sleep","payload":{"seconds":NaN}}',
    b'{"type":"sleep","payload":{"seconds":1e999}}',
    b'{"type":"sl\\u0000eep"}',
    b'{"type":"sleep","labels":{"a":"\\u0000"}}',
    b'{"type":"sleep","payload":' + b'{"a":' * 28 + b"1" + b"}" * 29,
    b'{"type":"sleep","payload":' + b'{"a":' * 33 + b"1" + b"}" * 34,
    b'{"type":"sleep","payload":' + b'{"a":' * 100 + b"1" + b"}" * 101,
    b'{"type":"sleep","retryPolicy":{"backoffMultiplier":"NaN"}}',
    b'{"type":"sleep","attemptTimeout":"-1s"}',
    b'{"type":"sleep","payload":{"seconds":-1}}',
    b'{"type":"sleep","payload":{"seconds":"3"},"payloadData":{}}',
    b'{"type":"\\ud800"}',
    b"\xff",
]


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: body[:50].decode("latin-1"))
async def test_hostile_bodies_are_refused(doors: Doors, body: bytes) -> None:
    answer = await doors.http.post("/v1/jobs", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    details = {one["@type"].rpartition(".")[2]: one for one in answer.json()["details"]}
    assert details["ErrorInfo"]["domain"] == "atlas"
    assert details["BadRequest"]["fieldViolations"]
    legacy = await doors.http.post("/jobs", content=body)
    assert legacy.status_code == 422


async def test_a_body_beyond_the_limit(doors: Doors) -> None:
    answer = await doors.http.post("/v1/jobs", content=b'{"type":"' + b"x" * (5 << 20) + b'"}')
    assert (answer.status_code, answer.json()["code"]) == (413, 8)


class TestVersion02:
    """The interface of Atlas 0.2 on the real server."""

    async def test_submit_and_follow(self, doors: Doors) -> None:
        answer = await doors.http.post("/jobs", content=b'{"type":"sleep","seconds":0.01}')
        job_id = answer.json()["id"]
        assert answer.content == b'{"id":"%b","state":"PENDING"}' % job_id.encode()
        await doors.rest("GET", f"/v1/jobs/{job_id}?wait=10s")
        answer = await doors.http.get(f"/jobs/{job_id}")
        expected = b'{"id":"%b","state":"SUCCESS","payload":{"type":"sleep","seconds":0.01}}' % job_id.encode()
        assert answer.content == expected

    async def test_an_integer_stays_one(self, doors: Doors) -> None:
        _, job = await doors.rest("POST", "/jobs", {"type": "sleep", "seconds": 3})
        text = (await doors.http.get(f"/jobs/{job['id']}")).text
        assert text.endswith('"payload":{"type":"sleep","seconds":3}}')

    async def test_a_failed_job_has_its_error(self, doors: Doors) -> None:
        job_id = await doors.finished("broken")
        _, job = await doors.rest("GET", f"/jobs/{job_id}")
        assert job == {"id": job_id, "state": "FAILED", "payload": {"type": "broken"}, "error": "out of ink"}

    @pytest.mark.parametrize(
        ("body", "loc", "kind"),
        [
            ({"type": "nope"}, ["body", "type"], "value_error"),
            ({"seconds": 1}, ["body", "type"], "missing"),
            ({"type": "sleep"}, ["body", "seconds"], "missing"),
            ({"type": "sleep", "seconds": -1}, ["body", "seconds"], "value_error"),
            ({"type": "sleep", "seconds": "soon"}, ["body", "seconds"], "value_error"),
            ({"type": "sleep", "seconds": None}, ["body", "seconds"], "value_error"),
            ({"type": "sleep", "seconds": [1]}, ["body", "seconds"], "value_error"),
        ],
    )
    async def test_bad_fields(self, doors: Doors, body: Any, loc: list[str], kind: str) -> None:
        status, answer = await doors.rest("POST", "/jobs", body)
        assert status == 422
        assert [(one["loc"], one["type"]) for one in answer["detail"]] == [(loc, kind)]

    async def test_unknown_ids(self, doors: Doors) -> None:
        for job_id in ("nope", "%00", "x" * 500, "0190a7c2-0000-7000-8000-000000000000"):
            assert await doors.rest("GET", f"/jobs/{job_id}") == (404, {"detail": "Job not found"})

    async def test_an_idempotency_key(self, doors: Doors) -> None:
        headers = {"Idempotency-Key": "k1"}
        first = await doors.rest("POST", "/jobs", {"type": "sleep", "seconds": 9}, headers=headers)
        assert await doors.rest("POST", "/jobs", {"type": "sleep", "seconds": 9}, headers=headers) == first
        status, body = await doors.rest("POST", "/jobs", {"type": "sleep", "seconds": 8}, headers=headers)
        assert (status, list(body)) == (409, ["detail"])
        status, body = await doors.rest("POST", "/jobs", {"type": "broken"}, headers={"Idempotency-Key": "a b"})
        assert (status, body["detail"][0]["loc"]) == (422, ["header", "Idempotency-Key"])


async def test_the_pages_of_the_port(doors: Doors) -> None:
    for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics"):
        assert (await doors.http.get(path)).status_code == 200, path
    assert "grpc_server_" in (await doors.http.get("/metrics")).text
