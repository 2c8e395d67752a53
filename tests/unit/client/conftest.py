"""A real gRPC server on loopback whose servicer follows a script: it cuts streams, repeats messages, answers errors."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from typing import TYPE_CHECKING

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode, aio

from atlas_grpc import errors, pb
from atlas_grpc._gen.atlas.v1.job_pb2 import Job, LogEntry, Transition
from atlas_grpc._gen.atlas.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from atlas_grpc.client import Client, Patience
from atlas_grpc.clock import SystemClock
from atlas_grpc.status import failure_status, to_status
from tests.unit.client.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cut(Exception):
    """The stream ends here, as the code of a transport or a status of Atlas says; OK ends it without one."""

    def __init__(self, how: StatusCode | errors.AtlasError) -> None:
        super().__init__(how)
        self.how = how


class Script(JobServiceServicer):
    """Keeps jobs in a dict. What goes wrong is asked for by the attributes."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.history: dict[str, list[Transition]] = {}
        self.logs: dict[str, list[LogEntry]] = {}
        self.by_request: dict[str, str] = {}
        self.calls: list[tuple[str, object]] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.fail: dict[str, Iterator[errors.AtlasError | StatusCode]] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.arrived = asyncio.Condition()
        self.submitted = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.ended = asyncio.Event()
        self.rng = random.Random(1)
        self.cuts: list[StatusCode | errors.AtlasError] = []
        self.chance = 1.0
        self.repeats = False
        self.kept_from = 0
        self.more = asyncio.Condition()
        self.replies: deque[list[tuple[pb.WatchJobsResponse | None, errors.AtlasError | StatusCode | None]]] = deque()
        self._ids = itertools.count(1)

    def add_job(self, causes: str = "SUBMITTED STARTED SUCCEEDED", **fields: object) -> str:
        """A job with a history of those causes."""
        job = Job(id=f"job-{next(self._ids)}", type="sleep", state="PENDING", **fields)
        self.jobs[job.id], self.history[job.id], self.logs[job.id] = job, [], []
        for cause in causes.split():
            self.step(job.id, cause)
        return job.id

    def step(self, job_id: str, cause: str) -> None:
        state = {"STARTED": "RUNNING", "SUCCEEDED": "SUCCESS", "CANCELLED": "CANCELLED", "DEADLINE_EXCEEDED": "FAILED"}
        job, history = self.jobs[job_id], self.history[job_id]
        job.version = len(history) + 1
        job.state = Job.State.Value(state.get(cause, "PENDING"))
        if cause == "SUCCEEDED" and job.WhichOneof("output") is None:
            job.result.number_value = 42
        if job.state in (Job.FAILED, Job.CANCELLED):
            job.error.CopyFrom(failure_status(4, "TOO_SLOW", "it took too long"))
        time = Timestamp(seconds=job.version)
        history.append(Transition(version=job.version, time=time, state=job.state, cause=cause))

    def log(self, job_id: str, text: str) -> None:
        lines = self.logs[job_id]
        time = Timestamp(seconds=len(self.history[job_id]))
        lines.append(LogEntry(offset=len(lines), time=time, severity="INFO", message=text))

    async def advance(self, job_id: str, cause: str) -> None:
        """The same as `step`, told to those who watch."""
        self.step(job_id, cause)
        async with self.more:
            self.more.notify_all()

    async def called(self, count: int) -> None:
        """Returns once so many calls have arrived."""
        async with self.arrived, asyncio.timeout(5):
            await self.arrived.wait_for(lambda: len(self.calls) >= count)

    async def _enter(self, method: str, request: object, context: aio.ServicerContext) -> None:
        self.metadata.append(dict(context.invocation_metadata() or ()))
        async with self.arrived:
            self.calls.append((method, request))
            self.arrived.notify_all()
        if method in self.gates:
            await self.gates[method].wait()
        failure = next(self.fail.get(method, iter(())), None)
        if failure is not None:
            await end(context, failure)

    def _submit(self, request: pb.SubmitJobRequest) -> pb.SubmitJobResponse:
        if request.type == "bad":
            raise errors.InvalidArgument.of("payload.seconds", "must be a number")
        known = self.by_request.get(request.request_id)
        job_id = known or self.add_job("SUBMITTED", request_id=request.request_id)
        self.by_request[request.request_id] = job_id
        self.submitted.set()
        return pb.SubmitJobResponse(job=self.jobs[job_id], deduplicated=known is not None)

    async def SubmitJob(self, request, context):
        await self._enter("SubmitJob", request, context)
        try:
            return self._submit(request)
        except errors.AtlasError as err:
            return await end(context, err)

    async def SubmitJobs(self, request, context):
        await self._enter("SubmitJobs", request, context)
        answer = pb.SubmitJobsResponse()
        for one in request.requests:
            try:
                answer.outcomes.add(response=self._submit(one))
            except errors.AtlasError as err:
                answer.outcomes.add(error=to_status(err))
        return answer

    async def GetJob(self, request, context):
        await self._enter("GetJob", request, context)
        if request.id not in self.jobs:
            await end(context, errors.JobNotFound.of(request.id))
        return pb.GetJobResponse(job=self.jobs[request.id])

    async def CancelJob(self, request, context):
        await self._enter("CancelJob", request, context)
        self.step(request.id, "CANCELLED")
        return pb.CancelJobResponse(job=self.jobs[request.id])

    async def RetryJob(self, request, context):
        await self._enter("RetryJob", request, context)
        return pb.RetryJobResponse(job=self.jobs[request.id])

    async def ListJobs(self, request, context):
        await self._enter("ListJobs", request, context)
        jobs = list(self.jobs.values())
        start = int(request.page_token or 0)
        end_of_page = start + request.page_size
        token = str(end_of_page) if end_of_page < len(jobs) else ""
        return pb.ListJobsResponse(jobs=jobs[start:end_of_page], next_page_token=token)

    async def WatchJob(self, request, context):
        await self._enter("WatchJob", request, context)
        await self._stream(request.id, request.resume_token, context, lambda update: update)

    async def TailJobLogs(self, request, context):
        await self._enter("TailJobLogs", request, context)
        at = int(request.resume_token or request.start_offset)
        try:
            for line in self.logs[request.id][at:]:
                self._maybe_cut()
                await context.write(pb.TailJobLogsResponse(logs=[line], resume_token=str(line.offset + 1)))
            self._maybe_cut()
        except Cut as cut:
            await end(context, cut.how)

    async def RunJob(self, request, context):
        await self._enter("RunJob", request, context)
        answer = self._submit(request.job)
        await self._stream(answer.job.id, "", context, lambda update: pb.RunJobResponse(update=update))

    async def _stream(self, job_id, token, context, wrap):
        try:
            if job_id not in self.jobs:
                raise Cut(errors.JobNotFound.of(job_id))
            seen, lines = map(int, token.split("/")) if token else (0, 0)
            if token and seen < self.kept_from:
                raise Cut(errors.ResumeTokenExpired("too old"))
            await self._tell(job_id, max(seen, self.kept_from), lines, context, wrap)
        except Cut as cut:
            await end(context, cut.how)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _tell(self, job_id, seen, lines, context, wrap):
        first = True
        while first or self.jobs[job_id].state < Job.SUCCESS or seen < len(self.history[job_id]):
            self._maybe_cut()
            history, log = self.history[job_id], self.logs[job_id]
            if not first and seen == len(history) and lines == len(log):
                async with self.more:
                    await self.more.wait()
                continue
            start = max(0, seen - self.rng.randint(0, 3)) if self.repeats else seen
            until = min(len(history), seen + self.rng.randint(0 if self.repeats else 1, 3))
            told = max(0, lines - self.rng.randint(0, 3)) if self.repeats else lines
            update = pb.WatchJobResponse(transitions=history[start:until], logs=log[told:])
            seen, lines, first = max(seen, until), len(log), False
            update.job.CopyFrom(self.jobs[job_id])
            update.job.state = history[seen - 1].state if seen else Job.PENDING
            update.resume_token = f"{seen}/{lines}"
            await context.write(wrap(update))
        self._maybe_cut()
        if "end" in self.gates:
            await self.gates["end"].wait()
            self.ended.set()

    def _maybe_cut(self) -> None:
        if self.cuts and self.rng.random() < self.chance:
            raise Cut(self.cuts.pop())

    async def WatchJobs(self, request, context):
        await self._enter("WatchJobs", request, context)
        for message, how in self.replies.popleft():
            if message is not None:
                await context.write(message)
            if how is not None:
                await end(context, how)


CODES = {code.value[0]: code for code in StatusCode}


async def end(context: aio.ServicerContext, how: errors.AtlasError | StatusCode) -> None:
    """Ends a call with a status of Atlas or, as a transport would, with a bare code."""
    if isinstance(how, errors.AtlasError):
        details = (("grpc-status-details-bin", to_status(how).SerializeToString()),)
        await context.abort(CODES[how.code], how.message, details)
    elif how is not StatusCode.OK:
        await context.abort(how, "cut")


class Server:
    """A server that can stop and start again on the same port."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.port = 0
        self._server: aio.Server | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = aio.server(options=[("grpc.so_reuseport", 0)])
        add_JobServiceServicer_to_server(self.script, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


class VirtualClock(SystemClock):
    """A clock whose pauses cost no time."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def script():
    return Script()


@pytest.fixture
async def server(script):
    running = Server(script)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def patience(clock):
    return Patience(limit=60, silence=5, clock=clock, rng=random.Random(7))


@pytest.fixture
async def client(server, patience):
    async with Client(server.target, timeout=5, patience=patience) as open_client:
        yield open_client


@pytest.fixture
async def proxy(server):
    running = Proxy(server.port)
    running.target = await running.start()
    yield running
    await running.stop()
