"""Why a job is where it is, in words."""

from __future__ import annotations

from datetime import UTC, datetime

from .. import lifecycle
from ..model import SECOND, Cause, Job, PendingReason, Record, State


class Explanation(Record, frozen=True):
    """What ExplainJob answers. `next_time` is an instant in microseconds."""

    job: Job
    summary: str
    next_time: int | None
    next_event: Cause | None
    ahead: int
    slots: int
    busy: int


def explain(job: Job, now: int, *, ahead: int, slots: int, busy: int) -> Explanation:
    """Explains a job. `ahead` jobs would be taken before it; `slots` of connected workers serve its type."""
    event = lifecycle.next_event(job)
    summary = _summary(job, now, ahead, slots, busy)
    if event is not None and event[1] is not Cause.BECAME_READY:
        summary += " " + _NEXT[event[1]].format(when=_when(event[0], now))
    next_time, next_event = event or (lifecycle.expire_time(job), None)
    return Explanation(job, summary, next_time, next_event, ahead, slots, busy)


def _summary(job: Job, now: int, ahead: int, slots: int, busy: int) -> str:
    match job.state:
        case State.PENDING:
            return _pending(job, now, ahead, slots, busy)
        case State.RUNNING:
            since = _span(now - job.attempt_start)
            told = " Its worker has been told to stop." if job.cancel_time is not None else ""
            return f"{_attempt(job)} has been running on {job.worker} for {since}.{told}"
        case State.SUCCESS:
            return f"It succeeded at attempt {job.attempt}; nothing more will happen. {_kept(job, now)}"
        case State.FAILED:
            reason = job.error.reason if job.error is not None else "UNKNOWN"
            return (
                f"It failed for good ({reason}, {_attempts(job.attempt)}); RetryJob starts it over. {_kept(job, now)}"
            )
        case State.CANCELLED:
            return f"It was cancelled; RetryJob starts it over. {_kept(job, now)}"


def _pending(job: Job, now: int, ahead: int, slots: int, busy: int) -> str:
    match lifecycle.pending_reason(job):
        case PendingReason.WAITING_FOR_START_TIME:
            return f"It waits for its start time, {_when(job.next_start, now)}."
        case PendingReason.WAITING_FOR_RETRY:
            last = next(
                (step for step in reversed(job.history) if step.cause is not Cause.BECAME_READY), job.history[-1]
            )
            why = "was given back" if last.error is None else f"failed ({last.error.reason})"
            return f"{_attempt(job)} {why}; the next one starts {_when(job.next_start, now)}."
        case _:
            pass
    if slots == 0:
        return f"It could run now, but no connected worker serves type {job.spec.type!r}: start one."
    if ahead:
        return (
            f"It could run now and waits for its turn: {ahead} jobs of its type are before it, and {busy} of {slots} "
            "slots that serve the type are busy."
        )
    if busy >= slots:
        return f"It is the next of its type, and waits for a free slot: all {slots} are busy."
    return (
        f"It is the next of its type, and {slots - busy} of {slots} slots are free: either it starts this moment, or "
        f"no connected worker serves queue {job.spec.queue!r}, or its type is at its limit of concurrency."
    )


_NEXT = {
    Cause.CANCELLED: "If it has not stopped by itself, it is cut {when}.",
    Cause.DEADLINE_EXCEEDED: "Its total timeout ends {when}.",
    Cause.ATTEMPT_TIMED_OUT: "The attempt times out {when}.",
    Cause.START_DEADLINE_EXCEEDED: "It fails if no attempt has begun {when}.",
}


def _attempt(job: Job) -> str:
    return f"Attempt {job.attempt} of {job.spec.retry.max_attempts}"


def _attempts(number: int) -> str:
    return "1 attempt" if number == 1 else f"{number} attempts"


def _kept(job: Job, now: int) -> str:
    expires = lifecycle.expire_time(job)
    return "" if expires is None else f"It is kept until {_instant(expires)} ({_span(expires - now)} from now)."


def _when(at: int, now: int) -> str:
    return f"in {_span(at - now)} ({_instant(at)})" if at > now else "any moment now"


def _instant(at: int) -> str:
    return datetime.fromtimestamp(at / SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(micros: int) -> str:
    seconds = max(0, micros) / SECOND
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
