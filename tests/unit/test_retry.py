"""Backoff, jitter and the timetable."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_grpc import lifecycle, retry
from atlas_grpc.model import SECOND, Failed, RetryPolicy, State
from tests.unit.lives import BOOM, Highest, Lowest, new, policy, start, timer

WEEK = 7 * 86_400 * SECOND

policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 100),
    initial_backoff=st.integers(0, WEEK),
    multiplier=st.floats(1, 100),
    max_backoff=st.integers(0, WEEK),
    jitter=st.floats(0, 1),
)


def test_the_pause_grows_to_its_bound() -> None:
    plan = policy(initial_backoff=10, multiplier=2.0, max_backoff=100)
    assert [retry.pause(plan, n) for n in range(1, 7)] == [10, 20, 40, 80, 100, 100]


def test_a_multiplier_of_one_keeps_the_pause() -> None:
    assert [retry.pause(policy(multiplier=1.0), n) for n in (1, 2, 50)] == [10, 10, 10]


@pytest.mark.parametrize("failures", [300, 2_000, 10**6])
def test_growth_beyond_all_floats_is_the_bound(failures: int) -> None:
    assert retry.pause(policy(multiplier=100.0, max_backoff=WEEK), failures) == WEEK


def test_no_initial_backoff_means_no_pause_at_all() -> None:
    none = policy(initial_backoff=0, multiplier=100.0, jitter=1.0)
    assert [retry.pause(none, n) for n in (1, 5, 10**6)] == [0, 0, 0]
    assert retry.spread(none, 3) == (0, 0)


def test_a_bound_below_the_first_pause_holds() -> None:
    assert retry.pause(policy(initial_backoff=500, max_backoff=30), 1) == 30
    assert retry.pause(policy(max_backoff=0), 1) == 0


@pytest.mark.parametrize(("jitter", "spread"), [(0.0, (100, 100)), (0.2, (80, 120)), (1.0, (0, 200))])
def test_jitter_spreads_evenly_around_the_pause(jitter: float, spread: tuple[int, int]) -> None:
    plan = policy(initial_backoff=100, jitter=jitter)
    assert retry.spread(plan, 1) == spread
    assert retry.backoff(plan, 1, Lowest()) == spread[0]
    assert retry.backoff(plan, 1, Highest()) == spread[1]


def test_draws_fill_the_range() -> None:
    plan = policy(initial_backoff=10, jitter=0.5)
    rng = random.Random(1)
    assert {retry.backoff(plan, 1, rng) for _ in range(500)} == set(range(5, 16))


@given(policies, st.integers(1, 100))
def test_what_holds_for_every_policy(plan: RetryPolicy, failures: int) -> None:
    middle = retry.pause(plan, failures)
    shortest, longest = retry.spread(plan, failures)
    assert 0 <= middle <= plan.max_backoff
    assert 0 <= shortest <= middle <= longest <= 2 * middle
    assert middle <= retry.pause(plan, failures + 1)
    assert shortest <= retry.backoff(plan, failures, random.Random(2)) <= longest


def test_the_timetable() -> None:
    plan = policy(max_attempts=4, initial_backoff=100, jitter=0.1)
    assert retry.timetable(plan, None) == [(1, 0, 0), (2, 90, 110), (3, 270, 330), (4, 630, 770)]
    assert retry.timetable(policy(max_attempts=1), None) == [(1, 0, 0)]


def test_the_timetable_ends_with_the_total_timeout() -> None:
    plan = policy(max_attempts=4, initial_backoff=100, jitter=0.1)
    assert len(retry.timetable(plan, 631)) == 4
    assert len(retry.timetable(plan, 630)) == 3
    assert len(retry.timetable(plan, 1)) == 1


@given(policies.filter(lambda p: p.max_attempts <= 10), st.none() | st.integers(1, WEEK))
def test_the_timetable_is_what_happens(plan: RetryPolicy, total_timeout: int | None) -> None:
    """A job whose every attempt fails at once, with the shortest pauses, makes the attempts of the timetable then."""
    job = new(retry=plan, total_timeout=total_timeout)
    began = []
    while job.state is State.PENDING:
        job = start(job if job.ready else timer(job))
        began.append((job.attempt, job.attempt_start - job.start_time))
        job = lifecycle.ended(job, job.update_time, Failed(BOOM), Lowest())
    assert began == [(number, earliest) for number, earliest, _ in retry.timetable(plan, total_timeout)]
