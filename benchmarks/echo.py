"""The bare server to compare with: grpc.aio and generated messages, and nothing else.

It parses each request into the message class of Atlas and answers with a ready message of the size that Atlas answers
with; `/bench.Raw/Echo` does not even parse, `/bench.Raw/Pace` says how often its streams send. It is started as
`python -m benchmarks.echo REPLIES.json` and prints its port.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from atlas_grpc import pb

from .loops import run

if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = grpc.RpcMethodHandler[Any, Any]

SERVICE = "atlas.v1.JobService"
RAW = "bench.Raw"


def _unary(request: Any, response: Any, body: bytes) -> Handler:
    reply = response.FromString(body)

    async def answer(_request: object, _context: object) -> Any:
        return reply

    return grpc.unary_unary_rpc_method_handler(answer, request.FromString, response.SerializeToString)


class _Stream:
    """A stream that sends one message, and then one to all that are open each time the pacer ticks."""

    def __init__(self) -> None:
        self._tick = asyncio.Event()
        self._pacer: asyncio.Task[None] | None = None

    async def pace(self, request: bytes, _context: object) -> bytes:
        """Ticks each so many milliseconds; an empty request stops it."""
        if self._pacer:
            self._pacer.cancel()
        self._pacer = asyncio.create_task(self._run(float(request) / 1000)) if request else None
        return request

    async def _run(self, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            tick, self._tick = self._tick, asyncio.Event()
            tick.set()

    def handler(self, request: Any, response: Any, body: bytes) -> Handler:
        """A method that streams."""
        reply = response.FromString(body)

        async def send(_request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await context.write(reply)
            while True:
                await self._tick.wait()
                await context.write(reply)

        return grpc.unary_stream_rpc_method_handler(send, request.FromString, response.SerializeToString)


async def _raw(request: bytes, _context: object) -> bytes:
    return request


def _handlers(replies: dict[str, str]) -> list[grpc.GenericRpcHandler]:
    stream = _Stream()
    bodies = {name: base64.b64decode(body) for name, body in replies.items()}
    methods = {
        "SubmitJob": _unary(pb.SubmitJobRequest, pb.SubmitJobResponse, bodies["SubmitJob"]),
        "SubmitJobs": _unary(pb.SubmitJobsRequest, pb.SubmitJobsResponse, bodies["SubmitJobs"]),
        "GetJob": _unary(pb.GetJobRequest, pb.GetJobResponse, bodies["GetJob"]),
        "WatchJob": stream.handler(pb.WatchJobRequest, pb.WatchJobResponse, bodies["WatchJob"]),
    }
    raw: dict[str, Handler] = {
        "Echo": grpc.unary_unary_rpc_method_handler(_raw),
        "Pace": grpc.unary_unary_rpc_method_handler(stream.pace),
    }
    return [
        grpc.method_handlers_generic_handler(SERVICE, methods),
        grpc.method_handlers_generic_handler(RAW, raw),
    ]


async def serve(replies: dict[str, str], ready: Callable[[int], None]) -> None:
    """Serves until it is cancelled."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 10_000)])
    server.add_generic_rpc_handlers(_handlers(replies))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ready(port)
    try:
        await server.wait_for_termination()
    finally:
        await server.stop(None)


def main() -> None:
    """The program."""
    replies = json.loads(Path(sys.argv[1]).read_text())
    run(serve(replies, lambda port: print(port, flush=True)))


if __name__ == "__main__":
    main()
