"""Concurrent submits in one call, by natural group commit: while a call is under way the next submits gather, and go
out together when it has answered. A lone submit goes out at once, as SubmitJob; there is no timer and no added delay.
"""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from .. import errors, pb
from ..status import from_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._transport import Transport

MAX_ITEMS = 500
MAX_BYTES = 3 * 1024 * 1024 - 64 * 1024
"""Bytes of the requests in one call, well below the 4 MiB that a server takes; a larger one goes alone."""

Outcome = pb.SubmitJobResponse | errors.AtlasError


class _Waiting(NamedTuple):
    request: pb.SubmitJobRequest
    size: int
    answer: asyncio.Future[pb.SubmitJobResponse]


class Submitter:
    """Submits jobs for many tasks at once. Each gets its own answer or error, and may be cancelled on its own."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._busy = False
        self._queue: deque[_Waiting] = deque()
        self._draining: asyncio.Task[None] | None = None

    async def submit(self, request: pb.SubmitJobRequest) -> pb.SubmitJobResponse:
        """Stores a job. Raises AtlasError; DeadlineExceeded also when the client's timeout passed while it gathered."""
        if self._busy:
            return await self._gathered(request)
        self._busy = True
        try:
            return await self._transport.call(self._transport.stub.SubmitJob, request)
        finally:
            if self._queue:
                self._draining = asyncio.get_running_loop().create_task(self._drain())
            else:
                self._busy = False

    async def close(self) -> None:
        """Ends the submits that are waiting; they raise Cancelled."""
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.wait([self._draining])
        self._abandon()

    async def _gathered(self, request: pb.SubmitJobRequest) -> pb.SubmitJobResponse:
        answer: asyncio.Future[pb.SubmitJobResponse] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(request, request.ByteSize(), answer))
        limit = asyncio.timeout(self._transport.timeout)
        try:
            async with limit:
                return await answer
        except TimeoutError:
            if not limit.expired():
                raise
            took = f"{self._transport.timeout:g} s"
            raise errors.DeadlineExceeded(f"the submit was not answered within {took}") from None

    async def _drain(self) -> None:
        batch: list[_Waiting] = []
        try:
            while self._queue:
                batch = self._take()
                if batch:
                    outcomes = await submit_batch(self._transport, [waiting.request for waiting in batch])
                    for waiting, outcome in zip(batch, outcomes, strict=True):
                        _settle(waiting, outcome)
        finally:
            # Whatever ended the loop, nobody is left waiting.
            self._abandon(batch)
            self._busy = False

    def _abandon(self, batch: Iterable[_Waiting] = ()) -> None:
        for waiting in (*batch, *self._queue):
            _settle(waiting, errors.Cancelled("the client was closed"))
        self._queue.clear()

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        room = MAX_BYTES
        while self._queue and len(batch) < MAX_ITEMS:
            if self._queue[0].answer.done():
                self._queue.popleft()
                continue
            room -= self._queue[0].size
            if batch and room < 0:
                break
            batch.append(self._queue.popleft())
        return batch


async def submit_batch(transport: Transport, requests: Sequence[pb.SubmitJobRequest]) -> list[Outcome]:
    """Submits jobs in one call: an answer or an error for each, in order. When the call fails, its error for each."""
    try:
        if len(requests) == 1:
            lone = await transport.call(transport.stub.SubmitJob, requests[0])
            return [lone]
        answer = await transport.call(transport.stub.SubmitJobs, pb.SubmitJobsRequest(requests=requests))
    except errors.AtlasError as err:
        return [copy.copy(err) for _ in requests]
    if len(answer.outcomes) != len(requests):
        return [errors.Internal("the server did not answer every request of the batch") for _ in requests]
    return [from_status(one.error) if one.HasField("error") else one.response for one in answer.outcomes]


async def submit_all(transport: Transport, requests: Iterable[pb.SubmitJobRequest]) -> list[Outcome]:
    """Submits any number of jobs, in as many calls as they need, one after the other. Each has a request id, because
    calls are repeated.

    A call that does not reach the server ends the series: the rest has the same error.
    """
    outcomes: list[Outcome] = []
    failed: errors.AtlasError | None = None
    for batch in _batches(map(_named, requests)):
        if failed is None:
            answers = await submit_batch(transport, batch)
            outcomes += answers
            failed = _lost(answers)
        else:
            outcomes += [copy.copy(failed) for _ in batch]
    return outcomes


def _lost(answers: Sequence[Outcome]) -> errors.AtlasError | None:
    kinds = errors.Unavailable | errors.DeadlineExceeded | errors.Unauthenticated | errors.Cancelled
    first = answers[0]
    return first if isinstance(first, kinds) and all(isinstance(answer, kinds) for answer in answers) else None


def _named(request: pb.SubmitJobRequest) -> pb.SubmitJobRequest:
    """The request, or a copy with a request id: the caller may mean to submit the same object twice."""
    if request.request_id or request.validate_only:
        return request
    named = pb.SubmitJobRequest()
    named.CopyFrom(request)
    named.request_id = str(uuid.uuid4())
    return named


def _batches(requests: Iterable[pb.SubmitJobRequest]) -> Iterable[list[pb.SubmitJobRequest]]:
    batch: list[pb.SubmitJobRequest] = []
    room = MAX_BYTES
    for request in requests:
        size = request.ByteSize()
        if batch and (size > room or len(batch) == MAX_ITEMS):
            yield batch
            batch, room = [], MAX_BYTES
        batch.append(request)
        room -= size
    if batch:
        yield batch


def _settle(waiting: _Waiting, outcome: Outcome) -> None:
    if waiting.answer.done():
        return
    if isinstance(outcome, errors.AtlasError):
        waiting.answer.set_exception(outcome)
    else:
        waiting.answer.set_result(outcome)
