"""The state machine, rule by rule: waiting, attempts, retries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from atlas_grpc import lifecycle
from atlas_grpc.errors import Code
from atlas_grpc.model import (
    AttemptOutcome,
    Cause,
    Failed,
    PendingReason,
    Released,
    State,
    Stopped,
    Succeeded,
    TimedOut,
    Transition,
)
from tests.unit.lives import (
    BOOM,
    RESULT,
    RETENTION,
    SURE,
    T0,
    Highest,
    Lowest,
    causes,
    new,
    policy,
    running,
    start,
    timer,
)

if TYPE_CHECKING:
    import random

TRIED = Failed(BOOM)


def test_a_job_is_ready_at_once() -> None:
    job = new()
    assert job.state is State.PENDING
    assert job.ready
    assert (job.version, job.run, job.attempt) == (1, 1, 0)
    assert job.due is None
    assert job.next_start == job.start_time == T0
    assert job.history == (Transition(1, T0, State.PENDING, Cause.SUBMITTED, 1),)
    assert lifecycle.pending_reason(job) is PendingReason.WAITING_FOR_WORKER
    assert lifecycle.next_event(job) is None


def test_a_delayed_job_waits_and_becomes_ready() -> None:
    job = new(delay=50)
    assert not job.ready
    assert job.due == T0 + 50
    assert job.history[0].next_start == T0 + 50
    assert lifecycle.pending_reason(job) is PendingReason.WAITING_FOR_START_TIME
    assert lifecycle.next_event(job) == (T0 + 50, Cause.BECAME_READY)
    assert lifecycle.on_timer(job, T0 + 49, SURE) is job
    ready = timer(job)
    assert ready.ready
    assert ready.due is None
    assert (ready.state, ready.version, ready.next_start) == (State.PENDING, 2, T0 + 50)
    assert ready.history[-1] == Transition(2, T0 + 50, State.PENDING, Cause.BECAME_READY, 1)
    assert lifecycle.pending_reason(ready) is PendingReason.WAITING_FOR_WORKER
    assert lifecycle.on_timer(ready, T0 + 10**9, SURE) is ready


def test_a_timer_that_comes_late_counts_from_when_it_comes() -> None:
    ready = timer(new(delay=50), T0 + 70)
    assert ready.update_time == T0 + 70
    assert ready.next_start == T0 + 50


def test_started() -> None:
    job = start(new(), T0 + 5, fence=77, worker="w1")
    assert job.state is State.RUNNING
    assert not job.ready
    assert (job.version, job.attempt, job.fence, job.session, job.worker) == (2, 1, 77, "s of w1", "w1")
    assert job.attempt_start == T0 + 5
    assert job.due is None
    assert job.history[-1] == Transition(2, T0 + 5, State.RUNNING, Cause.STARTED, 1, 1, "w1")
    assert lifecycle.pending_reason(job) is PendingReason.NONE
    assert lifecycle.time_left(job) is None
    assert lifecycle.next_event(job) is None


@pytest.mark.parametrize(
    ("attempt_timeout", "total_timeout", "left", "cause"),
    [
        (None, None, None, None),
        (30, None, 30, Cause.ATTEMPT_TIMED_OUT),
        (None, 100, 80, Cause.DEADLINE_EXCEEDED),
        (30, 100, 30, Cause.ATTEMPT_TIMED_OUT),
        (90, 100, 80, Cause.DEADLINE_EXCEEDED),
        (80, 100, 80, Cause.DEADLINE_EXCEEDED),
    ],
)
def test_how_long_an_attempt_may_run(
    attempt_timeout: int | None, total_timeout: int | None, left: int | None, cause: Cause | None
) -> None:
    job = start(new(attempt_timeout=attempt_timeout, total_timeout=total_timeout), T0 + 20)
    assert lifecycle.time_left(job) == left
    assert lifecycle.next_event(job) == (None if left is None or cause is None else (T0 + 20 + left, cause))
    if left is not None:
        assert lifecycle.on_timer(job, T0 + 20 + left - 1, SURE) is job
        assert timer(job).history[-1].cause is cause


def test_succeeded() -> None:
    job = lifecycle.ended(running(), T0 + 9, Succeeded(RESULT), SURE)
    assert job.state is State.SUCCESS
    assert job.result == RESULT
    assert job.error is None
    assert job.finish_time == T0 + 9
    assert (job.session, job.worker, job.fence, job.version) == ("", "w", 1, 3)
    assert job.history[-1] == Transition(3, T0 + 9, State.SUCCESS, Cause.SUCCEEDED, 1, 1, "w")
    assert job.due == lifecycle.expire_time(job) == T0 + 9 + RETENTION
    assert lifecycle.next_event(job) is None


def test_a_failure_is_retried_after_its_pause() -> None:
    job = lifecycle.ended(running(), T0 + 5, TRIED, SURE)
    assert job.state is State.PENDING
    assert not job.ready
    assert (job.failures, job.crashes, job.attempt, job.session) == (1, 0, 1, "")
    assert job.error is None
    assert job.next_start == job.due == T0 + 15
    assert job.history[-1] == Transition(3, T0 + 5, State.PENDING, Cause.ATTEMPT_FAILED, 1, 1, "w", T0 + 15, BOOM)
    assert lifecycle.pending_reason(job) is PendingReason.WAITING_FOR_RETRY
    assert lifecycle.next_event(job) == (T0 + 15, Cause.BECAME_READY)
    again = start(timer(job))
    assert (again.attempt, again.fence) == (2, 2)


def test_attempts_run_out() -> None:
    job = new(retry=policy(max_attempts=4))
    pauses = []
    for _ in range(3):
        job = lifecycle.ended(start(job), job.update_time, TRIED, SURE)
        pauses.append(job.next_start - job.update_time)
        job = timer(job)
    job = lifecycle.ended(start(job), job.update_time, TRIED, SURE)
    assert pauses == [10, 20, 40]
    assert job.state is State.FAILED
    assert job.error == BOOM
    assert (job.failures, job.attempt) == (4, 4)
    assert [attempt.outcome for attempt in lifecycle.attempts(job)] == [AttemptOutcome.FAILED] * 4
    assert job.history[-1].cause is Cause.ATTEMPT_FAILED
    assert job.due == job.update_time + RETENTION


def test_one_attempt_means_no_retry() -> None:
    job = lifecycle.ended(running(retry=policy(max_attempts=1)), T0, TRIED, SURE)
    assert (job.state, job.attempt, job.error) == (State.FAILED, 1, BOOM)


@pytest.mark.parametrize(("rng", "pause"), [(Lowest(), 75), (Highest(), 125)])
def test_jitter_is_drawn_from_its_range(rng: random.Random, pause: int) -> None:
    job = lifecycle.ended(running(retry=policy(initial_backoff=100, jitter=0.25)), T0, TRIED, rng)
    assert job.next_start == T0 + pause


def test_a_pause_of_nothing_makes_the_job_ready_at_once() -> None:
    job = lifecycle.ended(running(retry=policy(initial_backoff=0)), T0 + 3, TRIED, SURE)
    assert job.ready
    assert job.due is None
    assert job.next_start == T0 + 3
    assert job.history[-1].next_start is None


@pytest.mark.parametrize("outcome", [Failed(BOOM, retryable=False), Failed(replace(BOOM, reason="BAD_INPUT"))])
def test_what_cannot_be_retried_fails_at_once(outcome: Failed) -> None:
    job = lifecycle.ended(running(retry=policy(non_retryable=("OTHER", "BAD_INPUT"))), T0 + 1, outcome, SURE)
    assert (job.state, job.failures, job.error) == (State.FAILED, 1, outcome.failure)
    assert job.history[-1].cause is Cause.ATTEMPT_FAILED


def test_reasons_of_time_and_loss_can_be_non_retryable_too() -> None:
    retry = policy(non_retryable=("ATTEMPT_TIMEOUT", "WORKER_LOST"))
    assert timer(running(retry=retry, attempt_timeout=5)).state is State.FAILED
    assert lifecycle.lost(running(retry=retry), T0, SURE).state is State.FAILED


def test_the_handler_chooses_the_pause() -> None:
    job = lifecycle.ended(running(), T0, Failed(BOOM, retry_in=777), SURE)
    assert job.due == T0 + 777
    assert job.failures == 1
    job = lifecycle.ended(running(), T0, Failed(BOOM, retry_in=0), SURE)
    assert job.ready
    job = lifecycle.ended(running(retry=policy(max_attempts=1)), T0, Failed(BOOM, retry_in=1), SURE)
    assert job.state is State.FAILED, "it counts against max_attempts"


@pytest.mark.parametrize("by_worker", [False, True])
def test_an_attempt_times_out(by_worker: bool) -> None:
    job = running(attempt_timeout=30)
    job = lifecycle.ended(job, T0 + 30, TimedOut(), SURE) if by_worker else timer(job)
    assert job.state is State.PENDING
    assert (job.failures, job.crashes) == (1, 0)
    step = job.history[-1]
    assert (step.cause, step.next_start) == (Cause.ATTEMPT_TIMED_OUT, T0 + 40)
    assert step.error is not None
    assert (step.error.code, step.error.reason) == (Code.DEADLINE_EXCEEDED, "ATTEMPT_TIMEOUT")
    (attempt,) = lifecycle.attempts(job)
    assert (attempt.outcome, attempt.error) == (AttemptOutcome.TIMED_OUT, step.error)


def test_failures_and_timeouts_share_a_budget() -> None:
    job = running(attempt_timeout=30, retry=policy(max_attempts=2))
    job = start(timer(lifecycle.ended(job, T0, TRIED, SURE)))
    job = timer(job)
    assert (job.state, job.failures) == (State.FAILED, 2)
    assert job.history[-1].cause is Cause.ATTEMPT_TIMED_OUT


# Losing a worker.


def test_the_first_crash_costs_no_pause() -> None:
    job = lifecycle.lost(running(), T0 + 4, SURE)
    assert job.ready
    assert (job.failures, job.crashes, job.session) == (0, 1, "")
    assert job.next_start == T0 + 4
    step = job.history[-1]
    assert (step.cause, step.next_start) == (Cause.WORKER_LOST, None)
    assert step.error is not None
    assert (step.error.code, step.error.reason) == (Code.UNAVAILABLE, "WORKER_LOST")


def test_later_crashes_pause_like_failures() -> None:
    job = new(retry=policy(max_attempts=4))
    pauses = []
    for _ in range(3):
        job = lifecycle.lost(start(job), job.update_time, SURE)
        pauses.append(job.next_start - job.update_time)
        job = job if job.ready else timer(job)
    assert pauses == [0, 10, 20]


@pytest.mark.parametrize("max_attempts", [1, 2, 5])
def test_a_poison_job_ends_after_exactly_max_attempts(max_attempts: int) -> None:
    job = new(retry=policy(max_attempts=max_attempts))
    crashes = 0
    while job.state is State.PENDING:
        job = job if job.ready else timer(job)
        job = lifecycle.lost(start(job), job.update_time, SURE)
        crashes += 1
    assert crashes == job.crashes == max_attempts
    assert job.state is State.FAILED
    assert job.error is not None
    assert job.error.reason == "WORKER_LOST"


def test_crashes_and_failures_have_budgets_of_their_own() -> None:
    job = new(retry=policy(max_attempts=2))
    job = lifecycle.lost(start(job), T0, SURE)
    job = timer(lifecycle.ended(start(job), T0, TRIED, SURE))
    assert (job.state, job.failures, job.crashes, job.attempt) == (State.PENDING, 1, 1, 2)
    assert lifecycle.lost(start(job), job.update_time, SURE).state is State.FAILED
    assert lifecycle.ended(start(job), job.update_time, TRIED, SURE).state is State.FAILED
    assert lifecycle.ended(start(job), job.update_time, Succeeded(RESULT), SURE).state is State.SUCCESS


# Giving back.


@pytest.mark.parametrize("delay", [0, 60])
@pytest.mark.parametrize("how", ["word", "drain"])
def test_a_release_is_not_counted(delay: int, how: str) -> None:
    job = running(retry=policy(max_attempts=1))
    now = T0 + 2
    job = lifecycle.ended(job, now, Released(delay), SURE) if how == "word" else lifecycle.released(job, now, delay)
    assert job.state is State.PENDING
    assert (job.failures, job.crashes, job.attempt, job.session) == (0, 0, 1, "")
    assert job.ready == (delay == 0)
    assert job.due == (now + delay if delay else None)
    assert job.next_start == now + delay
    step = job.history[-1]
    assert (step.cause, step.error) == (Cause.RELEASED, None)
    assert lifecycle.pending_reason(job) is (
        PendingReason.WAITING_FOR_RETRY if delay else PendingReason.WAITING_FOR_WORKER
    )
    job = start(job if job.ready else timer(job))
    assert job.attempt == 2


def test_a_job_may_be_given_back_for_ever() -> None:
    job = new(retry=policy(max_attempts=2))
    for _ in range(50):
        job = lifecycle.ended(start(job), T0, Released(), SURE)
    assert (job.state, job.failures, job.crashes, job.attempt) == (State.PENDING, 0, 0, 50)


def test_a_worker_that_stops_unasked_gives_the_job_back() -> None:
    job = lifecycle.ended(running(), T0, Stopped(), SURE)
    assert job.ready
    assert job.failures == 0
    assert causes(job)[-1] is Cause.RELEASED


# What has been answered.


def _end(how: str) -> lifecycle.Job:
    """A job whose attempt with token 1 ended in that way."""
    job = running(attempt_timeout=50)
    match how:
        case "succeeded":
            return lifecycle.ended(job, T0, Succeeded(RESULT), SURE)
        case "failed":
            return lifecycle.ended(job, T0, TRIED, SURE)
        case "failed for good":
            return lifecycle.ended(job, T0, Failed(BOOM, retryable=False), SURE)
        case "released":
            return lifecycle.ended(job, T0, Released(5), SURE)
        case "timed out":
            return timer(job)
        case "lost":
            return lifecycle.lost(job, T0, SURE)
        case "cut":
            return timer(lifecycle.request_cancel(job, T0, "", 5))
        case _:
            raise ValueError(how)


BY_WORKER = ["succeeded", "failed", "failed for good", "released"]


@pytest.mark.parametrize("how", BY_WORKER)
def test_a_repeat_of_an_accepted_word_is_harmless(how: str) -> None:
    job = _end(how)
    assert not lifecycle.holds(job, 1)
    assert lifecycle.was_answered(job, 1)
    assert not lifecycle.was_answered(job, 2)
    later = job
    if job.due is not None and not job.state.terminal:
        later = timer(job)
        assert causes(later)[-1] is Cause.BECAME_READY
        assert lifecycle.was_answered(later, 1)
    if not later.state.terminal:
        later = lifecycle.request_cancel(later, T0 + 100, "", 5)
    later = lifecycle.new_run(later, T0 + 200)
    assert lifecycle.was_answered(later, 1), "whatever happened to the job since"
    assert not lifecycle.was_answered(start(later), 1), "until another attempt runs"


@pytest.mark.parametrize("how", ["timed out", "lost", "cut"])
def test_a_late_word_is_not_acknowledged(how: str) -> None:
    job = _end(how)
    assert not lifecycle.was_answered(job, 1)
    if not job.state.terminal:
        job = job if job.ready else timer(job)
        assert not lifecycle.was_answered(job, 1)
        job = lifecycle.request_cancel(job, job.update_time, "", 5)
        assert job.state is State.CANCELLED
        assert not lifecycle.was_answered(job, 1), "a cancellation while waiting is not its word"
    assert not lifecycle.was_answered(lifecycle.new_run(job, job.update_time), 1)


def test_only_the_running_token_holds() -> None:
    job = running()
    assert lifecycle.holds(job, 1)
    assert not lifecycle.holds(job, 0)
    assert not lifecycle.holds(job, 2)
    assert not lifecycle.was_answered(job, 1)
    assert not lifecycle.holds(new(), 0)
    assert not lifecycle.was_answered(new(), 0)
