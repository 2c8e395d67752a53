"""The stream to a server, opened again whenever it breaks.

What was handed in and not answered is kept, and sent again on the next stream: a server takes a repeat of what it had
accepted for accepted. The session outlives streams, as long as its lease is kept.

When a stream ends because a message on it is one that the server will never take, each of those that were not answered
may be the one. They are suspects then, and sent one by one, until all are answered or failed.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc

from .. import pb
from ..client._transport import CHANNEL_OPTIONS, from_rpc_error, rich_status
from ..errors import AtlasError, Internal, InvalidArgument, RequestTooLarge, Unavailable
from ..observe.logs import get_logger
from ..worker.backoff import Backoff

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from ..clock import Clock

    Call = grpc.aio.StreamStreamCall[pb.WorkRequest, pb.WorkResponse]

CONNECT_TIMEOUT = 10.0
"""Seconds that a server has for its welcome."""
_GOODBYE_TIMEOUT = 5.0
_LIVED = 1.0
"""Seconds that a stream must have been served for, for the pauses to begin anew with the shortest."""
_HOPELESS = (InvalidArgument, RequestTooLarge)
"""What a stream ends with because of a message that is never taken."""
_SUSPICIOUS = (*_HOPELESS, Internal)
"""When a stream ends in the middle of a write, grpc.aio says INTERNAL, whatever the server said."""

log = get_logger("atlas.worker")


def _nothing() -> None:
    pass


class Link:
    """Streams to one of the targets, in turn. `hello` makes the first message of each; `welcomed` gets its answer, with
    the time at which the hello was sent; `said` gets every other message that is no answer.
    """

    def __init__(
        self,
        targets: Sequence[str],
        credentials: grpc.ChannelCredentials | None,
        clock: Clock,
        rng: random.Random,
        *,
        hello: Callable[[], pb.WorkRequest],
        welcomed: Callable[[pb.WorkerWelcome, float], None],
        said: Callable[[pb.WorkResponse], None],
    ) -> None:
        self._targets = itertools.cycle(targets)
        self._credentials = credentials
        self._clock = clock
        self._rng = rng
        self._hello = hello
        self._welcomed = welcomed
        self._said = said
        self._ids = itertools.count(1)
        self._unanswered: dict[int, tuple[pb.WorkRequest, asyncio.Future[pb.WorkerAnswer]]] = {}
        self._suspects: deque[int] = deque()
        self._queue: deque[tuple[pb.WorkRequest, Callable[[], None]]] = deque()
        self._queued = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._channel: grpc.aio.Channel | None = None
        self._call: Call | None = None
        """A stream that was welcomed and is not served yet."""
        self._serving: Call | None = None
        self._said_goodbye = False
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._down.set()
        self.target = ""

    @property
    def connected(self) -> bool:
        """Whether there is a stream that was welcomed."""
        return self._up.is_set()

    def _connected(self, *, now: bool) -> None:
        to_set, to_clear = (self._up, self._down) if now else (self._down, self._up)
        to_set.set()
        to_clear.clear()

    async def without_server(self, patience: float | None) -> None:
        """Returns when there was no stream for so many seconds; never without `patience`."""
        while True:
            try:
                async with asyncio.timeout(patience):
                    await self._up.wait()
            except TimeoutError:
                return
            await self._down.wait()

    async def open(self) -> None:
        """Opens the first stream. Raises AtlasError."""
        await self._connect()
        self._keeper = asyncio.create_task(self._keep())

    def say(self, message: pb.WorkRequest, written: Callable[[], None] = _nothing) -> None:
        """Sends a message that needs no answer, and calls `written` when it has left; without a stream, or if it breaks
        meanwhile, nothing is sent or called.
        """
        if self.connected:
            self._queue.append((message, written))
            self._queued.set()

    async def ask(self, message: pb.WorkRequest) -> pb.WorkerAnswer:
        """Sends reports or updates, as often as needed, and returns the answer. Raises InvalidArgument or
        RequestTooLarge for what the server does not take.
        """
        number = next(self._ids)
        getattr(message, message.WhichOneof("message") or "").id = number
        future: asyncio.Future[pb.WorkerAnswer] = asyncio.get_running_loop().create_future()
        self._unanswered[number] = message, future
        if not self._suspects:
            self.say(message)
        try:
            return await future
        finally:
            self._unanswered.pop(number, None)
            self._clear(number)

    def _clear(self, number: int) -> None:
        """A question is answered, or given up."""
        if number in self._suspects:
            was_asked = self._suspects[0] == number
            self._suspects.remove(number)
            if was_asked:
                for message in self._open_questions():
                    self.say(message)

    def _open_questions(self) -> list[pb.WorkRequest]:
        """Those to be asked now: one of the suspects, or all when there is none."""
        numbers = [self._suspects[0]] if self._suspects else list(self._unanswered)
        return [self._unanswered[number][0] for number in numbers]

    def _suspect(self, error: AtlasError) -> None:
        """A stream ended with that, maybe because of what was said on it."""
        if not self._suspects:
            self._suspects.extend(self._unanswered)
        elif isinstance(error, _HOPELESS):
            _, future = self._unanswered[self._suspects[0]]
            if not future.done():
                future.set_exception(error)

    def restart(self) -> None:
        """Breaks the stream off, for another to be opened."""
        call = self._serving or self._call
        if call is not None:
            call.cancel()

    async def close(self) -> None:
        """Says goodbye, if there is somebody to hear it, and closes the stream."""
        self._said_goodbye = True
        if self._keeper is not None:
            if self.connected:
                self.say(pb.WorkRequest(goodbye=pb.WorkerGoodbye()))
                await asyncio.wait([self._keeper], timeout=_GOODBYE_TIMEOUT)
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for _, future in self._unanswered.values():
            future.cancel()
        if self._channel is not None:
            await self._channel.close()

    async def _keep(self) -> None:
        """Serves streams, one after the other."""
        backoff = Backoff(self._clock, self._rng)
        while True:
            try:
                if self._call is not None:
                    call, self._call = self._call, None
                    began = self._clock.monotonic()
                    await self._serve(call)
                    if self._clock.monotonic() - began >= _LIVED:
                        backoff.reset()
                if self._said_goodbye:
                    return
                await backoff.pause()
                await self._connect()
            except AtlasError as error:
                log.warning("no server takes the worker yet", server=self.target, reason=error.reason)
            except Exception as error:
                log.error("a stream failed unexpectedly", server=self.target, exc_info=error)

    async def _connect(self) -> None:
        """A new stream to the next target, up to its welcome."""
        self.target = next(self._targets)
        if self._channel is not None:
            await self._channel.close()
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(self.target, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(self.target, self._credentials, options=CHANNEL_OPTIONS)
        call: Call = pb.WorkerServiceStub(self._channel).Work()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                sent = time.monotonic()
                await call.write(self._hello())
                first = await call.read()
        except TimeoutError:
            call.cancel()
            raise Unavailable("the server does not answer") from None
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            raise await _ended(call) from None
        if not isinstance(first, pb.WorkResponse) or not first.HasField("welcome"):
            raise await _ended(call)
        self._call = call
        self._queue.clear()
        self._queue.extend((message, _nothing) for message in self._open_questions())
        self._queued.set()
        self._connected(now=True)
        self._welcomed(first.welcome, sent)

    async def _serve(self, call: Call) -> None:
        """Reads and writes until the stream breaks."""
        writing = asyncio.create_task(self._write(call))
        self._serving = call
        try:
            with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                while isinstance(message := await call.read(), pb.WorkResponse):
                    self._heard(message)
            _raise_if_cancelled()
        finally:
            self._serving = None
            self._connected(now=False)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            call.cancel()
        if not self._said_goodbye:
            error = await _ended(call)
            log.warning("the stream broke, and is opened again", server=self.target, reason=error.reason)
            if isinstance(error, _SUSPICIOUS):
                self._suspect(error)

    async def _write(self, call: Call) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            while self._queue:
                message, written = self._queue.popleft()
                await call.write(message)
                written()

    def _heard(self, message: pb.WorkResponse) -> None:
        kind = message.WhichOneof("message")
        if kind in ("reports_answer", "updates_answer"):
            answer = message.reports_answer if kind == "reports_answer" else message.updates_answer
            known = self._unanswered.get(answer.id)
            if known is not None and not known[1].done():
                known[1].set_result(answer)
        else:
            self._said(message)


def _raise_if_cancelled() -> None:
    """Raises CancelledError when the current task is being cancelled, rather than a call of it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _ended(call: Call) -> AtlasError:
    """Why a stream ended; one that goes on is cut."""
    call.cancel()
    code, details = await call.code(), await call.details()
    if code is grpc.StatusCode.OK:
        return Unavailable("the server ended the stream")
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), await call.trailing_metadata(), details=details)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and rich_status(error) is None:
        return RequestTooLarge("the server does not take a message as large as that")  # gRPC itself says so
    return from_rpc_error(error)
