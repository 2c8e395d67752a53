"""From a submission to a new job: defaults filled in, the effective policy, the fingerprint of the request."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import msgspec

from ..errors import InvalidArgument, RequestIdReused, Violation
from ..model import EMPTY_OBJECT, SECOND, Content, JobSpec, Record, RetryPolicy, TypeInfo

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ..model import Job


class Catalog(Protocol):
    """The job types that can be submitted."""

    def get(self, name: str) -> TypeInfo | None:
        """What was announced about a type; None when nobody announced it."""
        ...

    def types(self) -> Sequence[TypeInfo]:
        """All types, by name."""
        ...

    async def look_up(self, names: Collection[str]) -> None:
        """Sees to it that those of these types that exist are known to `get`."""
        ...

    def violations(self, name: str, payload: Content) -> Sequence[Violation]:
        """What a known type finds wrong with a payload."""
        ...


SHORTEST_RETENTION = 5 * SECOND
"""A finished job is kept at least so long, for those who watch it to be told."""


class RetryOverride(Record, frozen=True):
    """The parts of a retry policy that a submitter set."""

    max_attempts: int | None = None
    initial_backoff: int | None = None
    multiplier: float | None = None
    max_backoff: int | None = None
    jitter: float | None = None
    non_retryable: tuple[str, ...] | None = None


class Submission(Record, frozen=True):
    """What a submitter asked for; None (or empty) where it left the choice to the type or the server."""

    namespace: str
    type: str
    payload: Content = EMPTY_OBJECT
    queue: str = ""
    labels: dict[str, str] = {}
    priority: int = 0
    start_time: int | None = None
    start_delay: int | None = None
    retry: RetryOverride | None = None
    attempt_timeout: int | None = None
    total_timeout: int | None = None
    start_timeout: int | None = None
    retention: int | None = None
    request_id: str = ""
    traceparent: str = ""


_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def fingerprint(sub: Submission) -> bytes:
    """A digest of what was asked for, the request id and the trace apart."""
    parts = (
        sub.type,
        sub.payload,
        sub.queue,
        sub.labels,
        sub.priority,
        sub.start_time,
        sub.start_delay,
        sub.retry,
        sub.attempt_timeout,
        sub.total_timeout,
        sub.start_timeout,
        sub.retention,
    )
    return hashlib.blake2b(_encode(parts), digest_size=16).digest()


def effective_policy(base: RetryPolicy, override: RetryOverride | None) -> RetryPolicy:
    """The type's policy with what the submitter set."""
    return base if override is None else _overridden(base, override)


@lru_cache(maxsize=1_024)
def _overridden(base: RetryPolicy, override: RetryOverride) -> RetryPolicy:
    chosen = {name: value for name in override.__struct_fields__ if (value := getattr(override, name)) is not None}
    return msgspec.structs.replace(base, **chosen)


def build(sub: Submission, job_id: str, now: int, info: TypeInfo, retention: int) -> JobSpec:
    """The spec of a new job. `retention` is the server's default."""
    start = now
    if sub.start_delay is not None:
        start = now + sub.start_delay
    elif sub.start_time is not None:
        start = max(now, sub.start_time)
    return JobSpec(
        job_id,
        sub.namespace,
        info.name,
        sub.queue or info.queue,
        sub.payload,
        effective_policy(info.retry, sub.retry),
        now,
        start,
        max(SHORTEST_RETENTION, retention if sub.retention is None else sub.retention),
        sub.labels,
        sub.priority,
        sub.request_id,
        fingerprint(sub) if sub.request_id else b"",
        info.attempt_timeout if sub.attempt_timeout is None else sub.attempt_timeout,
        info.total_timeout if sub.total_timeout is None else sub.total_timeout,
        sub.start_timeout,
        sub.traceparent,
    )


def type_of(sub: Submission, catalog: Catalog) -> TypeInfo:
    """What was announced about the type of a submission. Raises InvalidArgument when nobody did, or when the type finds
    fault with the payload.
    """
    info = catalog.get(sub.type)
    if info is None:
        known = [one.name for one in catalog.types()]
        raise InvalidArgument(
            f"type: there is no job type {sub.type!r}",
            reason="UNKNOWN_JOB_TYPE",
            violations=[Violation("type", "is not a known job type; known are " + ", ".join(known[:20]))],
            metadata={"type": sub.type},
        )
    violations = catalog.violations(sub.type, sub.payload)
    if violations:
        raise InvalidArgument.all_of(violations)
    return info


_COMPARED = {
    "type": "type",
    "queue": "queue",
    "payload": "payload",
    "labels": "labels",
    "priority": "priority",
    "retry": "retry_policy",
    "attempt_timeout": "attempt_timeout",
    "total_timeout": "total_timeout",
    "start_timeout": "start_timeout",
    "retention": "retention",
}


def reused(first: Job, second: JobSpec) -> RequestIdReused:
    """The error for a request id that comes back with another request; it names the fields that differ."""
    old = first.spec
    differs = [field for name, field in _COMPARED.items() if getattr(old, name) != getattr(second, name)]
    delays = (old.start_time - old.create_time, second.start_time - second.create_time)
    if delays[0] != delays[1] and old.start_time != second.start_time:
        differs.append("start_time")
    names = ", ".join(differs) or "a field whose effective value is the same"
    return RequestIdReused(
        f"request_id {second.request_id!r} belongs to job {old.id}, whose request differs in: {names}",
        metadata={"job_id": old.id, "request_id": second.request_id, "differs": ",".join(differs)},
        resource=("atlas.v1.Job", old.id),
    )
