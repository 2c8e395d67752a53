"""A gRPC server that stands before a real one, hands every call on, notes what clients do, and makes trouble.

The trouble is the same in every run, so that what a client must have done follows from it:

- the first SubmitJob and the first CancelJob reach the server, but their answers are lost: UNAVAILABLE;
- the first GetJob does not reach it: UNAVAILABLE;
- the first three WatchJob calls that resume are broken: after a message with UNAVAILABLE, at once with UNAVAILABLE, and
  by the end of the connection.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message_factory import GetMessageClass

from atlas_grpc._gen.atlas.v1 import job_service_pb2

from .cutting import cutting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

METHODS = job_service_pb2.DESCRIPTOR.services_by_name["JobService"].methods_by_name
FOREVER = 365 * 24 * 3600
"""Seconds; what a call without deadline has left is more."""
LOST = {"SubmitJob", "CancelJob"}
REFUSED = {"GetJob"}


@dataclass
class Call:
    """A call as it reached the front."""

    method: str
    request: Any
    has_deadline: bool
    answers: list[Any] = field(default_factory=list)
    """What was answered; the client need not have read all of it."""


class Front(grpc.GenericRpcHandler):
    """Serves the methods of JobService by calling them upstream."""

    def __init__(self, upstream: grpc.Channel, drop: Callable[[], object] | None) -> None:
        """`drop` ends the connections of clients; without it there is no trouble."""
        self.calls: list[Call] = []
        self._upstream = upstream
        self._drop = drop
        self._seen: Counter[str] = Counter()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = METHODS.get(details.method.rpartition("/")[2])
        if method is None:
            return None
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(partial(self._stream, method))
        return grpc.unary_unary_rpc_method_handler(partial(self._unary, method))

    def _unary(self, method: Any, request: bytes, context: grpc.ServicerContext) -> bytes:
        call = self._note(method, request, context)
        first = self._drop is not None and self._count(method.name) == 1
        if first and method.name in REFUSED:
            context.abort(grpc.StatusCode.UNAVAILABLE, "refused")
        try:
            reply: bytes = self._upstream.unary_unary(_path(method))(request, timeout=context.time_remaining())
        except grpc.RpcError as error:
            _fail(context, error)
        if first and method.name in LOST:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
        call.answers.append(GetMessageClass(method.output_type).FromString(reply))
        return reply

    def _stream(self, method: Any, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        call = self._note(method, request, context)
        resumed = self._drop is not None and bool(call.request.resume_token)
        # The number of the resumed stream says how it ends.
        trouble = self._count(method.name) if resumed else 0
        upstream = self._upstream.unary_stream(_path(method))(request)
        context.add_callback(upstream.cancel)
        try:
            for reply in upstream if trouble != 2 else ():
                call.answers.append(GetMessageClass(method.output_type).FromString(reply))
                yield reply
                if trouble in {1, 3}:
                    break
        except grpc.RpcError as error:
            _fail(context, error)
        if trouble in {1, 2}:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the stream was broken")
        if trouble == 3 and self._drop is not None:
            self._drop()

    def _note(self, method: Any, request: bytes, context: grpc.ServicerContext) -> Call:
        asked = GetMessageClass(method.input_type).FromString(request)
        call = Call(method.name, asked, has_deadline=context.time_remaining() < FOREVER)
        self.calls.append(call)
        return call

    def _count(self, name: str) -> int:
        self._seen[name] += 1
        return self._seen[name]


def _path(method: Any) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _fail(context: grpc.ServicerContext, error: Any) -> NoReturn:
    """Ends a call as it ended upstream."""
    context.set_trailing_metadata(error.trailing_metadata() or ())
    context.abort(error.code(), error.details())
    raise AssertionError  # abort does not return


@asynccontextmanager
async def fronting(address: str, *, trouble: bool) -> AsyncIterator[tuple[Front, str]]:
    """A front for the server at the address, and the front's own address."""
    loop = asyncio.get_running_loop()
    with grpc.insecure_channel(address) as upstream, ThreadPoolExecutor(16) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        port = server.add_insecure_port("127.0.0.1:0")
        async with cutting(port) as proxy:
            front = Front(upstream, partial(loop.call_soon_threadsafe, proxy.drop) if trouble else None)
            server.add_generic_rpc_handlers((front,))
            server.start()
            try:
                yield front, f"127.0.0.1:{proxy.port}"
            finally:
                await asyncio.to_thread(server.stop(0).wait)
