"""Every error of Atlas, and the one table: reason <-> exception <-> gRPC code <-> HTTP status.

    AtlasError
    ├── InvalidArgument              the request is wrong; `violations` names the fields
    ├── NotFound                     JobNotFound, SessionEnded
    ├── AlreadyExists                RequestIdReused
    ├── FailedPrecondition           JobTerminal, JobNotTerminal
    ├── Aborted                      VersionMismatch, SessionContinued
    ├── OutOfRange                   ResumeTokenExpired
    ├── ResourceExhausted            StoreFull, WatchTooSlow, RequestTooLarge, Overloaded
    ├── Unavailable                  ServerDraining
    ├── DeadlineExceeded, Cancelled, PermissionDenied, Unauthenticated, Unimplemented, Internal, Unknown
    └── JobError                     client side: the job was read without trouble, but it did not succeed
        └── JobFailed, JobCancelled

A handler says what should become of its job by raising one of `RetryIn`, `FailNow`, `GiveBack`
(`HandlerSignal`); any other exception is an ordinary failure, retried as the policy says.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

DOMAIN = "atlas"
"""The domain of every google.rpc.ErrorInfo that Atlas makes."""


class Code(IntEnum):
    """The gRPC status codes, without importing gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


HTTP_STATUS: Mapping[Code, int] = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
"""The HTTP status of each code, as grpc-gateway maps them."""


class Violation(NamedTuple):
    """One thing that is wrong with a request."""

    field: str
    """The path of the field in proto names, for instance `payload.seconds` or `requests[3].type`."""
    description: str


class AtlasError(Exception):
    """The root. Each class has the default `code` and `reason`; an instance may narrow the reason.

    `metadata` holds the dynamic values of the message; `violations` the wrong fields; `resource` a
    (type, name) pair; `retry_after` the seconds after which a repeat may succeed.
    """

    code: ClassVar[Code] = Code.UNKNOWN
    reason: str = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        resource: tuple[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.resource = resource
        self.retry_after = retry_after


class InvalidArgument(AtlasError):
    """The request itself is wrong, whatever the state of the server."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"

    @classmethod
    def of(cls, field: str, description: str, *, reason: str | None = None) -> InvalidArgument:
        """One violation."""
        return cls(f"{field}: {description}", violations=(Violation(field, description),), reason=reason)

    @classmethod
    def all_of(cls, violations: Sequence[Violation]) -> InvalidArgument:
        """Several violations at once; the message names the first."""
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        return cls(f"{first.field}: {first.description}{more}", violations=violations)

    def within(self, field: str) -> InvalidArgument:
        """The same for a request that is itself a field of a larger one."""
        inner = tuple(Violation(f"{field}.{one.field}", one.description) for one in self.violations)
        return InvalidArgument(f"{field}.{self.message}", reason=self.reason, metadata=self.metadata, violations=inner)


class NotFound(AtlasError):
    """What was named is not there."""

    code = Code.NOT_FOUND
    reason = "NOT_FOUND"


class JobNotFound(NotFound):
    """There is no such job in this namespace (any more)."""

    reason = "JOB_NOT_FOUND"

    @classmethod
    def of(cls, job_id: str) -> JobNotFound:
        """For the id that was asked for."""
        return cls(f"job {job_id!r} does not exist", metadata={"job_id": job_id}, resource=("atlas.v1.Job", job_id))


class SessionEnded(NotFound):
    """The worker session is over: its jobs were given to others. A worker starts a new one."""

    reason = "SESSION_ENDED"

    @classmethod
    def of(cls, session: str) -> SessionEnded:
        """For the session that was named."""
        return cls(
            f"the worker session {session!r} is over",
            metadata={"session": session},
            resource=("atlas.v1.WorkerSession", session),
        )


class AlreadyExists(AtlasError):
    """What should be made is there already, and differs."""

    code = Code.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class RequestIdReused(AlreadyExists):
    """The request id belongs to an earlier, different request; metadata `differs` names the fields."""

    reason = "REQUEST_ID_REUSED"


class FailedPrecondition(AtlasError):
    """The state of the job does not allow it."""

    code = Code.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class JobTerminal(FailedPrecondition):
    """The job has finished already."""

    reason = "JOB_TERMINAL"


class JobNotTerminal(FailedPrecondition):
    """The job has not finished yet."""

    reason = "JOB_NOT_TERMINAL"


class Aborted(AtlasError):
    """Somebody else was faster."""

    code = Code.ABORTED
    reason = "ABORTED"


class SessionContinued(Aborted):
    """The worker session was taken over by another stream of its worker."""

    reason = "SESSION_CONTINUED"


class VersionMismatch(Aborted):
    """`if_version` does not hold (any more)."""

    reason = "VERSION_MISMATCH"


class OutOfRange(AtlasError):
    """A position outside of what is kept."""

    code = Code.OUT_OF_RANGE
    reason = "OUT_OF_RANGE"


class ResumeTokenExpired(OutOfRange):
    """What came after the token is no longer kept: start anew, without it."""

    reason = "RESUME_TOKEN_EXPIRED"


class ResourceExhausted(AtlasError):
    """A limit is reached."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class StoreFull(ResourceExhausted):
    """The store takes no more unfinished jobs."""

    reason = "STORE_FULL"


class WatchTooSlow(ResourceExhausted):
    """The reader of a watch fell too far behind; watch again without token."""

    reason = "WATCH_TOO_SLOW"


class RequestTooLarge(ResourceExhausted):
    """The message is larger than the server takes."""

    reason = "REQUEST_TOO_LARGE"


class Overloaded(ResourceExhausted):
    """The server has as many calls or streams of this kind as it serves at a time."""

    reason = "OVERLOADED"


class Unavailable(AtlasError):
    """Try again."""

    code = Code.UNAVAILABLE
    reason = "UNAVAILABLE"


class ServerDraining(Unavailable):
    """The server is about to stop; another one, or the next, will serve."""

    reason = "SERVER_DRAINING"


class DeadlineExceeded(AtlasError):
    """The caller's time was up."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class Cancelled(AtlasError):
    """The call was cancelled."""

    code = Code.CANCELLED
    reason = "CANCELLED"


class PermissionDenied(AtlasError):
    """The caller may not do this."""

    code = Code.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class Unauthenticated(AtlasError):
    """The caller did not say who it is."""

    code = Code.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class Unimplemented(AtlasError):
    """The server does not know the method."""

    code = Code.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"


class Internal(AtlasError):
    """A fault of the server; its log has the cause."""

    code = Code.INTERNAL
    reason = "INTERNAL"


class Unknown(AtlasError):
    """An error that did not come from Atlas, or from one that is newer."""


def _tree(root: type[AtlasError]) -> list[type[AtlasError]]:
    return [root, *(sub for child in root.__subclasses__() for sub in _tree(child))]


BY_REASON: Mapping[str, type[AtlasError]] = {cls.reason: cls for cls in reversed(_tree(AtlasError))}
"""The exception of each stable reason."""

BY_CODE: Mapping[Code, type[AtlasError]] = {cls.code: cls for cls in AtlasError.__subclasses__()}
"""The general exception of each code, for reasons that are not in `BY_REASON`."""


class JobError(Exception):
    """The job did not succeed. `job` is the `atlas.v1.Job` message, `reason` that of its error."""

    def __init__(self, message: str, *, job: object, reason: str) -> None:
        super().__init__(message)
        self.job = job
        self.reason = reason


class JobFailed(JobError):
    """The job ended as FAILED."""


class JobCancelled(JobError):
    """The job ended as CANCELLED."""


LONGEST_PAUSE = 7 * 86_400
"""Seconds; the contract's, of `JobFailure.retry_delay` and `JobRelease.delay`."""


class HandlerSignal(Exception):
    """What a handler raises to say what should become of its job."""


class RetryIn(HandlerSignal):
    """This attempt failed; make the next one after `delay` (seconds or a timedelta; up to 7 days) instead of the
    policy's pause.

    It counts against `max_attempts`. Raises ValueError for another delay.
    """

    def __init__(
        self,
        delay: float | timedelta,
        message: str = "the handler asked for a retry",
        *,
        reason: str = "RETRY_REQUESTED",
    ) -> None:
        super().__init__(delay, message, reason)
        self.delay = _pause(delay)
        self.message = message
        self.reason = reason


class FailNow(HandlerSignal):
    """The job fails, whatever attempts are left. `reason` is UPPER_SNAKE_CASE and stands in the job's error."""

    def __init__(self, message: str, *, reason: str = "HANDLER_FAILED") -> None:
        super().__init__(message, reason)
        self.message = message
        self.reason = reason


class GiveBack(HandlerSignal):
    """Not my turn: the job goes back to its queue, and the attempt does not count. `delay` (seconds or a timedelta; up
    to 7 days) must pass first. Raises ValueError for another delay.
    """

    def __init__(self, delay: float | timedelta = 0.0) -> None:
        super().__init__(delay)
        self.delay = _pause(delay)


class HandlerFailed(Exception):
    """What a handler raised in a process of its own, as the middleware around it sees it: the exception itself stays
    there. `reason` and `message` are those of the job's error."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


def seconds(value: float | timedelta) -> float:
    """A time span in seconds. Raises ValueError when it is negative or not finite."""
    number = float(value) if isinstance(value, int | float) else value.total_seconds()
    if not 0 <= number < float("inf"):
        msg = f"a time span must be finite and not negative, not {number}"
        raise ValueError(msg)
    return number


def _pause(value: float | timedelta) -> float:
    number = seconds(value)
    if number > LONGEST_PAUSE:
        msg = f"a pause may be 7 days, {LONGEST_PAUSE} seconds, at most, not {number}"
        raise ValueError(msg)
    return number
