"""gRPC calls made for HTTP requests: a client that goes away cancels its call, a drain ends the streams.

`grpc.aio` shows a call that was cancelled here, a cancelled task of ours and a closed channel all as CancelledError.
`Exchange` keeps apart which one it was.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from ..errors import Code, ServerDraining
from ..status import to_status
from .failures import Disconnected, Failure, status_as, status_of
from .metadata import answer_headers

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from .http import Request

PATIENCE = 0.05
"""Seconds a unary call may take before its client is watched; most calls are over by then and save the task."""
DRAIN_RETRY = 1.0
"""What a client of a drained stream is told to wait, in seconds."""


class Calls:
    """All calls under way, so that they can be drained."""

    def __init__(self) -> None:
        self.draining = False
        self._live: set[Exchange] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self, exchange: Exchange) -> None:
        self._live.add(exchange)
        self._idle.clear()

    def leave(self, exchange: Exchange) -> None:
        self._live.discard(exchange)
        if not self._live:
            self._idle.set()

    def drain(self) -> None:
        """Ends the streams with UNAVAILABLE and refuses new ones; unary calls go on."""
        self.draining = True
        for exchange in list(self._live):
            if exchange.streaming:
                exchange.cut_short()

    def abort(self) -> None:
        """Ends the unary calls too, with UNAVAILABLE."""
        for exchange in list(self._live):
            exchange.cut_short()

    async def idle(self) -> None:
        """Returns when no call is under way."""
        await self._idle.wait()

    async def unary(
        self, request: Request, call: grpc.aio.UnaryUnaryCall[Any, Any]
    ) -> tuple[Message, grpc.aio.Metadata | None]:
        """The answer of a call and its initial metadata. Raises `Failure` with the call's status."""
        with Exchange(self, request, call, streaming=False) as exchange:
            try:
                answer = await call
                return answer, await call.initial_metadata()
            except grpc.aio.AioRpcError as err:
                raise _failure(err) from None
            except asyncio.CancelledError:
                raise exchange.verdict() from None


class Exchange:
    """One request and the call made for it. Leaving the context cancels what is still going on."""

    def __init__(self, calls: Calls, request: Request, call: Any, *, streaming: bool) -> None:
        self.streaming = streaming
        self._calls = calls
        self._request = request
        self._call = call
        self._verdict: Failure | Disconnected | None = None
        self._watch: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._calls.enter(self)
        if self.streaming and self._calls.draining:
            self.cut_short()
        delay = 0 if self.streaming else PATIENCE
        self._timer = asyncio.get_running_loop().call_later(delay, self._start_watch)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._calls.leave(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        if not self._call.done():
            self._call.cancel()

    def cut_short(self) -> None:
        """The gateway is draining: ends the call, and the client is told to come again."""
        error = ServerDraining("the server is about to stop; come again", retry_after=DRAIN_RETRY)
        self._end(Failure(to_status(error)))

    def verdict(self) -> Failure | Disconnected:
        """Why the call was cancelled. Re-raises CancelledError when it is this task that is being cancelled."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        return self._verdict or Failure(status_as(Code.UNAVAILABLE))

    async def read(self) -> Message | None:
        """The next message of a stream; None after the last. Raises `Failure` with the call's status."""
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as err:
            raise _failure(err) from None
        except asyncio.CancelledError:
            raise self.verdict() from None
        return None if message is grpc.aio.EOF else message

    def _start_watch(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._until_gone())

    async def _until_gone(self) -> None:
        await self._request.disconnected()
        self._end(Disconnected())

    def _end(self, verdict: Failure | Disconnected) -> None:
        if self._verdict is None:
            self._verdict = verdict
            self._call.cancel()


def _failure(err: grpc.aio.AioRpcError) -> Failure:
    return Failure(status_of(err), headers=answer_headers(err.initial_metadata()))
