"""The outermost layer of every call: parse, validate, count, and turn whatever happens into a status.

One wrapper per method, made once, instead of a chain of interceptors that each cost every call. Handlers raise our
errors; only this module aborts. What it guards against, because grpc.aio does not: a request that cannot be parsed
(would be INTERNAL), an exception (would leak its text), a stray CancelledError (would leave the client without any
answer), a call without a deadline (would be served for ever).
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc.aio import AbortError, InternalError

from ..engine.batch import GroupCommit
from ..errors import (
    AtlasError,
    Code,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    Overloaded,
    ServerDraining,
    Unavailable,
)
from ..model import DEFAULT_NAMESPACE
from ..observe.logs import get_logger
from ..status import to_status
from .simple_rules import is_simply_valid
from .validation import check, fault_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from ..observe.metrics import Metrics, RpcMetrics

    Context = grpc.aio.ServicerContext[Any, Any]
    Answer = bytes | AtlasError | Callable[[], Awaitable[bytes]]

Req = TypeVar("Req", bound=Message)
Req_contra = TypeVar("Req_contra", bound=Message, contravariant=True)

NAMESPACE_KEY = "atlas-namespace"
TRACE_KEY = "traceparent"
DETAILS_KEY = "grpc-status-details-bin"

_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_CHECK_EVERY = 0.25
_GATHERED = 256
_CALM = 0.05
_MOST_WAITS = 20
_WAIT_MARGIN = 0.25
"""How long before its caller's deadline a call that waits answers, in seconds."""

log = get_logger("atlas.rpc")


class Call:
    """What a handler knows of its call beside the request."""

    __slots__ = ("context", "ends", "namespace", "task", "timed_out", "traceparent")

    def __init__(self, context: Context, ends: float) -> None:
        self.context = context
        self.ends = ends
        self.task: asyncio.Task[Any] | None = None
        self.timed_out = False
        self.namespace = DEFAULT_NAMESPACE
        self.traceparent = ""
        for key, value in context.invocation_metadata() or ():
            if key == NAMESPACE_KEY:
                self.namespace = _namespace(value)
            elif key == TRACE_KEY:
                self.traceparent = value if isinstance(value, str) and len(value) <= 128 else ""

    def patience(self, wanted: float) -> float:
        """Seconds that a call waits which was asked to wait for so many: it answers before its caller's deadline."""
        left: float | None = self.context.time_remaining()
        return wanted if left is None else min(wanted, max(0.0, left - min(_WAIT_MARGIN, left / 4)))


@lru_cache(maxsize=1_024)
def _namespace(value: str | bytes) -> str:
    if not isinstance(value, str) or _NAMESPACE.fullmatch(value) is None:
        raise InvalidArgument.of(
            NAMESPACE_KEY, "must be 1 to 63 lower-case letters, digits and inner hyphens", reason="INVALID_NAMESPACE"
        )
    return value


class Unary(Protocol[Req_contra]):
    """A handler of a unary call; answers the message or its bytes."""

    async def __call__(self, call: Call, request: Req_contra, /) -> Message | bytes: ...


class Streaming(Protocol[Req_contra]):
    """A handler of a server stream; hands messages, as bytes, to `write`."""

    async def __call__(self, call: Call, request: Req_contra, write: Callable[[bytes], Awaitable[None]], /) -> None: ...


class Bidirectional(Protocol[Req_contra]):
    """A handler of a stream in both directions: reads messages, and hands messages, as bytes, to `write`."""

    async def __call__(
        self, call: Call, requests: AsyncIterator[Req_contra], write: Callable[[bytes], Awaitable[None]], /
    ) -> None: ...


class Gathered(Protocol[Req_contra]):
    """A handler of unary calls that came in together; one answer each, in order. An answer that must be waited for is
    a function, called and awaited in its own call. What it raises, all of them get, so it must keep the faults of one
    request to itself.
    """

    async def __call__(self, calls: list[Call], requests: Sequence[Req_contra], /) -> list[Answer]: ...


class Guard:
    """Makes gRPC method handlers of plain ones, and watches over all calls that are going on."""

    def __init__(self, metrics: Metrics, *, unary_timeout: float, max_unary: int, max_streams: int) -> None:
        self._metrics = metrics
        self._unary_timeout = unary_timeout
        self._max_unary = max_unary
        self._max_streams = max_streams
        self._calls: dict[int, Call] = {}
        self._unary = 0
        self._streams = 0
        self._idle = asyncio.Event()
        self.draining = False
        """Whether calls that make new work are refused."""
        self.closed = False
        """Whether all calls are refused."""
        self._refused = 0

    async def watch_deadlines(self) -> None:
        """Cancels unary calls that outlive the default deadline. Runs for ever; one timer for all of them."""
        while True:
            await asyncio.sleep(_CHECK_EVERY)
            now = time.monotonic()
            for call in [call for call in self._calls.values() if call.ends <= now]:
                if call.task is not None and not call.timed_out:
                    call.timed_out = True
                    call.task.cancel()

    async def close(self, patience: float) -> None:
        """Refuses all calls from now on, and waits for those that were taken, for `patience` seconds at most; then a
        little longer for a moment in which no new one comes: what gRPC has received but not handed out when its server
        stops, it cancels without a word why.
        """
        self.closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.settle()
        for _ in range(_MOST_WAITS if patience else 0):
            before = self._refused
            await asyncio.sleep(_CALM)
            if self._refused == before:
                break

    async def settle(self) -> None:
        """Waits until no handler runs; grpc's `stop` returns before the last of them has cleaned up."""
        while self._unary or self._streams:
            self._idle.clear()
            await self._idle.wait()

    def unary(
        self,
        name: str,
        request_type: type[Req],
        handler: Unary[Req],
        *,
        validate: bool = True,
        while_draining: bool = True,
        essential: bool = False,
        patience: float = 0.0,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Wraps the handler of a unary method of that full name. An `essential` one is served however busy the server
        is, and until it stops. One that may wait, as its caller asks, has so many seconds of `patience` more.
        """
        rpc = self._metrics.rpc(name, "unary")
        parse = request_type.FromString

        async def serve(data: bytes, context: Context) -> bytes:
            began = time.monotonic()
            rpc.started()
            rpc.received()
            key = id(context)
            self._unary += 1
            try:
                call = Call(context, began + self._unary_timeout + patience)
                if context.time_remaining() is None:
                    call.task = asyncio.current_task()
                    self._calls[key] = call
                if not essential:
                    if self._unary > self._max_unary:
                        raise _overloaded()
                    self._admit(while_draining=while_draining)
                request = _parsed(parse, data)
                if validate:
                    check(request)
                try:
                    answer = await handler(call, request)
                except asyncio.CancelledError:
                    if call.timed_out:
                        raise DeadlineExceeded("the call took longer than the server allows") from None
                    raise
                out = answer if isinstance(answer, bytes) else answer.SerializeToString()
            except BaseException as error:
                await self._fail(error, name, context, rpc, began)
            else:
                rpc.sent()
                rpc.handled(0, time.monotonic() - began)
                return out
            finally:
                self._calls.pop(key, None)
                self._unary -= 1
                self._left()

        return grpc.unary_unary_rpc_method_handler(serve)

    def gathered(
        self, name: str, request_type: type[Req], handler: Gathered[Req], *, while_draining: bool = True
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Wraps the handler of a unary method whose calls are served together when they come in together."""
        rpc = self._metrics.rpc(name, "unary")
        parse = request_type.FromString

        async def flush(items: list[tuple[bytes, Context]]) -> list[Answer]:
            answers: list[Answer] = []
            calls: list[Call] = []
            requests: list[Req] = []
            for data, context in items:
                try:
                    call = Call(context, 0.0)
                    self._admit(while_draining=while_draining)
                    requests.append(_parsed(parse, data))
                    calls.append(call)
                    answers.append(b"")
                except AtlasError as error:
                    answers.append(error)
            ours = await self._serve_valid(handler, calls, requests)
            rest = iter(ours)
            return [next(rest) if answer == b"" else answer for answer in answers]

        gate: GroupCommit[tuple[bytes, Context], Answer] = GroupCommit(flush, _GATHERED)

        async def serve(data: bytes, context: Context) -> bytes:
            began = time.monotonic()
            rpc.started()
            rpc.received()
            self._unary += 1
            try:
                if self._unary > self._max_unary:
                    raise _overloaded()
                answer = await gate.add((data, context))
                if isinstance(answer, AtlasError):
                    raise answer
                out = answer if isinstance(answer, bytes) else await answer()
            except BaseException as error:
                await self._fail(error, name, context, rpc, began)
            else:
                rpc.sent()
                rpc.handled(0, time.monotonic() - began)
                return out
            finally:
                self._unary -= 1
                self._left()

        return grpc.unary_unary_rpc_method_handler(serve)

    async def _serve_valid(self, handler: Gathered[Req], calls: list[Call], requests: list[Req]) -> list[Answer]:
        wrong = [None if is_simply_valid(request) else fault_of(request) for request in requests]
        if any(wrong):
            good = [place for place, error in enumerate(wrong) if error is None]
            calls = [calls[place] for place in good]
            requests = [requests[place] for place in good]
        try:
            async with asyncio.timeout(self._unary_timeout):
                served = iter(await handler(calls, requests) if calls else ())
        except TimeoutError:
            raise DeadlineExceeded("the call took longer than the server allows") from None
        return [next(served) if error is None else error for error in wrong]

    def streaming(
        self, name: str, request_type: type[Req], handler: Streaming[Req], *, while_draining: bool = True
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Wraps the handler of a server stream of that full name."""
        rpc = self._metrics.rpc(name, "server_stream")
        parse = request_type.FromString

        async def serve(data: bytes, context: Context) -> None:
            async def work(call: Call, write: Callable[[bytes], Awaitable[None]]) -> None:
                request = _parsed(parse, data)
                check(request)
                await handler(call, request, write)

            rpc.received()
            await self._serve_stream(name, rpc, context, work, while_draining=while_draining)

        return grpc.unary_stream_rpc_method_handler(serve)

    def bidirectional(
        self, name: str, request_type: type[Req], handler: Bidirectional[Req], *, while_draining: bool = True
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Wraps the handler of a stream in both directions of that full name; it checks the messages itself."""
        rpc = self._metrics.rpc(name, "bidi_stream")
        parse = request_type.FromString

        async def serve(messages: AsyncIterator[bytes], context: Context) -> None:
            async def requests() -> AsyncIterator[Req]:
                async for data in messages:
                    rpc.received()
                    yield _parsed(parse, data)

            async def work(call: Call, write: Callable[[bytes], Awaitable[None]]) -> None:
                await handler(call, requests(), write)

            await self._serve_stream(name, rpc, context, work, while_draining=while_draining)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve_stream(
        self,
        name: str,
        rpc: RpcMetrics,
        context: Context,
        work: Callable[[Call, Callable[[bytes], Awaitable[None]]], Awaitable[None]],
        *,
        while_draining: bool,
    ) -> None:
        began = time.monotonic()
        rpc.started()
        self._streams += 1

        async def write(message: bytes) -> None:
            await context.write(message)
            rpc.sent()

        try:
            call = Call(context, 0.0)
            if self._streams > self._max_streams:
                raise _overloaded()
            self._admit(while_draining=while_draining)
            await work(call, write)
        except BaseException as error:
            await self._fail(error, name, context, rpc, began)
        else:
            rpc.handled(0, time.monotonic() - began)
        finally:
            self._streams -= 1
            self._left()

    def _admit(self, *, while_draining: bool) -> None:
        if self.closed or (self.draining and not while_draining):
            self._refused += 1
            raise ServerDraining("the server is about to stop", retry_after=1.0)

    def _left(self) -> None:
        if not self._unary and not self._streams:
            self._idle.set()

    @staticmethod
    async def _fail(error: BaseException, name: str, context: Context, rpc: RpcMetrics, began: float) -> NoReturn:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            rpc.handled(Code.CANCELLED, time.monotonic() - began)
            raise error
        if isinstance(error, InternalError):
            # A write failed: the client went away, and the cancellation of this task is not here yet.
            rpc.handled(Code.CANCELLED, time.monotonic() - began)
            raise asyncio.CancelledError from error
        if isinstance(error, AbortError | KeyboardInterrupt | SystemExit | GeneratorExit):
            raise error
        known = error if isinstance(error, AtlasError) else unexpected(error, name)
        rpc.handled(known.code, time.monotonic() - began)
        log.debug("call failed", method=name, code=known.code.name, reason=known.reason)
        status = to_status(known)
        try:
            await context.abort(_CODES[known.code], status.message, ((DETAILS_KEY, status.SerializeToString()),))
        except AbortError as aborted:
            if task is not None:
                task.add_done_callback(partial(_unlink, aborted, error))
            raise
        raise AssertionError("abort returned")


def _unlink(aborted: BaseException, error: BaseException, _task: object) -> None:
    """Breaks a cycle: grpc.aio keeps the exception of `abort` in the call, and its traceback keeps the call. Until the
    garbage collector comes by, the stream would count as open, and a connection with as many as it may have takes no
    calls.
    """
    aborted.__traceback__ = aborted.__context__ = error.__traceback__ = None


def _parsed(parse: Callable[[bytes], Req], data: bytes) -> Req:
    try:
        return parse(data)
    except (DecodeError, RecursionError):
        raise InvalidArgument(
            "the request is not a valid message: malformed, not UTF-8, or nested too deep", reason="MALFORMED_REQUEST"
        ) from None


def unexpected(error: BaseException, name: str) -> AtlasError:
    """What a caller is told of an error that nobody foresaw; the log gets the rest."""
    if isinstance(error, asyncio.CancelledError):
        return Unavailable("the call was interrupted inside the server", reason="INTERRUPTED", retry_after=1.0)
    error_id = uuid.uuid4().hex
    log.error("a call failed unexpectedly", method=name, error_id=error_id, exc_info=error)
    return Internal(f"internal error {error_id}; the server's log has the cause", metadata={"error_id": error_id})


def _overloaded() -> Overloaded:
    return Overloaded("the server has as many calls of this kind as it serves at a time", retry_after=0.5)
