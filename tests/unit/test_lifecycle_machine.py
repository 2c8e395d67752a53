"""Random lives of a job under a clock that mostly moves forward, and what holds at every moment of them.

`ATLAS_TEST_DEEP=1` makes it look much longer.
"""

from __future__ import annotations

import os
import random
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atlas_grpc import lifecycle
from atlas_grpc.model import (
    AttemptOutcome,
    Cause,
    Content,
    Failed,
    Job,
    JobSpec,
    PendingReason,
    Released,
    RetryPolicy,
    State,
    Stopped,
    Succeeded,
    TimedOut,
)
from tests.unit.lives import BOOM, RESULT, T0

if TYPE_CHECKING:
    from atlas_grpc.model import Outcome

DEEP = 30 if os.environ.get("ATLAS_TEST_DEEP") else 1

spans = st.sampled_from([1, 5, 30, 100, 1_000])
timeouts = st.none() | spans
outcomes = st.one_of(
    st.just(Succeeded(RESULT)),
    st.builds(Failed, st.just(BOOM), st.booleans(), st.none() | st.sampled_from([0, 7, 500])),
    st.builds(Released, st.sampled_from([0, 0, 9, 2_000])),
    st.just(Stopped()),
    st.just(TimedOut()),
)
policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 4),
    initial_backoff=st.sampled_from([0, 10, 200]),
    max_backoff=st.sampled_from([50, 1_000]),
    jitter=st.sampled_from([0.0, 0.2, 1.0]),
    non_retryable=st.sampled_from([(), (), ("ATTEMPT_TIMEOUT",), ("WORKER_LOST",), ("HANDLER_FAILED",)]),
)


def recomputed_due(job: Job) -> int | None:
    """When a timer must look at a job, from what is stored about it. The ends of an attempt and of a cancellation's
    grace are stored nowhere else: for these see `attempt_end` and `grace_end` of the machine."""
    spec = job.spec
    if job.finish_time is not None:
        return job.finish_time + spec.retention
    found = []
    if spec.total_timeout is not None:
        found.append(job.start_time + spec.total_timeout)
    if job.state is State.PENDING:
        if spec.start_timeout is not None and job.attempt == 0:
            found.append(job.start_time + spec.start_timeout)
        if not job.ready:
            found.append(job.next_start)
    return min(found, default=None)


class LifeMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = T0
        self.fence = 0
        self.rng = random.Random(3)
        self.made: list[tuple[int, int]] = []
        self.ended: list[AttemptOutcome] = []
        self.attempt_end: int | None = None
        self.grace_end: int | None = None
        self.answered: dict[int, bool] = {}
        self.released = 0

    @initialize(
        delay=st.sampled_from([0, 0, 40]),
        policy=policies,
        attempt_timeout=timeouts,
        total_timeout=timeouts,
        start_timeout=timeouts,
        retention=st.sampled_from([0, 100]),
    )
    def submit(
        self,
        delay: int,
        policy: RetryPolicy,
        attempt_timeout: int | None,
        total_timeout: int | None,
        start_timeout: int | None,
        retention: int,
    ) -> None:
        spec = JobSpec(
            "j",
            "default",
            "t",
            "q",
            Content(b"{}"),
            policy,
            T0,
            T0 + delay,
            retention,
            attempt_timeout=attempt_timeout,
            total_timeout=total_timeout,
            start_timeout=start_timeout,
        )
        self.job = lifecycle.submitted(spec)

    def move(self, after: Job, *causes: Cause) -> None:
        """Takes a step that was made, by one of those causes."""
        before, self.job = self.job, after
        assert after.version == before.version + 1
        assert after.history[-1].cause in causes
        assert after.spec is before.spec
        if before.state is State.RUNNING and after.state is not State.RUNNING:
            self.ended.append(lifecycle.OUTCOME_OF[after.history[-1].cause])
            self.answered[before.fence] = after.history[-1].cause in {
                Cause.SUCCEEDED,
                Cause.ATTEMPT_FAILED,
                Cause.RELEASED,
            }
            self.released += after.history[-1].cause is Cause.RELEASED
            self.attempt_end = self.grace_end = None

    @rule(span=st.sampled_from([1, 4, 20, 100, 1_500]))
    def time_passes(self, span: int) -> None:
        self.now += span

    @rule()
    @precondition(lambda self: self.job.due is not None)
    def time_comes_to_the_timer(self) -> None:
        assert self.job.due is not None
        self.now = max(self.now, self.job.due)
        self.timer()

    @rule(span=st.sampled_from([1, 50]))
    def the_clock_steps_back(self, span: int) -> None:
        self.now -= span

    @rule()
    @precondition(lambda self: self.job.ready)
    def start(self) -> None:
        self.fence += 1
        job = lifecycle.started(self.job, self.now, session="s", worker="w", fence=self.fence)
        self.move(job, Cause.STARTED)
        timeout = job.spec.attempt_timeout
        self.attempt_end = None if timeout is None else self.now + timeout
        self.made.append((job.run, job.attempt))
        assert lifecycle.holds(job, self.fence)

    @rule(outcome=outcomes)
    @precondition(lambda self: self.job.state is State.RUNNING)
    def the_worker_ends_it(self, outcome: Outcome) -> None:
        cancelling = self.job.cancel_time is not None
        job = lifecycle.ended(self.job, self.now, outcome, self.rng)
        match outcome:
            case Succeeded():
                self.move(job, Cause.SUCCEEDED)
                assert job.result == RESULT
            case _ if cancelling:
                self.move(job, Cause.CANCELLED)
            case Failed():
                self.move(job, Cause.ATTEMPT_FAILED)
            case TimedOut():
                self.move(job, Cause.ATTEMPT_TIMED_OUT, Cause.DEADLINE_EXCEEDED)
            case _:
                self.move(job, Cause.RELEASED)

    @rule()
    @precondition(lambda self: self.job.state is State.RUNNING)
    def the_worker_is_lost(self) -> None:
        wanted = Cause.WORKER_LOST if self.job.cancel_time is None else Cause.CANCELLED
        self.move(lifecycle.lost(self.job, self.now, self.rng), wanted)

    @rule(grace=st.sampled_from([0, 10, 500]))
    @precondition(lambda self: not self.job.state.terminal)
    def cancel(self, grace: int) -> None:
        before = self.job
        after = lifecycle.request_cancel(before, self.now, "why", grace)
        if before.state is State.PENDING:
            self.move(after, Cause.CANCELLED)
        elif before.cancel_time is None:
            self.move(after, Cause.CANCEL_REQUESTED)
            self.grace_end = self.now + grace
        else:
            assert after is before

    @rule()
    @precondition(lambda self: self.job.state.terminal)
    def retry(self) -> None:
        self.move(lifecycle.new_run(self.job, self.now), Cause.RETRIED)
        self.released = 0

    @rule()
    def timer(self) -> None:
        """Whoever looks at the clock: nothing happens before the time, and something at the time."""
        before = self.job
        after = lifecycle.on_timer(before, self.now, self.rng)
        if before.due is None or before.due > self.now:
            assert after is before
        elif before.state.terminal:
            assert after is None
        else:
            assert after is not None
            event = lifecycle.next_event(before)
            assert event is not None
            exact = before.due == self.now
            self.move(after, *((event[1],) if exact else TIMED))

    @invariant()
    def history_has_no_holes(self) -> None:
        history = self.job.history
        assert history[-1].version == self.job.version
        assert history[-1].state is self.job.state
        assert all(b.version == a.version + 1 for a, b in pairwise(history))
        assert all(a.time <= b.time for a, b in pairwise(history))
        assert len(history) == min(self.job.version, lifecycle.MAX_HISTORY)
        for before, step in pairwise(history):
            assert not before.state.terminal or step.cause is Cause.RETRIED, "a terminal job changes only by a new run"
            assert (step.cause is Cause.STARTED) == (step.state is State.RUNNING and before.state is State.PENDING)
            assert step.run == before.run + (step.cause is Cause.RETRIED)

    @invariant()
    def states_agree_with_their_fields(self) -> None:
        job = self.job
        assert not job.ready or job.state is State.PENDING
        assert (job.state is State.RUNNING) == (job.session != "")
        assert job.state.terminal == (job.finish_time is not None)
        assert (job.state is State.SUCCESS) == (job.result is not None)
        assert (job.state in {State.FAILED, State.CANCELLED}) == (job.error is not None)
        assert job.cancel_time is None or job.state is not State.PENDING
        assert job.finish_time is None or job.finish_time == job.update_time
        assert lifecycle.expire_time(job) == (job.due if job.state.terminal else None)

    @invariant()
    def due_is_what_recomputing_says(self) -> None:
        job = self.job
        found = [recomputed_due(job)]
        if job.state is State.RUNNING:
            found += [self.attempt_end, self.grace_end]
        assert job.due == min((at for at in found if at is not None), default=None)
        assert job.due is not None or (job.state is State.RUNNING or job.ready)

    @invariant()
    def what_is_told_about_time_is_consistent(self) -> None:
        job = self.job
        event = lifecycle.next_event(job)
        assert (event is None) == (job.due is None or job.state.terminal)
        if event is not None:
            assert event[0] == job.due
            assert event[1] in TIMED
        why = lifecycle.pending_reason(job)
        assert (why is PendingReason.NONE) == (job.state is not State.PENDING)
        assert (why is PendingReason.WAITING_FOR_WORKER) == job.ready
        if job.state is State.RUNNING:
            left = lifecycle.time_left(job)
            assert (left is None) == (job.due is None)

    @invariant()
    def attempts_match_what_was_done(self) -> None:
        job = self.job
        views = lifecycle.attempts(job)
        assert [(view.run, view.number) for view in views] == self.made[-len(views) :]
        outcomes = [*self.ended, AttemptOutcome.UNENDED] if job.state is State.RUNNING else self.ended
        assert [view.outcome for view in views] == outcomes[-len(views) :] if views else not job.attempt
        assert all((view.end is None) == (view.outcome is AttemptOutcome.UNENDED) for view in views)
        assert sum(run == job.run for run, _ in self.made) == job.attempt

    @invariant()
    def budgets_hold(self) -> None:
        job = self.job
        budget = job.spec.retry.max_attempts
        assert job.failures <= budget
        assert job.crashes <= budget
        assert job.state.terminal or (job.failures < budget and job.crashes < budget)
        assert job.attempt - self.released <= 2 * budget - 1

    @invariant()
    def only_accepted_words_are_acknowledged(self) -> None:
        job = self.job
        for fence, answered in self.answered.items():
            assert not lifecycle.holds(job, fence)
            assert lifecycle.was_answered(job, fence) == (answered and fence == job.fence)


TIMED = (
    Cause.BECAME_READY,
    Cause.ATTEMPT_TIMED_OUT,
    Cause.DEADLINE_EXCEEDED,
    Cause.START_DEADLINE_EXCEEDED,
    Cause.CANCELLED,
)


class TestLife(LifeMachine.TestCase):
    settings = settings(max_examples=150 * DEEP, stateful_step_count=40 if DEEP == 1 else 120)
