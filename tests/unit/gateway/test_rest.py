"""Routing, transcoding, errors and headers of the REST mirror, over a real socket and a real gRPC server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from atlas_grpc import errors, pb
from atlas_grpc.errors import HTTP_STATUS, Code, Violation

pytestmark = pytest.mark.asyncio(loop_scope="session")

INFO = "type.googleapis.com/google.rpc.ErrorInfo"
BAD = "type.googleapis.com/google.rpc.BadRequest"


def reason(body: Any) -> str:
    return next(one["reason"] for one in body["details"] if one["@type"] == INFO)


async def test_body_star_and_response_body(stack: Any) -> None:
    body = {"type": "sleep", "payload": {"seconds": 3}, "labels": {"a": "b"}, "retryPolicy": {"max_attempts": 2}}
    status, job = await stack.json("POST", "/v1/jobs", json=body)
    assert (status, job["id"], job["state"], job["version"], job["attempts"]) == (200, "j1", "PENDING", "1", [])
    (request,) = stack.script.requests
    assert request.payload["seconds"] == 3
    assert (request.type, dict(request.labels), request.retry_policy.max_attempts) == ("sleep", {"a": "b"}, 2)


async def test_additional_binding_has_no_response_body(stack: Any) -> None:
    status, answer = await stack.json("POST", "/v1/jobs:submit", json={"type": "sleep"})
    assert (status, answer["deduplicated"], answer["plannedAttempts"], answer["job"]["id"]) == (200, True, [], "j1")


@pytest.mark.parametrize("body", [b"", b"  \n", b"{}"])
async def test_an_empty_body_is_an_empty_message(stack: Any, body: bytes) -> None:
    status, _ = await stack.json("POST", "/v1/jobs/x:cancel", content=body)
    assert status == 200
    assert stack.script.requests == [pb.CancelJobRequest(id="x")]


async def test_the_path_wins_over_the_body(stack: Any) -> None:
    await stack.json("POST", "/v1/jobs/x:cancel?reason=ignored", json={"id": "y", "reason": "r", "ifVersion": "7"})
    assert stack.script.requests == [pb.CancelJobRequest(id="x", reason="r", if_version=7)]


async def test_a_body_field_leaves_the_rest_to_the_query(stack: Any) -> None:
    stack.script.stream.put_nowait(None)
    await stack.client.post("/v1/jobs:run?includeLogs=true&job.type=ignored", json={"type": "sleep"})
    assert stack.script.requests == [pb.RunJobRequest(job=pb.SubmitJobRequest(type="sleep"), include_logs=True)]


async def test_query_parameters(stack: Any) -> None:
    query = (
        "filter.states=PENDING&filter.states=2&filter.ids=a&filter.ids=b&filter.labels[env]=prod&filter.labels[x.y]=z"
        "&filter.createTimeFrom=2024-01-02T03:04:05.5Z&pageSize=7&page_token=t%20%2B&view=JOB_VIEW_FULL&unknown=1&x[y]=2"
    )
    status, _ = await stack.json("GET", f"/v1/jobs?{query}")
    assert status == 200
    (request,) = stack.script.requests
    assert list(request.filter.states) == [pb.Job.PENDING, pb.Job.RUNNING]
    assert list(request.filter.ids) == ["a", "b"]
    assert dict(request.filter.labels) == {"env": "prod", "x.y": "z"}
    assert request.filter.create_time_from.ToJsonString() == "2024-01-02T03:04:05.500Z"
    assert (request.page_size, request.page_token, request.view) == (7, "t +", pb.JOB_VIEW_FULL)


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        ("1.5s", "1.500s"),
        ("250ms", "0.250s"),
        ("1h2m3s", "3723s"),
        ("-5s", "-5s"),
        ("%2B.5s", "0.500s"),
        ("1.0000000009s", "1s"),
        ("0", "0s"),
    ],
)
async def test_durations_in_the_query(stack: Any, wait: str, expected: str) -> None:
    status, _ = await stack.json("GET", f"/v1/jobs/x?wait={wait}&id=other")
    assert status == 200
    (request,) = stack.script.requests
    assert (request.id, request.wait.ToJsonString()) == ("x", expected)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page_size=x", "page_size"),
        ("page_size=1&page_size=2", "page_size"),
        ("pageSize=99999999999", "page_size"),
        ("filter.states=NOPE", "filter.states"),
        ("filter.states=99", "filter.states"),
        ("filter.createTimeFrom=now", "filter.create_time_from"),
        ("filter=x", "filter"),
        ("filter.labels=x", "filter.labels"),
        ("filter.labels[a]=1&filter.labels[a]=2", 'filter.labels["a"]'),
        ("page_size[a]=1", "page_size"),
        ("page_size=1&pageSize=1", "page_size"),
        ("page_size.x=1", "page_size"),
        ("filter.ids.x=1", "filter.ids"),
        ("filter.labels.x=1", "filter.labels"),
        ("page_token=%zz", "query"),
        ("page_token=%2", "query"),
        ("page_token=%ff", "query"),
        ("&".join(f"a{n}=1" for n in range(5000)), "query"),
    ],
)
async def test_bad_query_values_are_refused(stack: Any, query: str, field: str) -> None:
    status, body = await stack.json("GET", f"/v1/jobs?{query}")
    assert (status, body["code"], reason(body)) == (400, 3, "INVALID_ARGUMENT")
    (violation,) = next(one for one in body["details"] if one["@type"] == BAD)["fieldViolations"]
    assert violation["field"] == field
    assert stack.script.requests == []


async def test_every_kind_of_query_value(stack: Any) -> None:
    query = (
        "text=t&number=-5&big=-9223372036854775808&natural=7&huge=18446744073709551615&real=1.5e3&single=.5&flag=t"
        "&data=-_8&colour=BLUE&maybe=0&inner.inner.text=deep&texts=a&texts=b&list=1&list=2&colours=1&colours=RED"
        "&labels[]=empty&weights[true]=2&third_one=4&at=2024-01-01T00:00:00Z&wait=3s&waits=1s&waits=2s&mask=a,b"
        "&object=%7B%22a%22:1%7D&wrapped_big=5&wrappedText=w&wrappedFlag=0&wrappedData=AA&other-name=r"
    )
    status, shown = await stack.json("GET", f"/v1/echo?{query}")
    assert status == 200
    picked = {key: value for key, value in shown.items() if value not in ("", [], {}, False, 0, "0", None)}
    assert picked == {
        "text": "t",
        "number": -5,
        "big": "-9223372036854775808",
        "natural": 7,
        "huge": "18446744073709551615",
        "real": 1500,
        "single": 0.5,
        "flag": True,
        "data": "+/8=",
        "colour": "BLUE",
        "inner": picked["inner"],
        "texts": ["a", "b"],
        "list": ["1", "2"],
        "colours": ["RED", "RED"],
        "labels": {"": "empty"},
        "weights": {"true": 2},
        "thirdOne": 4,
        "at": "2024-01-01T00:00:00Z",
        "wait": "3s",
        "waits": ["1s", "2s"],
        "mask": "a,b",
        "object": {"a": 1},
        "wrappedBig": "5",
        "wrappedText": "w",
        "wrappedData": "AA==",
        "other-name": "r",
    }
    assert (shown["maybe"], shown["wrappedFlag"], picked["inner"]["inner"]["text"]) == (0, False, "deep")


async def test_a_oneof_takes_one_parameter(stack: Any) -> None:
    for query in ("first=a&third_one=1", "first=a&second.text=b"):
        status, body = await stack.json("GET", f"/v1/echo?{query}")
        assert (status, body["code"]) == (400, 3)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/echo/shelves/1/books/a/b%2Fc", {"text": "shelves/1/books/a/b%2Fc"}),
        ("/v1/echo/literal", {"text": ""}),
        ("/v1/echo/x:verb", {"text": "x"}),
        ("/v1/echo/a%2Fb:verb", {"text": "a/b"}),
        ("/v1/echo/any/number/5", {"number": 5}),
        ("/v1/echo?number=6", {"number": 6}),
    ],
)
async def test_path_templates(stack: Any, path: str, shown: dict[str, Any]) -> None:
    status, body = await stack.json("GET", path)
    assert status == 200
    assert {key: body[key] for key in shown} == shown


async def test_nested_variables_other_verbs_and_body_fields(stack: Any) -> None:
    _, body = await stack.json("GET", "/v1/echo/deep%3Averb")
    assert body["inner"]["text"] == "deep:verb"
    status, body = await stack.json("REPORT", "/v1/echo?number=4")
    assert (status, body["number"]) == (200, 4)
    _, body = await stack.json("PUT", "/v1/echo/x/inner?number=3&inner.number=9", json={"text": "in"})
    assert (body["text"], body["number"], body["inner"]["text"], body["inner"]["number"]) == ("x", 3, "in", 0)
    assert await stack.json("PATCH", "/v1/echo/x/list", json=[1, "2"]) == (200, ["1", "2"])
    status, body = await stack.json("PATCH", "/v1/echo/x/list", json=[1, "b"])
    assert (status, "list[1]" in body["message"]) == (400, True)


async def test_a_bad_path_variable_is_refused(stack: Any) -> None:
    for path in ("/v1/echo/any/number/five", "/v1/jobs/%ff", "/v1/jobs/%zz", "/v1/jobs/a%2"):
        status, body = await stack.json("GET", path)
        assert (status, body["code"], reason(body)) == (400, 3, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v1/nothing", "/v1/jobs/", "/v1/jobs/a/b", "/v1/chat", "/x", "/v1/jobs:frob"]
)
async def test_an_unknown_path_is_404(stack: Any, path: str) -> None:
    status, body = await stack.json("GET", path)
    assert (status, body["code"], reason(body)) == (404, 5, "PATH_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/jobs", "GET, HEAD, POST"),
        ("POST", "/v1/jobs/x", "DELETE, GET, HEAD"),
        ("GET", "/v1/jobs/x:cancel", "POST"),
        ("HEAD", "/v1/jobs/x:watch", "GET"),
        ("POST", "/v1/jobs/x:watch", "GET"),
        ("DELETE", "/metrics", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405(stack: Any, method: str, path: str, allow: str) -> None:
    answer = await stack.client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    if method != "HEAD":
        assert (answer.json()["code"], reason(answer.json())) == (12, "METHOD_NOT_ALLOWED")


async def test_head_answers_as_get_without_a_body(stack: Any) -> None:
    got, head = await stack.client.get("/v1/jobs/x"), await stack.client.head("/v1/jobs/x")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/LD+JSON", None])
async def test_json_content_types_are_taken(stack: Any, kind: str | None) -> None:
    headers = {"content-type": kind} if kind else {}
    answer = await stack.client.post("/v1/jobs", content=b'{"type":"a"}', headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json"])
async def test_other_content_types_are_415(stack: Any, kind: str) -> None:
    headers = {"content-type": kind}
    status, body = await stack.json("POST", "/v1/jobs", content=b"{}", headers=headers)
    assert (status, body["code"], reason(body)) == (415, 3, "UNSUPPORTED_MEDIA_TYPE")
    # A form without content is what `curl -X POST -d ''` sends.
    status, _ = await stack.json("POST", "/v1/jobs/x:cancel", content=b"", headers=headers)
    assert status == 200


async def test_too_large_bodies_are_413(stack: Any) -> None:
    async def pieces() -> Any:
        for _ in range(400):
            yield b" " * 65536

    for content in (b" " * (256 * 1024 + 1), pieces(), b'{"type":"%b"}' % (b"x" * 300_000)):
        answer = await stack.client.post("/v1/jobs", content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, 8)
        assert reason(answer.json()) == "REQUEST_TOO_LARGE"
    # Small as JSON, large as a message.
    answer = await stack.client.post("/v1/jobs", json={"type": "a", "payload": {"a": [1] * 50_000}})
    assert (answer.status_code, stack.script.requests) == (413, [])


async def test_a_malformed_body_names_the_field(stack: Any) -> None:
    status, body = await stack.json("POST", "/v1/jobs:batchSubmit", json={"requests": [{}, {}, {"priority": "x"}]})
    assert (status, body["code"], reason(body)) == (400, 3, "INVALID_ARGUMENT")
    assert {"@type": BAD, "fieldViolations": body["details"][1]["fieldViolations"]} == body["details"][1]
    assert body["details"][1]["fieldViolations"][0]["field"] == "requests[2].priority"


@pytest.mark.parametrize("code", list(errors.BY_CODE))
async def test_every_code_keeps_its_number_and_gets_its_http_status(stack: Any, code: Code) -> None:
    error = errors.BY_CODE[code]
    stack.script.error = error("text", metadata={"k": "v"})
    status, body = await stack.json("GET", "/v1/jobs/x")
    assert (status, body["code"], body["message"]) == (HTTP_STATUS[code], code, "text")
    assert body["details"][0] == {"@type": INFO, "reason": error.reason, "domain": "atlas", "metadata": {"k": "v"}}


async def test_rich_details_come_through(stack: Any) -> None:
    stack.script.error = errors.InvalidArgument.all_of(
        [Violation("payload.seconds", "too small"), Violation("type", "?")]
    )
    _, body = await stack.json("POST", "/v1/jobs", json={})
    violations = next(one for one in body["details"] if one["@type"] == BAD)["fieldViolations"]
    assert [(one["field"], one["description"]) for one in violations] == [
        ("payload.seconds", "too small"),
        ("type", "?"),
    ]
    stack.script.error = errors.Overloaded("later", retry_after=2.5)
    answer = await stack.client.get("/v1/jobs/x")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    retry = next(one for one in answer.json()["details"] if one["@type"].endswith("RetryInfo"))
    assert retry["retryDelay"] == "2.500s"
    stack.script.error = errors.Unauthenticated("who?")
    assert (await stack.client.get("/v1/jobs/x")).headers["www-authenticate"] == "Bearer"


async def test_an_exception_of_a_handler_does_not_show(stack: Any) -> None:
    stack.script.answer = "not a message, so that gRPC itself fails"
    status, body = await stack.json("GET", "/v1/jobs/x")
    assert (status, body["message"], reason(body)) == (500, "the server failed", body["details"][0]["reason"])


async def test_request_headers_become_metadata(stack: Any) -> None:
    sent = {
        "Authorization": "Bearer t",
        "Atlas-Namespace": "team",
        "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Grpc-Metadata-X-Custom": "1",
        "Grpc-Metadata-Data-Bin": "AP8=",
        "Grpc-Metadata-Grpc-Timeout": "1S",
        "Grpc-Metadata-Bad!key": "x",
        "Grpc-Timeout": "5S",
        "Cookie": "secret",
    }
    status, _ = await stack.json("GET", "/v1/jobs/x", headers=sent)
    assert status == 200
    metadata = {key: value for key, value in stack.script.metadata.items() if key != "user-agent"}
    assert metadata == {
        "authorization": "Bearer t",
        "atlas-namespace": "team",
        "traceparent": sent["Traceparent"],
        "x-custom": "1",
        "data-bin": b"\x00\xff",
    }
    assert 3 < stack.script.time_remaining < 5.5


@pytest.mark.parametrize(
    "header",
    [("Grpc-Timeout", "soon"), ("Grpc-Timeout", "123456789S"), ("Grpc-Metadata-A-Bin", "*"), ("Atlas-Namespace", "é")],
)
async def test_headers_that_grpc_cannot_carry_are_400(stack: Any, header: tuple[str, str]) -> None:
    answer = await stack.client.get("/v1/jobs/x", headers=[(header[0].encode(), header[1].encode())])
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


@pytest.mark.parametrize("timeout", ["99999999H", "99999999M", "1H"])
async def test_a_deadline_far_ahead_is_one(stack: Any, timeout: str) -> None:
    status, _ = await stack.json("GET", "/v1/jobs/x", headers={"Grpc-Timeout": timeout})
    assert status == 200
    assert stack.script.time_remaining > 3500


@pytest.mark.parametrize("timeout", ["", "0S", "00n"])
async def test_an_empty_deadline_is_none(stack: Any, timeout: str) -> None:
    status, _ = await stack.json("GET", "/v1/jobs/x", headers={"Grpc-Timeout": timeout})
    assert (status, stack.script.time_remaining) == (200, None)


async def test_a_deadline_that_passes_is_504(stack: Any) -> None:
    stack.script.release = asyncio.Event()
    status, body = await stack.json("GET", "/v1/jobs/x", headers={"Grpc-Timeout": "50m"})
    assert (status, body["code"], reason(body)) == (504, 4, "DEADLINE_EXCEEDED")


async def test_initial_metadata_becomes_headers(stack: Any) -> None:
    stack.script.initial = (("x-trace", "abc"), ("x-raw-bin", b"\x00\xff"))
    answer = await stack.client.get("/v1/jobs/x")
    assert answer.headers["grpc-metadata-x-trace"] == "abc"
    assert answer.headers["grpc-metadata-x-raw-bin"] == "AP8="
    stack.script.error = errors.Aborted("too late")
    answer = await stack.client.get("/v1/jobs/x")
    assert (answer.status_code, answer.headers["grpc-metadata-x-trace"]) == (409, "abc")


async def test_a_header_may_be_there_twice(stack: Any) -> None:
    await stack.client.get("/v1/jobs/x", headers=[("Grpc-Metadata-X", "1"), ("grpc-metadata-x", "2")])
    assert [value for key, value in stack.script.all_metadata if key == "x"] == ["1", "2"]


async def test_a_client_that_leaves_cancels_the_call(stack: Any) -> None:
    stack.script.release = asyncio.Event()
    pending = asyncio.create_task(stack.client.get("/v1/jobs/x"))
    await stack.script.called.wait()
    pending.cancel()
    await asyncio.wait_for(stack.script.cancelled.wait(), 5)
    await asyncio.wait_for(stack.app.calls.idle(), 5)


async def test_an_unknown_detail_is_shown_as_bytes(stack: Any) -> None:
    job = pb.Job(id="x", state=pb.Job.FAILED)
    job.error.code = 2
    job.error.details.add(type_url="example.com/not.Known", value=b"\x01")
    job.error.details.add().Pack(ErrorInfo(reason="R"))
    stack.script.answer = pb.GetJobResponse(job=job)
    status, shown = await stack.json("GET", "/v1/jobs/x")
    assert (status, shown["error"]["details"][0]) == (200, {"@type": "example.com/not.Known", "value": "AQ=="})
    assert shown["error"]["details"][1]["reason"] == "R"
