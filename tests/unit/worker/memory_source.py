"""A source of work in memory, a clock that stands still, and a runner between them, for tests of the worker."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import defaultdict
from contextlib import asynccontextmanager

import msgspec

from atlas_grpc.model import EMPTY_OBJECT, Assignment, Content, patiently
from atlas_grpc.worker import Registry, Runner

BOUND = 15.0
"""Seconds after which a wait has failed. No test takes them when all is well."""


class MemorySource:
    """Keeps the protocol of `WorkSource`, and what was said."""

    def __init__(self):
        self.waiting = []
        self.held = {}
        self.opened = None
        self.closed = False
        self.outcomes = {}
        self.finishes = []
        self.updates = []
        self.asks = []
        self.empties = 0
        self.errors = defaultdict(list)
        self.accept = True
        self.gates = {}
        self._fences = itertools.count(1)
        self._ready = asyncio.Event()

    def add(self, type, payload=None, **fields):
        """Queues a job and returns its id."""
        fence = next(self._fences)
        if payload is None:
            content = EMPTY_OBJECT
        else:
            content = payload if isinstance(payload, Content) else Content(msgspec.json.encode(payload))
        values = {
            "job_id": f"job-{fence}",
            "namespace": "default",
            "type": type,
            "queue": "default",
            "payload": content,
            "run": 1,
            "attempt": 1,
            "max_attempts": 3,
            "fence": fence,
            "time_left": None,
            "labels": {},
            "create_time": 0,
        }
        assignment = Assignment(**(values | fields))
        self.waiting.append(assignment)
        self._ready.set()
        return assignment.job_id

    def stop(self, job_id, why="cancelled"):
        self.on_stop(job_id, self.held[job_id].fence, why)

    async def until(self, holds):
        """Waits until that is true of the source or the runner."""
        async with asyncio.timeout(BOUND):
            while not holds():  # noqa: ASYNC110 - it may depend on anything
                await asyncio.sleep(0.001)

    async def outcome(self, job_id):
        await self.until(lambda: job_id in self.outcomes)
        return self.outcomes[job_id]

    async def started(self, *job_ids):
        """Waits until those jobs were leased."""
        await self.until(lambda: all(job_id in self.held for job_id in job_ids))

    def logs(self, job_id):
        return [line for update in self.updates if update.job_id == job_id for line in update.logs]

    def progress(self, job_id):
        return [u.progress for u in self.updates if u.job_id == job_id and u.progress is not None]

    async def said(self, job_id, text):
        """Waits until the job has logged that line."""
        await self.until(lambda: any(line.message == text for line in self.logs(job_id)))

    async def open(self, worker, types, slots, on_stop):
        self._raise("open")
        self.opened = (worker, types, slots)
        self.on_stop = on_stop

    async def lease(self, room, *, at_once=patiently):
        self._raise("lease")
        while True:
            self._ready.clear()
            asks, limit = room()
            self.asks.append((list(asks), limit))
            room_of = {ask.type: ask.slots for ask in asks}
            taken = []
            for one in self.waiting:
                if len(taken) < limit and room_of.get(one.type, 0) > 0:
                    room_of[one.type] -= 1
                    taken.append(one)
            if taken:
                self.waiting = [one for one in self.waiting if one not in taken]
                self.held.update((one.job_id, one) for one in taken)
                return taken
            if at_once():
                self.empties += 1
                return []
            await self._ready.wait()

    def more_room(self):
        self._ready.set()

    async def finish(self, reports):
        await self._gate("finish")
        self._raise("finish")
        self.finishes.append(len(reports))
        for report in reports:
            assert report.job_id not in self.outcomes, "an attempt ended twice"
            assert report.fence == self.held[report.job_id].fence
            self.outcomes[report.job_id] = report.outcome
        return [True] * len(reports)

    async def update(self, updates):
        self._raise("update")
        for update in updates:
            assert update.job_id not in self.outcomes, "said something after its end"
        self.updates += updates
        return [self.accept] * len(updates)

    async def close(self):
        self.closed = True

    def _raise(self, call):
        if self.errors[call]:
            raise self.errors[call].pop(0)

    async def _gate(self, call):
        if call in self.gates:
            await self.gates[call].wait()


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self):
        self.time = 1000.0
        self._sleepers = []
        self._order = itertools.count()
        self._slept = asyncio.Condition()

    def now(self):
        return int(self.time * 1_000_000)

    def monotonic(self):
        return self.time

    async def sleep(self, seconds):
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time + seconds, next(self._order), woken))
        async with self._slept:
            self._slept.notify_all()
        await woken

    async def asleep(self, seconds):
        """Waits until somebody sleeps for about so long."""

        def someone():
            return any(not woken.done() and abs(when - self.time - seconds) < 0.01 for when, _, woken in self._sleepers)

        async with asyncio.timeout(BOUND), self._slept:
            await self._slept.wait_for(someone)

    def advance(self, seconds):
        self.time += seconds
        while self._sleepers and self._sleepers[0][0] <= self.time:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)


class QuickClock(ManualClock):
    """Whoever sleeps wakes up at once, later."""

    async def sleep(self, seconds):
        self.time += seconds
        await asyncio.sleep(0)


@asynccontextmanager
async def running(*functions, **options):
    """A runner at work for those (a `Registry`, or marked functions); yields its source and itself."""
    if functions and isinstance(functions[0], Registry):
        registry = functions[0]
    else:
        registry = Registry()
        for fn in functions:
            registry.include(fn)
    source = options.pop("source", None) or MemorySource()
    runner = Runner(registry, source, name="tester", **options)
    task = asyncio.create_task(runner.run())
    try:
        yield source, runner
    finally:
        async with asyncio.timeout(BOUND):
            await runner.stop()
            await task
