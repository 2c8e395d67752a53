"""When a failed attempt is made again: exponential backoff with jitter.

The pause after failure n is `initial_backoff * multiplier ** (n - 1)`, at most `max_backoff`, spread evenly over
`pause * (1 - jitter) .. pause * (1 + jitter)`. All times are microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from random import Random

    from .model import RetryPolicy


class PlannedAttempt(NamedTuple):
    """When an attempt would start, counted from the job's start time, if all before it failed at once."""

    number: int
    earliest: int
    latest: int


def pause(policy: RetryPolicy, failures: int) -> int:
    """The pause after so many failures (1 or more), without jitter."""
    if policy.initial_backoff == 0:
        return 0
    try:
        grown = policy.initial_backoff * policy.multiplier ** (failures - 1)
    except OverflowError:
        return policy.max_backoff
    return int(min(grown, policy.max_backoff))


def spread(policy: RetryPolicy, failures: int) -> tuple[int, int]:
    """The shortest and the longest pause that jitter can make of it."""
    middle = pause(policy, failures)
    swing = int(middle * policy.jitter)
    return middle - swing, middle + swing


def backoff(policy: RetryPolicy, failures: int, rng: Random) -> int:
    """The pause after so many failures, drawn."""
    shortest, longest = spread(policy, failures)
    return shortest if shortest == longest else rng.randint(shortest, longest)


def timetable(policy: RetryPolicy, total_timeout: int | None) -> list[PlannedAttempt]:
    """The attempts that the policy and the total timeout allow, the first at 0."""
    plan = [PlannedAttempt(1, 0, 0)]
    for failures in range(1, policy.max_attempts):
        shortest, longest = spread(policy, failures)
        _, earliest, latest = plan[-1]
        if total_timeout is not None and earliest + shortest >= total_timeout:
            break
        plan.append(PlannedAttempt(failures + 1, earliest + shortest, latest + longest))
    return plan
