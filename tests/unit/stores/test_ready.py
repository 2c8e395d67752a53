"""The ready index against a naive one: a list that is sorted at every question."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from atlas_grpc import lifecycle
from atlas_grpc.model import Ask, Content, Job, JobSpec, RetryPolicy
from atlas_grpc.stores._ready import ReadyIndex
from atlas_grpc.stores.base import QueueCount

if TYPE_CHECKING:
    from collections.abc import Sequence

DEEP = 30 if os.environ.get("ATLAS_TEST_DEEP") else 1
TYPES = ("a", "b", "c")
QUEUES = tuple(f"q{n}" for n in range(6))

new = st.tuples(st.just("new"), st.sampled_from(TYPES), st.sampled_from(QUEUES), st.integers(-2, 2), st.integers(0, 4))
back = st.tuples(st.just("back"), st.integers(0, 30), st.integers(0, 4))
remove = st.tuples(st.just("remove"), st.integers(0, 30))
queues = st.none() | st.frozensets(st.sampled_from(QUEUES), max_size=3)
asks = st.lists(st.builds(Ask, st.sampled_from(TYPES), st.integers(0, 4), queues), max_size=4)
take = st.tuples(st.just("take"), asks, st.integers(1, 6))
steps = st.lists(new | new | back | remove | take, min_size=5, max_size=60)


def make(number: int, job_type: str, queue: str, priority: int, since: int) -> Job:
    spec = JobSpec(
        f"{number:04}", "default", job_type, queue, Content(b"{}"), RetryPolicy(), since, since, 0, priority=priority
    )
    return lifecycle.submitted(spec)


def order(job: Job) -> tuple[int, int, str]:
    return (-job.spec.priority, job.next_start, job.id)


class Both:
    """The index and the naive one, held against each other."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.index = ReadyIndex(self.jobs)

    def ready(self) -> list[Job]:
        return sorted((job for job in self.jobs.values() if job.ready), key=order)

    def new(self, job_type: str, queue: str, priority: int, since: int) -> None:
        job = make(len(self.jobs), job_type, queue, priority, since)
        self.jobs[job.id] = job
        self.index.add(job)

    def back(self, which: int, since: int) -> None:
        waiting = [job for job in self.jobs.values() if not job.ready]
        if waiting:
            job = replace(waiting[which % len(waiting)], ready=True, next_start=since)
            self.jobs[job.id] = job
            self.index.add(job)

    def remove(self, which: int) -> None:
        ready = self.ready()
        if ready:
            self.unready(ready[which % len(ready)])

    def unready(self, job: Job) -> None:
        self.jobs[job.id] = replace(job, ready=False)
        self.index.remove(job)

    def take(self, asks: Sequence[Ask], limit: int) -> None:
        left = [ask.slots for ask in asks]
        before = self.ready()
        taken: list[Job] = []
        for job in self.index.take(asks):
            assert job.ready
            self.unready(job)
            taken.append(job)
            if len(taken) == limit:
                break
        assert taken == sorted(taken, key=order)
        assert len(taken) <= sum(left)
        types = [ask.type for ask in asks]
        if len(set(types)) == len(types):
            assert taken == greedy(before, asks, limit)
        elif len(taken) < limit:
            # Asks that overlap: which of them a job counts for is open, but none has slots left for a job that remains.
            assert not [job for job in self.ready() if all(unmet(ask, taken) and fits(ask, job) for ask in asks)]

    def compare(self) -> None:
        ready = self.ready()
        places = {(job.spec.queue, job.spec.type) for job in ready}
        found = {(count.queue, count.type): count for count in self.index.counts()}
        assert found.keys() == places
        for queue, kind in places:
            since = [job.next_start for job in ready if (job.spec.queue, job.spec.type) == (queue, kind)]
            assert found[queue, kind] == QueueCount(queue, kind, len(since), min(since))
        for job in ready:
            same = [other for other in ready if other.spec.type == job.spec.type]
            assert self.index.ahead(job) == same.index(job)


def fits(ask: Ask, job: Job) -> bool:
    return job.spec.type == ask.type and (ask.queues is None or job.spec.queue in ask.queues)


def unmet(ask: Ask, taken: list[Job]) -> bool:
    return sum(fits(ask, job) for job in taken) < ask.slots


def greedy(ready: list[Job], asks: Sequence[Ask], limit: int) -> list[Job]:
    left = [ask.slots for ask in asks]
    taken = []
    for job in ready:
        for at, ask in enumerate(asks):
            if len(taken) < limit and left[at] and fits(ask, job):
                left[at] -= 1
                taken.append(job)
                break
    return taken


@settings(max_examples=200 * DEEP)
@given(steps)
def test_like_a_sorted_list(script: list[tuple[object, ...]]) -> None:
    both = Both()
    for name, *arguments in script:
        getattr(both, str(name))(*arguments)
        both.compare()
    # Nothing is lost: one ask per type takes all that is left, in order.
    left = both.ready()
    both.take([Ask(job_type, len(both.jobs)) for job_type in TYPES], len(both.jobs) + 1)
    assert both.ready() == []
    assert not left or both.index.counts() == []


def test_asks_that_share_a_line_lose_no_job() -> None:
    both = Both()
    for _ in range(6):
        both.new("a", "q0", 0, 0)
    both.take([Ask("a", 1), Ask("a", 1), Ask("a", 1, frozenset({"q0"}))], 3)
    both.compare()
    both.take([Ask("a", 10)], 10)
    assert both.ready() == []


def test_a_job_that_comes_back_at_the_same_instant_counts_once() -> None:
    both = Both()
    both.new("a", "q0", 0, 5)
    both.take([Ask("a", 1, frozenset({"q0"}))], 1)
    both.back(0, 5)
    both.new("a", "q0", 0, 9)
    both.compare()


def test_stale_entries_do_not_pile_up() -> None:
    """A queue whose jobs are always taken by type, and one that is worked by one job that comes and goes."""
    both = Both()
    both.new("a", "q0", 0, 0)
    for since in range(10_000):
        both.take([Ask("a", 1)], 1)
        both.back(0, since)
    lines = both.index._lines
    assert sum(len(line.heap) for place in lines.values() for line in place.values()) < 400
    both.unready(both.ready()[0])
    assert lines == {}
