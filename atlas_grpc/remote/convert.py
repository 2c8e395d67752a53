"""Records <-> proto on the worker's side; the server's is `server.worker_convert`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from .. import pb
from ..model import (
    SECOND,
    Assignment,
    Content,
    Failed,
    Released,
    Stopped,
    Succeeded,
    TimedOut,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    from ..model import Ask, Report, TypeInfo, Update

_EXECUTORS = {"task": pb.JobType.TASK, "thread": pb.JobType.THREAD, "process": pb.JobType.PROCESS}
_WHY = {pb.JobStop.CANCELLED: "cancelled", pb.JobStop.LOST: "lost"}
_number: Any = int


def micros(span: Duration | Timestamp) -> int:
    """A span, or an instant, in microseconds."""
    return span.seconds * SECOND + span.nanos // 1000


def hello(
    worker: str, types: Sequence[TypeInfo], slots: int, queues: Iterable[str], session: str, holding: dict[int, str]
) -> pb.WorkRequest:
    """The first message of a stream; `holding` are the jobs in hand, by token."""
    message = pb.WorkRequest()
    message.hello.worker = worker
    message.hello.session = session
    message.hello.slots = slots
    message.hello.json_text = True
    message.hello.queues.extend(queues)
    message.hello.types.extend(_job_type(info) for info in types)
    message.hello.holding.extend(pb.HeldJob(id=job_id, token=str(fence)) for fence, job_id in holding.items())
    return message


def _job_type(info: TypeInfo) -> pb.JobType:
    policy = info.retry
    message = pb.JobType(
        name=info.name,
        description=info.description[:10_000],
        queue=info.queue,
        concurrency=info.concurrency,
        executor=_EXECUTORS.get(info.executor, pb.JobType.EXECUTOR_UNSPECIFIED),
        retry_policy=pb.RetryPolicy(
            max_attempts=policy.max_attempts,
            backoff_multiplier=policy.multiplier,
            jitter=policy.jitter,
            non_retryable_reasons=policy.non_retryable,
        ),
    )
    message.retry_policy.initial_backoff.FromMicroseconds(policy.initial_backoff)
    message.retry_policy.max_backoff.FromMicroseconds(policy.max_backoff)
    if info.payload_schema is not None:
        message.payload_schema.update(msgspec.json.decode(info.payload_schema))
    if info.result_schema is not None:
        message.result_schema.update(msgspec.json.decode(info.result_schema))
    if info.attempt_timeout is not None:
        message.attempt_timeout.FromMicroseconds(info.attempt_timeout)
    if info.total_timeout is not None:
        message.total_timeout.FromMicroseconds(info.total_timeout)
    return message


def ready(asks: Sequence[Ask], limit: int, received: int, *, at_once: bool = False) -> pb.WorkRequest:
    """How many jobs there is room for, and whether to answer at once, also when there are none."""
    message = pb.WorkRequest()
    message.ready.at_once = at_once
    message.ready.limit = limit
    message.ready.received = received
    for ask in asks:
        message.ready.room.add(type=ask.type, slots=ask.slots)
    return message


def assignment(message: pb.Assignment) -> Assignment:
    """A job to execute."""
    if message.HasField("payload_data"):
        payload = Content(message.payload_data.data, message.payload_data.content_type)
    else:
        payload = Content(message.payload_json.encode())
    labels = message.labels
    return Assignment(
        message.id,
        message.namespace,
        message.type,
        message.queue,
        payload,
        message.run,
        message.attempt,
        message.max_attempts,
        int(message.token),
        micros(message.time_left) if message.HasField("time_left") else None,
        dict(labels) if labels else {},
        micros(message.create_time),
        message.traceparent,
    )


def stop(message: pb.JobStop) -> tuple[str, int, str]:
    """Job id, token and reason of an order to stop."""
    return message.id, int(message.token), _WHY.get(message.reason, "lost")


def fill_report(message: pb.JobReport, report: Report) -> None:
    """Writes into an empty message how an attempt ended."""
    message.id = report.job_id
    message.token = str(report.fence)
    match report.outcome:
        case Succeeded(result):
            if result.content_type is None:
                message.success.result_json = result.data.decode()
            else:
                message.success.result_data.data = result.data
                message.success.result_data.content_type = result.content_type
        case Failed(failure, retryable, retry_in):
            message.failure.reason = failure.reason
            message.failure.message = failure.message
            message.failure.code = int(failure.code)
            message.failure.final = not retryable
            if retry_in is not None:
                message.failure.retry_delay.FromMicroseconds(retry_in)
        case Released(delay):
            message.release.SetInParent()
            if delay:
                message.release.delay.FromMicroseconds(delay)
        case Stopped():
            message.cancelled.SetInParent()
        case TimedOut():
            message.timed_out.SetInParent()


def fill_update(message: pb.JobUpdate, update: Update) -> None:
    """Writes into an empty message what a running job tells."""
    message.id = update.job_id
    message.token = str(update.fence)
    if update.progress is not None:
        shown = update.progress
        message.progress.current, message.progress.total = shown.current, shown.total
        message.progress.message = shown.message
    for line in update.logs:
        message.logs.add(severity=_number(line.severity), message=line.message)
