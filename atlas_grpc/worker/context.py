"""What a handler is given beside its arguments."""

from __future__ import annotations

import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import Cancelled, FailNow, GiveBack, RetryIn
from ..model import Severity

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping
    from datetime import timedelta

    from ..clock import Clock
    from ..model import Assignment
    from .output import Output


_making = threading.Lock()

NO_STATE: Mapping[str, Any] = MappingProxyType({})


class JobContext:
    """The job at hand, and the way to talk about it. The same in coroutines, threads and processes; thread-safe.

    A handler must stop soon after `cancelled` turned true: because its job was cancelled, ran out of time, was given to
    another worker, or because the worker shuts down. A coroutine gets `asyncio.CancelledError` besides. A handler in a
    process is killed at once in the second and third case: `time_left` tells it before.
    """

    __slots__ = (
        "_clock",
        "_logger",
        "_output",
        "_stopped",
        "_waker",
        "attempt",
        "deadline",
        "fence",
        "id",
        "labels",
        "max_attempts",
        "namespace",
        "queue",
        "run",
        "state",
        "traceparent",
        "type",
    )

    def __init__(
        self,
        assignment: Assignment,
        output: Output,
        *,
        deadline: float | None = None,
        clock: Clock | None = None,
        state: Mapping[str, Any] = NO_STATE,
    ) -> None:
        self.id: str = assignment.job_id
        """The job."""
        self.namespace: str = assignment.namespace
        self.type: str = assignment.type
        self.queue: str = assignment.queue
        self.labels: Mapping[str, str] = assignment.labels
        self.attempt: int = assignment.attempt
        """1 for the first attempt of a run."""
        self.max_attempts: int = assignment.max_attempts
        self.run: int = assignment.run
        """1 at first; one more with each RetryJob."""
        self.fence: int = assignment.fence
        """Larger than that of any earlier attempt of any job: hand it to what you write to, so that it can refuse the
        late words of an attempt that was given up."""
        self.deadline: float | None = deadline
        """When the attempt must be over, on the monotonic clock of this process; None means without limit."""
        self.traceparent: str = assignment.traceparent
        """The W3C trace context of whoever submitted the job, or empty."""
        self.state: Mapping[str, Any] = state
        """What the lifespans of this process yielded."""
        self._output = output
        self._clock = clock
        self._logger: logging.Logger | None = None
        self._stopped = False
        self._waker: threading.Event | None = None
        """Made when somebody waits: most handlers never do, and an event costs more than the rest of a context."""

    def time_left(self) -> float | None:
        """Seconds until `deadline`, not below 0; None means without limit."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - (self._clock.monotonic() if self._clock else time.monotonic()))

    def progress(self, current: float, total: float = 0, message: str = "") -> None:
        """Says how far the work is: `current` of `total` in any unit, 0 when the total is not known.

        Cheap enough for every step: only the latest report is sent. Raises ValueError for numbers that are not finite.
        """
        self._output.progress(current, total, message)

    def log(self, message: str, severity: Severity = Severity.INFO) -> None:
        """Adds a line to the job's log. One beyond 16 KiB becomes several; a flood is cut, and the log says so."""
        self._output.log(severity, message)

    def debug(self, message: str) -> None:
        """A line of interest when looking for a fault."""
        self._output.log(Severity.DEBUG, message)

    def info(self, message: str) -> None:
        """A line about the normal course of things."""
        self._output.log(Severity.INFO, message)

    def warning(self, message: str) -> None:
        """A line about something to look at."""
        self._output.log(Severity.WARNING, message)

    def error(self, message: str) -> None:
        """A line about something that failed."""
        self._output.log(Severity.ERROR, message)

    @property
    def logger(self) -> logging.Logger:
        """A logger of the standard library whose records, of every level, become lines of the job's log. It is this
        job's alone: give it to whoever takes a logger."""
        if self._logger is None:
            from .joblog import job_logger

            self._logger = job_logger(self._output)
        return self._logger

    @property
    def cancelled(self) -> bool:
        """True once the handler should stop, for whatever reason but those for which its process is killed at once."""
        return self._stopped

    def wait_cancelled(self, timeout: float | None = None) -> bool:
        """Blocks for up to `timeout` seconds; True as soon as the handler should stop. For threads and processes:
        a pause that ends early on cancellation. A coroutine awaits `sleep` instead."""
        with _making:
            waker = self._waker = self._waker or threading.Event()
        return self._stopped or waker.wait(timeout)

    def raise_if_cancelled(self) -> None:
        """Raises `errors.Cancelled` once the handler should stop."""
        if self._stopped:
            raise Cancelled("the job was asked to stop")

    async def sleep(self, seconds: float) -> None:
        """For coroutines: a pause on the worker's clock, so that tests can hurry it."""
        if self._clock is None:
            raise RuntimeError("sleep is for async handlers: use wait_cancelled(timeout)")
        await self._clock.sleep(seconds)

    def give_back(self, delay: float | timedelta = 0.0) -> NoReturn:
        """Ends the attempt, uncounted: the job goes back to its queue, for at least `delay`. Raises `GiveBack`."""
        raise GiveBack(delay)

    def retry_in(self, delay: float | timedelta, message: str = "the handler asked for a retry") -> NoReturn:
        """Fails the attempt; the next one comes after `delay` instead of the policy's pause. Raises `RetryIn`."""
        raise RetryIn(delay, message)

    def fail(self, message: str, reason: str = "HANDLER_FAILED") -> NoReturn:
        """Fails the job, whatever attempts are left. Raises `FailNow`."""
        raise FailNow(message, reason=reason)

    def request_stop(self) -> None:
        """Turns `cancelled` true; called by the worker."""
        self._stopped = True  # before the look at the waker, which is made before the look at this
        if self._waker is not None:
            self._waker.set()

    def withdraw_stop(self) -> None:
        """Turns `cancelled` false again; called by the worker when a middleware executes once more what it gave up."""
        self._stopped = False
        if self._waker is not None:
            self._waker.clear()
