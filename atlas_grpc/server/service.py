"""`atlas.v1.JobService`: each method from the wire to the engine and back. The contract is in proto/."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import grpc

from .. import pb
from ..engine.logs import Wanted
from ..engine.tokens import JobToken, PageToken, decode, encode
from ..errors import AtlasError, InvalidArgument, JobNotFound
from ..model import SECOND
from . import convert, encoded
from .calls import unexpected
from .fitting import MESSAGE_BYTES, fitting
from .validation import faults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from ..engine.engine import Engine, Submitted
    from ..engine.submit import Submission
    from ..engine.watches import JobUpdate, JobWatch
    from ..model import Job, Progress
    from .calls import Answer, Call, Guard

    Write = Callable[[bytes], Awaitable[None]]

SERVICE = "atlas.v1.JobService"

DEFAULT_PAGE = 100
MAX_PAGE = 1_000
MAX_LINES = 1_000
_HEAD_START = 12
"""Turns of the event loop between a submit and the first message of RunJob; a turn takes microseconds."""


class JobService:
    """The handlers of JobService over an engine. `max_payload` in bytes."""

    def __init__(self, engine: Engine, *, max_payload: int) -> None:
        self._engine = engine
        self._max_payload = max_payload
        self._reads = encoded.ReadCache()

    def handlers(self, guard: Guard) -> grpc.GenericRpcHandler:
        """All methods, guarded."""

        def name(method: str) -> str:
            return f"/{SERVICE}/{method}"

        unary, stream = guard.unary, guard.streaming
        methods = {
            "SubmitJob": guard.gathered(name("SubmitJob"), pb.SubmitJobRequest, self.submit, while_draining=False),
            "SubmitJobs": unary(
                name("SubmitJobs"), pb.SubmitJobsRequest, self.submit_many, validate=False, while_draining=False
            ),
            "RunJob": stream(name("RunJob"), pb.RunJobRequest, self.run, while_draining=False),
            "GetJob": guard.gathered(name("GetJob"), pb.GetJobRequest, self.get),
            "ListJobs": unary(name("ListJobs"), pb.ListJobsRequest, self.list),
            "WatchJob": stream(name("WatchJob"), pb.WatchJobRequest, self.watch),
            "WatchJobs": stream(name("WatchJobs"), pb.WatchJobsRequest, self.watch_many),
            "ListJobLogs": unary(name("ListJobLogs"), pb.ListJobLogsRequest, self.list_logs),
            "TailJobLogs": stream(name("TailJobLogs"), pb.TailJobLogsRequest, self.tail_logs),
            "CancelJob": unary(name("CancelJob"), pb.CancelJobRequest, self.cancel),
            "RetryJob": unary(name("RetryJob"), pb.RetryJobRequest, self.retry, while_draining=False),
            "DeleteJob": unary(name("DeleteJob"), pb.DeleteJobRequest, self.delete),
            "ExplainJob": unary(name("ExplainJob"), pb.ExplainJobRequest, self.explain),
            "ListJobTypes": unary(name("ListJobTypes"), pb.ListJobTypesRequest, self.list_types),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _submission(self, call: Call, request: pb.SubmitJobRequest, now: int) -> Submission:
        return convert.submission(request, call.namespace, call.traceparent, self._max_payload, now)

    async def submit(self, calls: list[Call], requests: Sequence[pb.SubmitJobRequest]) -> list[Answer]:
        answers: list[Answer] = []
        subs: list[Submission] = []
        now = self._engine.store.now()
        for call, request in zip(calls, requests, strict=True):
            try:
                sub = self._submission(call, request, now)
                if request.validate_only:
                    answers.append(convert.planned(*await self._engine.plan(sub)).SerializeToString())
                else:
                    subs.append(sub)
                    answers.append(b"")
            except Exception as error:
                answers.append(_known(error, "SubmitJob"))
        stored = iter(await self._engine.submit_many(subs))
        return [_submitted(next(stored)) if answer == b"" else answer for answer in answers]

    async def submit_many(self, call: Call, request: pb.SubmitJobsRequest) -> bytes:
        wrong = faults(request, "requests")
        subs: list[Submission | AtlasError] = []
        now = self._engine.store.now()
        for index, item in enumerate(request.requests):
            if index in wrong:
                subs.append(wrong[index])
                continue
            try:
                if item.validate_only:
                    raise InvalidArgument.of("validate_only", "is not taken in a batch; use SubmitJob")
                subs.append(self._submission(call, item, now))
            except AtlasError as error:
                subs.append(error)
        return encoded.outcomes(await self._engine.submit_many(subs))

    async def run(self, call: Call, request: pb.RunJobRequest, write: Write) -> None:
        if request.job.validate_only:
            raise InvalidArgument.of("job.validate_only", "is not taken here; use SubmitJob")
        try:
            answer = await self._engine.submit(self._submission(call, request.job, self._engine.store.now()))
        except InvalidArgument as error:
            raise error.within("job") from None
        watch = await self._engine.watch_submitted(answer.job, include_logs=request.include_logs)
        first = answer.deduplicated
        try:
            await _let_it_run(watch)
            while True:
                update = await watch.next()
                message = pb.RunJobResponse(deduplicated=first)
                convert.fill_update(message.update, update, _job_token(watch, update))
                first = False
                await write(message.SerializeToString())
                if update.final:
                    return
        finally:
            watch.close()

    async def get(self, calls: list[Call], requests: Sequence[pb.GetJobRequest]) -> list[Answer]:
        answers: list[Answer] = []
        jobs = await self._engine.get_many([request.id for request in requests])
        outputs = iter(await self._engine.outputs([job for job in jobs if job is not None and job.attempt]))
        for call, request, job in zip(calls, requests, jobs, strict=True):
            progress = next(outputs).progress if job is not None and job.attempt else None
            if job is None or job.spec.namespace != call.namespace:
                answers.append(JobNotFound.of(request.id))
            elif request.HasField("wait") and not job.state.terminal:
                answers.append(partial(self._get_later, call, request))
            else:
                answers.append(self._encoded(job, progress, full=request.view != pb.JOB_VIEW_BASIC))
        return answers

    async def _get_later(self, call: Call, request: pb.GetJobRequest) -> bytes:
        seconds = call.patience(convert.micros(request.wait, "wait") / SECOND)
        job = await self._engine.wait(call.namespace, request.id, seconds)
        return self._encoded(job, await self._progress(job), full=request.view != pb.JOB_VIEW_BASIC)

    def _encoded(self, job: Job, progress: Progress | None, *, full: bool) -> bytes:
        key = (job.spec.id, job.version, 0 if progress is None else progress.time, full)
        answer = self._reads.get(key)
        if answer is None:
            response = pb.GetJobResponse()
            convert.fill_job(response.job, job, progress, full=full)
            answer = response.SerializeToString()
            self._reads.put(key, answer)
        return answer

    async def _progress(self, job: Job) -> Progress | None:
        # Only attempts report, so a job that never started has nothing to read.
        return (await self._engine.outputs([job]))[0].progress if job.attempt or job.run > 1 else None

    async def list(self, call: Call, request: pb.ListJobsRequest) -> pb.ListJobsResponse:
        where = convert.job_filter(request.filter, call.namespace)
        limit = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        full = request.view == pb.JOB_VIEW_FULL
        records, token = await self._engine.list(where, request.page_token, limit)
        progress = [output.progress for output in await self._engine.outputs(records)]

        def made(record: Job, latest: Progress | None) -> pb.Job:
            message = pb.Job()
            convert.fill_job(message, record, latest, full=full)
            return message

        jobs = fitting(map(made, records, progress))
        if len(jobs) < len(records):
            token = self._engine.page_token(where, jobs[-1].id)
        return pb.ListJobsResponse(jobs=jobs, next_page_token=token)

    async def watch(self, call: Call, request: pb.WatchJobRequest, write: Write) -> None:
        watch = await self._engine.watch(
            call.namespace, request.id, request.resume_token, include_logs=request.include_logs
        )
        try:
            while True:
                update = await watch.next()
                data = watch.topic.encoded(update.place)
                if data is None:
                    token = _job_token(watch, update)
                    message = pb.WatchJobResponse()
                    convert.fill_update(message, update, token)
                    data = message.SerializeToString()
                    watch.topic.keep_encoded(update.place, data)
                await write(data)
                if update.final:
                    return
        finally:
            watch.close()

    async def watch_many(self, call: Call, request: pb.WatchJobsRequest, write: Write) -> None:
        where = convert.job_filter(request.filter, call.namespace)
        watch = await self._engine.watch_many(where, request.resume_token, snapshot=not request.skip_snapshot)
        try:
            while True:
                update = await watch.next()
                if not update.encoded:
                    before, token = (
                        "" if cursor is None else self._engine.feed_token(where, cursor)
                        for cursor in (update.since, update.cursor)
                    )
                    parts = _parts(convert.jobs_update(update, token), before)
                    update.encoded.extend(part.SerializeToString() for part in parts)
                for data in update.encoded:
                    await write(data)
                if update.final:
                    return
        finally:
            watch.close()

    async def list_logs(self, call: Call, request: pb.ListJobLogsRequest) -> pb.ListJobLogsResponse:
        limit = min(request.page_size or MAX_LINES, MAX_LINES)
        return convert.log_page(await self._engine.logs(call.namespace, request.id, _wanted(request), limit))

    async def tail_logs(self, call: Call, request: pb.TailJobLogsRequest, write: Write) -> None:
        watch = await self._engine.watch_log(call.namespace, request.id, _wanted(request), request.resume_token)
        try:
            while True:
                update = await watch.next()
                token = self._engine.log_token(request.id, update.next)
                await write(convert.log_update(update, token).SerializeToString())
                if update.final:
                    return
        finally:
            watch.close()

    async def cancel(self, call: Call, request: pb.CancelJobRequest) -> pb.CancelJobResponse:
        version = request.if_version if request.HasField("if_version") else None
        job = await self._engine.cancel(call.namespace, request.id, request.reason, version)
        response = pb.CancelJobResponse()
        convert.fill_job(response.job, job, await self._progress(job))
        return response

    async def retry(self, call: Call, request: pb.RetryJobRequest) -> pb.RetryJobResponse:
        version = request.if_version if request.HasField("if_version") else None
        job = await self._engine.retry(call.namespace, request.id, version)
        response = pb.RetryJobResponse()
        convert.fill_job(response.job, job, await self._progress(job))
        return response

    async def delete(self, call: Call, request: pb.DeleteJobRequest) -> pb.DeleteJobResponse:
        version = request.if_version if request.HasField("if_version") else None
        await self._engine.delete(call.namespace, request.id, version)
        return pb.DeleteJobResponse()

    async def explain(self, call: Call, request: pb.ExplainJobRequest) -> pb.ExplainJobResponse:
        return convert.explanation(await self._engine.explain(call.namespace, request.id))

    async def list_types(self, _: Call, request: pb.ListJobTypesRequest) -> pb.ListJobTypesResponse:
        await self._engine.core.announced.refresh()
        types = self._engine.catalog.types()
        limit = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        query = b"types"
        if request.page_token:
            token = decode(request.page_token, PageToken, "page_token")
            if token.query != query:
                raise InvalidArgument.of("page_token", "belongs to another method", reason="INVALID_TOKEN")
            types = [info for info in types if info.name > token.after]
        page = fitting(convert.job_type(info) for info in types[:limit])
        more = encode(PageToken(page[-1].name, query)) if len(types) > len(page) else ""
        return pb.ListJobTypesResponse(job_types=page, next_page_token=more)


async def _let_it_run(watch: JobWatch) -> None:
    """Gives a short job a few turns of the loop, so that its whole life fits into one message instead of three."""
    for _ in range(_HEAD_START):
        if watch.is_over:
            return
        await asyncio.sleep(0)


def _wanted(request: pb.ListJobLogsRequest | pb.TailJobLogsRequest) -> Wanted:
    tail = request.tail_lines if request.HasField("tail_lines") else None
    return Wanted(request.start_offset, tail, request.attempt)


def _submitted(answer: Submitted | AtlasError) -> Answer:
    return answer if isinstance(answer, AtlasError) else encoded.submitted(answer)


def _known(error: Exception, method: str) -> AtlasError:
    return error if isinstance(error, AtlasError) else unexpected(error, method)


def _parts(whole: pb.WatchJobsResponse, before: str) -> Iterator[pb.WatchJobsResponse]:
    """The message in parts that stay below what clients take. A cut between them resumes from `before`."""
    while whole.ByteSize() > MESSAGE_BYTES and len(jobs := fitting(whole.jobs)) < len(whole.jobs):
        yield pb.WatchJobsResponse(jobs=jobs, resume_token=before)
        del whole.jobs[: len(jobs)]
    yield whole


def _job_token(watch: JobWatch, update: JobUpdate) -> str:
    return encode(JobToken(watch.job_id, update.version, update.log, update.time))
