"""A small world for tests of the engine: a clock that obeys, one store, engines over it, workers by hand."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from atlas_grpc.engine.engine import Engine, EngineSettings
from atlas_grpc.engine.submit import Submission
from atlas_grpc.errors import Violation
from atlas_grpc.model import (
    SECOND,
    Ask,
    Content,
    Failed,
    Failure,
    LogLine,
    Outcome,
    Progress,
    Report,
    RetryPolicy,
    Severity,
    Succeeded,
    TypeInfo,
    Update,
)
from atlas_grpc.observe.metrics import Metrics
from atlas_grpc.stores.memory import MemoryLimits, MemoryStore
from atlas_grpc.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from atlas_grpc.model import Assignment, Job
    from atlas_grpc.stores.base import Kind

NS = "default"
STEADY = RetryPolicy(jitter=0.0)
TYPES = (
    TypeInfo("work", retry=STEADY),
    TypeInfo("other", queue="side", retry=RetryPolicy(max_attempts=1)),
    TypeInfo("jittery", retry=RetryPolicy(max_attempts=5, initial_backoff=10 * SECOND, jitter=0.5)),
    TypeInfo("timed", retry=STEADY, attempt_timeout=5 * SECOND, total_timeout=60 * SECOND),
)
DONE = Succeeded(Content(b'{"ok":true}'))


def boom(reason: str = "BOOM", **more: Any) -> Failed:
    return Failed(Failure(2, reason, "it went wrong"), **more)


class FixedCatalog:
    """The job types above; payloads with a `bad` key are refused."""

    def __init__(self) -> None:
        self._types = {info.name: info for info in TYPES}

    def get(self, name: str) -> TypeInfo | None:
        return self._types.get(name)

    def types(self) -> Sequence[TypeInfo]:
        return list(TYPES)

    async def look_up(self, names: Collection[str]) -> None:
        """There are no others."""

    def violations(self, name: str, payload: Content) -> Sequence[Violation]:
        bad = payload.is_json and "bad" in msgspec.json.decode(payload.data)
        return [Violation("payload.bad", "is not wanted")] if bad else []


class SlowStore:
    """A store whose every answer takes some turns of the loop, before and after the deed, as a remote one does. `fault`
    is called with the name of each operation first, and may raise."""

    instant = False

    def __init__(self, inner: MemoryStore, rng: random.Random | None, turns: int = 3) -> None:
        self._inner = inner
        self._rng = rng
        self._turns = turns
        self.fault: Callable[[str], None] = lambda _name: None
        self.gates: dict[str, asyncio.Event] = {}
        """Operations that do not begin before their event is set."""
        self.holds: dict[str, list[asyncio.Event]] = {}
        """For the next calls of an operation: the event that their answer waits for."""
        self.calls: list[str] = []

    @property
    def epoch(self) -> str:
        return self._inner.epoch

    def now(self) -> int:
        return self._inner.now()

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)

        async def call(*args: Any, **named: Any) -> Any:
            self.calls.append(name)
            self.fault(name)
            if name in self.gates:
                await self.gates[name].wait()
            await self._dawdle()
            held = self.holds.get(name)
            hold = held.pop(0) if held else None
            answer = await inner(*args, **named)
            if hold is not None:
                await hold.wait()
            await self._dawdle()
            return answer

        return call

    def hold(self, name: str) -> asyncio.Event:
        """Holds the answer of the next call of an operation back until the event is set."""
        event = asyncio.Event()
        self.holds.setdefault(name, []).append(event)
        return event

    async def _dawdle(self) -> None:
        if self._rng is not None:
            for _ in range(self._rng.randrange(self._turns)):
                await asyncio.sleep(0)


class Hearsay:
    """A listener on another server: it is told which jobs were written there, or only that something was."""

    def __init__(self, listener: Engine, *, vague: bool) -> None:
        self._listener = listener
        self._vague = vague

    def on_ready(self, kinds: Collection[Kind] | None = None) -> None:
        self._listener.on_ready(None if self._vague else kinds)

    def on_changes(self, jobs: Sequence[Job]) -> None:
        self.on_news([job.spec.id for job in jobs])

    def on_news(self, ids: Collection[str] | None) -> None:
        self._listener.on_news(None if self._vague else ids)

    def on_output(self, ids: Collection[str]) -> None:
        if not self._vague:
            self._listener.on_output(ids)


class Worker:
    """A worker whose every step the test decides."""

    def __init__(self, world: World, engine: Engine, name: str) -> None:
        self.world = world
        self.session = engine.worker_session()
        self.name = name
        self.stops: list[tuple[str, int, str]] = []

    async def open(self, types: Sequence[TypeInfo] = TYPES, slots: int = 1000) -> None:
        await self.session.open(self.name, types, slots, lambda *stop: self.stops.append(stop))

    async def take(
        self, limit: int = 1, *, types: Sequence[str] = ("work", "other", "jittery", "timed"), queues: Any = None
    ) -> list[Assignment]:
        """What there is to do now: nothing, or up to `limit` jobs."""
        asks = [Ask(name, limit, queues) for name in types]
        leasing = asyncio.ensure_future(self.session.lease(lambda: (asks, limit)))
        await self.world.clock.settle()
        if not leasing.done():
            leasing.cancel()
            await asyncio.gather(leasing, return_exceptions=True)
            return []
        return leasing.result()

    async def take_one(self) -> Assignment:
        (one,) = await self.take()
        return one

    async def end(self, taken: Assignment, outcome: Outcome = DONE) -> bool:
        (accepted,) = await self.session.finish([Report(taken.job_id, taken.fence, outcome)])
        return accepted

    async def tell(self, taken: Assignment, *lines: str, progress: float | None = None) -> bool:
        logs = tuple(LogLine(Severity.INFO, line) for line in lines)
        shown = None if progress is None else Progress(progress, 100.0, f"at {progress:g}")
        (accepted,) = await self.session.update([Update(taken.job_id, taken.fence, shown, logs)])
        return accepted


class World:
    """One store, its clock, and the engines over it."""

    def __init__(self, seed: int = 0, limits: MemoryLimits | None = None, *, slow: bool = False) -> None:
        self.clock = FakeClock()
        self.rng = random.Random(seed)
        self.memory = MemoryStore(self.clock, limits)
        self.store = SlowStore(self.memory, random.Random(seed + 1) if slow else None)
        self.engines: list[Engine] = []

    @property
    def engine(self) -> Engine:
        return self.engines[0]

    async def add_engine(self, **settings: Any) -> Engine:
        chosen = EngineSettings(**{"retention": 3600 * SECOND, **settings})
        engine = Engine(
            self.store,  # type: ignore[arg-type]
            FixedCatalog(),
            clock=self.clock,
            rng=random.Random(self.rng.random()),
            metrics=Metrics(),
            settings=chosen,
        )
        await engine.start()
        await self.clock.settle()
        self.engines.append(engine)
        return engine

    async def crash(self, engine: Engine) -> None:
        """The engine's process is gone: its loops stop, its sessions are not closed, nothing is said to anybody."""
        self.engines.remove(engine)
        for task in [*engine._tasks, *engine.hub._tasks, *engine.core._tasks]:
            task.cancel()
        await asyncio.gather(*engine._tasks, *engine.hub._tasks, return_exceptions=True)
        self.memory._listeners.remove(engine)

    def hear_only(self, engine: Engine, *, vague: bool) -> None:
        """From now on the engine learns by hearsay what is written."""
        at = self.memory._listeners.index(engine)
        self.memory._listeners[at] = Hearsay(engine, vague=vague)

    async def worker(self, name: str = "w1", engine: Engine | None = None) -> Worker:
        worker = Worker(self, engine or self.engine, name)
        await worker.open()
        return worker

    async def submit(self, type: str = "work", engine: Engine | None = None, **more: Any) -> str:
        submitted = await (engine or self.engine).submit(Submission(NS, type, **more))
        return submitted.job.id

    async def job(self, job_id: str) -> Job:
        return await self.engine.get(NS, job_id)

    async def causes(self, job_id: str) -> list[str]:
        return [step.cause.name for step in (await self.job(job_id)).history]

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)


@asynccontextmanager
async def a_world(
    seed: int = 0, limits: MemoryLimits | None = None, *, slow: bool = False, engines: int = 1, **settings: Any
) -> AsyncIterator[World]:
    """A world with so many engines, which are stopped at the end."""
    world = World(seed, limits, slow=slow)
    for _ in range(engines):
        await world.add_engine(**settings)
    try:
        yield world
    finally:
        for engine in list(world.engines):
            await engine.stop()


async def collect(watch: Any, limit: int = 10_000) -> list[Any]:
    """All messages of a watch up to its end."""
    messages = []
    for _ in range(limit):
        messages.append(await watch.next())
        if messages[-1].final:
            return messages
    raise AssertionError("the watch does not end")
