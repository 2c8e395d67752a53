"""Proto <-> records: the one place where the wire's shapes become the engine's, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from .. import lifecycle, pb
from ..engine.submit import RetryOverride, Submission
from ..errors import InvalidArgument
from ..model import EMPTY_OBJECT, SECOND, Content, Job, JobSpec, Progress, State
from ..status import failure_status
from ..stores.base import Filter
from .admission import objection
from .structs import NotJson, fill_struct, fill_value, from_struct

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    from ..engine.engine import Submitted
    from ..engine.explain import Explanation
    from ..engine.feed import JobsUpdate
    from ..engine.logs import LogPage, LogUpdate
    from ..engine.watches import JobUpdate
    from ..model import AttemptView, Failure, LogLine, RetryPolicy, Transition, TypeInfo
    from ..retry import PlannedAttempt

MAX_START_AHEAD = 3_653 * 86_400 * SECOND
"""How far ahead a start time may lie: 10 years."""

_number: Callable[[int], Any] = int
"""The number of an enum member; the stubs have a type of their own for each enum."""
_encode_json = msgspec.json.Encoder(order="sorted").encode
_decode_json = msgspec.json.decode

_EXECUTORS = {"task": pb.JobType.TASK, "thread": pb.JobType.THREAD, "process": pb.JobType.PROCESS}


def submission(
    request: pb.SubmitJobRequest, namespace: str, traceparent: str, max_payload: int, now: int
) -> Submission:
    """What a valid SubmitJobRequest asks for. Raises InvalidArgument for what its rules cannot say: the payload, the
    start.
    """
    start = request.WhichOneof("start")
    return Submission(
        namespace,
        request.type,
        _payload(request, max_payload),
        request.queue,
        dict(request.labels) if request.labels else {},
        request.priority,
        _start_time(request, now) if start == "start_time" else None,
        micros(request.start_delay, "start_delay") if start == "start_delay" else None,
        retry_override(request.retry_policy) if request.HasField("retry_policy") else None,
        micros(request.attempt_timeout, "attempt_timeout") if request.HasField("attempt_timeout") else None,
        micros(request.total_timeout, "total_timeout") if request.HasField("total_timeout") else None,
        micros(request.start_timeout, "start_timeout") if request.HasField("start_timeout") else None,
        micros(request.retention, "retention") if request.HasField("retention") else None,
        request.request_id,
        traceparent,
    )


def _payload(request: pb.SubmitJobRequest, limit: int) -> Content:
    kind = request.WhichOneof("input")
    if kind is None:
        return EMPTY_OBJECT
    if kind == "payload_data":
        content = Content(request.payload_data.data, request.payload_data.content_type)
    else:
        try:
            content = Content(_encode_json(from_struct(request.payload)))
        except NotJson as error:
            path, text = error.args
            raise InvalidArgument.of(f"payload{path}", text) from None
    problem = objection(content, limit)
    if problem is not None:
        raise InvalidArgument.of(kind, problem)
    return content


def _start_time(request: pb.SubmitJobRequest, now: int) -> int:
    start = instant(request.start_time, "start_time")
    if start > now + MAX_START_AHEAD:
        raise InvalidArgument.of("start_time", "lies more than 10 years ahead")
    return start


def retry_override(policy: pb.RetryPolicy) -> RetryOverride:
    """The parts of a retry policy that are set."""
    return RetryOverride(
        policy.max_attempts if policy.HasField("max_attempts") else None,
        micros(policy.initial_backoff, "retry_policy.initial_backoff") if policy.HasField("initial_backoff") else None,
        policy.backoff_multiplier if policy.HasField("backoff_multiplier") else None,
        micros(policy.max_backoff, "retry_policy.max_backoff") if policy.HasField("max_backoff") else None,
        policy.jitter if policy.HasField("jitter") else None,
        tuple(policy.non_retryable_reasons) or None,
    )


def job_filter(where: pb.JobFilter, namespace: str) -> Filter:
    """The filter of a listing or a watch. Raises InvalidArgument for instants that are none."""
    since = instant(where.create_time_from, "filter.create_time_from") if where.HasField("create_time_from") else None
    before = (
        instant(where.create_time_before, "filter.create_time_before") if where.HasField("create_time_before") else None
    )
    return Filter(
        namespace,
        frozenset(where.ids),
        frozenset(State(number) for number in where.states),
        frozenset(where.types),
        frozenset(where.queues),
        dict(where.labels),
        since,
        before,
    )


def micros(span: Duration, field: str) -> int:
    """A span in microseconds; a part of one counts as a whole. Raises InvalidArgument for `field` when it is negative
    or not well formed, which the rules in proto/ let pass when the whole is in bounds.
    """
    if span.seconds < 0 or not 0 <= span.nanos < 10**9:
        raise InvalidArgument.of(field, "is not a valid duration of 0 or more")
    return span.seconds * SECOND - (-span.nanos // 1000)


def instant(stamp: Timestamp, field: str) -> int:
    """An instant in microseconds. Raises InvalidArgument for `field` when it is outside of years 1 to 9999."""
    if not (-62_135_596_800 <= stamp.seconds <= 253_402_300_799 and 0 <= stamp.nanos < 10**9):
        raise InvalidArgument.of(field, "is not a valid timestamp")
    return stamp.seconds * SECOND + stamp.nanos // 1000


def fill_stamp(stamp: Timestamp, at: int) -> None:
    """Writes an instant into an empty message."""
    seconds, rest = divmod(at, SECOND)
    stamp.seconds = seconds
    if rest:
        stamp.nanos = rest * 1000


def fill_span(span: Duration, length: int) -> None:
    """Writes a span into an empty message."""
    seconds, rest = divmod(length, SECOND)
    span.seconds = seconds
    span.nanos = rest * 1000


def fill_job(
    message: pb.Job, record: Job, progress: Progress | None = None, *, full: bool = False, result: bool = False
) -> None:
    """Writes a job into an empty message: `full` with payload and result, `result` with the result alone."""
    _fill_spec(message, record.spec, payload=full)
    message.state = _number(record.state)
    message.version = record.version
    message.run = record.run
    fill_stamp(message.start_time, record.start_time)
    fill_stamp(message.update_time, record.history[-1].time)
    if record.state is State.PENDING:
        message.pending_reason = _number(lifecycle.pending_reason(record))
        if not record.ready:
            fill_stamp(message.next_start_time, record.next_start)
    if record.attempt or record.run > 1:
        for view in lifecycle.attempts(record):
            _attempt(message.attempts.add(), view)
    if progress is not None:
        _progress(message.progress, progress)
    if record.finish_time is not None:
        _finished(message, record, result=full or result)
    if record.cancel_time is not None:
        fill_stamp(message.cancel_time, record.cancel_time)
    _deadlines(message, record)


def _fill_spec(message: pb.Job, asked: JobSpec, *, payload: bool) -> None:
    message.id = asked.id
    message.namespace = asked.namespace
    message.type = asked.type
    message.queue = asked.queue
    if asked.priority:
        message.priority = asked.priority
    if asked.request_id:
        message.request_id = asked.request_id
    if payload:
        if asked.payload.content_type is None:
            fill_struct(message.payload, _decode_json(asked.payload.data))
        else:
            message.payload_data.data = asked.payload.data
            message.payload_data.content_type = asked.payload.content_type
    if asked.labels:
        message.labels.update(asked.labels)
    policy(message.retry_policy, asked.retry)
    if asked.attempt_timeout is not None:
        fill_span(message.attempt_timeout, asked.attempt_timeout)
    if asked.total_timeout is not None:
        fill_span(message.total_timeout, asked.total_timeout)
    if asked.start_timeout is not None:
        fill_span(message.start_timeout, asked.start_timeout)
    fill_span(message.retention, asked.retention)
    fill_stamp(message.create_time, asked.create_time)


def planned(asked: JobSpec, timetable: Sequence[PlannedAttempt]) -> pb.SubmitJobResponse:
    """The answer to a submit that only validates."""
    response = pb.SubmitJobResponse()
    fill_job(response.job, lifecycle.submitted(asked), full=True)
    response.job.ClearField("version")
    for line in timetable:
        attempt = response.planned_attempts.add(number=line.number)
        fill_span(attempt.earliest, line.earliest)
        fill_span(attempt.latest, line.latest)
    return response


def fill_submitted(message: pb.SubmitJobResponse, answer: Submitted) -> None:
    """Writes the answer to a submit into an empty message."""
    fill_job(message.job, answer.job)
    if answer.deduplicated:
        message.deduplicated = True


_policies: dict[RetryPolicy, pb.RetryPolicy] = {}


def policy(message: pb.RetryPolicy, record: RetryPolicy) -> None:
    """Writes a retry policy; most jobs share a few, so the messages are kept."""
    known = _policies.get(record)
    if known is None:
        known = pb.RetryPolicy(
            max_attempts=record.max_attempts,
            backoff_multiplier=record.multiplier,
            jitter=record.jitter,
            non_retryable_reasons=record.non_retryable,
        )
        fill_span(known.initial_backoff, record.initial_backoff)
        fill_span(known.max_backoff, record.max_backoff)
        if len(_policies) < 256:
            _policies[record] = known
    message.CopyFrom(known)


def _finished(message: pb.Job, record: Job, *, result: bool) -> None:
    assert record.finish_time is not None
    fill_stamp(message.finish_time, record.finish_time)
    expires = lifecycle.expire_time(record)
    assert expires is not None
    fill_stamp(message.expire_time, expires)
    if record.error is not None:
        _failure(message.error, record.error)
    if result and record.result is not None:
        if record.result.content_type is None:
            fill_value(message.result, _decode_json(record.result.data))
        else:
            message.result_data.data = record.result.data
            message.result_data.content_type = record.result.content_type


def _deadlines(message: pb.Job, record: Job) -> None:
    start_by = lifecycle.start_deadline(record)
    if start_by is not None:
        fill_stamp(message.start_deadline, start_by)
    end = lifecycle.deadline(record)
    if end is not None:
        fill_stamp(message.deadline, end)


def _attempt(message: pb.Attempt, view: AttemptView) -> None:
    message.number = view.number
    message.run = view.run
    message.worker = view.worker
    fill_stamp(message.start_time, view.start)
    if view.end is not None:
        fill_stamp(message.end_time, view.end)
    message.outcome = _number(view.outcome)
    if view.error is not None:
        _failure(message.error, view.error)


def _failure(message: object, failure: Failure) -> None:
    message.CopyFrom(failure_status(failure.code, failure.reason, failure.message))  # type: ignore[attr-defined]


def _progress(message: pb.Progress, progress: Progress) -> None:
    message.current = progress.current
    message.total = progress.total
    message.message = progress.message
    fill_stamp(message.update_time, progress.time)


def _transition(message: pb.Transition, step: Transition) -> None:
    message.version = step.version
    fill_stamp(message.time, step.time)
    message.state = _number(step.state)
    message.cause = _number(step.cause)
    message.run = step.run
    message.attempt = step.attempt
    message.worker = step.worker
    if step.next_start is not None:
        fill_stamp(message.next_start_time, step.next_start)
    if step.error is not None:
        _failure(message.error, step.error)


def _log_entry(message: pb.LogEntry, line: LogLine) -> None:
    message.offset = line.offset
    fill_stamp(message.time, line.time)
    message.severity = _number(line.severity)
    message.message = line.message
    message.attempt = line.attempt


def fill_update(message: pb.WatchJobResponse, update: JobUpdate, token: str) -> None:
    """Writes a message of WatchJob into an empty one."""
    message.resume_token = token
    message.dropped_logs = update.dropped_logs
    message.heartbeat = update.heartbeat
    if update.job is not None:
        fill_job(message.job, update.job, update.latest, result=True)
    for step in update.transitions:
        _transition(message.transitions.add(), step)
    if update.progress is not None:
        _progress(message.progress, update.progress)
    for line in update.logs:
        _log_entry(message.logs.add(), line)


def log_page(page: LogPage) -> pb.ListJobLogsResponse:
    """The answer to ListJobLogs."""
    message = pb.ListJobLogsResponse(
        dropped_logs=page.dropped, next_offset=page.next, end_offset=page.end, complete=page.complete
    )
    for line in page.lines:
        _log_entry(message.logs.add(), line)
    return message


def log_update(update: LogUpdate, token: str) -> pb.TailJobLogsResponse:
    """A message of TailJobLogs."""
    message = pb.TailJobLogsResponse(dropped_logs=update.dropped, resume_token=token, heartbeat=update.heartbeat)
    for line in update.lines:
        _log_entry(message.logs.add(), line)
    return message


def jobs_update(update: JobsUpdate, token: str) -> pb.WatchJobsResponse:
    """A message of WatchJobs."""
    message = pb.WatchJobsResponse(
        deleted_ids=update.deleted, synced=update.synced, resume_token=token, heartbeat=update.heartbeat
    )
    for record, shown in zip(update.jobs, update.progress, strict=True):
        fill_job(message.jobs.add(), record, shown)
    return message


def explanation(found: Explanation) -> pb.ExplainJobResponse:
    """The answer to ExplainJob."""
    message = pb.ExplainJobResponse(
        state=_number(found.job.state),
        pending_reason=_number(lifecycle.pending_reason(found.job)),
        summary=found.summary,
        jobs_ahead=found.ahead,
        slots=found.slots,
        busy_slots=found.busy,
    )
    if found.next_time is not None:
        fill_stamp(message.next_event_time, found.next_time)
    if found.next_event is not None:
        message.next_event = _number(found.next_event)
    return message


def job_type(info: TypeInfo) -> pb.JobType:
    """A job type on the wire."""
    message = pb.JobType(
        name=info.name,
        description=info.description,
        queue=info.queue,
        concurrency=info.concurrency,
        executor=_EXECUTORS.get(info.executor, pb.JobType.EXECUTOR_UNSPECIFIED),
    )
    if info.payload_schema is not None:
        fill_struct(message.payload_schema, _decode_json(info.payload_schema))
    if info.result_schema is not None:
        fill_struct(message.result_schema, _decode_json(info.result_schema))
    policy(message.retry_policy, info.retry)
    if info.attempt_timeout is not None:
        fill_span(message.attempt_timeout, info.attempt_timeout)
    if info.total_timeout is not None:
        fill_span(message.total_timeout, info.total_timeout)
    return message
