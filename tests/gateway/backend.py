"""What stands behind both gateways where Atlas itself would never say such things. Run as a program, it also serves the
mirror of it, prints both ports as a line of JSON, and ends with its standard input.

EchoService answers what it was asked. GetJob and WatchJob do what the id orders, as words that are joined by dots:

    code.5       fails with this code, and details as Atlas has them
    bare.5       fails with this code and a text only
    headers.1    sends initial metadata
    trailers.1   sends trailing metadata
    heard.1      GetJob: answers the metadata of the call as the payload
    slow.1000    takes so many milliseconds
    messages.2   WatchJob: answers so many messages first
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc.aio
from google.rpc import code_pb2

from atlas_grpc import pb
from atlas_grpc._gen.atlas.v1 import job_service_pb2_grpc
from atlas_grpc.errors import BY_CODE, AtlasError, Code
from atlas_grpc.gateway import create_app, serve_http
from atlas_grpc.gateway.app import SERVICES
from atlas_grpc.status import to_status
from tests.support.echo import EchoHandler, echo_service

HEADERS = (("x-one", "1"), ("x-two", "a"), ("x-two", "b"), ("x-raw-bin", b"\x00\xff"))
TRAILERS = (("x-end", "2"),)
DETAILS = "grpc-status-details-bin"


class Jobs(job_service_pb2_grpc.JobServiceServicer):
    """Does as it is told."""

    async def GetJob(self, request: Any, context: Any) -> pb.GetJobResponse:
        orders = await _begin(request.id, context)
        await _end(orders, context)
        job = pb.Job(id=request.id)
        if "heard" in orders:
            job.payload.update(_heard(context))
        return pb.GetJobResponse(job=job)

    async def WatchJob(self, request: Any, context: Any) -> None:
        orders = await _begin(request.id, context)
        for number in range(orders.get("messages", 0)):
            await context.write(pb.WatchJobResponse(resume_token=f"token {number}", dropped_logs=number))
        await _end(orders, context)


def _heard(context: Any) -> dict[str, list[str]]:
    heard: dict[str, list[str]] = {}
    for name, value in context.invocation_metadata():
        heard.setdefault(name, []).append(value.hex() if isinstance(value, bytes) else value)
    return heard


async def _begin(words: str, context: Any) -> dict[str, int]:
    parts = words.split(".")
    orders = {name: int(number) for name, number in zip(parts[::2], parts[1::2], strict=False) if number.isdigit()}
    await asyncio.sleep(orders.get("slow", 0) / 1000)
    if "headers" in orders:
        await context.send_initial_metadata(HEADERS)
    return orders


async def _end(orders: dict[str, int], context: Any) -> None:
    trailers: tuple[tuple[str, str | bytes], ...] = TRAILERS if "trailers" in orders else ()
    number = orders.get("code") or orders.get("bare")
    if number is None:
        context.set_trailing_metadata(trailers)
        return
    name = code_pb2.Code.Name(number)
    if "code" in orders:
        error = BY_CODE.get(Code(number), AtlasError)(f"as it was ordered: {name}", metadata={"order": "yes"})
        status = to_status(error)
        status.code = number
        trailers += ((DETAILS, status.SerializeToString()),)
    context.set_trailing_metadata(trailers)
    code = next(one for one in grpc.StatusCode if one.value[0] == number)
    await context.abort(code, f"as it was ordered: {name}")


async def main() -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    job_service_pb2_grpc.add_JobServiceServicer_to_server(Jobs(), server)
    server.add_generic_rpc_handlers((EchoHandler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        http = await serve_http(create_app(channel, metrics=None, services=[*SERVICES, echo_service()]), port=0)
        print(json.dumps({"grpc": port, "http": http.port}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await http.stop(grace=0)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
