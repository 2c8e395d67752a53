"""How a job is asked for: `submit`'s options, and the requests that they make."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, TypedDict

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from .. import pb
from ..errors import InvalidArgument
from ._values import Span, fill_struct, to_duration, to_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import Unpack

    from google.protobuf.message import Message

    from ._job import Job, JobState
    from ._values import Payload


class SubmitOptions(TypedDict, total=False):
    """The options of a job. What is left out, or None, is up to the job type and the server.

    Time spans are seconds or a timedelta.
    """

    queue: str | None
    """The queue to wait in."""
    labels: Mapping[str, str] | None
    """Names and values of your own, to filter by."""
    priority: int | None
    """Higher runs first; -100 to 100."""
    start_time: datetime | None
    """Not before this instant (a datetime with a time zone)."""
    delay: Span | None
    """Not before so much time from now, on the server's clock."""
    max_attempts: int | None
    """How many attempts may be made in all; 1 means no retry."""
    initial_backoff: Span | None
    """The pause before the second attempt."""
    backoff_multiplier: float | None
    """By how much the pause grows from one attempt to the next."""
    max_backoff: Span | None
    """The longest pause."""
    jitter: float | None
    """The share of the pause that is drawn at random, 0 to 1."""
    non_retryable_reasons: Sequence[str] | None
    """Reasons of errors that end the job at once."""
    attempt_timeout: Span | None
    """How long one attempt may run."""
    total_timeout: Span | None
    """How long the job may take in all, from its start time."""
    start_timeout: Span | None
    """How long after its start time the first attempt must have begun."""
    retention: Span | None
    """How long the finished job is kept."""
    request_id: str | None
    """Your key for this request: repeating it answers the first job. A random UUID when left out."""
    validate_only: bool | None
    """Check only: the answer has no id, but the effective policy and `planned_attempts`."""
    content_type: str | None
    """The media type of a payload of bytes."""


class FilterOptions(TypedDict, total=False):
    """Which jobs are meant: all that is set must match; within a list any one is enough."""

    ids: Iterable[str] | None
    """Only these jobs."""
    states: Iterable[JobState | str] | None
    """Only jobs in these states."""
    types: Iterable[str] | None
    """Only jobs of these types."""
    queues: Iterable[str] | None
    """Only jobs of these queues."""
    labels: Mapping[str, str] | None
    """Only jobs that have all these labels."""
    create_time_from: datetime | None
    """Only jobs created at or after this instant."""
    create_time_before: datetime | None
    """Only jobs created before this instant."""


def new_job(type: str, payload: Payload = None, **options: Unpack[SubmitOptions]) -> pb.SubmitJobRequest:
    """A request for `submit_many`, with the arguments of `submit`.

    Raises InvalidArgument, naming the field, for what cannot be sent; the rest is checked by the server.
    """
    request = pb.SubmitJobRequest(type=type)
    content_type = options.pop("content_type", None)
    _set_payload(request, payload, content_type)
    for name, value in options.items():
        if value is not None:
            _set_option(request, name, value)
    if not request.request_id and not request.validate_only:
        request.request_id = str(uuid.uuid4())
    return request


def job_filter(**options: Unpack[FilterOptions]) -> pb.JobFilter:
    """The filter of those options. Raises InvalidArgument for an unknown state."""
    chosen = pb.JobFilter(
        ids=options.get("ids"),
        states=[_state(state) for state in options.get("states") or ()],
        types=options.get("types"),
        queues=options.get("queues"),
        labels=options.get("labels"),
    )
    for name in ("create_time_from", "create_time_before"):
        value: Any = options.get(name)
        if value is not None:
            getattr(chosen, name).CopyFrom(to_timestamp(f"filter.{name}", value))
    return chosen


def job_id(job: str | Job) -> str:
    """The id of what a method was given. Raises InvalidArgument when it has none."""
    found = job if isinstance(job, str) else job.id
    if not found:
        raise InvalidArgument.of("id", "must not be empty")
    return found


_RETRY_FIELDS = frozenset(pb.RetryPolicy.DESCRIPTOR.fields_by_name)
_RENAMED = {"delay": "start_delay"}


def _set_payload(request: pb.SubmitJobRequest, payload: Payload, content_type: str | None) -> None:
    if isinstance(payload, bytes | bytearray | memoryview):
        request.payload_data.data = bytes(payload)
        request.payload_data.content_type = content_type or ""
    elif content_type is not None:
        raise InvalidArgument.of("payload_data.content_type", "goes with a payload of bytes only")
    elif payload is not None:
        fill_struct(request.payload, payload, "payload")


def _set_option(request: pb.SubmitJobRequest, name: str, value: object) -> None:
    if name not in SubmitOptions.__annotations__:
        raise TypeError(f"unknown option {name!r}")
    target: Message = request.retry_policy if name in _RETRY_FIELDS else request
    field = _RENAMED.get(name, name)
    kind = target.DESCRIPTOR.fields_by_name[field].message_type
    wire = _wire(field, kind.full_name if kind else "", value)
    try:
        target.MergeFrom(type(target)(**{field: wire}))
    except (ValueError, OverflowError):
        raise InvalidArgument.of(field, "does not fit its field") from None


def _wire(field: str, kind: str, value: Any) -> Any:
    if kind == Duration.DESCRIPTOR.full_name:
        return to_duration(field, value)
    if kind == Timestamp.DESCRIPTOR.full_name:
        return to_timestamp(field, value)
    return value


def _state(state: JobState | str) -> pb.Job.State.ValueType:
    try:
        return pb.Job.State.Value(state)
    except ValueError:
        raise InvalidArgument.of("filter.states", f"{state!r} is not a state of a job") from None
