"""A `JobContext` that no worker stands behind."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from copy import copy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..clock import SystemClock
from ..model import EMPTY_OBJECT, Assignment
from ..worker.context import JobContext
from ..worker.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..clock import Clock
    from ..model import LogLine, Progress, TypeInfo


class FakeContext(JobContext):
    """What a handler is given in a test: everything that it says is kept. Made by `fake_context`."""

    def __init__(
        self,
        assignment: Assignment,
        time_left: float | None,
        clock: Clock | None,
        state: Mapping[str, Any],
        unsaid: frozenset[str],
    ) -> None:
        hurried = HurriedClock()
        self._hurried = hurried if clock is None else None
        self._kept = _Kept(assignment.attempt)
        self._on_cancel: Callable[[], object] | None = None
        self._unsaid = unsaid
        used = clock or hurried
        deadline = None if time_left is None else used.monotonic() + time_left
        super().__init__(assignment, self._kept, deadline=deadline, clock=used, state=state)

    @property
    def reports(self) -> list[Progress]:
        """All the progress that was reported, in order."""
        return self._kept.reports

    @property
    def lines(self) -> list[LogLine]:
        """All that was logged, in order."""
        return self._kept.lines

    def cancel(self) -> None:
        """Asks the handler to stop, as the worker does when its job was cancelled. May be called from any thread."""
        self.request_stop()

    def request_stop(self) -> None:
        super().request_stop()
        if self._on_cancel is not None:
            self._on_cancel()

    def fill_in(self, info: TypeInfo) -> None:
        """Takes what the test left unsaid from what the handler declares; for `run_handler`."""
        declared = {"type": info.name, "queue": info.queue, "max_attempts": info.retry.max_attempts}
        for name in self._unsaid:
            setattr(self, name, declared[name])

    @contextmanager
    def given(self, state: Mapping[str, Any]) -> Iterator[None]:
        """Has what lifespans yielded, besides its own state, until the block ends; for `run_handler`."""
        own = self.state
        self.state = MappingProxyType({**state, **own})
        try:
            yield
        finally:
            self.state = own

    def elsewhere(self, state: Mapping[str, Any]) -> FakeContext:
        """The context of the same job in a process with that state; for `run_handler`, which stops it too."""
        twin = copy(self)
        twin.state = MappingProxyType({**state, **self.state})
        return twin

    def on_cancel(self, call: Callable[[], object] | None) -> None:
        """What to call when it is cancelled, or was; for `run_handler`."""
        self._on_cancel = call
        if call is not None and self.cancelled:
            call()

    def wait_cancelled(self, timeout: float | None = None) -> bool:
        if self._hurried is None or timeout is None:
            return super().wait_cancelled(timeout)
        self._hurried.skip(timeout)
        return self.cancelled


def fake_context(
    *,
    id: str = "job-1",
    type: str | None = None,
    namespace: str = "default",
    queue: str | None = None,
    labels: Mapping[str, str] | None = None,
    attempt: int = 1,
    max_attempts: int | None = None,
    run: int = 1,
    fence: int = 1,
    time_left: float | None = None,
    state: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
) -> FakeContext:
    """A context to call a handler with: `await resize(args, ctx=ctx)`, then look at `ctx.reports` and `ctx.lines`.

    `time_left`: seconds until its deadline. `state`: what lifespans would have yielded. Pauses by `sleep(seconds)` and
    `wait_cancelled(seconds)` take no time, but `time_left()` shrinks by them; with a `clock` they take that clock's.
    `type`, `queue` and `max_attempts` are those of the handler that `run_handler` is given, and without it "handler",
    "default" and 3.
    """
    given = {"type": type, "queue": queue, "max_attempts": max_attempts}
    assignment = Assignment(
        job_id=id,
        namespace=namespace,
        type="handler" if type is None else type,
        queue="default" if queue is None else queue,
        payload=EMPTY_OBJECT,
        run=run,
        attempt=attempt,
        max_attempts=3 if max_attempts is None else max_attempts,
        fence=fence,
        time_left=None,
        labels=dict(labels or {}),
        create_time=0,
    )
    unsaid = frozenset(name for name, value in given.items() if value is None)
    return FakeContext(assignment, time_left, clock, MappingProxyType(dict(state or {})), unsaid)


class HurriedClock(SystemClock):
    """Whoever sleeps on it wakes up at once, later."""

    def __init__(self) -> None:
        super().__init__()
        self._skipped = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self._skipped

    async def sleep(self, seconds: float) -> None:
        self.skip(seconds)
        await asyncio.sleep(0)

    def skip(self, seconds: float) -> None:
        """Moves time on."""
        self._skipped += max(0.0, seconds)


class _Kept(Output):
    """Keeps all that is said, instead of handing it on."""

    __slots__ = ("lines", "reports")

    def __init__(self, attempt: int) -> None:
        super().__init__(attempt, lambda: None)
        self.reports: list[Progress] = []
        self.lines: list[LogLine] = []

    def _announce(self) -> None:
        progress, lines = self.take()
        if progress is not None:
            self.reports.append(progress)
        self.lines.extend(lines)
