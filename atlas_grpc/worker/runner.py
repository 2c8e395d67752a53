"""The runner: leases work for free slots, starts handlers, hands in what comes of it, until it is drained or stopped.

The path of a job: `_lease_loop` asks for as much as there is room for (`capacity`), `_start` gives each assignment to
the executor of its handler, `_ended` frees the slot, and `reporting` hands the outcome in. Nothing on this path awaits
or sets a timer for a single job; deadlines and grace periods are looked after by one `_watch_loop`. Only job types with
middleware have an executor of their own in between (`around`).
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ..clock import SystemClock
from ..errors import AtlasError
from ..model import SECOND, Released, Stopped
from .around import Around, to_inner
from .backoff import Backoff
from .capacity import Capacity
from .context import JobContext
from .execution import NEVER, Execution, Limits, Why, log, verdict_on
from .failures import stand_in
from .lifespans import Life
from .output import Output
from .processes import Processes
from .reporting import Reporter
from .results import DEFAULT_MAX_BYTES
from .tasks import Tasks
from .threads import Threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..clock import Clock
    from ..model import Ask, Assignment, Outcome
    from .execution import Executor
    from .registry import Registry
    from .results import Admit
    from .source import WorkSource

TIMEOUT_SLACK = 1.0
"""Seconds by which the worker enforces an attempt's time limit later than the engine, whose word says more."""
FLUSH_TIME = 5.0
"""Seconds that the last outcomes have to be handed in when the worker ends."""
_BACKLOG = 1000

_STOPS = {"cancelled": Why.CANCELLED, "lost": Why.LOST}


class Runner:
    """Executes jobs of a registry's types, from a source. `run` it once; `drain` or `stop` ends it. With `burst` it
    ends by itself once it has nothing in hand and there is nothing to lease, and with `max_jobs` after so many jobs.

    `slots` bounds the jobs at a time, `threads` those of plain functions among them, `processes` those of CPU-bound
    ones (0: one a CPU). `admit` gives the reason against a result, or None; it may be called from any thread.
    `cancel_grace`: seconds that a handler has to stop by itself, before its process is killed or its job is given up.
    `bind` is called first in the context of each handler that runs in this process, to mark its logs with the job.
    Raises `InvalidHandler` for a lifespan that processes of handlers cannot find.
    """

    def __init__(
        self,
        registry: Registry,
        source: WorkSource,
        *,
        name: str = "",
        slots: int = 256,
        threads: int = 32,
        processes: int = 0,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        admit: Admit | None = None,
        max_result_bytes: int = DEFAULT_MAX_BYTES,
        cancel_grace: float = 10.0,
        bind: Callable[[Assignment], object] | None = None,
        burst: bool = False,
        max_jobs: int | None = None,
    ) -> None:
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self.slots = slots
        """How many jobs it executes at a time."""
        self._registry = registry
        self._source = source
        self._threads = threads
        self._processes = processes or os.cpu_count() or 1
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._limits = Limits(admit, max_result_bytes, bind)
        self._cancel_grace = cancel_grace
        self._burst = burst
        self._left = sys.maxsize if max_jobs is None else max_jobs
        """How many jobs it may still start."""
        self._active: dict[int, Execution] = {}
        self._capacity: Capacity | None = None
        self._life = Life(one for one in registry.lifespans() if one.in_worker)
        self._process_lifespans = registry.process_lifespans()
        self._asked: frozenset[str] = frozenset()
        self._leasing: asyncio.Future[list[Assignment]] | None = None
        self._early: dict[int, Why] = {}
        self._wake_at = NEVER
        self._ending = False
        self._room = asyncio.Event()
        self._kick = asyncio.Event()
        self._settled = asyncio.Event()
        self._end_begun = asyncio.Event()
        self._hurry = asyncio.Event()
        self._no_more_leases = asyncio.Event()
        self._over = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def busy(self) -> int:
        """How many jobs it executes now."""
        return len(self._active)

    @property
    def busy_by_type(self) -> Mapping[str, int]:
        """How many jobs of each type it executes now; types without any are left out."""
        kinds = self._capacity.kinds.values() if self._capacity is not None else ()
        return {kind.name: kind.busy for kind in kinds if kind.busy}

    async def run(self) -> None:
        """Works until `drain` or `stop` has ended it, or it has done what it was to do. When it is cancelled, it gives
        its jobs back first.

        Raises RuntimeError when it ran before, and `LifespanFailed`.
        """
        if self._capacity is not None:
            raise RuntimeError("a runner runs only once")
        if self._ending:
            return
        self._set_up()
        try:
            await self._life.hold(self._work())
        finally:
            self._closed.set()

    async def _work(self) -> None:
        if not await self._life.begin():
            return
        loops = (self._watch_loop, self._reporter.finish_loop, self._reporter.update_loop, self._lease_loop)
        tasks = [asyncio.create_task(self._keep(loop)) for loop in loops]
        try:
            await self._over.wait()
        except asyncio.CancelledError:
            await self._end(0, 0, wait_closed=False)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()

    async def ready(self) -> None:
        """Returns when `run` has entered the lifespans, or has ended. Raises `LifespanFailed` as it does."""
        await self._life.ready()

    async def drain(self, grace: float) -> None:
        """Takes no more work, gives handlers `grace` seconds to finish, asks the others to stop and gives their jobs
        back, uncounted. Returns when all is handed in and the session is closed. `stop` hurries it."""
        await self._end(grace, self._cancel_grace)

    async def stop(self) -> None:
        """Ends at once: jobs go back, uncounted."""
        await self._end(0, 0)

    def _set_up(self) -> None:
        chains = {kind.info.name: self._registry.around(kind.info.name) for kind in self._registry}
        ended = to_inner(self._ended) if any(chains.values()) else self._ended
        tasks = Tasks(ended, self._limits)
        threads = Threads(ended, self._limits)
        self._children = Processes(ended, self._limits, self._clock, self._look_at, self._process_lifespans)
        lanes: dict[str, tuple[Executor, int]] = {
            "task": (tasks, self.slots),
            "thread": (threads, self._threads),
            "process": (self._children, self._processes),
        }
        self._capacity = Capacity(self._registry, self.slots, lanes)
        around: list[Executor] = []
        for kind in self._capacity.kinds.values():
            if chain := chains[kind.name]:
                kind.executor = Around(
                    kind.lane.executor, chain, self._ended, self._limits, clock=self._clock, grace=self._cancel_grace
                )
                kind.takes_context = True
                around.append(kind.executor)
        self._executors: tuple[Executor, ...] = (*around, tasks, threads, self._children)
        self._reporter = Reporter(self._source, self._clock, self._rng, lost=self._lost, relieved=self._relieved)

    async def _keep(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Runs one of the loops; one that fails, which it should not, is told to the log and started again."""
        backoff = Backoff(self._clock, self._rng)
        while True:
            try:
                await loop()
            except Exception as exc:
                log.error("a loop of the runner failed", exc_info=stand_in(exc))
                await backoff.pause()
            else:
                return

    async def _lease_loop(self) -> None:
        backoff = Backoff(self._clock, self._rng)
        opened = False
        while not self._ending:
            try:
                if not opened:
                    await self._source.open(self.name, self._registry.types(), self.slots, self._on_stop)
                    opened = True
                    continue  # the end may have begun meanwhile
                batch = await self._lease()
            except Exception as exc:
                log.warning("no jobs can be %s: %s", "leased" if opened else "asked for", _told(exc))
                await self._pause(backoff.next(), self._end_begun)
                continue
            backoff.reset()
            now = self._clock.monotonic()
            for assignment in batch or ():
                self._start(assignment, now)
            self._early.clear()
            if (self._left <= 0 or (self._burst and batch == [])) and self._idle():
                self._begin_end(0, 0)
        self._no_more_leases.set()

    async def _lease(self) -> list[Assignment] | None:
        """The next jobs, none when there is none; None when it was called off or put off."""
        if self._reporter.backlog > 4 * self.slots + _BACKLOG or not self._ask()[0]:
            self._room.clear()
            if self._left > 0 or not self._idle():
                await self._room.wait()
            return None
        leasing = self._leasing = asyncio.ensure_future(self._source.lease(self._ask, at_once=self._at_once))
        try:
            return await leasing
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if leasing.cancelled() and task is not None and not task.cancelling():
                return None
            raise
        finally:
            self._leasing = None

    def _idle(self) -> bool:
        """Whether no job is in hand, nor the outcome of one."""
        return self._reporter.backlog == 0 and all(execution.settled for execution in self._active.values())

    def _at_once(self) -> bool:
        return self._burst and self._idle()

    def _relieved(self) -> None:
        """Outcomes were handed in."""
        self._room.set()
        if self._leasing is not None and self._at_once():
            self._source.more_room()

    def _ask(self) -> tuple[list[Ask], int]:
        free = min(self.slots - len(self._active), self._left)
        asks, limit = self._capacity.asks(free) if self._capacity is not None and free > 0 else ([], 0)
        self._asked = frozenset(ask.type for ask in asks)
        return asks, limit

    def _start(self, assignment: Assignment, now: float) -> None:
        if assignment.fence in self._early:
            if self._early[assignment.fence] is Why.CANCELLED:
                self._reporter.report(assignment.job_id, assignment.fence, Stopped())
            return
        kind = self._capacity.kinds.get(assignment.type) if self._capacity is not None else None
        full = kind is None or kind.busy >= kind.limit or kind.lane.busy >= kind.lane.capacity or self._left <= 0
        if kind is None or self._ending or full:
            self._reporter.report(assignment.job_id, assignment.fence, Released())
            return
        self._left -= 1
        kind.busy += 1
        kind.lane.busy += 1
        left = assignment.time_left
        deadline = None if left is None else now + left / SECOND
        execution = Execution(assignment, kind, NEVER if deadline is None else deadline + TIMEOUT_SLACK)
        self._active[assignment.fence] = execution
        if deadline is not None:
            self._look_at(execution.due)
        if kind.takes_context or kind.handler.origin is not None:  # which may print
            output = execution.output = Output(assignment.attempt, partial(self._reporter.touch, execution))
            if kind.takes_context:
                state = self._life.state
                execution.context = JobContext(assignment, output, deadline=deadline, clock=self._clock, state=state)
        kind.executor.start(execution)

    def _ended(self, execution: Execution, outcome: Outcome) -> None:
        """The handler is over, and its slot is free. Called by the executor, exactly once for each start."""
        del self._active[execution.assignment.fence]
        kind = execution.kind
        kind.busy -= 1
        kind.lane.busy -= 1
        if not execution.settled:
            self._settle(execution, outcome)
        if self._leasing is None:
            self._room.set()
        elif kind.name not in self._asked or self._at_once():
            self._source.more_room()

    def _settle(self, execution: Execution, outcome: Outcome) -> None:
        """The attempt is over, though its handler may not be."""
        execution.settled = True
        output = execution.output
        if output is not None:
            output.close()
        verdict = outcome if execution.why is Why.RUNNING else verdict_on(execution.why, outcome)
        if verdict is not None:
            job = execution.assignment
            self._reporter.report(job.job_id, job.fence, verdict, None if output is None else execution)
        if self._ending:
            self._settled.set()

    def _on_stop(self, job_id: str, fence: int, why: str) -> None:
        execution = self._active.get(fence)
        if execution is None:
            if self._leasing is not None:  # its lease may be on the way to `_start`
                self._early[fence] = max(_STOPS[why], self._early.get(fence, Why.RUNNING))
        elif execution.assignment.job_id == job_id:
            self._stop(execution, _STOPS[why])

    def _lost(self, job_id: str, fence: int) -> None:
        self._on_stop(job_id, fence, "lost")

    def _stop(self, execution: Execution, why: Why) -> None:
        if execution.settled or why <= execution.why:
            return
        execution.why = why
        execution.due = self._clock.monotonic() + self._cancel_grace
        self._look_at(execution.due)
        kill = why in (Why.TIMEOUT, Why.LOST)
        execution.killed = execution.killed or kill
        execution.kind.executor.stop(execution, kill=kill)

    def _look_at(self, when: float) -> None:
        if when < self._wake_at:
            self._wake_at = when
            self._kick.set()

    async def _watch_loop(self) -> None:
        """Enforces time limits and grace periods, and ends idle processes."""
        while True:
            self._kick.clear()
            now = self._clock.monotonic()
            for execution in [execution for execution in self._active.values() if execution.due <= now]:
                self._overdue(execution)
            due = min((execution.due for execution in self._active.values()), default=NEVER)
            self._wake_at = min(due, self._children.expire(now))
            if self._wake_at == NEVER:
                await self._kick.wait()
            else:
                await self._pause(self._wake_at - now, self._kick)

    def _overdue(self, execution: Execution) -> None:
        if execution.why is Why.RUNNING:
            self._stop(execution, Why.TIMEOUT)
            return
        killed_before, execution.killed = execution.killed, True
        mortal = execution.kind.handler.origin is not None and not killed_before
        # A process ends by it; what middleware is around it has as long again.
        execution.due = self._clock.monotonic() + self._cancel_grace if mortal else NEVER
        execution.kind.executor.stop(execution, kill=True)
        if not mortal and not execution.settled:
            job = execution.assignment
            log.warning("handler ignores its stop, its slot stays busy: job %s, type %s", job.job_id, job.type)
            self._settle(execution, Stopped())

    async def _end(self, grace: float, patience: float, *, wait_closed: bool = True) -> None:
        self._begin_end(grace, patience)
        if not await self._life.call_off():
            await (self._closed if wait_closed else self._over).wait()

    def _begin_end(self, grace: float, patience: float) -> None:
        first, self._ending = not self._ending, True
        self._end_begun.set()
        if grace == patience == 0:
            self._hurry.set()
            self._life.hurry()
        if first and self._life.begun:
            # A task of its own: whoever asked for it may be cancelled while it waits.
            self._winding_up = asyncio.create_task(self._wind_up(grace, patience))

    async def _wind_up(self, grace: float, patience: float) -> None:
        try:
            await self._give_back_all(grace, patience)
        finally:
            self._over.set()

    async def _give_back_all(self, grace: float, patience: float) -> None:
        self._room.set()
        if self._leasing is not None:
            self._leasing.cancel()
        await self._until_settled(grace)
        for execution in list(self._active.values()):
            self._stop(execution, Why.DRAIN)
        await asyncio.sleep(0)
        await self._until_settled(patience)
        for execution in list(self._active.values()):
            if not execution.settled:
                self._settle(execution, Released())
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_TIME):
                await self._no_more_leases.wait()
                await self._reporter.flushed()

    async def _until_settled(self, seconds: float) -> None:
        """Returns when no attempt is open, the time is up, or somebody hurries."""
        end = self._clock.monotonic() + seconds
        while any(not execution.settled for execution in self._active.values()):
            self._settled.clear()
            left = end - self._clock.monotonic()
            if left <= 0 or self._hurry.is_set():
                return
            await self._pause(left, self._settled, self._hurry)

    async def _pause(self, seconds: float, *events: asyncio.Event) -> None:
        """A pause on the clock that any of the events cuts short."""
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        pause = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait([pause, *waits], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in (pause, *waits):
                wait.cancel()

    async def _close(self) -> None:
        for executor in self._executors:
            await executor.close()
        try:
            await self._source.close()
        except Exception as exc:
            log.warning("the session cannot be closed: %s", type(exc).__name__)
        await self._life.leave()


def _told(exc: Exception) -> str:
    return exc.message if isinstance(exc, AtlasError) else type(exc).__name__
