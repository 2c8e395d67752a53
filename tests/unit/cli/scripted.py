"""A real gRPC server with a scripted service, and the command line run against it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from click.testing import CliRunner
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from atlas_grpc import pb
from atlas_grpc._gen.atlas.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from atlas_grpc.cli.app import execute
from atlas_grpc.errors import AtlasError, InvalidArgument, JobNotFound
from atlas_grpc.status import failure_status, to_status

if TYPE_CHECKING:
    from collections.abc import Iterator

ID = "01970000-0000-7000-8000-000000000001"
START = 1_900_000_000


class Ended(NamedTuple):
    """How a run of the command line ended."""

    code: int
    out: str
    err: str


def make_job(number: int = 1, **more: Any) -> pb.Job:
    """A job from proto JSON."""
    base = {"id": f"01970000-0000-7000-8000-{number:012}", "type": "sleep", "queue": "default", "version": 1, "run": 1}
    found = json_format.ParseDict({"state": "PENDING", **base, **more}, pb.Job())
    found.create_time.FromSeconds(START)
    return found


def step(version: int, state: str, cause: str, **more: Any) -> pb.WatchJobResponse:
    """A message of a watch with one transition; the job is in that state."""
    text = {"version": version, "state": state, "cause": cause, "run": 1, "time": "2030-03-17T17:46:40Z", **more}
    update = pb.WatchJobResponse(job=make_job(version=version, state=state), resume_token=f"token-{version}")
    update.transitions.append(json_format.ParseDict(text, pb.Transition()))
    return update


def success(result: Any, version: int = 3) -> pb.WatchJobResponse:
    """The last message of a job that returned `result`."""
    update = step(version, "SUCCESS", "SUCCEEDED", attempt=1)
    json_format.ParseDict(result, update.job.result if result is not None else Value())
    if result is None:
        update.job.result.null_value = 0
    update.job.finish_time.FromSeconds(START + 3)
    return update


def ended(state: str, cause: str, reason: str, message: str) -> pb.WatchJobResponse:
    """The last message of a job that did not succeed."""
    update = step(3, state, cause, attempt=1)
    update.job.error.CopyFrom(failure_status(9, reason, message))
    update.job.finish_time.FromSeconds(START + 3)
    return update


def told(progress: tuple[float, float, str] | None = None, logs: tuple[str, ...] = ()) -> pb.WatchJobResponse:
    """A message of a watch with what the handler reported."""
    update = pb.WatchJobResponse(resume_token="token-told")
    if progress:
        current, total, message = progress
        update.progress.CopyFrom(pb.Progress(current=current, total=total, message=message))
    for offset, line in enumerate(logs):
        update.logs.add(offset=offset, message=line, severity=pb.LogEntry.INFO)
    return update


SUBMITTED = step(1, "PENDING", "SUBMITTED")
STARTED = step(2, "RUNNING", "STARTED", attempt=1, worker="w-1")


def read_all(fd: int) -> str:
    """What was written to a terminal until its last writer closed it."""
    chunks = []
    while True:
        try:
            chunk = os.read(fd, 4096)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(fd)
    return b"".join(chunks).decode()


class Script(JobServiceServicer):
    """Answers what the test put here, and remembers what it was asked."""

    def __init__(self) -> None:
        self.updates = [SUBMITTED, STARTED, success({"slept": 3})]
        self.changes: list[pb.WatchJobsResponse] = []
        self.jobs = [make_job()]
        self.types = [pb.JobType(name="sleep", queue="default"), pb.JobType(name="squash", queue="default")]
        self.errors: dict[str, AtlasError] = {}
        """By method: what it fails with."""
        self.stalled: threading.Event | None = None
        """Set when a submit arrived that is to be left without an answer."""
        self.log: list[pb.LogEntry] = []
        self.page = 1000
        """Lines of the log in one answer."""
        self.lost = 0
        """Lines of the log that are said to be lost."""
        self.hold = False
        """Whether streams stay open after their last message."""
        self.asked: list[Any] = []
        self.metadata: dict[str, Any] = {}

    def say(self, *lines: str) -> None:
        """Adds lines to the log."""
        for line in lines:
            entry = pb.LogEntry(offset=len(self.log), message=line, severity=pb.LogEntry.INFO, attempt=1)
            entry.time.FromSeconds(START)
            self.log.append(entry)

    def of(self, kind: type) -> list[Any]:
        """The requests of that kind."""
        return [request for request in self.asked if isinstance(request, kind)]

    def _enter(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        self.asked.append(request)
        self.metadata = dict(context.invocation_metadata())
        if method in self.errors:
            self._fail(self.errors[method], context)

    def _fail(self, error: AtlasError, context: grpc.ServicerContext) -> None:
        code = next(code for code in grpc.StatusCode if code.value[0] == error.code)
        context.set_trailing_metadata((("grpc-status-details-bin", to_status(error).SerializeToString()),))
        context.abort(code, error.message)

    def _find(self, job_id: str, context: grpc.ServicerContext) -> pb.Job:
        for job in self.jobs:
            if job.id == job_id:
                return job
        self._fail(JobNotFound.of(job_id), context)
        raise AssertionError

    def SubmitJob(self, request: Any, context: Any) -> Any:
        self._enter("SubmitJob", request, context)
        if self.stalled:
            self.stalled.set()
            self._wait(context)
        job = make_job(len(self.of(pb.SubmitJobRequest)), type=request.type)
        answer = pb.SubmitJobResponse(job=job, deduplicated=request.request_id == "again")
        if request.validate_only:
            answer.job.id = ""
            answer.planned_attempts.add(number=1)
            answer.planned_attempts.add(number=2).earliest.FromSeconds(5)
        return answer

    def SubmitJobs(self, request: Any, context: Any) -> Any:
        self._enter("SubmitJobs", request, context)
        answer = pb.SubmitJobsResponse()
        for number, one in enumerate(request.requests, 1):
            if one.type == "bad":
                answer.outcomes.add().error.CopyFrom(to_status(InvalidArgument.of("type", "is unknown")))
            else:
                answer.outcomes.add().response.job.CopyFrom(make_job(number, type=one.type))
        return answer

    def GetJob(self, request: Any, context: Any) -> Any:
        self._enter("GetJob", request, context)
        return pb.GetJobResponse(job=self._find(request.id, context))

    def ListJobs(self, request: Any, context: Any) -> Any:
        self._enter("ListJobs", request, context)
        first = int(request.page_token or 0)
        after = first + request.page_size
        more = str(after) if after < len(self.jobs) else ""
        return pb.ListJobsResponse(jobs=self.jobs[first:after], next_page_token=more)

    def WatchJob(self, request: Any, context: Any) -> Iterator[Any]:
        self._enter("WatchJob", request, context)
        yield from self.updates
        self._wait(context)

    def WatchJobs(self, request: Any, context: Any) -> Iterator[Any]:
        self._enter("WatchJobs", request, context)
        yield from self.changes
        self._wait(context)

    def _wait(self, context: grpc.ServicerContext) -> None:
        left = threading.Event()
        if (self.hold or self.stalled) and context.add_callback(left.set):
            left.wait(30)

    def ListJobLogs(self, request: Any, context: Any) -> Any:
        self._enter("ListJobLogs", request, context)
        page = self.log[request.start_offset :][: self.page]
        after = request.start_offset + len(page)
        return pb.ListJobLogsResponse(
            logs=page,
            next_offset=after,
            end_offset=len(self.log),
            dropped_logs=self.lost,
            complete=after == len(self.log),
        )

    def TailJobLogs(self, request: Any, context: Any) -> Iterator[Any]:
        self._enter("TailJobLogs", request, context)
        yield pb.TailJobLogsResponse(logs=self.log, dropped_logs=self.lost, resume_token="token-log")
        self._wait(context)

    def CancelJob(self, request: Any, context: Any) -> Any:
        self._enter("CancelJob", request, context)
        job = self._find(request.id, context)
        job.state = pb.Job.CANCELLED
        return pb.CancelJobResponse(job=job)

    def RetryJob(self, request: Any, context: Any) -> Any:
        self._enter("RetryJob", request, context)
        return pb.RetryJobResponse(job=self._find(request.id, context))

    def DeleteJob(self, request: Any, context: Any) -> Any:
        self._enter("DeleteJob", request, context)
        self._find(request.id, context)
        return pb.DeleteJobResponse()

    def ExplainJob(self, request: Any, context: Any) -> Any:
        self._enter("ExplainJob", request, context)
        return pb.ExplainJobResponse(state=pb.Job.PENDING, summary="Nobody serves it.")

    def ListJobTypes(self, request: Any, context: Any) -> Any:
        self._enter("ListJobTypes", request, context)
        return pb.ListJobTypesResponse(job_types=self.types)


class Atlas:
    """A scripted server, and the command line pointed at it."""

    def __init__(self) -> None:
        self.script = Script()
        self.health = health.HealthServicer()
        self._processes: list[subprocess.Popen[str]] = []
        self._server = grpc.server(ThreadPoolExecutor(8))
        add_JobServiceServicer_to_server(self.script, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self.ready(True)
        self._server.start()

    def ready(self, yes: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if yes else health_pb2.HealthCheckResponse.NOT_SERVING
        self.health.set("readiness", status)

    def stop(self) -> None:
        for process in self._processes:
            with process:
                process.kill()
        self._server.stop(0).wait()

    def __call__(self, *args: str, stdin: bytes = b"", env: dict[str, str | None] | None = None) -> Ended:
        """Runs the command line in this process."""
        with CliRunner().isolation(input=stdin, env={"ATLAS_SERVER": self.address, **(env or {})}) as streams:
            code = execute(args)
            sys.stdout.flush()
        return Ended(code, *(stream.getvalue().decode() for stream in streams[:2]))

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "atlas_grpc.cli", *args]

    def environ(self, **more: str) -> dict[str, str]:
        root = str(Path(__file__).parents[3])
        return {**os.environ, "ATLAS_SERVER": self.address, "PYTHONPATH": root, "PYTHONWARNINGS": "error", **more}

    def start(self, *args: str, env: dict[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
        """Runs it as a program."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        process = subprocess.Popen(self.command(*args), env=self.environ(**(env or {})), text=True, **pipes)
        self._processes.append(process)
        return process
