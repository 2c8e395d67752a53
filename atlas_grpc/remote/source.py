"""Where a remote worker gets its work: `WorkSource` over a stream of WorkerService."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import grpc

from .. import pb
from ..client import CHANNEL_OPTIONS
from ..errors import InvalidArgument, RequestTooLarge
from ..model import SECOND, Released, Report, patiently
from ..observe.logs import get_logger
from ..status import from_status
from . import convert
from .beats import Beats
from .link import Link

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Sequence

    from ..clock import Clock
    from ..model import Assignment, AtOnce, Room, TypeInfo, Update

_MARGIN = 0.1
"""The share of a lease before whose end the worker gives its jobs up."""
_BATCH_BYTES = 2 << 20
_LEAST_BATCH = 64 << 10
"""What a batch may take at least, however little the server takes at a time."""
_BATCH_JOBS = 5_000

log = get_logger("atlas.worker")


class RemoteSource:
    """A session with an Atlas server; `targets` are servers of one Atlas, any of which will do."""

    def __init__(
        self,
        targets: Sequence[str],
        clock: Clock,
        rng: random.Random,
        *,
        queues: Iterable[str] = (),
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._targets = list(targets)
        self._credentials = credentials
        self._clock = clock
        self._queues = list(queues)
        self._link = Link(targets, credentials, clock, rng, hello=self._hello, welcomed=self._welcomed, said=self._said)
        self._on_stop: Callable[[str, int, str], None] = lambda _job_id, _fence, _why: None
        self._session = ""
        self._lease = 0.0
        self._received = 0
        self._in_hand: dict[int, str] = {}
        self._room: Room | None = None
        self._at_once: AtOnce = patiently
        self._arriving: dict[int, Assignment] = {}
        """Jobs by their token, whose acknowledgement has not left yet."""
        self._inbox: dict[int, Assignment] = {}
        """Jobs by their token, that nobody has begun."""
        self._cancelled: set[int] = set()
        """The tokens of those among them that were cancelled."""
        self._arrived = asyncio.Event()
        self._none_ready = False
        """Whether the latest batch was the answer that there is nothing to do now."""
        self._leasing_over = False
        self._gave_up = False
        """Whether jobs were given up since the latest hello named them."""
        self._beats: Beats | None = None
        self._guard: asyncio.Task[None] | None = None
        self._releasing: set[asyncio.Task[list[bool]]] = set()
        self._batch_bytes = _BATCH_BYTES

    async def open(
        self, worker: str, types: Sequence[TypeInfo], slots: int, on_stop: Callable[[str, int, str], None]
    ) -> None:
        self._worker, self._types, self._slots, self._on_stop = worker, types, slots, on_stop
        self._beats = Beats(self._beat_channel, asyncio.get_running_loop(), self._session_ended)
        await self._link.open()
        self._guard = asyncio.create_task(self._guard_lease())

    def _beat_channel(self, target: str) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
        return grpc.secure_channel(target, self._credentials, options=CHANNEL_OPTIONS)

    def _hello(self) -> pb.WorkRequest:
        self._gave_up = False
        # What is not known to be acknowledged goes back, uncounted, so it must not be begun.
        for fence in list(self._arriving):
            self._forget(fence)
        return convert.hello(self._worker, self._types, self._slots, self._queues, self._session, self._in_hand)

    def _welcomed(self, welcome: pb.WorkerWelcome, sent: float) -> None:
        if self._session and not welcome.resumed:
            log.warning("the session was over: its jobs are lost", jobs=len(self._in_hand))
            self._lose_all()
        self._session = welcome.session
        self._lease = convert.micros(welcome.lease_duration) / SECOND
        self._received = 0
        if self._beats is not None:
            self._beats.begin(self._link.target, self._session, self._lease, sent)
        log.info("connected", server=self._link.target, session=self._session, resumed=welcome.resumed)
        if welcome.resumed and self._gave_up:
            self._link.restart()
        self.more_room()

    def _session_ended(self, session: str) -> None:
        if session == self._session:
            self._link.restart()

    def _lose_all(self) -> None:
        in_hand, self._in_hand = self._in_hand, {}
        self._arriving.clear()
        self._inbox.clear()
        self._cancelled.clear()
        for fence, job_id in in_hand.items():
            self._on_stop(job_id, fence, "lost")

    async def _guard_lease(self) -> None:
        """Stops all jobs before the lease ends, if it could not be kept."""
        while self._beats is not None:
            left = self._beats.kept_until - self._lease * _MARGIN - time.monotonic()
            if left <= 0:
                if self._in_hand:
                    log.warning("the lease could not be kept: its jobs are given up", jobs=len(self._in_hand))
                    self._lose_all()
                    # The server may have heard of it in time after all: it must learn that nobody has them.
                    self._gave_up = True
                    self._link.restart()
                left = self._lease * _MARGIN
            await self._clock.sleep(left)

    def _said(self, message: pb.WorkResponse) -> None:
        kind = message.WhichOneof("message")
        if kind == "assignments":
            self._assigned(message.assignments)
        elif kind == "stops":
            for one in message.stops.stops:
                self._stopped(*convert.stop(one))

    def _stopped(self, job_id: str, fence: int, why: str) -> None:
        begun = fence not in self._arriving and fence not in self._inbox
        if why == "lost":
            self._forget(fence)
        elif not begun:
            self._cancelled.add(fence)
        if begun:
            self._on_stop(job_id, fence, why)

    def _forget(self, fence: int) -> None:
        self._in_hand.pop(fence, None)
        self._arriving.pop(fence, None)
        self._inbox.pop(fence, None)
        self._cancelled.discard(fence)

    def _assigned(self, batch: pb.WorkerAssignments) -> None:
        """Jobs are begun once their acknowledgement has left: one that kills this process must have been counted."""
        jobs = {job.fence: job for job in map(convert.assignment, batch.jobs)}
        self._received = batch.batch
        self._in_hand.update((fence, job.job_id) for fence, job in jobs.items())
        self._arriving.update(jobs)
        self._link.say(pb.WorkRequest(received=batch.batch), lambda: self._acknowledged(jobs))

    def _acknowledged(self, jobs: Iterable[int]) -> None:
        for fence in jobs:
            if (job := self._arriving.pop(fence, None)) is not None:
                self._inbox[fence] = job
        self._none_ready = not jobs
        if self._leasing_over:
            self._give_back()
        self._arrived.set()

    def _give_back(self) -> None:
        jobs = self._take()
        if jobs:
            task = asyncio.ensure_future(self.finish([Report(job.job_id, job.fence, Released()) for job in jobs]))
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    def _take(self) -> list[Assignment]:
        """Empties the inbox, and tells which of its jobs are to be stopped."""
        jobs = list(self._inbox.values())
        for fence in self._cancelled & self._inbox.keys():
            self._on_stop(self._inbox[fence].job_id, fence, "cancelled")
        self._cancelled -= self._inbox.keys()
        self._inbox.clear()
        return jobs

    async def lease(self, room: Room, *, at_once: AtOnce = patiently) -> list[Assignment]:
        self._leasing_over = False
        self._room, self._at_once = room, at_once
        try:
            while True:
                if not self._inbox:
                    self._arrived.clear()
                    self.more_room()
                await self._arrived.wait()
                if self._inbox or (self._none_ready and at_once()):
                    break
        except asyncio.CancelledError:
            self._leasing_over = True
            self._link.say(convert.ready((), 0, self._received))
            self._give_back()
            raise
        finally:
            self._room = None
        return self._take()

    def more_room(self) -> None:
        if self._room is not None:
            self._link.say(convert.ready(*self._room(), self._received, at_once=self._at_once()))

    async def without_server(self, patience: float | None) -> None:
        """Returns when there was no server for so many seconds; never without `patience`."""
        await self._link.without_server(patience)

    async def finish(self, reports: Sequence[Report]) -> list[bool]:
        messages = [pb.WorkRequest(reports=pb.WorkerReports())]
        size = 0
        for report in reports:
            batch = messages[-1].reports.reports
            if size > self._batch_bytes or len(batch) >= _BATCH_JOBS:
                messages.append(pb.WorkRequest(reports=pb.WorkerReports()))
                batch, size = messages[-1].reports.reports, 0
            message = batch.add()
            convert.fill_report(message, report)
            size += message.ByteSize()
        answers = await self._answers(messages)
        for report, answer in zip(reports, answers, strict=True):
            if answer.status != pb.JobAnswer.REFUSED:
                self._in_hand.pop(report.fence, None)
        _raise_if_refused(answers)
        return [answer.status == pb.JobAnswer.ACCEPTED for answer in answers]

    async def update(self, updates: Sequence[Update]) -> list[bool]:
        messages: list[pb.WorkRequest] = []
        size = 0
        for update in updates:
            message = pb.JobUpdate()
            convert.fill_update(message, update)
            size += message.ByteSize()
            if not messages or size > self._batch_bytes or len(messages[-1].updates.updates) >= _BATCH_JOBS:
                messages.append(pb.WorkRequest(updates=pb.WorkerUpdates()))
                size = message.ByteSize()
            messages[-1].updates.updates.append(message)
        answers = await self._answers(messages)
        refused = [answer.error.message for answer in answers if answer.status == pb.JobAnswer.REFUSED]
        if refused:
            log.warning("progress and logs were refused", jobs=len(refused), first=refused[0])
        return [answer.status != pb.JobAnswer.LOST for answer in answers]

    async def _answers(self, messages: Sequence[pb.WorkRequest]) -> list[pb.JobAnswer]:
        try:
            found = await asyncio.gather(*map(self._link.ask, messages))
        except RequestTooLarge:
            self._batch_bytes = max(self._batch_bytes // 2, _LEAST_BATCH)
            raise
        return [answer for one in found for answer in one.answers]

    async def close(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
        if self._releasing:
            await asyncio.wait(self._releasing, timeout=1)
        await self._link.close()
        if self._beats is not None:
            self._beats.end()


def _raise_if_refused(answers: Iterable[pb.JobAnswer]) -> None:
    for answer in answers:
        if answer.status == pb.JobAnswer.REFUSED:
            error = from_status(answer.error)
            raise error if isinstance(error, InvalidArgument) else InvalidArgument(error.message)
