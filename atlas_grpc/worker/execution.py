"""One attempt in the hands of this worker, and what executors share."""

from __future__ import annotations

import logging
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..model import Released, Stopped, Succeeded, TimedOut
from .failures import HandlerRaised, outcome_of, stand_in, worth_logging
from .results import NOTHING, admitted, encode

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from ..model import Assignment, Failed, Outcome
    from .around import Inner
    from .context import JobContext
    from .output import Output
    from .processes import Child
    from .registry import Handler
    from .results import Admit

    Ended = Callable[["Execution", Outcome], None]
    Bind = Callable[[Assignment], object]

log = logging.getLogger("atlas.worker")

NEVER = float("inf")


class Why(IntEnum):
    """Why a handler must stop. A later, larger reason replaces a smaller one."""

    RUNNING = 0
    """It need not."""
    DRAIN = 1
    TIMEOUT = 2
    CANCELLED = 3
    LOST = 4


def verdict_on(why: Why, outcome: Outcome) -> Outcome | None:
    """What is reported of a handler that was asked to stop; None for nothing. One that finished first has finished."""
    if why is Why.LOST:
        return None
    if isinstance(outcome, Succeeded):
        return outcome
    match why:
        case Why.CANCELLED:
            return Stopped()
        case Why.TIMEOUT:
            return TimedOut()
        case _:
            return Released()


class Kind:
    """A job type at work: its handler, its limits and how many of its jobs run."""

    __slots__ = ("busy", "executor", "handler", "lane", "limit", "name", "takes_context")

    def __init__(self, handler: Handler, lane: Lane, slots: int) -> None:
        self.handler = handler
        self.name = handler.info.name
        self.lane = lane
        self.executor = lane.executor
        """What its attempts are given to: that of its lane, or what puts middleware around it."""
        self.takes_context = handler.signature.takes_context
        """Whether its attempts need a `JobContext`."""
        self.limit = min(handler.info.concurrency or slots, lane.capacity)
        self.busy = 0


class Lane:
    """One executor, how many attempts it takes, and how many it has."""

    __slots__ = ("busy", "capacity", "executor", "kinds")

    def __init__(self, executor: Executor, capacity: int) -> None:
        self.executor = executor
        self.capacity = capacity
        self.busy = 0
        self.kinds: list[Kind] = []


class Execution:
    """An attempt from the lease to its end. Used from the event loop only, but for `context` and `output`."""

    __slots__ = (
        "assignment",
        "child",
        "context",
        "due",
        "inner",
        "killed",
        "kind",
        "output",
        "settled",
        "started",
        "task",
        "why",
    )

    def __init__(self, assignment: Assignment, kind: Kind, due: float) -> None:
        self.assignment = assignment
        self.kind = kind
        self.due = due
        """When the runner must look after it, on its monotonic clock."""
        self.why = Why.RUNNING
        self.settled = False
        """True once its outcome was handed in, though its thread may be running on."""
        self.killed = False
        """True once its executor was told to end it by force."""
        self.started = False
        self.context: JobContext | None = None
        self.output: Output | None = None
        self.task: asyncio.Task[None] | None = None
        self.child: Child | None = None
        self.inner: Inner | None = None
        """The handler's part, when there is middleware around it."""


class Limits(NamedTuple):
    """What holds for every attempt: the bounds of its result, and what is done first in its handler's context."""

    admit: Admit | None
    max_bytes: int
    bind: Bind | None = None


class Executor(Protocol):
    """Executes attempts of one kind of handler. `start` leads to exactly one call of the `ended` it was made with."""

    def start(self, execution: Execution) -> None:
        """Begins; returns at once."""
        ...

    def stop(self, execution: Execution, *, kill: bool) -> None:
        """Tells the handler to stop; with `kill`, ends it if that is possible."""
        ...

    async def close(self) -> None:
        """Ends what is left, as far as possible."""
        ...


def perform(execution: Execution, limits: Limits) -> Outcome:
    """Calls a plain handler, in the thread that is to run it, and makes an outcome of whatever happens."""
    signature = execution.kind.handler.signature
    if limits.bind is not None:
        limits.bind(execution.assignment)
    try:
        if signature.dependencies is None:
            value = signature.call(execution.assignment.payload, execution.context)
            return conclude(value, execution, limits)
        finish = partial(conclude, execution=execution, limits=limits)
        return signature.perform(execution.assignment.payload, execution.context, finish)
    except BaseException as exc:
        return failed(execution, exc)


def conclude(value: Any, execution: Execution, limits: Limits) -> Outcome:
    """The outcome of a handler that returned. Raises `ResultRefused`."""
    if execution.inner is not None:
        execution.inner.returned = value
    if value is None:
        return NOTHING
    return admitted(encode(value, execution.kind.handler.signature.result), limits.admit, limits.max_bytes)


def failed(execution: Execution, exc: BaseException) -> Failed | Released:
    """The outcome of a handler that raised; tells the log, unless it was asked to stop."""
    if execution.inner is not None:
        execution.inner.raised = exc
    if execution.why is Why.RUNNING and worth_logging(exc):
        log_failure(execution, stand_in(exc))
    return outcome_of(exc)


def log_failure(execution: Execution, raised: HandlerRaised) -> None:
    """A line with a traceback, for whoever runs the worker, unless a middleware is still to say what becomes of it."""
    inner = execution.inner
    if inner is not None and not inner.over:
        inner.unlogged = raised
        return
    job = execution.assignment
    log.warning("handler failed: job %s, type %s, attempt %d", job.job_id, job.type, job.attempt, exc_info=raised)
