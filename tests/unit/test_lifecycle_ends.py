"""The state machine, rule by rule: deadlines, cancellation, new runs, retention, history."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from atlas_grpc import lifecycle
from atlas_grpc.errors import Code
from atlas_grpc.model import (
    AttemptOutcome,
    Cause,
    Failed,
    Job,
    PendingReason,
    Released,
    State,
    Stopped,
    Succeeded,
    TimedOut,
    Transition,
)
from tests.unit.lives import BOOM, RESULT, RETENTION, SURE, T0, causes, new, policy, running, start, timer

if TYPE_CHECKING:
    from atlas_grpc.model import Outcome

TRIED = Failed(BOOM)


def reason(job: Job) -> str:
    return "" if job.error is None else job.error.reason


# The total timeout.


def test_a_waiting_job_reaches_its_deadline() -> None:
    job = new(total_timeout=100)
    assert job.due == lifecycle.deadline(job) == T0 + 100
    assert lifecycle.next_event(job) == (T0 + 100, Cause.DEADLINE_EXCEEDED)
    assert lifecycle.on_timer(job, T0 + 99, SURE) is job
    job = timer(job)
    assert (job.state, reason(job)) == (State.FAILED, "TOTAL_TIMEOUT")
    assert not job.ready
    assert job.error is not None
    assert job.error.code is Code.DEADLINE_EXCEEDED
    assert job.history[-1] == Transition(2, T0 + 100, State.FAILED, Cause.DEADLINE_EXCEEDED, 1, error=job.error)
    assert lifecycle.attempts(job) == []


@pytest.mark.parametrize("by_worker", [False, True])
def test_a_running_job_reaches_its_deadline(by_worker: bool) -> None:
    job = running(total_timeout=100, attempt_timeout=500)
    job = lifecycle.ended(job, T0 + 100, TimedOut(), SURE) if by_worker else timer(job)
    assert (job.state, reason(job), job.failures) == (State.FAILED, "TOTAL_TIMEOUT", 0)
    assert (job.session, job.history[-1].cause) == ("", Cause.DEADLINE_EXCEEDED)
    (attempt,) = lifecycle.attempts(job)
    assert (attempt.outcome, attempt.error) == (AttemptOutcome.TIMED_OUT, job.error)


def test_a_worker_may_cut_early_at_an_attempt_timeout_before_the_deadline() -> None:
    job = lifecycle.ended(running(total_timeout=100, attempt_timeout=30), T0 + 30, TimedOut(), SURE)
    assert (job.state, job.history[-1].cause, job.due) == (State.PENDING, Cause.ATTEMPT_TIMED_OUT, T0 + 40)


def test_the_deadline_counts_from_the_start_time_and_over_all_attempts() -> None:
    job = new(delay=50, total_timeout=100)
    assert lifecycle.deadline(job) == T0 + 150
    assert job.due == T0 + 50
    job = timer(job)
    assert job.due == T0 + 150
    job = lifecycle.ended(start(job, T0 + 60), T0 + 70, TRIED, SURE)
    assert job.due == T0 + 80
    job = start(timer(job))
    assert lifecycle.time_left(job) == 70
    assert timer(job).history[-1].cause is Cause.DEADLINE_EXCEEDED


def test_a_deadline_comes_before_the_end_of_a_given_back_jobs_delay() -> None:
    job = lifecycle.ended(running(total_timeout=100), T0, Released(500), SURE)
    assert job.due == T0 + 100
    assert lifecycle.next_event(job) == (T0 + 100, Cause.DEADLINE_EXCEEDED)
    assert timer(job).state is State.FAILED


@pytest.mark.parametrize(("pause", "state"), [(59, State.PENDING), (60, State.FAILED), (61, State.FAILED)])
def test_a_pause_that_would_pass_the_deadline_fails_the_job_now(pause: int, state: State) -> None:
    job = lifecycle.ended(running(total_timeout=100), T0 + 40, Failed(BOOM, retry_in=pause), SURE)
    assert job.state is state
    if state is State.FAILED:
        assert job.error == BOOM, "with the error of the attempt"
        assert (job.finish_time, job.history[-1].cause) == (T0 + 40, Cause.ATTEMPT_FAILED)


def test_a_lost_or_failed_attempt_after_the_deadline_is_not_retried() -> None:
    late = T0 + 100
    job = running(total_timeout=100, retry=policy(initial_backoff=0))
    assert lifecycle.lost(job, late, SURE).state is State.FAILED
    assert lifecycle.ended(job, late, TRIED, SURE).error == BOOM
    assert lifecycle.ended(job, late, Succeeded(RESULT), SURE).state is State.SUCCESS, "a result is a result"


def test_the_deadline_wins_when_both_timers_have_passed() -> None:
    job = timer(running(attempt_timeout=30, total_timeout=100), T0 + 500)
    assert job.history[-1].cause is Cause.DEADLINE_EXCEEDED


# The start timeout.


def test_a_job_that_nobody_starts_in_time_fails() -> None:
    job = new(start_timeout=40, total_timeout=100)
    assert lifecycle.start_deadline(job) == T0 + 40
    assert lifecycle.next_event(job) == (T0 + 40, Cause.START_DEADLINE_EXCEEDED)
    job = timer(job)
    assert (job.state, reason(job)) == (State.FAILED, "START_TIMEOUT")
    assert job.error is not None
    assert job.error.code is Code.DEADLINE_EXCEEDED
    assert job.history[-1].cause is Cause.START_DEADLINE_EXCEEDED


def test_the_start_timeout_counts_from_the_start_time() -> None:
    job = new(delay=50, start_timeout=40)
    assert job.due == T0 + 50
    assert lifecycle.next_event(job) == (T0 + 50, Cause.BECAME_READY)
    job = timer(job)
    assert lifecycle.next_event(job) == (T0 + 90, Cause.START_DEADLINE_EXCEEDED)
    assert timer(job).state is State.FAILED


def test_once_an_attempt_began_the_start_timeout_is_met() -> None:
    job = running(start_timeout=40)
    assert job.due is None
    for outcome in (TRIED, Released(90)):
        after = lifecycle.ended(job, T0 + 80, outcome, SURE)
        assert after.due == after.next_start
        ready = timer(after)
        assert (ready.state, ready.due) == (State.PENDING, None)
    assert lifecycle.lost(job, T0 + 80, SURE).due is None


def test_a_delayed_job_whose_start_timeout_passed_unseen_fails() -> None:
    job = timer(new(delay=50, start_timeout=40), T0 + 95)
    assert job.history[-1].cause is Cause.START_DEADLINE_EXCEEDED


# Cancelling.


@pytest.mark.parametrize("delay", [0, 50])
def test_a_waiting_job_is_cancelled_at_once(delay: int) -> None:
    job = lifecycle.request_cancel(new(delay=delay), T0 + 3, "not needed", 10)
    assert job.state is State.CANCELLED
    assert not job.ready
    assert job.cancel_reason == "not needed"
    assert job.error is not None
    assert (job.error.code, job.error.reason) == (Code.CANCELLED, "JOB_CANCELLED")
    assert "not needed" in job.error.message
    assert job.history[-1] == Transition(2, T0 + 3, State.CANCELLED, Cause.CANCELLED, 1, error=job.error)
    assert job.due == lifecycle.expire_time(job) == T0 + 3 + RETENTION


def test_a_job_that_waits_for_a_retry_is_cancelled_at_once() -> None:
    job = lifecycle.request_cancel(lifecycle.ended(running(), T0, TRIED, SURE), T0 + 3, "", 10)
    assert (job.state, reason(job)) == (State.CANCELLED, "JOB_CANCELLED")
    assert job.error is not None
    assert job.error.message == "the job was cancelled"
    assert [attempt.outcome for attempt in lifecycle.attempts(job)] == [AttemptOutcome.FAILED]


def test_a_running_job_is_told_and_cut_after_its_grace() -> None:
    job = lifecycle.request_cancel(running(), T0 + 3, "why", 10)
    assert job.state is State.RUNNING
    assert (job.cancel_time, job.cancel_reason, job.due) == (T0 + 3, "why", T0 + 13)
    assert lifecycle.holds(job, 1)
    assert job.history[-1] == Transition(3, T0 + 3, State.RUNNING, Cause.CANCEL_REQUESTED, 1, 1, "w")
    assert lifecycle.next_event(job) == (T0 + 13, Cause.CANCELLED)
    (attempt,) = lifecycle.attempts(job)
    assert attempt.outcome is AttemptOutcome.UNENDED
    job = timer(job)
    assert (job.state, job.session, reason(job)) == (State.CANCELLED, "", "JOB_CANCELLED")
    (attempt,) = lifecycle.attempts(job)
    assert (attempt.outcome, attempt.end) == (AttemptOutcome.CANCELLED, T0 + 13)


@pytest.mark.parametrize(("attempt_timeout", "due"), [(5, T0 + 5), (100, T0 + 13)])
def test_the_grace_does_not_outlast_the_attempt(attempt_timeout: int, due: int) -> None:
    job = lifecycle.request_cancel(running(attempt_timeout=attempt_timeout), T0 + 3, "", 10)
    assert job.due == due
    assert lifecycle.next_event(job) == (due, Cause.CANCELLED)
    assert timer(job).state is State.CANCELLED


def test_asking_twice_changes_nothing() -> None:
    job = lifecycle.request_cancel(running(), T0 + 3, "first", 10)
    assert lifecycle.request_cancel(job, T0 + 4, "second", 1) is job


@pytest.mark.parametrize(
    "outcome", [TRIED, Failed(BOOM, retryable=False), Released(), Released(9), Stopped(), TimedOut()]
)
def test_any_end_of_a_job_that_is_being_cancelled_cancels_it(outcome: Outcome) -> None:
    job = lifecycle.ended(lifecycle.request_cancel(running(), T0 + 3, "", 10), T0 + 5, outcome, SURE)
    assert (job.state, job.finish_time, causes(job)[-1]) == (State.CANCELLED, T0 + 5, Cause.CANCELLED)


def test_losing_or_draining_its_worker_cancels_it_too() -> None:
    job = lifecycle.request_cancel(running(), T0 + 3, "", 10)
    assert lifecycle.lost(job, T0 + 5, SURE).state is State.CANCELLED
    assert lifecycle.released(job, T0 + 5, 0).state is State.CANCELLED


def test_success_beats_a_requested_cancellation() -> None:
    job = lifecycle.ended(lifecycle.request_cancel(running(), T0 + 3, "", 10), T0 + 5, Succeeded(RESULT), SURE)
    assert (job.state, job.result, job.error) == (State.SUCCESS, RESULT, None)


# New runs.


@pytest.mark.parametrize("end", [State.SUCCESS, State.FAILED, State.CANCELLED])
def test_a_new_run_starts_over_and_keeps_the_history(end: State) -> None:
    job = running(delay=0, total_timeout=100, start_timeout=40)
    job = lifecycle.request_cancel(job, T0 + 3, "why", 10)
    match end:
        case State.SUCCESS:
            job = lifecycle.ended(job, T0 + 5, Succeeded(RESULT), SURE)
        case State.FAILED:
            job = lifecycle.ended(running(total_timeout=100, start_timeout=40), T0, Failed(BOOM, retryable=False), SURE)
        case _:
            job = timer(job)
    assert job.state is end
    again = lifecycle.new_run(job, T0 + 500)
    assert (again.state, again.ready, again.run, again.version) == (State.PENDING, True, 2, job.version + 1)
    assert (again.attempt, again.failures, again.crashes, again.session, again.worker) == (0, 0, 0, "", "")
    assert (again.result, again.error, again.finish_time) == (None, None, None)
    assert (again.cancel_time, again.cancel_reason) == (None, "")
    assert again.start_time == again.next_start == T0 + 500
    assert lifecycle.deadline(again) == T0 + 600
    assert again.due == lifecycle.start_deadline(again) == T0 + 540
    assert lifecycle.expire_time(again) is None
    assert again.history == (*job.history, Transition(job.version + 1, T0 + 500, State.PENDING, Cause.RETRIED, 2))
    assert lifecycle.pending_reason(again) is PendingReason.WAITING_FOR_WORKER
    assert again.fence == job.fence
    assert again.spec is job.spec


def test_a_new_run_has_attempts_of_its_own() -> None:
    job = lifecycle.ended(running(retry=policy(max_attempts=1)), T0, TRIED, SURE)
    job = start(lifecycle.new_run(job, T0 + 10), worker="w2")
    assert job.attempt == 1
    job = lifecycle.ended(job, T0 + 20, TRIED, SURE)
    assert job.state is State.FAILED
    views = lifecycle.attempts(job)
    assert [(view.run, view.number, view.worker) for view in views] == [(1, 1, "w"), (2, 1, "w2")]


# Retention.


def test_a_finished_job_goes_when_its_retention_is_over() -> None:
    job = lifecycle.ended(running(retention=70), T0 + 30, Succeeded(RESULT), SURE)
    assert job.due == lifecycle.expire_time(job) == T0 + 100
    assert lifecycle.on_timer(job, T0 + 99, SURE) is job
    assert lifecycle.on_timer(job, T0 + 100, SURE) is None


def test_no_retention_means_at_once() -> None:
    job = lifecycle.ended(running(retention=0), T0, Succeeded(RESULT), SURE)
    assert lifecycle.on_timer(job, T0, SURE) is None


def test_an_unfinished_job_does_not_expire() -> None:
    assert lifecycle.expire_time(new()) is None
    assert lifecycle.expire_time(running()) is None


# History.


def grown(rounds: int) -> Job:
    """A job that was started and given back so many times."""
    job = new()
    for _ in range(rounds):
        job = lifecycle.released(start(job, job.update_time + 1), job.update_time + 1, 0)
    return job


def test_history_is_numbered_without_holes_up_to_its_cap() -> None:
    job = grown(300)
    assert job.version == 601
    assert len(job.history) == lifecycle.MAX_HISTORY
    versions = [step.version for step in job.history]
    assert versions == list(range(job.version - lifecycle.MAX_HISTORY + 1, job.version + 1))
    assert len(lifecycle.attempts(job)) == lifecycle.MAX_HISTORY // 2


@pytest.mark.parametrize("rounds", [127, 128])
def test_the_cap_is_exact(rounds: int) -> None:
    job = grown(rounds)
    assert len(job.history) == min(job.version, lifecycle.MAX_HISTORY)


def test_attempts_leave_out_the_one_whose_start_is_no_longer_kept() -> None:
    job = start(grown(300))
    assert job.history[0].cause is Cause.RELEASED
    views = lifecycle.attempts(job)
    assert [view.number for view in views] == list(range(302 - len(views), 302))
    assert views[-1].outcome is AttemptOutcome.UNENDED
    assert all(view.outcome is AttemptOutcome.RELEASED for view in views[:-1])


def test_attempts_tell_each_execution() -> None:
    job = new(retry=policy(initial_backoff=0), attempt_timeout=30)
    job = lifecycle.lost(start(job, T0 + 1, worker="a"), T0 + 2, SURE)
    job = lifecycle.released(start(job, T0 + 3, worker="b"), T0 + 4, 0)
    job = lifecycle.ended(start(job, T0 + 5, worker="c"), T0 + 6, TRIED, SURE)
    job = timer(start(job, T0 + 7, worker="d"))
    job = lifecycle.ended(start(job, T0 + 40, worker="e"), T0 + 41, Succeeded(RESULT), SURE)
    views = lifecycle.attempts(job)
    assert [(v.number, v.run, v.worker, v.start - T0, v.end and v.end - T0, v.outcome.name) for v in views] == [
        (1, 1, "a", 1, 2, "LOST"),
        (2, 1, "b", 3, 4, "RELEASED"),
        (3, 1, "c", 5, 6, "FAILED"),
        (4, 1, "d", 7, 37, "TIMED_OUT"),
        (5, 1, "e", 40, 41, "SUCCEEDED"),
    ]
    assert [v.error and v.error.reason for v in views] == [
        "WORKER_LOST", None, "HANDLER_FAILED", "ATTEMPT_TIMEOUT", None,
    ]  # fmt: skip


def test_times_do_not_go_back_when_the_clock_does() -> None:
    job = start(new(attempt_timeout=30), T0 - 500)
    assert job.update_time == T0
    assert lifecycle.time_left(job) == 30, "the attempt has its whole time"
    assert job.due == T0 - 470, "on the clock as it is now"
    job = lifecycle.ended(job, T0 - 490, TRIED, SURE)
    assert job.due == T0 - 480
    job = lifecycle.request_cancel(start(timer(job)), T0 - 470, "", 10)
    job = lifecycle.ended(job, T0 - 465, Stopped(), SURE)
    assert job.finish_time == job.update_time == T0
    assert lifecycle.expire_time(job) == job.due == T0 + RETENTION
    times = [step.time for step in job.history]
    assert all(a <= b for a, b in pairwise(times))
    (first, second) = lifecycle.attempts(job)
    assert first.end is not None
    assert first.start <= first.end <= second.start
