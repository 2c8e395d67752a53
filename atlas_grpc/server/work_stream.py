"""One stream of WorkerService.Work: a worker at the other end, a session of the engine at this one.

Four things go on at a time: reading what the worker says; handing in its words about jobs, one message after the other,
so that its logs come before its outcome, while new jobs are already being claimed; waiting for jobs that it has room
for; and writing. All that is written passes one queue, because a stream of grpc.aio takes one write at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from .. import pb
from ..errors import AtlasError, DeadlineExceeded, InvalidArgument, SessionContinued
from ..model import Ask
from . import worker_convert as convert
from .convert import fill_span
from .fitting import MESSAGE_BYTES
from .validation import check, faults
from .words import told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence

    from ..engine.remote import RemoteSession
    from ..model import Assignment, Report

    Faults = Mapping[int, AtlasError]
    Words = pb.WorkerReports | pb.WorkerUpdates
    Write = Callable[[bytes], Awaitable[None]]

T = TypeVar("T")

_WORDS = ("reports", "updates")
_BATCH_JOBS = 128
"""Jobs of such a message: the worker begins with the first ones while the others are still being written."""
_MOST_AT_ONCE = 1_000
"""Jobs of one claim, as of LeaseJobs, however many the worker has room for: it says `ready` again."""
_MOST_UNHEARD = 2
"""Messages about jobs that wait for their turn, before no more of any kind are read."""
_MOST_QUEUED = 64
"""Messages that wait to be written, before no more of the worker's are read."""
_ACKNOWLEDGED_IN = 1.0
"""Seconds in which a worker acknowledges a batch. When it does not, maybe this stream is dead, and another one goes on
with its session: that is looked up then, and again after longer and longer pauses."""
_LONGEST_PAUSE = 30.0
_HELLO_WITHIN = 10.0
"""Seconds that a client has for its first message: its stream takes the place of another one's."""


def _batches(jobs: Sequence[Assignment], *, json_text: bool) -> Iterator[Sequence[Assignment]]:
    """The jobs in messages that are neither large nor late."""
    start = size = 0
    for end, job in enumerate(jobs):
        weight = convert.weight(job, json_text=json_text)
        size += weight
        if start < end and (size > MESSAGE_BYTES or end - start == _BATCH_JOBS):
            yield jobs[start:end]
            start, size = end, weight
    if jobs:
        yield jobs[start:]


async def _first(requests: AsyncIterator[pb.WorkRequest]) -> pb.WorkRequest | None:
    return await anext(requests, None)


def _words(message: pb.WorkRequest, kind: str) -> tuple[Words, Faults]:
    """A worker's words about jobs, and what is wrong with which of them. Raises InvalidArgument for all of them."""
    words: Words = getattr(message, kind)
    try:
        return words, faults(words, kind)
    except InvalidArgument as error:
        raise error.within(kind) from None


class WorkStream:
    """Serves a stream. `lease` is how long a session is kept, in microseconds, `max_result` in bytes."""

    def __init__(self, session: RemoteSession, lease: int, max_result: int, write: Write) -> None:
        self._session = session
        self._lease = lease
        self._max_result = max_result
        self._write = write
        self._queue: deque[bytes] = deque()
        self._queued = asyncio.Event()
        self._written = asyncio.Event()
        self._room = asyncio.Event()
        self._asks: tuple[Sequence[Ask], int] = ((), 0)
        self._at_once = False
        self._queues: frozenset[str] | None = None
        self._json_text = False
        self._words: asyncio.Queue[tuple[Words, Faults]] = asyncio.Queue(_MOST_UNHEARD)
        self._said_goodbye = False
        self._sent = 0
        self._unacknowledged: dict[int, list[tuple[str, int]]] = {}
        self._owing = asyncio.Event()
        """Whether the worker has to acknowledge something."""
        self._tasks: list[asyncio.Task[None]] = []
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, error: AtlasError) -> None:
        """Ends the stream with this error; its session stays."""
        if not self._ended.done():
            self._ended.set_exception(error)

    async def serve(self, requests: AsyncIterator[pb.WorkRequest]) -> None:
        """Serves it to its end. Raises what the stream is to end with."""
        try:
            async with asyncio.timeout(_HELLO_WITHIN):
                hello = await self._unless_ended(_first(requests))
        except TimeoutError:
            raise DeadlineExceeded(f"no hello came within {_HELLO_WITHIN:g} s") from None
        if hello is None:
            return
        check(hello)
        if hello.WhichOneof("message") != "hello":
            raise InvalidArgument.of("hello", "must be the first message of the stream")
        try:
            await self._greet(hello.hello)
            work = (self._read(requests), self._hear(), self._assign(), self._send(), self._watch_acknowledgements())
            self._tasks = [asyncio.create_task(loop) for loop in work]
            await self._until_over()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._ended.cancel()
            await self._leave()

    async def _greet(self, hello: pb.WorkerHello) -> None:
        session = self._session
        types = convert.type_infos(hello.types, "hello.types")
        self._queues = frozenset(hello.queues) or None
        self._json_text = hello.json_text
        session.superseded = self._superseded
        session.queues = self._queues
        welcome = pb.WorkResponse()
        welcome.welcome.resumed = bool(hello.session) and await session.resume(
            hello.session, hello.worker, types, hello.slots, self._stop, convert.held(hello.holding)
        )
        if not welcome.welcome.resumed:
            await session.open(hello.worker, types, hello.slots, self._stop)
        welcome.welcome.session = session.id
        fill_span(welcome.welcome.lease_duration, self._lease)
        self._queue.appendleft(welcome.SerializeToString())  # before the stops that it led to
        self._queued.set()

    def _superseded(self) -> None:
        self.end(SessionContinued("the worker continues its session by another stream"))

    async def _until_over(self) -> None:
        """Returns when the worker has said goodbye, or no more. Raises why the stream ends otherwise."""
        await asyncio.wait([self._ended, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            self._ended.result()
        for task in self._tasks:
            if task.done():
                task.result()
        if self._said_goodbye:
            await self._session.close()
            await self._unless_ended(self._drained(0))

    async def _unless_ended(self, doing: Coroutine[Any, Any, T]) -> T:
        """What it returns. Raises why the stream ends, when that comes first."""
        task = asyncio.create_task(doing)
        try:
            first: list[asyncio.Future[Any]] = [self._ended, task]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if self._ended.done():
                self._ended.result()
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _leave(self) -> None:
        if not self._session.over:
            sent = [one for jobs in self._unacknowledged.values() for one in jobs]
            await self._session.detach(sent)

    async def _read(self, requests: AsyncIterator[pb.WorkRequest]) -> None:
        async for message in requests:
            kind = message.WhichOneof("message")
            if kind in _WORDS:
                await self._words.put(_words(message, kind))
                await self._drained(_MOST_QUEUED)
                continue
            check(message)
            if kind == "ready":
                self._ready(message.ready)
            elif kind == "received":
                self._received(message.received, "received")
            elif kind == "beat":
                await self._session.beat()
                self._say(beat=message.beat)
            elif kind == "goodbye":
                await self._words.join()
                self._said_goodbye = True
                return
            elif kind is None:
                raise InvalidArgument.of("message", "must be set, to something that this server knows")
            else:
                raise InvalidArgument.of("hello", "is only taken as the first message of a stream")
            await self._drained(_MOST_QUEUED)

    async def _hear(self) -> None:
        while True:
            words, wrong = await self._words.get()
            if isinstance(words, pb.WorkerReports):
                answers = await told(words.reports, wrong, self._report, self._session.finish)
                self._say(reports_answer=pb.WorkerAnswer(id=words.id, answers=answers))
            else:
                answers = await told(words.updates, wrong, convert.update, self._session.update)
                self._say(updates_answer=pb.WorkerAnswer(id=words.id, answers=answers))
            self._words.task_done()

    def _report(self, message: pb.JobReport) -> Report:
        return convert.report(message, self._max_result)

    def _ready(self, ready: pb.WorkerReady) -> None:
        self._received(ready.received, "ready.received")
        if ready.received < self._sent:
            return  # a batch is on its way that this does not account for; another one will follow
        asks = [Ask(room.type, room.slots, self._queues) for room in ready.room if room.slots]
        self._asks = (asks, min(ready.limit, _MOST_AT_ONCE)) if ready.limit else ((), 0)
        self._at_once = ready.at_once and bool(self._asks[0])
        self._session.more_room()
        if asks:
            self._room.set()

    def _received(self, batch: int, field: str) -> None:
        if batch > self._sent:
            raise InvalidArgument.of(field, f"is a batch that was not sent; the last one was {self._sent}")
        for number in [number for number in self._unacknowledged if number <= batch]:
            del self._unacknowledged[number]
        if not self._unacknowledged:
            self._owing.clear()

    async def _watch_acknowledgements(self) -> None:
        """Ends a stream whose worker goes on elsewhere, when it was sent jobs meanwhile."""
        pause = _ACKNOWLEDGED_IN
        while True:
            await self._owing.wait()
            oldest = min(self._unacknowledged)
            await asyncio.sleep(pause)
            if oldest not in self._unacknowledged:
                pause = _ACKNOWLEDGED_IN
            elif await self._session.is_continued():
                self._superseded()
            else:
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _assign(self) -> None:
        while True:
            await self._room.wait()
            jobs = await self._session.lease(lambda: self._asks, at_once=lambda: self._at_once)
            self._asks, self._at_once = ((), 0), False
            self._room.clear()
            await self._hand_out(jobs)

    async def _hand_out(self, jobs: Sequence[Assignment]) -> None:
        first = self._sent + 1
        batches = list(_batches(jobs, json_text=self._json_text)) or [()]
        # All before the first pause, for should the stream break in it.
        for batch in batches:
            self._sent += 1
            self._unacknowledged[self._sent] = [(job.job_id, job.fence) for job in batch]
        self._owing.set()
        for number, batch in enumerate(batches, first):
            response = pb.WorkResponse()
            response.assignments.batch = number
            for job in batch:
                convert.fill_assignment(response.assignments.jobs.add(), job, json_text=self._json_text)
            self._put(response)
            await asyncio.sleep(0)
            await self._drained(_MOST_QUEUED)

    def _stop(self, job_id: str, fence: int, why: str) -> None:
        self._say(stops=pb.WorkerStops(stops=[convert.stop(job_id, fence, why)]))

    def _say(self, **what: object) -> None:
        self._put(pb.WorkResponse(**what))  # type: ignore[arg-type]

    def _put(self, response: pb.WorkResponse) -> None:
        self._queue.append(response.SerializeToString())
        self._queued.set()

    async def _send(self) -> None:
        while True:
            await self._queued.wait()
            while self._queue:
                await self._write(self._queue[0])
                self._queue.popleft()
                self._written.set()
            self._queued.clear()
            self._written.set()

    async def _drained(self, most: int) -> None:
        """Returns when no more than so many messages wait."""
        while len(self._queue) > most:
            self._written.clear()
            await self._written.wait()
