"""The guard around every call: its client gets a status, whatever a handler does, and sees no more than it should."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from atlas_grpc import pb
from atlas_grpc.errors import JobNotFound
from atlas_grpc.observe.metrics import Metrics
from atlas_grpc.server.calls import Guard
from tests.support.refusals import refusal
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAME = "/test.Service/Do"


class Rig:
    """A server with one guarded method, and a channel to it."""

    def __init__(self, guard: Guard, channel: grpc.aio.Channel) -> None:
        self.guard = guard
        self.channel = channel

    async def unary(self, data: bytes = pb.GetJobRequest(id="x").SerializeToString(), **more: Any) -> bytes:
        return await self.channel.unary_unary(NAME)(data, **{"timeout": 5, **more})

    def stream(self, data: bytes = pb.GetJobRequest(id="x").SerializeToString(), **more: Any) -> Any:
        return self.channel.unary_stream(NAME)(data, **{"timeout": 5, **more})


@asynccontextmanager
async def rig(
    handler: Any, *, stream: bool = False, limit: int = 100, timeout: float = 30, **more: Any
) -> AsyncIterator[Rig]:
    guard = Guard(Metrics(), unary_timeout=timeout, max_unary=limit, max_streams=limit)
    wrap = guard.streaming if stream else guard.unary
    method = wrap(NAME, pb.GetJobRequest, handler, **more)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", {"Do": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    deadlines = asyncio.ensure_future(guard.watch_deadlines())
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Rig(guard, channel)
    finally:
        await server.stop(0)
        await asyncio.wait_for(guard.settle(), 5)
        deadlines.cancel()
        await asyncio.gather(deadlines, return_exceptions=True)


async def ok(_call: Any, request: pb.GetJobRequest) -> pb.GetJobResponse:
    return pb.GetJobResponse(job=pb.Job(id=request.id))


async def test_an_answer_arrives():
    async with rig(ok) as it:
        assert pb.GetJobResponse.FromString(await it.unary()).job.id == "x"


async def test_an_exception_is_internal_and_tells_nothing(caplog: pytest.LogCaptureFixture):
    async def fails(_call: Any, _request: Any) -> Any:
        raise KeyError("a secret of the server")

    async with rig(fails) as it:
        with caplog.at_level(logging.ERROR):
            error = await refusal(it.unary())
    assert error.code is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error)
    assert error.reason == "INTERNAL"
    assert error.info.metadata["error_id"] in error.message
    assert error.info.metadata["error_id"] in caplog.text + str([record.__dict__ for record in caplog.records])


async def test_our_errors_arrive_with_their_details():
    async def fails(_call: Any, request: pb.GetJobRequest) -> Any:
        raise JobNotFound.of(request.id)

    async with rig(fails) as it:
        error = await refusal(it.unary())
    assert error.code is grpc.StatusCode.NOT_FOUND
    assert error.reason == "JOB_NOT_FOUND"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stray_cancellation_is_a_status_and_no_hang(stream: bool):
    async def strays(*_args: Any) -> Any:
        lost = asyncio.ensure_future(asyncio.sleep(60))
        lost.cancel()
        await lost

    async with rig(strays, stream=stream) as it:
        error = await refusal(it.stream().read() if stream else it.unary())
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.reason == "INTERRUPTED"
    assert error.retry_after


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_its_handler(stream: bool):
    began, ended = asyncio.Event(), asyncio.Event()

    async def waits(*_args: Any) -> Any:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with rig(waits, stream=stream) as it:
        call = it.stream() if stream else it.channel.unary_unary(NAME)(pb.GetJobRequest(id="x").SerializeToString())
        await asyncio.wait_for(began.wait(), 5)
        call.cancel()
        await asyncio.wait_for(ended.wait(), 5)
        await asyncio.wait_for(it.guard.settle(), 5)


async def test_a_client_that_leaves_in_mid_stream_is_no_fault(caplog: pytest.LogCaptureFixture):
    ended = asyncio.Event()

    async def talks(_call: Any, _request: Any, write: Any) -> None:
        try:
            while True:
                await write(b"x" * 100_000)
        finally:
            ended.set()

    async with rig(talks, stream=True) as it:
        call = it.stream()
        await call.read()
        call.cancel()
        await asyncio.wait_for(ended.wait(), 5)
        await asyncio.wait_for(it.guard.settle(), 5)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_call_without_deadline_gets_one():
    async def waits(_call: Any, _request: Any) -> Any:
        await asyncio.sleep(60)

    async with rig(waits, timeout=0.1) as it:
        error = await refusal(it.unary(timeout=None))
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.reason == "DEADLINE_EXCEEDED"


async def test_the_callers_own_deadline_wins_over_the_default():
    async def waits(_call: Any, _request: Any) -> Any:
        await asyncio.sleep(0.6)
        return b""

    async with rig(waits, timeout=0.1) as it:
        assert await it.unary(timeout=5) == b""


@pytest.mark.parametrize("stream", [False, True])
async def test_too_many_calls_are_refused_early_with_a_pause(stream: bool):
    go = asyncio.Event()

    async def waits(*_args: Any) -> bytes:
        await go.wait()
        return b""

    async with rig(waits, stream=stream, limit=3) as it:
        held = [it.stream() if stream else asyncio.ensure_future(it.unary()) for _ in range(3)]
        await until(lambda: it.guard._streams + it.guard._unary == 3)
        error = await refusal(it.stream().read() if stream else it.unary())
        assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.reason == "OVERLOADED"
        assert error.retry_after
        go.set()
        for one in held:
            await (one.read() if stream else one)
        await until(lambda: not it.guard._streams and not it.guard._unary)
        await (it.stream().read() if stream else it.unary())


@pytest.mark.parametrize("essential", [False, True])
async def test_an_essential_call_is_served_however_busy_the_server_is(essential: bool):
    async with rig(ok, limit=0, essential=essential) as it:
        it.guard.draining = it.guard.closed = True
        if essential:
            await it.unary()
        else:
            with pytest.raises(grpc.aio.AioRpcError):
                await it.unary()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_draining_server_refuses_what_begins_something(stream: bool):
    async def does(*_args: Any) -> bytes:
        return b"x"

    async with rig(does, stream=stream, while_draining=False) as it:
        it.guard.draining = True
        error = await refusal(it.stream().read() if stream else it.unary())
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert error.reason == "SERVER_DRAINING"
        assert error.retry_after
    async with rig(ok) as it:
        it.guard.draining = True
        await it.unary()


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05abc", b"\x0a\x02\xff\xfe", b"\x0a" * 7])
async def test_what_cannot_be_parsed_is_an_invalid_argument(data: bytes):
    for stream in (False, True):
        async with rig(ok, stream=stream) as it:
            error = await refusal(it.stream(data).read() if stream else it.unary(data))
            assert error.code is grpc.StatusCode.INVALID_ARGUMENT
            assert error.reason == "MALFORMED_REQUEST"


async def test_what_is_not_valid_names_its_fields():
    async with rig(ok) as it:
        error = await refusal(it.unary(pb.GetJobRequest(view=99).SerializeToString()))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(error.fields) == {"id", "view"}


@pytest.mark.parametrize("name", ["", "Upper", "under_score", "-x", "x-", "a" * 64, "a b", "ä".encode()])
async def test_bad_namespaces(name: str | bytes):
    key = "atlas-namespace" if isinstance(name, str) else "atlas-namespace-bin"
    async with rig(ok) as it:
        if isinstance(name, bytes):
            await it.unary(metadata=((key, name),))
            return
        error = await refusal(it.unary(metadata=((key, name),)))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_NAMESPACE"


async def test_namespace_and_trace_reach_the_handler():
    seen = []

    async def notes(call: Any, _request: Any) -> bytes:
        seen.append((call.namespace, call.traceparent))
        return b""

    async with rig(notes) as it:
        await it.unary()
        await it.unary(metadata=(("atlas-namespace", "team-a"), ("traceparent", "00-trace")))
        await it.unary(metadata=(("traceparent", "x" * 200),))
    assert seen == [("default", ""), ("team-a", "00-trace"), ("default", "")]


async def test_every_call_is_counted():
    async def fails(_call: Any, _request: Any) -> Any:
        raise ValueError

    async with rig(fails) as it:
        await refusal(it.unary())
        await refusal(it.unary(b"\xff"))
        text = it.guard._metrics.render()[0].decode()
    counts = [
        line for line in text.splitlines() if line.startswith("grpc_server_handled_total") and not line.endswith(" 0.0")
    ]
    assert {line.split('grpc_code="')[1].split('"')[0]: line.rpartition(" ")[2] for line in counts} == {
        "Internal": "1.0",
        "InvalidArgument": "1.0",
    }
