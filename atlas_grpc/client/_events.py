"""What watches tell: one small record per happening, made from the messages of WatchJob and WatchJobs."""

from __future__ import annotations

import heapq
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from .. import pb
from ._job import Error, Job, JobState, Progress, enum_name, error_of, progress_of, state_of, time_of
from ._values import instant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.timestamp_pb2 import Timestamp


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    resume_token: str
    """Continue here, in any process, with `watch(..., resume_token=...)`: what comes after this event is told again,
    nothing is left out. Empty where only a watch from the beginning can follow."""


class Transitioned(_Event, frozen=True, kw_only=True):
    """The job made a step. The steps of a job are numbered by `version` without a hole."""

    job: Job
    """The job after the latest step that was known when this one was told."""
    version: int
    time: datetime
    state: JobState
    cause: str
    """What made the step: a name of `atlas.v1.Transition.Cause`."""
    run: int
    attempt: int
    worker: str
    next_start_time: datetime | None
    error: Error | None


class Progressed(_Event, frozen=True, kw_only=True):
    """The handler reported how far it is. Only the latest report is told."""

    progress: Progress


class Logged(_Event, frozen=True, kw_only=True):
    """The handler logged a line."""

    offset: int
    time: datetime
    severity: str
    """A name of `atlas.v1.LogEntry.Severity`."""
    message: str
    attempt: int


class LogsDropped(_Event, frozen=True, kw_only=True):
    """So many lines of the log are lost, because the server keeps a bounded number."""

    count: int


JobEvent: TypeAlias = Transitioned | Progressed | Logged | LogsDropped
"""What `watch` and `run_events` yield."""


LogEvent: TypeAlias = Logged | LogsDropped
"""What `logs` yields. Its tokens are empty: `start_offset` is the way to go on."""


class JobChanged(_Event, frozen=True, kw_only=True):
    """A job of the snapshot, or one that changed: as it is now, without payload and result."""

    job: Job


class JobDeleted(_Event, frozen=True, kw_only=True):
    """A job was deleted."""

    job_id: str


class Synced(_Event, frozen=True, kw_only=True):
    """The snapshot is complete: from here on every event is news."""


class Restarted(_Event, frozen=True, kw_only=True):
    """The server could not continue where the stream was cut: forget all jobs, a new snapshot follows."""


JobsEvent: TypeAlias = JobChanged | JobDeleted | Synced | Restarted
"""What `watch_all` yields."""


def job_events(update: pb.WatchJobResponse, before: str) -> Iterator[JobEvent]:
    """The events of one message in the order of their times; `before` is the resume token of the message before.

    Only the last event of a message carries its token: an earlier one would skip those after it.
    """
    events = list(_told(update, before))
    if events:
        events[-1] = msgspec.structs.replace(events[-1], resume_token=update.resume_token)
    return iter(events)


def jobs_events(update: pb.WatchJobsResponse, before: str) -> Iterator[JobsEvent]:
    """The events of one message; tokens as in `job_events`."""
    events: list[JobsEvent] = [JobChanged(resume_token=before, job=Job(job)) for job in update.jobs]
    events += (JobDeleted(resume_token=before, job_id=deleted) for deleted in update.deleted_ids)
    if update.synced:
        events.append(Synced(resume_token=before))
    if events:
        events[-1] = msgspec.structs.replace(events[-1], resume_token=update.resume_token)
    return iter(events)


def log_events(message: pb.ListJobLogsResponse | pb.TailJobLogsResponse) -> Iterator[LogEvent]:
    """The events of a part of a log."""
    if message.dropped_logs:
        yield LogsDropped(resume_token="", count=message.dropped_logs)
    for line in message.logs:
        yield _logged(line, "")


def _told(update: pb.WatchJobResponse, token: str) -> Iterator[JobEvent]:
    if update.dropped_logs:
        yield LogsDropped(resume_token=token, count=update.dropped_logs)
    view = Job(update.job)
    steps = list(update.transitions)
    # What was logged or reported while it ran is told before its end, whatever the clocks say.
    end = steps.pop() if steps and state_of(steps[-1].state).terminal else None
    sources: list[list[tuple[tuple[int, int], JobEvent]]] = [
        [(_order(step.time), _transitioned(step, view, token)) for step in steps],
        [(_order(line.time), _logged(line, token)) for line in update.logs],
    ]
    if update.HasField("progress"):
        report = Progressed(resume_token=token, progress=progress_of(update.progress))
        sources.append([(_order(update.progress.update_time), report)])
    for _, event in heapq.merge(*sources, key=lambda told: told[0]):
        yield event
    if end is not None:
        yield _transitioned(end, view, token)


def _order(time: Timestamp) -> tuple[int, int]:
    return time.seconds, time.nanos


def _transitioned(step: pb.Transition, job: Job, token: str) -> Transitioned:
    return Transitioned(
        resume_token=token,
        job=job,
        version=step.version,
        time=instant(step.time),
        state=state_of(step.state),
        cause=enum_name(pb.Transition.Cause, step.cause),
        run=step.run,
        attempt=step.attempt,
        worker=step.worker,
        next_start_time=time_of(step, "next_start_time"),
        error=error_of(step, "error"),
    )


def _logged(line: pb.LogEntry, token: str) -> Logged:
    return Logged(
        resume_token=token,
        offset=line.offset,
        time=instant(line.time),
        severity=enum_name(pb.LogEntry.Severity, line.severity),
        message=line.message,
        attempt=line.attempt,
    )
