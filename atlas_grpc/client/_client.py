"""The asynchronous client."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from .. import errors, pb
from ..errors import seconds
from ._batch import Submitter, submit_all
from ._events import JobEvent, JobsEvent, LogEvent, Restarted, job_events, jobs_events, log_events
from ._handle import JobHandle
from ._job import Explanation, Job, JobState, JobType, explanation_of, succeeded
from ._patience import Patience
from ._requests import FilterOptions, SubmitOptions, job_filter, job_id, new_job
from ._resume import JobCursor, JobsCursor, LogCursor, follow
from ._stream import Stream
from ._transport import NAMESPACE, Transport
from ._values import Payload, Span, to_duration

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
    from typing import Self, Unpack

    from grpc import aio

M = TypeVar("M", pb.ListJobLogsRequest, pb.TailJobLogsRequest)

PAGE_SIZE = 500


class Client:
    """A client of one Atlas server, for asyncio.

        async with Client("127.0.0.1:50051") as atlas:
            job = await atlas.submit("sleep", {"seconds": 3})
            print(await job.result())

    It connects with the first call, and reconnects by itself. Use it from many tasks of one event loop; `SyncClient` is
    for programs without one. Every method raises `AtlasError`: the class and its `reason` say what is wrong. A call
    that is not a stream ends after `timeout` seconds; until then it is repeated while the server cannot be reached,
    which is safe because every submit carries a request id.

    Streams (`watch`, `watch_all`, `run`, and `wait` and `result`, which are built on them) have no deadline of their
    own. When one is cut they resume it where it stopped, without gap or repeat, and give up with the last error after
    `reconnect_timeout` seconds of continuous failure.

    Wherever a job is asked for, its id or any `Job` will do. Time spans are seconds or a timedelta.

    A `channel` of your own is used as it is and not closed; give it the options of `CHANNEL_OPTIONS`, or calls are not
    repeated.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        namespace: str = "default",
        timeout: Span = 30.0,
        reconnect_timeout: Span = 60.0,
        heartbeat_timeout: Span = 45.0,
        metadata: Mapping[str, str | bytes] | None = None,
        tls: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
        wait_for_ready: bool | None = None,
        channel: aio.Channel | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Nothing is sent yet.

        `metadata` goes with every call, for instance `{"authorization": "Bearer …"}`. `tls` verifies the server by the
        roots of gRPC; `credentials` are for anything else. A stream that is silent for `heartbeat_timeout` counts as
        cut. With `wait_for_ready`, calls wait for a server that is away or drains until their timeout; without, they
        fail after four tries. Left out, they wait once the server has been reached: a wrong address shows at once, a
        restart does not. `patience` replaces the two stream timeouts, with a clock and random numbers of your own.
        """
        if tls and credentials is None:
            credentials = grpc.ssl_channel_credentials()
        patience = patience or Patience(limit=seconds(reconnect_timeout), silence=seconds(heartbeat_timeout))
        self._transport = Transport(
            target,
            timeout=seconds(timeout),
            metadata={NAMESPACE: namespace, **(metadata or {})},
            credentials=credentials,
            channel=channel,
            wait_for_ready=wait_for_ready,
            patience=patience,
        )
        self._submitter = Submitter(self._transport)
        self._handle_type: Callable[[Any, pb.Job, pb.SubmitJobResponse | None], JobHandle] = JobHandle
        self._owner: Any = self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all calls (they raise Cancelled) and the connection. May be repeated."""
        await self._submitter.close()
        await self._transport.close()

    async def submit(self, type: str, payload: Payload = None, **options: Unpack[SubmitOptions]) -> JobHandle:
        """Stores a job; once this returns, the job is not lost. The options are those of `SubmitOptions`.

        The payload is a dict, a dataclass, a Pydantic model or a msgspec Struct, sent as JSON; or bytes, with
        `content_type`. JSON numbers are doubles: integers beyond 2^53 are refused here.

        Submits that run at the same time share calls to the server. Cancelling one of them does not hurt the others; it
        may leave its job stored.

        Raises InvalidArgument with a violation for each wrong field, RequestIdReused, StoreFull.
        """
        answer = await self._submitter.submit(new_job(type, payload, **options))
        return self._view(answer.job, answer)

    async def submit_many(self, requests: Iterable[pb.SubmitJobRequest]) -> Sequence[JobHandle | errors.AtlasError]:
        """Stores many jobs, each on its own: a job or its error for each request, in order. Raises nothing by itself.

        `new_job` makes the requests. They go out in calls of up to 500; a call that fails gives its error to all of its
        requests.
        """
        outcomes = await submit_all(self._transport, requests)
        return [one if isinstance(one, errors.AtlasError) else self._view(one.job, one) for one in outcomes]

    async def run(self, type: str, payload: Payload = None, **options: Unpack[SubmitOptions]) -> JobHandle:
        """Stores a job and waits for its success; its `output` is what the handler returned.

        Takes what `submit` takes, without `validate_only`. Cancelling this leaves the job running. A cut, or a restart
        of the server, is survived: before the job is known it is submitted again with the same request id.

        Raises what `submit` raises; JobFailed and JobCancelled, which hold the job, when it ends otherwise.
        """
        cursor = self._run_cursor(type, payload, options, include_logs=False, gapless=False)
        await self._finish(cursor)
        return self._view(succeeded(Job(cursor.job)).message, pb.SubmitJobResponse(deduplicated=cursor.deduplicated))

    def run_events(
        self, type: str, payload: Payload = None, *, include_logs: bool = True, **options: Unpack[SubmitOptions]
    ) -> Stream[JobEvent]:
        """Stores a job and tells its life as `watch` does: each `Transitioned` holds it. It may end in any state."""
        return self._events(self._run_cursor(type, payload, options, include_logs=include_logs, gapless=True))

    async def get(self, job: str | Job, *, wait: Span = 0.0, full: bool = True) -> JobHandle:
        """Reads a job. Raises JobNotFound.

        With `wait`, the server answers when the job is terminal or so much time has passed (up to 10 minutes),
        whichever is first: one unary call, for where streams do not pass. `wait()` is better where they do: it notices
        a server that has gone. Without `full`, payload and result are left out.
        """
        view = pb.JOB_VIEW_FULL if full else pb.JOB_VIEW_BASIC
        request = pb.GetJobRequest(id=job_id(job), view=view)
        if wait:
            request.wait.CopyFrom(to_duration("wait", wait))
        answer = await self._transport.call(self._transport.stub.GetJob, request, more=seconds(wait))
        return self._view(answer.job)

    def list(
        self,
        *,
        limit: int | None = None,
        page_size: int = PAGE_SIZE,
        full: bool = False,
        **filter: Unpack[FilterOptions],
    ) -> Stream[JobHandle]:
        """Jobs that match, newest first, at most `limit`. The filters are those of `FilterOptions`.

        They are read page by page while you iterate. Payloads and results are left out, unless `full`.
        """
        request = pb.ListJobsRequest(
            filter=job_filter(**filter),
            page_size=page_size if limit is None else min(page_size, limit),
            view=pb.JOB_VIEW_FULL if full else pb.JOB_VIEW_BASIC,
        )
        return Stream(self._list(request, limit))

    def watch(self, job: str | Job, *, resume_token: str = "", include_logs: bool = True) -> Stream[JobEvent]:
        """Follows a job to its end: every transition in order, without gap or repeat, and progress and logs between.

        It starts with the job's history and ends after its terminal state. With the `resume_token` of an event it goes
        on from there.

        Raises JobNotFound; ResumeTokenExpired when a part of the history that was not told yet is no longer kept.
        """
        cursor = JobCursor(self._transport, job_id(job), resume_token=resume_token, include_logs=include_logs)
        return self._events(cursor)

    def logs(
        self,
        job: str | Job,
        *,
        follow: bool = False,
        start_offset: int = 0,
        tail: int | None = None,
        attempt: int = 0,
    ) -> Stream[LogEvent]:
        """The lines of a job's log, oldest first: those that are kept; with `follow`, also those to come, to its end.

        It begins at `start_offset`, or with the last `tail` lines, whichever is later; to go on after a line, give its
        `offset + 1`. With `attempt`, lines of the attempts of that number alone. `LogsDropped` says how many lines
        before the next one are no longer kept. Raises JobNotFound.
        """
        wanted = {"id": job_id(job), "start_offset": start_offset, "tail_lines": tail, "attempt": attempt}
        if follow:
            return Stream(self._tail_logs(LogCursor(self._transport, _made(pb.TailJobLogsRequest, wanted))))
        return Stream(self._read_logs(_made(pb.ListJobLogsRequest, wanted)))

    def watch_all(
        self, *, resume_token: str = "", skip_snapshot: bool = False, **filter: Unpack[FilterOptions]
    ) -> Stream[JobsEvent]:
        """Follows all jobs that match: first those that are there, then `Synced`, then each again when it changes.

        The filters are those of `FilterOptions`. With `ids` it ends when all of them are terminal or deleted, otherwise
        never. A job that changes fast is told with its latest state, not with each. `Restarted` says that the server
        could not continue after a cut and tells the snapshot again. `skip_snapshot` begins with what changes from now
        on; instead of `Restarted`, ResumeTokenExpired is raised then.
        """
        request = pb.WatchJobsRequest(
            filter=job_filter(**filter), resume_token=resume_token, skip_snapshot=skip_snapshot
        )
        return Stream(self._watch_all(JobsCursor(self._transport, request)))

    async def wait(self, job: str | Job, *, timeout: Span | None = None) -> JobHandle:
        """Waits until a job is terminal, whatever its state then; the answer has its result, not its payload.

        Raises JobNotFound; DeadlineExceeded when `timeout` has passed, while the job lives on.
        """
        cursor = JobCursor(self._transport, job_id(job), gapless=False)
        await self._finish(cursor, timeout)
        return self._view(cursor.job)

    async def result(self, job: str | Job, *, timeout: Span | None = None) -> Any:
        """Waits for a job and returns what its handler returned: a JSON value, or bytes.

        Raises what `wait` raises; JobFailed and JobCancelled, which hold the job, when it did not succeed.
        """
        known = job if isinstance(job, Job) else None
        if known is not None and known.state is JobState.SUCCESS and not known.has_output:
            known = await self.get(known)
        if known is None or not known.state.terminal:  # as it is too when it was retried since it was read
            known = await self.wait(job, timeout=timeout)
        return succeeded(known).output

    async def cancel(self, job: str | Job, *, reason: str = "", if_version: int | None = None) -> JobHandle:
        """Stops a job: one that waits is CANCELLED at once, one that runs is told, and has a while to stop.

        `reason` is shown in the job's error. Repeating it is harmless. Raises JobNotFound; JobTerminal when it ended as
        SUCCESS or FAILED; VersionMismatch when its version is not `if_version`.
        """
        request = pb.CancelJobRequest(id=job_id(job), reason=reason, if_version=if_version)
        return self._view((await self._transport.call(self._transport.stub.CancelJob, request)).job)

    async def retry(self, job: str | Job, *, if_version: int | None = None) -> JobHandle:
        """Starts a new run of a terminal job, with fresh attempts and deadlines; its history is kept.

        Raises JobNotFound; JobNotTerminal; VersionMismatch when its version is not `if_version`.
        """
        request = pb.RetryJobRequest(id=job_id(job), if_version=if_version)
        return self._view((await self._transport.call(self._transport.stub.RetryJob, request, repeatable=False)).job)

    async def delete(self, job: str | Job, *, if_version: int | None = None) -> None:
        """Deletes a terminal job before its retention ends.

        Raises JobNotFound; JobNotTerminal; VersionMismatch when its version is not `if_version`.
        """
        request = pb.DeleteJobRequest(id=job_id(job), if_version=if_version)
        await self._transport.call(self._transport.stub.DeleteJob, request, repeatable=False)

    async def explain(self, job: str | Job) -> Explanation:
        """Says why a job is where it is: what it waits for, what stands before it, what happens next and when."""
        request = pb.ExplainJobRequest(id=job_id(job))
        return explanation_of(await self._transport.call(self._transport.stub.ExplainJob, request))

    async def types(self) -> tuple[JobType, ...]:
        """The job types that can be submitted, by name."""
        request = pb.ListJobTypesRequest(page_size=PAGE_SIZE)
        found: tuple[JobType, ...] = ()
        while True:
            answer = await self._transport.call(self._transport.stub.ListJobTypes, request)
            found += tuple(map(JobType, answer.job_types))
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    def _run_cursor(
        self, type: str, payload: Payload, options: SubmitOptions, *, include_logs: bool, gapless: bool
    ) -> JobCursor:
        run = new_job(type, payload, **options)
        return JobCursor(self._transport, run=run, include_logs=include_logs, gapless=gapless)

    def _events(self, cursor: JobCursor) -> Stream[JobEvent]:
        return Stream(self._told(cursor))

    async def _told(self, cursor: JobCursor) -> AsyncGenerator[JobEvent, None]:
        async with aclosing(follow(cursor, self._transport)) as updates:
            async for update in updates:
                for event in job_events(update, cursor.before):
                    yield event

    async def _watch_all(self, cursor: JobsCursor) -> AsyncGenerator[JobsEvent, None]:
        async with aclosing(follow(cursor, self._transport)) as updates:
            async for update in updates:
                if cursor.restarted:
                    cursor.restarted = False
                    yield Restarted(resume_token="")
                for event in jobs_events(update, cursor.before):
                    yield event

    async def _tail_logs(self, cursor: LogCursor) -> AsyncGenerator[LogEvent, None]:
        async with aclosing(follow(cursor, self._transport)) as updates:
            async for update in updates:
                for event in log_events(update):
                    yield event

    async def _read_logs(self, request: pb.ListJobLogsRequest) -> AsyncGenerator[LogEvent, None]:
        while True:
            answer = await self._transport.call(self._transport.stub.ListJobLogs, request)
            for event in log_events(answer):
                yield event
            if answer.next_offset >= answer.end_offset:
                return
            request.ClearField("tail_lines")
            request.start_offset = answer.next_offset

    async def _finish(self, cursor: JobCursor, time_left: Span | None = None) -> None:
        limit = asyncio.timeout(None if time_left is None else seconds(time_left))
        try:
            async with limit, aclosing(follow(cursor, self._transport)) as updates:
                async for _ in updates:
                    if cursor.finished:
                        return
        except TimeoutError:
            if not limit.expired():
                raise
            known = {"job_id": cursor.job.id}
            raise errors.DeadlineExceeded(f"job {cursor.job.id!r} was not terminal in time", metadata=known) from None

    async def _list(self, request: pb.ListJobsRequest, limit: int | None) -> AsyncGenerator[JobHandle, None]:
        left = limit
        while left is None or left > 0:
            answer = await self._transport.call(self._transport.stub.ListJobs, request)
            for message in answer.jobs[:left]:
                yield self._view(message)
            if not answer.next_page_token:
                return
            left = None if left is None else left - len(answer.jobs)
            request.page_token = answer.next_page_token

    def _view(self, message: pb.Job, answer: pb.SubmitJobResponse | None = None) -> JobHandle:
        return self._handle_type(self._owner, message, answer)


def _made(kind: type[M], fields: dict[str, Any]) -> M:
    """The message with those fields. Raises InvalidArgument when a number does not fit its field."""
    try:
        return kind(**fields)
    except ValueError:
        raise errors.InvalidArgument("the numbers must be those of lines and attempts") from None
