"""Jobs for the tests of the state machine, on plain numbers. A time of 1,000 is when they are submitted."""

from __future__ import annotations

import random
from typing import Any

from atlas_grpc import lifecycle
from atlas_grpc.errors import Code
from atlas_grpc.model import Cause, Content, Failure, Job, JobSpec, RetryPolicy

T0 = 1_000
RETENTION = 1_000_000
RESULT = Content(b'"done"')
BOOM = Failure(Code.UNKNOWN, "HANDLER_FAILED", "boom")


class NoChance(random.Random):
    """Fails whoever asks it: what is decided must not depend on chance."""

    def randint(self, a: int, b: int) -> int:
        raise AssertionError(f"nothing is to be drawn from {a}..{b}")


class Highest(random.Random):
    """Draws the largest number."""

    def randint(self, a: int, b: int) -> int:
        return b


class Lowest(random.Random):
    """Draws the smallest number."""

    def randint(self, a: int, b: int) -> int:
        return a


SURE = NoChance()


def policy(**fields: Any) -> RetryPolicy:
    """A retry policy of 3 attempts, pauses 10, 20, 40 … ≤ 1,000, without jitter."""
    return RetryPolicy(**{"max_attempts": 3, "initial_backoff": 10, "max_backoff": 1_000, "jitter": 0.0, **fields})


def new(*, delay: int = 0, retry: RetryPolicy | None = None, **fields: Any) -> Job:
    """A submitted job, to start after `delay`."""
    fields = {"retention": RETENTION, **fields}
    spec = JobSpec("j", "default", "t", "q", Content(b"{}"), retry or policy(), T0, T0 + delay, **fields)
    return lifecycle.submitted(spec)


def start(job: Job, now: int | None = None, *, fence: int | None = None, worker: str = "w") -> Job:
    """The job in the hands of a worker; by default at its latest instant, with the next token."""
    now = job.update_time if now is None else now
    return lifecycle.started(
        job, now, session=f"s of {worker}", worker=worker, fence=job.fence + 1 if fence is None else fence
    )


def running(**fields: Any) -> Job:
    """A new job that runs since T0."""
    return start(new(**fields))


def timer(job: Job, now: int | None = None, rng: random.Random = SURE) -> Job:
    """What the timer makes of the job at that time, by default the moment that it waits for."""
    if now is None:
        assert job.due is not None
        now = job.due
    after = lifecycle.on_timer(job, now, rng)
    assert after is not None
    return after


def causes(job: Job) -> list[Cause]:
    """What made the transitions."""
    return [step.cause for step in job.history]
