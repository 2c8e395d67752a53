"""Server streams over HTTP: lines, Server-Sent Events, errors early and late, drains and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from atlas_grpc import errors, pb

pytestmark = pytest.mark.asyncio(loop_scope="session")

SSE = {"Accept": "text/event-stream"}


def update(token: str, *, heartbeat: bool = False) -> pb.WatchJobResponse:
    return pb.WatchJobResponse(resume_token=token, heartbeat=heartbeat)


async def test_lines(stack: Any) -> None:
    for item in (update("a"), update("b", heartbeat=True), None):
        stack.script.stream.put_nowait(item)
    answer = await stack.client.get("/v1/jobs/x:watch?include_logs=true")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [(line["result"]["resumeToken"], line["result"]["heartbeat"]) for line in lines] == [
        ("a", False),
        ("b", True),
    ]
    assert stack.script.requests == [pb.WatchJobRequest(id="x", include_logs=True)]


async def test_each_message_comes_at_once(stack: Any) -> None:
    stack.script.stream.put_nowait(update("a"))
    async with stack.client.stream("GET", "/v1/jobs/x:watch") as answer:
        lines = answer.aiter_lines()
        assert json.loads(await anext(lines))["result"]["resumeToken"] == "a"
        stack.script.stream.put_nowait(update("b"))
        assert json.loads(await anext(lines))["result"]["resumeToken"] == "b"
        stack.script.stream.put_nowait(None)
        assert [line async for line in lines] == []


async def test_an_early_error_has_its_http_status(stack: Any) -> None:
    for headers in ({}, SSE):
        stack.script.stream.put_nowait(errors.JobNotFound.of("x"))
        status, body = await stack.json("GET", "/v1/jobs/x:watch", headers=headers)
        assert (status, body["code"], body["details"][0]["reason"]) == (404, 5, "JOB_NOT_FOUND")


async def test_a_late_error_is_the_last_line(stack: Any) -> None:
    stack.script.stream.put_nowait(update("a"))
    stack.script.stream.put_nowait(errors.WatchTooSlow("too slow"))
    answer = await stack.client.get("/v1/jobs:watch".replace("jobs:", "jobs/x:"))
    first, last = (json.loads(line) for line in answer.text.splitlines())
    assert answer.status_code == 200
    assert "result" in first
    assert (last["error"]["code"], last["error"]["details"][0]["reason"]) == (8, "WATCH_TOO_SLOW")


async def test_events(stack: Any) -> None:
    for item in (update("a"), update("b", heartbeat=True), update("", heartbeat=True), update("c\nd"), None):
        stack.script.stream.put_nowait(item)
    answer = await stack.client.get("/v1/jobs/x:watch", headers=SSE)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    first, second, third, fourth, last = answer.text.removesuffix("\n\n").split("\n\n")
    head, data = first.split("\n")
    assert head == "id: a"
    assert json.loads(data.removeprefix("data: "))["resumeToken"] == "a"
    assert (second, third) == (": hb\nid: b", ": hb")
    assert fourth.startswith("data: ")
    assert last == "event: end\ndata: {}\nretry: 86400000"


async def test_events_end_with_an_error_event(stack: Any) -> None:
    stack.script.stream.put_nowait(update("a"))
    stack.script.stream.put_nowait(errors.Overloaded("no"))
    answer = await stack.client.get("/v1/jobs/x:watch", headers=SSE)
    event, data = answer.text.removesuffix("\n\n").split("\n\n")[-1].split("\n")
    assert event == "event: error"
    assert json.loads(data.removeprefix("data: "))["code"] == 8


async def test_last_event_id_is_the_resume_token(stack: Any) -> None:
    stack.script.stream.put_nowait(None)
    answer = await stack.client.get("/v1/jobs/x:watch?resumeToken=old", headers={**SSE, "Last-Event-ID": "tok"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert stack.script.requests == [pb.WatchJobRequest(id="x", resume_token="tok")]
    answer = await stack.client.get("/v1/jobs/x:watch", headers=[(b"last-event-id", b"\xff")])
    assert (answer.status_code, answer.json()["message"]) == (400, "resume_token: must be UTF-8")


async def test_the_token_of_a_nested_update_is_found(stack: Any) -> None:
    stack.script.stream.put_nowait(pb.RunJobResponse(update=update("t"), deduplicated=True))
    stack.script.stream.put_nowait(pb.RunJobResponse(update=update("u", heartbeat=True)))
    stack.script.stream.put_nowait(None)
    answer = await stack.client.post("/v1/jobs:run", json={"type": "sleep"}, headers=SSE)
    assert answer.text.startswith("id: t\ndata: ")
    assert ": hb\nid: u\n\n" in answer.text


async def test_a_client_that_leaves_ends_the_stream(stack: Any) -> None:
    stack.script.stream.put_nowait(update("a"))
    async with stack.client.stream("GET", "/v1/jobs/x:watch") as answer:
        await anext(answer.aiter_lines())
    await asyncio.wait_for(stack.script.cancelled.wait(), 5)
    await asyncio.wait_for(stack.app.calls.idle(), 5)


async def test_a_client_that_leaves_before_the_first_message_ends_the_stream(stack: Any) -> None:
    pending = asyncio.create_task(stack.client.get("/v1/jobs/x:watch"))
    await stack.script.called.wait()
    pending.cancel()
    await asyncio.wait_for(stack.script.cancelled.wait(), 5)


async def test_a_drain_ends_streams_and_lets_calls_finish(fresh: Any) -> None:
    stack = fresh
    stack.script.release = asyncio.Event()
    unary = asyncio.create_task(stack.client.get("/v1/jobs/x"))
    await stack.script.called.wait()
    stack.script.stream.put_nowait(update("a"))
    async with stack.client.stream("GET", "/v1/jobs/x:watch", headers=SSE) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "id: a"
        stopping = asyncio.create_task(stack.http.stop(grace=5))
        rest = [line async for line in lines]
    assert rest[-3] == "event: error"
    last = json.loads(rest[-2].removeprefix("data: "))
    assert (last["code"], last["details"][0]["reason"]) == (14, "SERVER_DRAINING")
    assert not stopping.done()
    stack.script.release.set()
    assert (await unary).status_code == 200
    await stopping


async def test_what_outlives_the_grace_period_is_answered(fresh: Any) -> None:
    stack = fresh
    stack.script.release = asyncio.Event()
    unary = asyncio.create_task(stack.client.get("/v1/jobs/x"))
    await stack.script.called.wait()
    await stack.http.stop(grace=0.05)
    answer = await unary
    assert (answer.status_code, answer.json()["details"][0]["reason"]) == (503, "SERVER_DRAINING")
    assert answer.headers["retry-after"] == "1"
    await asyncio.wait_for(stack.script.cancelled.wait(), 5)


async def test_a_reader_that_stops_reading_holds_the_stream_back(stack: Any) -> None:
    """Nothing is gathered for it: the backend's writes block instead."""
    big = pb.WatchJobResponse(resume_token="t", logs=[pb.LogEntry(message="x" * 60_000)] * 10)
    for _ in range(200):
        stack.script.stream.put_nowait(big)
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.http.port, limit=1024)
    writer.write(b"GET /v1/jobs/x:watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readline()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stack.script.stream.join(), 0.5)
    assert stack.script.stream.qsize() > 100
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await asyncio.wait_for(stack.script.cancelled.wait(), 5)
