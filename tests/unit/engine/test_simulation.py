"""A deterministic simulation: servers and workers that crash and stall, clients that cancel, retry and delete, on one
store with a clock that obeys. The same seed is the same story. At its end the books must balance."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from atlas_grpc.engine.submit import RetryOverride
from atlas_grpc.errors import AtlasError
from atlas_grpc.lifecycle import attempts
from atlas_grpc.model import (
    SECOND,
    Ask,
    AttemptOutcome,
    Cause,
    Content,
    Job,
    Released,
    Report,
    State,
    Stopped,
    Succeeded,
    Update,
)
from tests.unit.engine.world import NS, Worker, World, a_world, boom

LEASE = 10 * SECOND
SEEDS = range(15)


class Story:
    """What happens, and what was promised meanwhile."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.workers: list[Worker] = []
        self.hands: list[tuple[Worker, Job]] = []
        self.ids: list[str] = []
        self.deleted: set[str] = set()
        self.accepted: dict[tuple[str, int], list[Content]] = {}

    async def open(self) -> None:
        while len(self.workers) < 3:
            name = f"w{self.rng.random()}"
            self.workers.append(await self.world.worker(name, self.rng.choice(self.world.engines)))

    async def step(self, together: int) -> None:
        """So many ordinary things at once, then time passes, then perhaps something rare happens."""
        deeds = [self.submit, self.claim, self.claim, self.finish, self.finish, self.report, self.verb]
        await asyncio.gather(*(self.rng.choice(deeds)() for _ in range(together)))
        if self.rng.random() < 0.3:
            await self.world.advance(self.rng.choice([0.01, 0.5, 3, 12]))
        if self.rng.random() < 0.05:
            await self.rare()

    async def submit(self) -> None:
        rng = self.rng
        limits: dict[str, Any] = {"retention": 10_000 * SECOND, "priority": rng.randrange(3)}
        if rng.random() < 0.3:
            limits["start_delay"] = rng.randrange(20 * SECOND)
        for name in ("attempt_timeout", "total_timeout", "start_timeout"):
            if rng.random() < 0.2:
                limits[name] = rng.randrange(SECOND, 40 * SECOND)
        retry = RetryOverride(max_attempts=rng.randrange(1, 5), initial_backoff=rng.choice([0, SECOND]))
        self.ids.append(await self.world.submit("work", rng.choice(self.world.engines), retry=retry, **limits))

    async def claim(self) -> None:
        worker = self.rng.choice(self.workers)
        for job in await worker.session._claim([Ask("work", 3)], 3):
            self.hands.append((worker, job))

    async def finish(self) -> None:
        if not self.hands:
            return
        rng = self.rng
        worker, job = self.hands.pop(rng.randrange(len(self.hands)))
        result = Content(b'{"fence":%d}' % job.fence)
        outcome = rng.choice(
            [Succeeded(result), Succeeded(result), boom(), boom(retryable=False), Released(), Stopped()]
        )
        for _ in range(rng.randrange(1, 3)):  # an answer may be lost, and the word repeated
            (accepted,) = await worker.session.finish([Report(job.id, job.fence, outcome)])
            if accepted and isinstance(outcome, Succeeded):
                known = self.accepted.setdefault((job.id, job.run), [])
                if result not in known:
                    known.append(result)

    async def report(self) -> None:
        if self.hands:
            worker, job = self.rng.choice(self.hands)
            await worker.session.update([Update(job.id, job.fence)])

    async def verb(self) -> None:
        if not self.ids:
            return
        engine, job_id = self.rng.choice(self.world.engines), self.rng.choice(self.ids)
        try:
            match self.rng.randrange(5):
                case 0 | 1:
                    await engine.cancel(NS, job_id, "", None)
                case 2 | 3:
                    await engine.retry(NS, job_id, None)
                case _:
                    await engine.delete(NS, job_id, None)
                    self.deleted.add(job_id)
        except AtlasError:
            pass

    async def rare(self) -> None:
        match self.rng.randrange(4):
            case 0 if len(self.world.engines) > 1:
                doomed = self.rng.choice(self.world.engines)
                await self.world.crash(doomed)
                self.workers = [worker for worker in self.workers if worker.session._core is not doomed.core]
                await self.world.add_engine(lease=LEASE)
            case 1:
                worker = self.rng.choice(self.workers)
                await worker.session.close()
                self.workers.remove(worker)
            case 2:
                self.world.clock.tick(self.rng.randrange(2 * LEASE))  # everything stands still for a while
            case _:
                await self.world.advance(1)
        await self.open()

    async def finale(self) -> None:
        """Whoever still has a job gives it back, or is not heard of again; then a diligent worker does the rest."""
        for worker in self.workers:
            await worker.session.close()
        await self.world.advance(40)
        worker = await self.world.worker("diligent", self.world.engine)
        while True:
            counts = await self.world.memory.counts()
            if not counts.states[State.PENDING] and not counts.states[State.RUNNING]:
                break
            jobs = await worker.session._claim([Ask("work", 100)], 100)
            for job in jobs:
                result = Content(b'{"fence":%d}' % job.fence)
                assert await worker.session.finish([Report(job.id, job.fence, Succeeded(result))]) == [True]
                self.accepted.setdefault((job.id, job.run), []).append(result)
            await self.world.advance(2)


def check_history(job: Job) -> None:
    versions = [step.version for step in job.history]
    assert versions == list(range(versions[0], job.version + 1))
    times = [step.time for step in job.history]
    assert times == sorted(times)
    running = False
    run = job.history[0].run
    for step in job.history:
        if step.cause is Cause.STARTED:
            assert not running, "two attempts at once"
        if step.cause is Cause.RETRIED:
            run += 1
        assert step.run == run
        running = step.state is State.RUNNING
    for view in attempts(job):
        assert (view.end is None) == (view.outcome is AttemptOutcome.UNENDED)
    by_run: dict[int, int] = {}
    for view in attempts(job):
        by_run[view.run] = by_run.get(view.run, 0) + (view.outcome is AttemptOutcome.SUCCEEDED)
    assert all(count <= 1 for count in by_run.values()), "a run succeeds once"


def check_budget(job: Job) -> None:
    allowed = job.spec.retry.max_attempts
    for run in {view.run for view in attempts(job)}:
        outcomes = [view.outcome for view in attempts(job) if view.run == run]
        counted = sum(one in (AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT) for one in outcomes)
        assert counted <= allowed
        assert outcomes.count(AttemptOutcome.LOST) <= allowed


@pytest.mark.slow
@pytest.mark.parametrize("slow", [False, True])
async def test_the_books_balance(slow: bool):
    ended: set[State] = set()
    causes: set[Cause] = set()
    for seed in SEEDS:
        rng = random.Random(seed)
        async with a_world(seed, slow=slow, engines=2, lease=LEASE, cancel_grace=5 * SECOND) as world:
            story = Story(world, rng)
            await story.open()
            for _ in range(100):
                await story.step(rng.randrange(1, 5) if slow else 1)
            await story.finale()
            jobs = await world.memory.get(story.ids)
            for job_id, job in zip(story.ids, jobs, strict=True):
                if job is None:
                    assert job_id in story.deleted
                    continue
                assert job.state.terminal, (seed, job)
                check_history(job)
                check_budget(job)
                ended.add(job.state)
                causes |= {step.cause for step in job.history}
                kept = {step.run for step in job.history if step.cause is Cause.SUCCEEDED}
                for run in range(1, job.run + 1):
                    words = story.accepted.get((job_id, run), [])
                    assert len(words) == (run in kept), (
                        seed,
                        "an accepted result is the result, and is one",
                        words,
                        *job.history,
                    )
                if job.state is State.SUCCESS:
                    assert story.accepted[job_id, job.run] == [job.result]
            assert not any(one.in_hand for engine in world.engines for one in engine.leases.sessions.values()), seed
            assert not any(engine.leases.holders for engine in world.engines), seed
            counts = await world.memory.counts()
            assert (counts.states[State.RUNNING], counts.queues) == (0, ())
    assert ended == {State.SUCCESS, State.FAILED, State.CANCELLED}
    assert causes == set(Cause), "the story tells of everything that can happen"
