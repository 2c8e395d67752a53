"""Jobs and job types as a program sees them: thin, read-only views of the messages."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import pb
from ..errors import JobCancelled, JobFailed
from ..status import reason_of
from ._values import instant, struct_to_python, to_python

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message
    from google.rpc.status_pb2 import Status


class JobState(StrEnum):
    """Where a job is in its life. Members are strings: `job.state == "SUCCESS"` holds too."""

    STATE_UNSPECIFIED = "STATE_UNSPECIFIED"
    """A state that is newer than this client."""
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        """True for SUCCESS, FAILED and CANCELLED."""
        return self in _TERMINAL


_TERMINAL = frozenset({JobState.SUCCESS, JobState.FAILED, JobState.CANCELLED})
_STATES: dict[int, JobState] = {number: JobState(name) for name, number in pb.Job.State.items()}


class Error(NamedTuple):
    """Why an attempt or a job did not succeed."""

    code: int
    """A gRPC status code."""
    reason: str
    """Stable, UPPER_SNAKE_CASE."""
    message: str


class Progress(NamedTuple):
    """What a handler last reported."""

    current: float
    total: float
    """0 when the handler does not know it."""
    message: str
    update_time: datetime | None

    @property
    def fraction(self) -> float | None:
        """How much is done, 0 to 1; None when the total is not known."""
        return min(max(self.current / self.total, 0.0), 1.0) if self.total > 0 else None


class Attempt(NamedTuple):
    """One execution of a job by one worker."""

    number: int
    run: int
    worker: str
    start_time: datetime | None
    end_time: datetime | None
    outcome: str
    """A name of `atlas.v1.Attempt.Outcome`; `OUTCOME_UNSPECIFIED` while it goes on."""
    error: Error | None


class PlannedAttempt(NamedTuple):
    """When an attempt would start if all before it failed at once, counted from the job's start time."""

    number: int
    earliest: timedelta
    latest: timedelta


class Job:
    """A job as it was when it was read. Never changes; methods of the client answer new ones.

    `message` is the `atlas.v1.Job` itself, for everything that has no property here.
    """

    __slots__ = ("_answer", "message")

    def __init__(self, message: pb.Job, answer: pb.SubmitJobResponse | None = None) -> None:
        self.message = message
        self._answer = answer

    @property
    def id(self) -> str:
        """The server's name for it, a UUID; empty after `validate_only`."""
        return self.message.id

    @property
    def type(self) -> str:
        """The job type."""
        return self.message.type

    @property
    def queue(self) -> str:
        """The queue it waits in."""
        return self.message.queue

    @property
    def labels(self) -> dict[str, str]:
        """The submitter's own names and values."""
        return dict(self.message.labels)

    @property
    def priority(self) -> int:
        """Higher runs first."""
        return self.message.priority

    @property
    def request_id(self) -> str:
        """The submitter's key for the request."""
        return self.message.request_id

    @property
    def state(self) -> JobState:
        """Where it is in its life."""
        return state_of(self.message.state)

    @property
    def version(self) -> int:
        """Grows by 1 with every transition; for `if_version`."""
        return self.message.version

    @property
    def run(self) -> int:
        """1 at first, one more with each retry of the finished job."""
        return self.message.run

    @property
    def pending_reason(self) -> str | None:
        """What a PENDING job waits for: a name of `atlas.v1.Job.PendingReason`."""
        return enum_name(pb.Job.PendingReason, self.message.pending_reason) if self.message.pending_reason else None

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts, oldest first."""
        return tuple(_attempt(attempt) for attempt in self.message.attempts)

    @property
    def progress(self) -> Progress | None:
        """What the handler last reported."""
        return progress_of(self.message.progress) if self.message.HasField("progress") else None

    @property
    def payload(self) -> Any:
        """What the handler is given: a dict, or bytes. None in answers without payload (lists, submits, watches)."""
        kind = self.message.WhichOneof("input")
        if kind == "payload":
            return struct_to_python(self.message.payload)
        return self.message.payload_data.data if kind == "payload_data" else None

    @property
    def output(self) -> Any:
        """What the handler returned: the JSON value, or bytes.

        None unless the job is a SUCCESS, and in answers without results (lists, submits). A method `result()` of a
        handle or of the client waits for it and reads it.
        """
        kind = self.message.WhichOneof("output")
        if kind == "result":
            return to_python(self.message.result)
        return self.message.result_data.data if kind == "result_data" else None

    @property
    def has_output(self) -> bool:
        """Whether `output` is what the handler returned, which may be None."""
        return self.message.WhichOneof("output") is not None

    @property
    def error(self) -> Error | None:
        """Why it is FAILED or CANCELLED."""
        return error_of(self.message, "error")

    @property
    def create_time(self) -> datetime | None:
        """When it was accepted."""
        return time_of(self.message, "create_time")

    @property
    def update_time(self) -> datetime | None:
        """When `version` last grew."""
        return time_of(self.message, "update_time")

    @property
    def start_time(self) -> datetime | None:
        """Before this instant the current run does not start."""
        return time_of(self.message, "start_time")

    @property
    def next_start_time(self) -> datetime | None:
        """When it may start next, while it waits for that."""
        return time_of(self.message, "next_start_time")

    @property
    def cancel_time(self) -> datetime | None:
        """When its cancellation was accepted while it ran."""
        return time_of(self.message, "cancel_time")

    @property
    def finish_time(self) -> datetime | None:
        """When it became terminal."""
        return time_of(self.message, "finish_time")

    @property
    def deadline(self) -> datetime | None:
        """When it fails if it has not finished."""
        return time_of(self.message, "deadline")

    @property
    def expire_time(self) -> datetime | None:
        """When the finished job is deleted."""
        return time_of(self.message, "expire_time")

    @property
    def deduplicated(self) -> bool:
        """After a submit: whether its `request_id` named a job that was there already."""
        return self._answer is not None and self._answer.deduplicated

    @property
    def planned_attempts(self) -> tuple[PlannedAttempt, ...]:
        """After a submit with `validate_only`: when each attempt would start if all before it failed at once."""
        return tuple(map(_planned, self._answer.planned_attempts)) if self._answer is not None else ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self.message == other.message

    def __hash__(self) -> int:
        return hash((self.id, self.version))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id or '(not stored)'} {self.type} {self.state} version {self.version}>"


class JobType:
    """A kind of work that the server accepts. `message` is the `atlas.v1.JobType` itself."""

    __slots__ = ("message",)

    def __init__(self, message: pb.JobType) -> None:
        self.message = message

    @property
    def name(self) -> str:
        """The name to submit."""
        return self.message.name

    @property
    def description(self) -> str:
        """What it does."""
        return self.message.description

    @property
    def payload_schema(self) -> dict[str, Any] | None:
        """JSON Schema of its payload; None when it takes bytes."""
        return struct_to_python(self.message.payload_schema) if self.message.HasField("payload_schema") else None

    @property
    def result_schema(self) -> dict[str, Any] | None:
        """JSON Schema of its result; None when it is not declared."""
        return struct_to_python(self.message.result_schema) if self.message.HasField("result_schema") else None

    @property
    def queue(self) -> str:
        """The queue of its jobs, unless the submitter names another."""
        return self.message.queue

    @property
    def executor(self) -> str:
        """How its handler is executed: a name of `atlas.v1.JobType.Executor`."""
        return enum_name(pb.JobType.Executor, self.message.executor)

    def __repr__(self) -> str:
        return f"<JobType {self.name}>"


class Explanation(NamedTuple):
    """Why a job is where it is."""

    state: JobState
    pending_reason: str | None
    summary: str
    """One or two sentences for people."""
    next_event_time: datetime | None
    next_event: str | None
    """A name of `atlas.v1.Transition.Cause`."""
    jobs_ahead: int
    slots: int
    """How many slots for its type and queue are connected; 0 means that nobody serves it."""
    busy_slots: int


def explanation_of(answer: pb.ExplainJobResponse) -> Explanation:
    """The view of an ExplainJob answer."""
    return Explanation(
        state=state_of(answer.state),
        pending_reason=enum_name(pb.Job.PendingReason, answer.pending_reason) if answer.pending_reason else None,
        summary=answer.summary,
        next_event_time=time_of(answer, "next_event_time"),
        next_event=enum_name(pb.Transition.Cause, answer.next_event) if answer.next_event else None,
        jobs_ahead=answer.jobs_ahead,
        slots=answer.slots,
        busy_slots=answer.busy_slots,
    )


def succeeded(job: Job) -> Job:
    """The job, if it is a SUCCESS. Raises JobFailed or JobCancelled when it ended otherwise."""
    if job.state is JobState.SUCCESS:
        return job
    kind = JobCancelled if job.state is JobState.CANCELLED else JobFailed
    error = job.error or Error(0, "", "")
    raise kind(error.message or f"job {job.id} is {job.state}", job=job.message, reason=error.reason)


def state_of(number: int) -> JobState:
    """The state of a number on the wire."""
    return _STATES.get(number, JobState.STATE_UNSPECIFIED)


def enum_name(enum: Any, number: int) -> str:
    """The name of an enum number; the number itself when it is newer than this client."""
    value = enum.DESCRIPTOR.values_by_number.get(number)
    return value.name if value is not None else str(number)


def time_of(message: Message, field: str) -> datetime | None:
    """The instant in a field, or None when it is unset."""
    return instant(getattr(message, field)) if message.HasField(field) else None


def error_of(message: Message, field: str) -> Error | None:
    """The error in a field, or None when it is unset."""
    if not message.HasField(field):
        return None
    status: Status = getattr(message, field)
    return Error(status.code, reason_of(status), status.message)


def progress_of(message: pb.Progress) -> Progress:
    """The view of a progress report."""
    return Progress(message.current, message.total, message.message, time_of(message, "update_time"))


def _attempt(message: pb.Attempt) -> Attempt:
    return Attempt(
        number=message.number,
        run=message.run,
        worker=message.worker,
        start_time=time_of(message, "start_time"),
        end_time=time_of(message, "end_time"),
        outcome=enum_name(pb.Attempt.Outcome, message.outcome),
        error=error_of(message, "error"),
    )


def _planned(line: pb.PlannedAttempt) -> PlannedAttempt:
    return PlannedAttempt(line.number, _timedelta(line.earliest), _timedelta(line.latest))


def _timedelta(duration: Duration) -> timedelta:
    return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)
