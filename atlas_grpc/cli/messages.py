"""From the client's events back to the messages of the contract, which is what is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import pb
from ..client import Logged, LogsDropped, Progressed, Transitioned
from ..status import failure_status

if TYPE_CHECKING:
    from datetime import datetime

    from ..client import Explanation, Job, JobEvent


def update_of(event: JobEvent) -> pb.WatchJobResponse:
    """The message of WatchJob that tells this one event."""
    update = pb.WatchJobResponse(resume_token=event.resume_token)
    if isinstance(event, Transitioned):
        update.job.CopyFrom(event.job.message)
        update.transitions.append(_transition(event))
    elif isinstance(event, Progressed):
        report = event.progress
        update.progress.current, update.progress.total, update.progress.message = (
            report.current,
            report.total,
            report.message,
        )
        _set_time(update.progress, "update_time", report.update_time)
    elif isinstance(event, Logged):
        entry = update.logs.add(offset=event.offset, message=event.message, attempt=event.attempt)
        entry.severity = _number(pb.LogEntry.Severity, event.severity)
        _set_time(entry, "time", event.time)
    elif isinstance(event, LogsDropped):
        update.dropped_logs = event.count
    return update


def _transition(event: Transitioned) -> pb.Transition:
    step = pb.Transition(version=event.version, run=event.run, attempt=event.attempt, worker=event.worker)
    step.state = _number(pb.Job.State, event.state)
    step.cause = _number(pb.Transition.Cause, event.cause)
    _set_time(step, "time", event.time)
    _set_time(step, "next_start_time", event.next_start_time)
    if event.error is not None:
        step.error.CopyFrom(failure_status(*event.error))
    return step


def explanation(answer: Explanation) -> pb.ExplainJobResponse:
    """The answer of ExplainJob."""
    message = pb.ExplainJobResponse(
        summary=answer.summary, jobs_ahead=answer.jobs_ahead, slots=answer.slots, busy_slots=answer.busy_slots
    )
    message.state = _number(pb.Job.State, answer.state)
    message.pending_reason = _number(pb.Job.PendingReason, answer.pending_reason)
    message.next_event = _number(pb.Transition.Cause, answer.next_event)
    _set_time(message, "next_event_time", answer.next_event_time)
    return message


def submit_answer(job: Job) -> pb.SubmitJobResponse:
    """The answer of SubmitJob."""
    answer = pb.SubmitJobResponse(job=job.message, deduplicated=job.deduplicated)
    for plan in job.planned_attempts:
        line = answer.planned_attempts.add(number=plan.number)
        line.earliest.FromTimedelta(plan.earliest)
        line.latest.FromTimedelta(plan.latest)
    return answer


def _number(enum: Any, name: str | None) -> Any:
    """The number of an enum's name; that of UNSPECIFIED for none and for one that is newer than we are."""
    found = enum.DESCRIPTOR.values_by_name.get(name)
    return found.number if found else 0


def _set_time(message: Any, field: str, moment: datetime | None) -> None:
    if moment is not None:
        getattr(message, field).FromDatetime(moment)
