"""The state machine of a job: pure functions from a job to the job after a step.

    PENDING ──started──▶ RUNNING ──succeeded──▶ SUCCESS
       ▲ │                 │ │
       │ │                 │ └─failed, timed_out, lost: attempts left──▶ PENDING, else ──▶ FAILED
       │ │                 └─released──▶ PENDING        └─cancelled──▶ CANCELLED
       │ └─cancel──▶ CANCELLED   └─deadlines──▶ FAILED
       └─────────────────── new_run (RetryJob) ─── from any terminal state

No I/O and no clock: `now` (microseconds on the store's clock) and chance come in. Every step makes a new record whose
version is one higher and which ends with the transition that was made, so a job's history has no holes. Each function
states what it needs of the job; the engine calls it on a record in hand and stores the answer by compare-and-set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from msgspec.structs import replace

from . import retry
from .errors import Code
from .model import (
    AttemptOutcome,
    AttemptView,
    Cause,
    Failed,
    Failure,
    Job,
    JobSpec,
    Outcome,
    PendingReason,
    Released,
    State,
    Stopped,
    Succeeded,
    TimedOut,
    Transition,
)

if TYPE_CHECKING:
    from random import Random

MAX_HISTORY = 256
"""How many transitions a job keeps; the oldest go first."""

OUTCOME_OF = {
    Cause.SUCCEEDED: AttemptOutcome.SUCCEEDED,
    Cause.ATTEMPT_FAILED: AttemptOutcome.FAILED,
    Cause.ATTEMPT_TIMED_OUT: AttemptOutcome.TIMED_OUT,
    Cause.DEADLINE_EXCEEDED: AttemptOutcome.TIMED_OUT,
    Cause.WORKER_LOST: AttemptOutcome.LOST,
    Cause.RELEASED: AttemptOutcome.RELEASED,
    Cause.CANCELLED: AttemptOutcome.CANCELLED,
}
"""How an attempt ended, by the cause of the transition that left RUNNING."""

_ENDED_BY_WORKER = frozenset({Cause.SUCCEEDED, Cause.ATTEMPT_FAILED, Cause.RELEASED})


def submitted(spec: JobSpec) -> Job:
    """A new job: ready at once, or waiting for its start time."""
    now = spec.create_time
    waits = spec.start_time > now
    first = Transition(1, now, State.PENDING, Cause.SUBMITTED, 1, next_start=spec.start_time if waits else None)
    return Job(
        spec,
        1,
        State.PENDING,
        spec.start_time,
        spec.start_time,
        _pending_due(spec, spec.start_time, spec.start_time if waits else None, begun=False),
        ready=not waits,
        history=(first,),
    )


def started(job: Job, now: int, *, session: str, worker: str, fence: int) -> Job:
    """A worker takes a ready job."""
    attempt = job.attempt + 1
    step = Transition(
        job.version + 1, max(now, job.history[-1].time), State.RUNNING, Cause.STARTED, job.run, attempt, worker
    )
    # Not by `_step`: passing keywords on costs three times what this does, and every attempt comes by here.
    return replace(
        job,
        version=step.version,
        state=State.RUNNING,
        attempt=attempt,
        worker=worker,
        session=session,
        fence=fence,
        ready=False,
        attempt_start=now,
        due=_earliest(_attempt_end(job, now), deadline(job)),
        history=_followed(job.history, step),
    )


def holds(job: Job, fence: int) -> bool:
    """Whether the attempt with this token is the one that is going on."""
    return job.state is State.RUNNING and job.fence == fence


def was_answered(job: Job, fence: int) -> bool:
    """Whether the attempt with this token has ended by its worker's own word, so that a repeat of it is harmless. Not
    when it was cancelled: the worker may have agreed or may have been cut, and its late result must not be
    acknowledged."""
    if job.fence != fence or job.state is State.RUNNING:
        return False
    history = job.history
    for at in range(len(history) - 1, 0, -1):
        if history[at - 1].state is State.RUNNING:
            return history[at].cause in _ENDED_BY_WORKER
    return False


def ended(job: Job, now: int, outcome: Outcome, rng: Random) -> Job:
    """A running attempt ends as its worker says. A job whose cancellation was asked for is cancelled unless it
    succeeded.
    """
    match outcome:
        case Succeeded(result):
            return _finish(job, now, State.SUCCESS, Cause.SUCCEEDED, None, result=result)
        case _ if job.cancel_time is not None:
            return cancelled(job, now)
        case Failed(failure, retryable, retry_in):
            return _failed(job, now, Cause.ATTEMPT_FAILED, failure, rng, retryable=retryable, retry_in=retry_in)
        case Released(delay):
            return released(job, now, delay)
        case Stopped():
            return released(job, now, 0)
        case TimedOut():
            return _timed_out(job, now, rng)
        case _:
            assert_never(outcome)


def released(job: Job, now: int, delay: int) -> Job:
    """A running attempt ends without counting; the job may start again after `delay`."""
    if job.cancel_time is not None:
        return cancelled(job, now)
    return _wait(job, now, Cause.RELEASED, now + delay, None)


def lost(job: Job, now: int, rng: Random) -> Job:
    """The worker of a running attempt is gone. Crashes have a budget of their own, as large as that of failures, and
    the first one costs no pause: most workers die by a deploy or a lost machine, not by the job."""
    if job.cancel_time is not None:
        return cancelled(job, now)
    failure = Failure(Code.UNAVAILABLE, "WORKER_LOST", "the worker was lost while it executed the job")
    return _failed(job, now, Cause.WORKER_LOST, failure, rng)


def request_cancel(job: Job, now: int, reason: str, grace: int) -> Job:
    """A job that waits is cancelled; a running one is marked, and cut when `grace` is over. The job is not terminal."""
    if job.state is State.PENDING:
        return cancelled(replace(job, cancel_reason=reason), now)
    if job.cancel_time is not None:
        return job
    return _step(
        job,
        now,
        State.RUNNING,
        Cause.CANCEL_REQUESTED,
        cancel_time=now,
        cancel_reason=reason,
        due=_earliest(job.due, now + grace),
    )


def cancelled(job: Job, now: int) -> Job:
    """The job ends by cancellation."""
    why = f": {job.cancel_reason}" if job.cancel_reason else ""
    return _finish(
        job,
        now,
        State.CANCELLED,
        Cause.CANCELLED,
        Failure(Code.CANCELLED, "JOB_CANCELLED", f"the job was cancelled{why}"),
    )


def new_run(job: Job, now: int) -> Job:
    """A terminal job starts over, with fresh attempts and deadlines; its history stays."""
    return _step(
        job,
        now,
        State.PENDING,
        Cause.RETRIED,
        worker="",
        run=job.run + 1,
        attempt=0,
        failures=0,
        crashes=0,
        start_time=now,
        next_start=now,
        ready=True,
        cancel_time=None,
        cancel_reason="",
        result=None,
        error=None,
        finish_time=None,
        due=_pending_due(job.spec, now, None, begun=False),
    )


def on_timer(job: Job, now: int, rng: Random) -> Job | None:
    """What time makes of a job whose `due` has come: the job after the step, the same job if nothing is due yet, or
    None when its retention is over and it is to be deleted."""
    if job.due is None or job.due > now:
        return job
    if job.state.terminal:
        return None
    if job.cancel_time is not None:
        return cancelled(job, now)
    if job.state is State.RUNNING or _is_past(deadline(job), now):
        return _timed_out(job, now, rng)
    start_by = start_deadline(job)
    if job.attempt == 0 and start_by is not None and start_by <= now:
        failure = Failure(Code.DEADLINE_EXCEEDED, "START_TIMEOUT", "no attempt began within the start timeout")
        return _finish(job, now, State.FAILED, Cause.START_DEADLINE_EXCEEDED, failure)
    return _step(
        job,
        now,
        State.PENDING,
        Cause.BECAME_READY,
        ready=True,
        due=_pending_due(job.spec, job.start_time, None, begun=job.attempt > 0),
    )


def _timed_out(job: Job, now: int, rng: Random) -> Job:
    """The time of the job, or else of its running attempt, is up."""
    if _is_past(deadline(job), now):
        failure = Failure(Code.DEADLINE_EXCEEDED, "TOTAL_TIMEOUT", "the job did not finish within its total timeout")
        return _finish(job, now, State.FAILED, Cause.DEADLINE_EXCEEDED, failure)
    failure = Failure(Code.DEADLINE_EXCEEDED, "ATTEMPT_TIMEOUT", "the attempt did not finish within its timeout")
    return _failed(job, now, Cause.ATTEMPT_TIMED_OUT, failure, rng)


def _is_past(at: int | None, now: int) -> bool:
    return at is not None and at <= now


def deadline(job: Job) -> int | None:
    """When the current run must have finished."""
    timeout = job.spec.total_timeout
    return None if timeout is None else job.start_time + timeout


def start_deadline(job: Job) -> int | None:
    """When the first attempt of the current run must have begun."""
    timeout = job.spec.start_timeout
    return None if timeout is None else job.start_time + timeout


def expire_time(job: Job) -> int | None:
    """When a terminal job is deleted."""
    return None if job.finish_time is None else job.finish_time + job.spec.retention


def pending_reason(job: Job) -> PendingReason:
    """What a job waits for."""
    if job.state is not State.PENDING:
        return PendingReason.NONE
    if job.ready:
        return PendingReason.WAITING_FOR_WORKER
    return PendingReason.WAITING_FOR_START_TIME if job.attempt == 0 else PendingReason.WAITING_FOR_RETRY


def next_event(job: Job) -> tuple[int, Cause] | None:
    """What time alone will do to the job next, and when. Deletion is not an event: see `expire_time`."""
    if job.due is None or job.state.terminal:
        return None
    if job.cancel_time is not None:
        return job.due, Cause.CANCELLED
    if job.due == deadline(job):
        return job.due, Cause.DEADLINE_EXCEEDED
    if job.state is State.RUNNING:
        return job.due, Cause.ATTEMPT_TIMED_OUT
    if not job.ready and job.due == job.next_start:
        return job.due, Cause.BECAME_READY
    return job.due, Cause.START_DEADLINE_EXCEEDED


def time_left(job: Job) -> int | None:
    """How long the attempt that just began may run."""
    return None if job.due is None else job.due - job.attempt_start


def attempts(job: Job) -> list[AttemptView]:
    """The attempts that the kept history tells of, oldest first."""
    found: list[AttemptView] = []
    began: Transition | None = None
    for step in job.history:
        if step.cause is Cause.STARTED:
            began = step
        elif began is not None and step.cause is not Cause.CANCEL_REQUESTED:
            found.append(_attempt(began, step.time, OUTCOME_OF[step.cause], step.error))
            began = None
    if began is not None:
        found.append(_attempt(began, None, AttemptOutcome.UNENDED, None))
    return found


def _attempt(began: Transition, end: int | None, outcome: AttemptOutcome, error: Failure | None) -> AttemptView:
    return AttemptView(began.attempt, began.run, began.worker, began.time, end, outcome, error)


def _failed(
    job: Job,
    now: int,
    cause: Cause,
    failure: Failure,
    rng: Random,
    *,
    retryable: bool = True,
    retry_in: int | None = None,
) -> Job:
    policy = job.spec.retry
    if cause is Cause.WORKER_LOST:
        job = replace(job, crashes=job.crashes + 1)
        spent = job.crashes
    else:
        job = replace(job, failures=job.failures + 1)
        spent = job.failures
    if not retryable or spent >= policy.max_attempts or failure.reason in policy.non_retryable:
        return _finish(job, now, State.FAILED, cause, failure)
    pauses = spent - 1 if cause is Cause.WORKER_LOST else spent
    if retry_in is None:
        retry_in = retry.backoff(policy, pauses, rng) if pauses else 0
    start = now + retry_in
    end = deadline(job)
    if end is not None and start >= end:
        return _finish(job, now, State.FAILED, cause, failure)
    return _wait(job, now, cause, start, failure)


def _wait(job: Job, now: int, cause: Cause, start: int, failure: Failure | None) -> Job:
    waits_until = start if start > now else None
    return _step(
        job,
        now,
        State.PENDING,
        cause,
        failure=failure,
        waits_until=waits_until,
        ready=waits_until is None,
        next_start=start,
        session="",
        due=_pending_due(job.spec, job.start_time, waits_until, begun=True),
    )


def _finish(job: Job, now: int, state: State, cause: Cause, failure: Failure | None, result: Any = None) -> Job:
    now = max(now, job.history[-1].time)
    step = Transition(job.version + 1, now, state, cause, job.run, job.attempt, job.worker, None, failure)
    # As in `started`.
    return replace(
        job,
        version=step.version,
        state=state,
        ready=False,
        session="",
        result=result,
        error=failure,
        finish_time=now,
        due=now + job.spec.retention,
        history=_followed(job.history, step),
    )


def _step(
    job: Job,
    now: int,
    state: State,
    cause: Cause,
    *,
    failure: Failure | None = None,
    waits_until: int | None = None,
    run: int | None = None,
    attempt: int | None = None,
    worker: str | None = None,
    **changes: Any,
) -> Job:
    step = Transition(
        job.version + 1,
        max(now, job.history[-1].time),
        state,
        cause,
        job.run if run is None else run,
        job.attempt if attempt is None else attempt,
        job.worker if worker is None else worker,
        waits_until,
        failure,
    )
    return replace(
        job,
        version=step.version,
        state=state,
        run=step.run,
        attempt=step.attempt,
        worker=step.worker,
        history=_followed(job.history, step),
        **changes,
    )


def _followed(history: tuple[Transition, ...], step: Transition) -> tuple[Transition, ...]:
    return (*history, step) if len(history) < MAX_HISTORY else (*history[1 - MAX_HISTORY :], step)


def _pending_due(spec: JobSpec, start_time: int, next_start: int | None, *, begun: bool) -> int | None:
    start_by = None if begun or spec.start_timeout is None else start_time + spec.start_timeout
    end = None if spec.total_timeout is None else start_time + spec.total_timeout
    return _earliest(_earliest(next_start, start_by), end)


def _attempt_end(job: Job, now: int) -> int | None:
    timeout = job.spec.attempt_timeout
    return None if timeout is None else now + timeout


def _earliest(a: int | None, b: int | None) -> int | None:
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)
