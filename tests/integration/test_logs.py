"""A job's log over gRPC, REST, the clients and the command line, on every store."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from google.protobuf import json_format

from atlas_grpc import JobContext, handler, pb
from atlas_grpc.client import Client, Logged, LogsDropped, SyncClient
from atlas_grpc.errors import InvalidArgument, JobNotFound
from atlas_grpc.testing import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.usefixtures("every_store")

SSE = {"Accept": "text/event-stream"}
gates: dict[str, asyncio.Event] = {}


@handler(retry={"max_attempts": 2, "initial_backoff": 0})
async def talks(lines: int, *, ctx: JobContext) -> None:
    """Fails at first; stops in between until the gate opens, when it was asked for a negative number."""
    for n in range(abs(lines)):
        ctx.log(f"{ctx.attempt}.{n} ü\n\t\x1b[31m")
    if ctx.attempt == 1:
        raise ValueError("once more")
    if lines < 0:
        await gates["last"].wait()
        ctx.warning("at last")


class Doors:
    def __init__(self, server: Any, channel: grpc.aio.Channel, http: httpx.AsyncClient, client: Client) -> None:
        self.server = server
        self.stub: Any = pb.JobServiceStub(channel)
        self.http = http
        self.client = client


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    gates["last"] = asyncio.Event()
    async with (
        serving(talks, grace=0, http_address="127.0.0.1:0", max_log_lines=200) as server,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http.port}", timeout=20, trust_env=False) as http,  # type: ignore[union-attr]
        Client(server.grpc_address) as client,
    ):
        yield Doors(server, channel, http, client)


def shown(message: Any) -> Any:
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def text(attempt: int, n: int) -> str:
    return f"{attempt}.{n} ü\n\t\x1b[31m"


async def test_reading_is_the_same_by_every_door(doors: Doors):
    job = await doors.client.run("talks", {"lines": 3})
    everything = [text(1, 0), text(1, 1), text(1, 2), text(2, 0), text(2, 1), text(2, 2)]
    for query, fields, expected in (
        ("", {}, everything),
        ("?pageSize=2&startOffset=1", {"page_size": 2, "start_offset": 1}, everything[1:3]),
        ("?tailLines=4", {"tail_lines": 4}, everything[2:]),
        ("?tail_lines=1&attempt=1", {"tail_lines": 1, "attempt": 1}, everything[2:3]),
        ("?attempt=2", {"attempt": 2}, everything[3:]),
        ("?tailLines=0", {"tail_lines": 0}, []),
    ):
        answer = await doors.stub.ListJobLogs(pb.ListJobLogsRequest(id=job.id, **fields), timeout=10)
        assert [line.message for line in answer.logs] == expected
        rest = await doors.http.get(f"/v1/jobs/{job.id}/logs{query}")
        assert (rest.status_code, rest.json()) == (200, shown(answer))
    assert (answer.next_offset, answer.end_offset, answer.complete) == (6, 6, True)
    entries = [event async for event in doors.client.logs(job)]
    assert [event.message for event in entries] == everything
    assert [(event.offset, event.attempt) for event in entries] == [(n, 1 + n // 3) for n in range(6)]
    assert [event.offset async for event in job.logs(start_offset=2, attempt=1)] == [2]
    with SyncClient(doors.server.grpc_address) as sync:
        read = await asyncio.to_thread(lambda: [event.message for event in sync.logs(job.id, tail=2)])
        followed = await asyncio.to_thread(lambda: [event.message for event in sync.logs(job.id, follow=True)])
    assert (read, followed) == (everything[4:], everything)


async def test_following_is_the_same_by_every_door(doors: Doors):
    job = await doors.client.submit("talks", {"lines": -2})
    stream = doors.stub.TailJobLogs(pb.TailJobLogsRequest(id=job.id), timeout=20)
    events = doors.client.logs(job, follow=True)
    seen = [await anext(events) for _ in range(4)]
    assert [event.message for event in seen] == [text(1, 0), text(1, 1), text(2, 0), text(2, 1)]
    lines: list[Any] = []
    async with doors.http.stream("GET", f"/v1/jobs/{job.id}/logs:tail?tailLines=1") as answer:
        async for line in answer.aiter_lines():
            lines += json.loads(line)["result"]["logs"]
            gates["last"].set()
    assert [line["message"] for line in lines] == [text(2, 1), "at last"]
    assert lines[-1]["severity"] == "WARNING"
    rest = [event async for event in events]
    assert [event.message for event in rest] == ["at last"]
    messages = [message async for message in stream]
    assert [line.offset for message in messages for line in message.logs] == [0, 1, 2, 3, 4]
    assert [line.message async for line in doors.client.logs(job, follow=True, tail=1)] == ["at last"]


async def test_events_resume_where_they_were_cut(doors: Doors):
    job = await doors.client.submit("talks", {"lines": -2})
    async with doors.http.stream("GET", f"/v1/jobs/{job.id}/logs:tail", headers=SSE) as cut:
        blocks, token = cut.aiter_lines(), ""
        seen: list[str] = []
        while len(seen) < 4:
            line = await anext(blocks)
            token = line.removeprefix("id: ") if line.startswith("id: ") else token
            if line.startswith("data: "):
                seen += [one["message"] for one in json.loads(line[6:])["logs"]]
    gates["last"].set()
    again = await doors.http.get(f"/v1/jobs/{job.id}/logs:tail", headers={**SSE, "Last-Event-ID": token})
    data = [line[6:] for line in again.text.splitlines() if line.startswith("data: ")]
    assert [one["message"] for one in json.loads(data[0])["logs"]] == ["at last"]
    assert "event: end" in again.text
    stale = await doors.http.get(f"/v1/jobs/{job.id}/logs:tail?resumeToken=forged")
    assert (stale.status_code, stale.json()["details"][0]["reason"]) == (400, "INVALID_TOKEN")


async def test_the_quota_is_said(doors: Doors):
    job = await doors.client.run("talks", {"lines": 400})
    answer = await doors.stub.ListJobLogs(pb.ListJobLogsRequest(id=job.id), timeout=10)
    kept = [line.offset for line in answer.logs]
    assert 0 < len(kept) <= 200
    assert answer.dropped_logs == kept[0] > 0
    assert kept == list(range(kept[0], answer.end_offset))
    first, *rest = [event async for event in doors.client.logs(job)]
    assert isinstance(first, LogsDropped)
    assert first.count == kept[0]
    assert all(isinstance(event, Logged) for event in rest)


async def test_what_cannot_be_read(doors: Doors):
    with pytest.raises(JobNotFound):
        _ = [event async for event in doors.client.logs("nope")]
    with pytest.raises(JobNotFound):
        _ = [event async for event in doors.client.logs("nope", follow=True)]
    for bad in ({"start_offset": -1}, {"tail": -1}, {"attempt": -1}):
        for follow in (False, True):
            with pytest.raises(InvalidArgument) as caught:
                _ = [event async for event in doors.client.logs("nope", follow=follow, **bad)]
            assert caught.value.violations
    with pytest.raises(InvalidArgument):
        doors.client.logs("nope", tail=2**40)
    assert (await doors.http.get("/v1/jobs/nope/logs")).status_code == 404
    assert (await doors.http.get("/v1/jobs/nope/logs:tail")).status_code == 404
    assert (await doors.http.get("/v1/jobs/nope/logs?attempt=-1")).status_code == 400
