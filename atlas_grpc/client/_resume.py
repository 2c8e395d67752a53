"""Streams that survive cuts.

A stream ends early for many reasons that are nobody's fault: a network that forgets, a server that restarts, drains or
limits the age of connections. `follow` opens it again and a cursor makes the pieces one: it knows the resume token to
continue from and drops what was told already, by version and by log offset. A wait with exponential backoff and full
jitter lies between two tries; the server's RetryInfo comes on top. It gives up, with the error of the last try, when
nothing was heard for `limit` seconds of trying, and at once for an error that trying again cannot cure: the job is
not there, the call is not allowed. Silence counts as a cut too, because servers send heartbeats.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from grpc import aio

from .. import errors, pb
from ._job import state_of
from ._patience import Tries
from ._transport import from_rpc_error, is_answer, is_cut, raise_if_closed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ._transport import Transport

LINGER = 5.0
"""Seconds that the server has for ending a stream whose last message was read, before it is cancelled."""

M_co = TypeVar("M_co", covariant=True)


class Cursor(Protocol[M_co]):
    """A place in a stream."""

    finished: bool
    """True once all was told that matters: a cut is no longer worth a new try."""

    def open(self) -> aio.UnaryStreamCall[Any, Any]:
        """Opens the stream where the cursor stands."""
        ...

    def accept(self, message: Any) -> M_co | None:
        """Moves past a message. What is new in it, or None."""
        ...

    def ended(self) -> None:
        """The server ended the stream with OK."""
        ...

    def recover(self, error: errors.AtlasError) -> bool:
        """Takes another place to continue from after an error that concerns the present one. False if there is none."""
        ...


async def follow(cursor: Cursor[M_co], transport: Transport) -> AsyncGenerator[M_co, None]:
    """Everything new, across cuts, until the cursor is finished. Raises AtlasError when it cannot go on."""
    patience = transport.patience
    tries = Tries(patience, patience.limit)
    error: errors.AtlasError
    while True:
        call = cursor.open()
        messages = call.__aiter__()
        try:
            while True:
                async with asyncio.timeout(patience.silence):
                    message = await anext(messages)
                transport.reached = True
                news = cursor.accept(message)
                tries.heard(news=news is not None)
                if news is not None:
                    yield news
        except StopAsyncIteration:
            cursor.ended()
            error = errors.Unavailable("the server ended the stream too early")
        except TimeoutError:
            error = errors.Unavailable(f"nothing was heard for {patience.silence:g} s")
        except aio.AioRpcError as err:
            error = from_rpc_error(err)
            transport.reached |= is_answer(err)
            if not cursor.recover(error) and not is_cut(err):
                raise error from err
        except asyncio.CancelledError:
            raise_if_closed()
            raise
        finally:
            _leave(call, finished=cursor.finished)
        if cursor.finished:
            return
        await transport.pause(tries, error)


_leaving: set[aio.UnaryStreamCall[Any, Any]] = set()


def _leave(call: aio.UnaryStreamCall[Any, Any], *, finished: bool) -> None:
    """Cancels a call, or lets the server end it if it said all: else every watch would count as cancelled there."""
    if not finished or call.done():
        call.cancel()
        return
    timer = asyncio.get_running_loop().call_later(LINGER, call.cancel)
    _leaving.add(call)

    def left(_: object) -> None:
        timer.cancel()
        _leaving.discard(call)

    call.add_done_callback(left)


class JobCursor:
    """A place in the life of one job: WatchJob's stream, or RunJob's until the job is known."""

    def __init__(
        self,
        transport: Transport,
        job_id: str = "",
        *,
        run: pb.SubmitJobRequest | None = None,
        resume_token: str = "",
        include_logs: bool = False,
        gapless: bool = True,
    ) -> None:
        self.job = pb.Job(id=job_id)
        """The job as it was last told."""
        self.deduplicated = False
        """Whether `run` named a job that was there already."""
        self.finished = False
        self.before = resume_token
        """The token before the message that `accept` returned last."""
        self._transport = transport
        self._run = run
        self._logs = include_logs
        self._gapless = gapless
        self._token = resume_token
        self._version = 0
        self._offset: int | None = None
        self._progress = pb.Progress()

    def open(self) -> aio.UnaryStreamCall[Any, Any]:
        stub = self._transport.stub
        if self._run is not None and not self.job.id:
            run = pb.RunJobRequest(job=self._run, include_logs=self._logs)
            return self._transport.stream(stub.RunJob, run)
        watch = pb.WatchJobRequest(id=self.job.id, resume_token=self._token, include_logs=self._logs)
        return self._transport.stream(stub.WatchJob, watch)

    def accept(self, message: pb.RunJobResponse | pb.WatchJobResponse) -> pb.WatchJobResponse | None:
        if isinstance(message, pb.RunJobResponse):
            self.deduplicated |= message.deduplicated
            update = message.update
        else:
            update = message
        if update.HasField("job"):
            self.job = update.job
        self.before, self._token = self._token, update.resume_token or self._token
        self._trim(update)
        self.finished = state_of(self.job.state).terminal
        news = update.transitions or update.logs or update.dropped_logs or update.HasField("progress")
        return update if news else None

    def ended(self) -> None:
        """Only a terminal state ends it, and `accept` has seen that."""

    def recover(self, error: errors.AtlasError) -> bool:
        if not _refused(error, self._token) or (self._gapless and not self._version):
            return False
        self._token = ""
        return True

    def _trim(self, update: pb.WatchJobResponse) -> None:
        known = sum(1 for step in update.transitions if step.version <= self._version)
        del update.transitions[:known]
        if update.transitions:
            first = update.transitions[0].version
            if self._gapless and self._version and first != self._version + 1:
                raise errors.ResumeTokenExpired(
                    f"the server no longer keeps what happened after version {self._version}",
                    metadata={"job_id": self.job.id},
                )
            self._version = update.transitions[-1].version
        if self._logs:
            self._trim_logs(update)
        if update.HasField("progress"):
            if update.progress == self._progress:
                update.ClearField("progress")
            else:
                self._progress.CopyFrom(update.progress)

    def _trim_logs(self, update: pb.WatchJobResponse) -> None:
        if self._offset is not None:
            expected = self._offset
            known = sum(1 for line in update.logs if line.offset < expected)
            del update.logs[:known]
            if update.logs:
                update.dropped_logs = max(0, update.logs[0].offset - expected)
            elif known:
                update.dropped_logs = 0
        if update.logs:
            self._offset = update.logs[-1].offset + 1
        elif self._offset is not None:
            self._offset += update.dropped_logs


class JobsCursor:
    """A place in WatchJobs' stream. A stream that cannot be continued starts over, and `restarted` is set."""

    def __init__(self, transport: Transport, request: pb.WatchJobsRequest) -> None:
        self.finished = False
        self.restarted = False
        """True from a new start until whoever follows resets it."""
        self.before = request.resume_token
        self._transport = transport
        self._request = request
        self._synced = bool(request.resume_token)
        self._told = bool(request.resume_token)

    def open(self) -> aio.UnaryStreamCall[Any, Any]:
        if self._told and not self._request.resume_token:
            self.restarted, self._synced, self._told = True, False, False
            self.before = ""
        return self._transport.stream(self._transport.stub.WatchJobs, self._request)

    def accept(self, update: pb.WatchJobsResponse) -> pb.WatchJobsResponse | None:
        self.before = self._request.resume_token
        self._request.resume_token = update.resume_token or self.before
        if update.synced and self._synced:
            update.synced = False
        self._synced |= update.synced
        news = update.jobs or update.deleted_ids or update.synced
        self._told |= bool(news)
        return update if news else None

    def ended(self) -> None:
        self.finished = bool(self._request.filter.ids)

    def recover(self, error: errors.AtlasError) -> bool:
        if self._request.skip_snapshot or not _refused(error, self._request.resume_token):
            return False
        self._request.resume_token = ""
        return True


class LogCursor:
    """A place in a job's log: TailJobLogs' stream."""

    def __init__(self, transport: Transport, request: pb.TailJobLogsRequest) -> None:
        self.finished = False
        self._transport = transport
        self._request = request

    def open(self) -> aio.UnaryStreamCall[Any, Any]:
        return self._transport.stream(self._transport.stub.TailJobLogs, self._request)

    def accept(self, update: pb.TailJobLogsResponse) -> pb.TailJobLogsResponse | None:
        self._request.resume_token = update.resume_token or self._request.resume_token
        return update if update.logs or update.dropped_logs else None

    def ended(self) -> None:
        self.finished = True

    def recover(self, error: errors.AtlasError) -> bool:  # noqa: ARG002 - a log has but one place to go on from
        return False


def _refused(error: errors.AtlasError, token: str) -> bool:
    """Whether the server cannot continue from the token: it is too old, or made by another server."""
    if not token:
        return False
    named = any(violation.field == "resume_token" for violation in error.violations)
    return named or isinstance(error, errors.ResumeTokenExpired)
