"""The interface of Atlas 0.2."""

from __future__ import annotations

from typing import Any

import pytest

from atlas_grpc import errors, pb
from atlas_grpc.errors import InvalidArgument, Violation

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_submit(stack: Any) -> None:
    answer = await stack.client.post("/jobs", content=b'{"type":"sleep","seconds":3}')
    assert (answer.status_code, answer.content) == (200, b'{"id":"j1","state":"PENDING"}')
    (request,) = stack.script.requests
    assert (request.type, dict(request.payload), request.request_id) == ("sleep", {"seconds": 3}, "")


async def test_submit_says_pending_also_of_a_job_that_ran(stack: Any) -> None:
    stack.script.answer = pb.SubmitJobResponse(job=pb.Job(id="j2", state=pb.Job.SUCCESS), deduplicated=True)
    answer = await stack.client.post("/jobs", json={"type": "a"}, headers={"Idempotency-Key": "k"})
    assert answer.json() == {"id": "j2", "state": "PENDING"}
    assert stack.script.requests[0].request_id == "k"


async def test_read(stack: Any) -> None:
    answer = await stack.client.get("/jobs/j1")
    expected = b'{"id":"j1","state":"SUCCESS","payload":{"type":"sleep","seconds":3}}'
    assert (answer.status_code, answer.content) == (200, expected)


async def test_a_failed_job_shows_its_error(stack: Any) -> None:
    job = pb.Job(id="j", type="sleep", state=pb.Job.FAILED)
    job.error.message = "it broke"
    job.payload.update({"seconds": 0.5, "type": "hidden", "deep": {"a": [1, None]}})
    stack.script.answer = pb.GetJobResponse(job=job)
    _, shown = await stack.json("GET", "/jobs/j")
    assert shown.pop("payload") == {"type": "sleep", "seconds": 0.5, "deep": {"a": [1, None]}}
    assert shown == {"id": "j", "state": "FAILED", "error": "it broke"}


@pytest.mark.parametrize("error", [errors.JobNotFound.of("x"), InvalidArgument.of("id", "is no id")])
async def test_an_unknown_id_is_404(stack: Any, error: errors.AtlasError) -> None:
    stack.script.error = error
    answer = await stack.client.get("/jobs/x")
    assert (answer.status_code, answer.content) == (404, b'{"detail":"Job not found"}')
    assert (await stack.client.get("/jobs/%ff")).status_code == 404


@pytest.mark.parametrize(
    ("given", "violation", "loc", "kind"),
    [
        ({"type": "sleep"}, "payload.seconds", ["body", "seconds"], "missing"),
        ({"type": "sleep", "seconds": -1}, "payload.seconds", ["body", "seconds"], "value_error"),
        ({"type": "nope"}, "type", ["body", "type"], "value_error"),
        ({}, "type", ["body", "type"], "missing"),
        ({"type": "a", "x": [{"y": 1}]}, "payload.x[0].y", ["body", "x", 0, "y"], "value_error"),
        ({"type": "a"}, "request_id", ["header", "Idempotency-Key"], "value_error"),
    ],
)
async def test_a_bad_field_is_422(stack: Any, given: Any, violation: str, loc: list[Any], kind: str) -> None:
    stack.script.error = InvalidArgument.all_of([Violation(violation, "is wrong")])
    status, body = await stack.json("POST", "/jobs", json=given)
    assert (status, body) == (422, {"detail": [{"loc": loc, "msg": "is wrong", "type": kind}]})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b'"x"', b'{"type":5}', b'{"type":"a","x":NaN}', b"\xff"])
async def test_a_bad_body_is_422(stack: Any, body: bytes) -> None:
    answer = await stack.client.post("/jobs", content=body)
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert problem["loc"][0] == "body"
    assert set(problem) == {"loc", "msg", "type"}
    assert stack.script.requests == []


async def test_a_surrogate_in_the_payload_names_the_field(stack: Any) -> None:
    answer = await stack.client.post("/jobs", content=b'{"type":"a","x":{"y":"\\ud800"}}')
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "x", "y"])


@pytest.mark.parametrize(("method", "path"), [("POST", "/jobs"), ("GET", "/jobs/x")])
async def test_a_bad_header_is_422_and_named(stack: Any, method: str, path: str) -> None:
    content = b"{}" if method == "POST" else None
    status, body = await stack.json(method, path, content=content, headers={"Grpc-Timeout": "soon"})
    assert (status, body["detail"][0]["loc"]) == (422, ["header", "grpc-timeout"])
    stack.script.error = InvalidArgument.of("atlas-namespace", "is wrong")
    problem = {"loc": ["header", "atlas-namespace"], "msg": "is wrong", "type": "value_error"}
    assert await stack.json(method, path, content=content) == (422, {"detail": [problem]})


async def test_other_errors_keep_their_status(stack: Any) -> None:
    stack.script.error = errors.RequestIdReused("differs in payload")
    assert await stack.json("POST", "/jobs", json={"type": "a"}) == (409, {"detail": "differs in payload"})
    stack.script.error = errors.Overloaded("busy", retry_after=1)
    assert await stack.json("GET", "/jobs/x") == (429, {"detail": "busy"})
    status, body = await stack.json("POST", "/jobs", content=b" " * 300_000)
    assert (status, list(body)) == (413, ["detail"])
    status, body = await stack.json("PUT", "/jobs")
    assert (status, list(body)) == (405, ["detail"])


async def test_the_caller_s_headers_reach_the_server(stack: Any) -> None:
    await stack.client.post("/jobs", json={"type": "a"}, headers={"Atlas-Namespace": "n", "Authorization": "Bearer t"})
    assert (stack.script.metadata["atlas-namespace"], stack.script.metadata["authorization"]) == ("n", "Bearer t")
