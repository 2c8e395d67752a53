"""Shows what a client of Atlas does, with nothing but grpcio and the generated stubs.

It submits a job, follows it across a cut of its stream, reads its result, cancels another job, and reads the details of
errors. It prints a line of JSON for each step.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

sys.path.insert(0, str(Path(__file__).parent / "gen"))

from atlas.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

TIMEOUT = 30
"""Seconds; every unary call has a deadline."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": "atlas.v1.JobService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": f"{FIRST_PAUSE}s",
                "maxBackoff": f"{LONGEST_PAUSE}s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
"""The channel repeats a call that the server was not there for. With a request id, that is safe for a submit too."""


class Follower:
    """Follows one job to its end, over as many streams as it takes."""

    def __init__(self, jobs: job_service_pb2_grpc.JobServiceStub, job_id: str) -> None:
        self.job = job_pb2.Job()
        self.states: list[str] = []
        self.versions: list[int] = []
        self.resumed = False
        self._jobs = jobs
        self._id = job_id
        self._token = ""

    def run(self, *, cut_first: bool = False) -> Follower:
        """With `cut_first` it breaks off the first stream on purpose, to show that the next one goes on exactly."""
        pause = FIRST_PAUSE
        while True:
            try:
                if self._stream(only_first=cut_first):
                    return self
                cut_first = False
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            self.resumed = bool(self._token)

    def _stream(self, *, only_first: bool) -> bool:
        """Reads one stream. Whether it ended by itself, as the job did."""
        stream = self._jobs.WatchJob(job_service_pb2.WatchJobRequest(id=self._id, resume_token=self._token))
        for message in stream:
            self._token = message.resume_token
            if message.HasField("job"):
                self.job = message.job
            for step in message.transitions:
                self.states.append(job_pb2.Job.State.Name(step.state))
                self.versions.append(step.version)
            if only_first:
                stream.cancel()
                return False
        return True


def success(jobs: job_service_pb2_grpc.JobServiceStub) -> None:
    """Submits a job twice, which makes one, and follows it to its result."""
    request = a_job("countdown", steps=8, delay=0.1)
    first = jobs.SubmitJob(request, timeout=TIMEOUT)
    say("submit", job=first.job.id, created=not first.deduplicated)
    again = jobs.SubmitJob(request, timeout=TIMEOUT)
    say("submit_again", job=again.job.id, created=not again.deduplicated)

    watch = Follower(jobs, first.job.id).run(cut_first=True)
    say("watch", states=watch.states, versions=watch.versions, resumed=watch.resumed)

    job = jobs.GetJob(job_service_pb2.GetJobRequest(id=first.job.id), timeout=TIMEOUT).job
    say("result", result=json_format.MessageToDict(job.result))


def cancel(jobs: job_service_pb2_grpc.JobServiceStub) -> None:
    """Stops a job and waits until it has stopped."""
    job_id = jobs.SubmitJob(a_job("sleep", seconds=60), timeout=TIMEOUT).job.id
    jobs.CancelJob(job_service_pb2.CancelJobRequest(id=job_id, reason="an example"), timeout=TIMEOUT)
    job = Follower(jobs, job_id).run().job
    # What went wrong with a job is a status like that of a call.
    say("cancel", job=job_id, state=job_pb2.Job.State.Name(job.state), reason=details(job.error)["reason"])


def refusals(jobs: job_service_pb2_grpc.JobServiceStub) -> None:
    """Makes two mistakes and reads what the server says about them."""
    say("error", **refusal(jobs.SubmitJob, a_job("countdown", steps="many")))
    say("not_found", **refusal(jobs.GetJob, job_service_pb2.GetJobRequest(id="no-such-job")))


def refusal(method: Callable[..., Message], request: Message) -> dict[str, str]:
    """The code of a call that fails, and what its details say."""
    try:
        method(request, timeout=TIMEOUT)
    except grpc.RpcError as error:
        status = dict(error.trailing_metadata())["grpc-status-details-bin"]
        return {"code": error.code().name, **details(status_pb2.Status.FromString(status))}
    raise AssertionError("this should have been refused")


def details(status: status_pb2.Status) -> dict[str, str]:
    """The reason of an ErrorInfo, and the first field that a BadRequest names."""
    found: dict[str, str] = {}
    info, wrong = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(info):
            found["reason"] = info.reason
        elif detail.Unpack(wrong):
            found["field"] = wrong.field_violations[0].field
    return found


def a_job(kind: str, **payload: object) -> job_service_pb2.SubmitJobRequest:
    request = job_service_pb2.SubmitJobRequest(type=kind, request_id=str(uuid.uuid4()))
    request.payload.update(payload)
    return request


def say(step: str, **fields: Any) -> None:
    print(json.dumps({"step": step, **fields}))


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: example.py HOST:PORT")
    with grpc.insecure_channel(sys.argv[1], [("grpc.service_config", json.dumps(RETRIES))]) as channel:
        jobs = job_service_pb2_grpc.JobServiceStub(channel)
        success(jobs)
        cancel(jobs)
        refusals(jobs)


if __name__ == "__main__":
    main()
