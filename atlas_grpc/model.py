"""The records of Atlas: immutable, compact, without I/O.

Instants are integers: microseconds since 1970-01-01 UTC on the store's clock. Time spans are integers too:
microseconds. Enum numbers equal those of `atlas.v1`. Records are msgspec structs that the garbage collector does not
track (`gc=False`), so that a million stored jobs do not slow its passes; nothing in them may form a cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

import msgspec

SECOND = 1_000_000
"""One second, in the unit of all times here."""

DEFAULT_NAMESPACE = "default"


class State(IntEnum):
    """Where a job is; `atlas.v1.Job.State`."""

    PENDING = 1
    RUNNING = 2
    SUCCESS = 3
    FAILED = 4
    CANCELLED = 5

    @property
    def terminal(self) -> bool:
        return self >= State.SUCCESS


class PendingReason(IntEnum):
    """What a PENDING job waits for; `atlas.v1.Job.PendingReason`."""

    NONE = 0
    WAITING_FOR_START_TIME = 1
    WAITING_FOR_RETRY = 2
    WAITING_FOR_WORKER = 3


class Cause(IntEnum):
    """What made a transition; `atlas.v1.Transition.Cause`."""

    SUBMITTED = 1
    BECAME_READY = 2
    STARTED = 3
    SUCCEEDED = 4
    ATTEMPT_FAILED = 5
    ATTEMPT_TIMED_OUT = 6
    WORKER_LOST = 7
    RELEASED = 8
    CANCEL_REQUESTED = 9
    CANCELLED = 10
    DEADLINE_EXCEEDED = 11
    START_DEADLINE_EXCEEDED = 12
    RETRIED = 13


class AttemptOutcome(IntEnum):
    """How an attempt ended; `atlas.v1.Attempt.Outcome`."""

    UNENDED = 0
    SUCCEEDED = 1
    FAILED = 2
    TIMED_OUT = 3
    CANCELLED = 4
    LOST = 5
    RELEASED = 6


class Severity(IntEnum):
    """How serious a log line is; `atlas.v1.LogEntry.Severity`."""

    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4


class AttemptView(NamedTuple):
    """One execution of a job, as its history tells it; `atlas.v1.Attempt`."""

    number: int
    run: int
    worker: str
    start: int
    end: int | None
    outcome: AttemptOutcome
    error: Failure | None


class Record(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The base of all records. Stores keep them as arrays of their fields in this order: new fields go last, with a
    default, and none is ever moved or removed.
    """


class Content(Record, frozen=True):
    """A payload or a result: the UTF-8 text of a JSON value, or bytes of some media type."""

    data: bytes
    content_type: str | None = None
    """None for JSON that came in (or goes out) as Struct or Value; else the media type, possibly empty."""

    @property
    def is_json(self) -> bool:
        return self.content_type is None


EMPTY_OBJECT = Content(b"{}")


class Failure(Record, frozen=True):
    """Why something failed: what becomes a google.rpc.Status with an ErrorInfo of `reason`."""

    code: int
    reason: str
    message: str


class RetryPolicy(Record, frozen=True):
    """How failed attempts are retried; the rule is in `retry.py`."""

    max_attempts: int = 3
    initial_backoff: int = SECOND
    multiplier: float = 2.0
    max_backoff: int = 300 * SECOND
    jitter: float = 0.2
    non_retryable: tuple[str, ...] = ()


class JobSpec(Record, frozen=True):
    """What was asked for, with all defaults filled in. Never changes."""

    id: str
    namespace: str
    type: str
    queue: str
    payload: Content
    retry: RetryPolicy
    create_time: int
    start_time: int
    """The requested start, equal to `create_time` when none was asked for."""
    retention: int
    labels: dict[str, str] = {}
    priority: int = 0
    request_id: str = ""
    fingerprint: bytes = b""
    """A digest of the request, to tell a repeat from a reuse of its request id."""
    attempt_timeout: int | None = None
    total_timeout: int | None = None
    start_timeout: int | None = None
    traceparent: str = ""
    """The W3C trace context of the submitter, handed to the handler and the logs."""


class Transition(Record, frozen=True):
    """One step in a job's life."""

    version: int
    time: int
    state: State
    cause: Cause
    run: int
    attempt: int = 0
    worker: str = ""
    next_start: int | None = None
    error: Failure | None = None


class Job(Record, frozen=True):
    """A job as a store keeps it: the spec, and the state that `lifecycle` moves."""

    spec: JobSpec
    version: int
    state: State
    start_time: int
    """When the current run may start first."""
    next_start: int
    """When the job may start next; in the past once it is ready."""
    due: int | None
    """When a timer must look at the job next; what `Store.due` is indexed by."""
    ready: bool = False
    """True while a worker may claim it; what `Store.claim` is indexed by."""
    run: int = 1
    attempt: int = 0
    """The number of the latest attempt in this run."""
    failures: int = 0
    """Attempts of this run that failed."""
    crashes: int = 0
    """Attempts of this run whose worker was lost."""
    fence: int = 0
    """The token of the latest claim."""
    session: str = ""
    """The worker session that holds the lease, while RUNNING."""
    worker: str = ""
    attempt_start: int = 0
    cancel_time: int | None = None
    cancel_reason: str = ""
    result: Content | None = None
    error: Failure | None = None
    finish_time: int | None = None
    history: tuple[Transition, ...] = ()
    """The latest transitions, oldest first, the last one of `version`."""

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def update_time(self) -> int:
        return self.history[-1].time


class Progress(Record, frozen=True):
    """What a handler last reported."""

    current: float
    total: float = 0.0
    message: str = ""
    time: int = 0


class LogLine(Record, frozen=True):
    """One line that a handler logged; `offset` and `time` are given by the store."""

    severity: Severity
    message: str
    attempt: int = 0
    offset: int = 0
    time: int = 0


class Ask(Record, frozen=True):
    """How many jobs of one type a worker can take now. `queues` None means any queue."""

    type: str
    slots: int
    queues: frozenset[str] | None = None


Room = Callable[[], tuple[Sequence[Ask], int]]
"""Says how many jobs of which types a worker has room for now, and how many in all."""

AtOnce = Callable[[], bool]
"""Says whether a worker wants to know at once when there is no job for it now."""


def patiently() -> bool:
    """An `AtOnce`: it waits until there is one."""
    return False


class Assignment(Record, frozen=True):
    """A job in the hands of a worker."""

    job_id: str
    namespace: str
    type: str
    queue: str
    payload: Content
    run: int
    attempt: int
    max_attempts: int
    fence: int
    """The token that every report about this attempt carries."""
    time_left: int | None
    """How long the attempt may run from the claim on; None means without limit."""
    labels: dict[str, str]
    create_time: int
    traceparent: str = ""


class Succeeded(Record, frozen=True):
    """The handler returned."""

    result: Content


class Failed(Record, frozen=True):
    """The handler failed."""

    failure: Failure
    retryable: bool = True
    retry_in: int | None = None
    """The pause that the handler asked for instead of the policy's."""


class Released(Record, frozen=True):
    """The job goes back; the attempt does not count. `delay` must pass first."""

    delay: int = 0


class Stopped(Record, frozen=True):
    """The handler stopped because the job was cancelled."""


class TimedOut(Record, frozen=True):
    """The worker cut the attempt because its time was up."""


Outcome = Succeeded | Failed | Released | Stopped | TimedOut


class Report(Record, frozen=True):
    """How an attempt ended, as its worker says."""

    job_id: str
    fence: int
    outcome: Outcome


class Update(Record, frozen=True):
    """What a running attempt tells about itself: progress, log lines or both."""

    job_id: str
    fence: int
    progress: Progress | None = None
    logs: tuple[LogLine, ...] = ()


class TypeInfo(Record, frozen=True):
    """What a handler announces about its job type. Schemas are JSON texts."""

    name: str
    description: str = ""
    payload_schema: bytes | None = None
    """None for a type that takes bytes."""
    result_schema: bytes | None = None
    queue: str = "default"
    retry: RetryPolicy = RetryPolicy()
    attempt_timeout: int | None = None
    total_timeout: int | None = None
    concurrency: int = 0
    executor: str = "task"
    """`task`, `thread` or `process`."""
