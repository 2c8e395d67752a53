"""Middleware at work: coroutines around attempts, whatever executes the handlers.

An attempt with middleware is a task of its own in the event loop. `call_next()` of the innermost one hands the attempt
to the executor of its handler and waits for the outcome; so each executor goes on as it is, and handlers without
middleware do not come by here at all. What holds:

- **The slot is the handler's until it ends.** A middleware that gives up on `call_next()` (`asyncio.timeout`, a
  cancelled task) tells the handler to stop and gets control back when it has; one that ends without waiting is over,
  but its attempt is not. So no attempt of a handler runs on unseen, and `ended` is called once.
- **A stop goes to whoever is at work**: to the handler while `call_next()` runs, as if there were no middleware, and
  else to the middleware, as a cancellation. Once stopped, an attempt does not begin to execute its handler.
- **A middleware that swallows its stop is given up** when its grace is over, as a coroutine is that does.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import Code, FailNow, GiveBack, HandlerFailed, RetryIn
from ..model import SECOND, Content, Failed, Released, Succeeded, TimedOut
from .execution import Why, conclude, failed, log, log_failure
from .results import admitted, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import TypeAdapter

    from ..clock import Clock
    from ..model import Outcome
    from .context import JobContext
    from .execution import Ended, Execution, Executor, Limits
    from .failures import HandlerRaised
    from .middlewares import CallNext, Middleware

_UNCHANGING = (type(None), bool, int, float, str, bytes, Content)


class Inner:
    """The handler's part of an attempt that has middleware around it."""

    __slots__ = (
        "_waiting",
        "killing",
        "made_up",
        "outcome",
        "over",
        "raised",
        "returned",
        "running",
        "started",
        "task",
        "unlogged",
        "written",
    )

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        """That of the middleware."""
        self.started = False
        self.over = False
        """The middleware has ended."""
        self.running = False
        """The handler is at work."""
        self.outcome: Outcome | None = None
        """Of the handler, when it has ended."""
        self.returned: Any = None
        self.written: Content | None = None
        """What was returned, as it was when `call_next()` answered it: not as its outcome has it, if it reads from what
        is cleaned up since."""
        self.raised: BaseException | None = None
        self.made_up = False
        """What was raised stands for an outcome that came from elsewhere."""
        self.unlogged: HandlerRaised | None = None
        self.killing: asyncio.Task[None] | None = None
        """What ends its process later."""
        self._waiting: list[asyncio.Future[None]] = []

    def begin(self) -> None:
        """The handler is started, perhaps once more."""
        self.running, self.outcome = True, None
        self.returned, self.written, self.raised, self.made_up, self.unlogged = None, None, None, False, None

    def end(self, outcome: Outcome) -> None:
        """The handler has ended."""
        self.running, self.outcome = False, outcome
        if self.killing is not None:
            self.killing.cancel()
            self.killing = None
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def ended(self) -> None:
        """Waits for the end of the handler, which does not mind if the waiting is cancelled."""
        if self.running:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    def answer(self, adapter: TypeAdapter[Any] | None, *, apart: bool) -> Any:
        """What `call_next()` answers or raises. Of a handler in a process (`apart`) there is only the outcome: its
        JSON, and an exception that stands for it. `adapter`: by what an answer is written that a middleware changed."""
        if self.raised is not None:
            raise self.raised
        if not isinstance(self.outcome, Succeeded):
            self.raised, self.made_up = _exception(self.outcome), True
            raise self.raised
        if apart:
            self.returned = decoded(self.outcome.result)
        self.written = _written(self.returned, adapter)
        return self.returned

    def kept(self, value: Any, adapter: TypeAdapter[Any] | None) -> Succeeded | None:
        """The outcome of the handler, if `value` is what it returned, and as it was. It was made JSON before the
        clean-up: by now a generator is used up, and a session closed."""
        if isinstance(self.outcome, Succeeded) and value is self.returned and self.written == _written(value, adapter):
            return self.outcome
        return None

    def passed(self, exc: BaseException) -> Outcome | None:
        """The outcome of the handler, if that exception stands for it."""
        return self.outcome if exc is self.raised and self.made_up else None


def chained(chain: Sequence[Middleware], context: JobContext, call: CallNext) -> CallNext:
    """A call that goes through the middleware, the first one outermost, to `call`."""
    for fn in reversed(chain):
        call = partial(fn, context, call)
    return call


def to_inner(ended: Ended) -> Ended:
    """The `ended` of executors some of whose attempts have middleware around them."""

    def inner_ended(execution: Execution, outcome: Outcome) -> None:
        if execution.inner is None:
            ended(execution, outcome)
        else:
            execution.inner.end(outcome)

    return inner_ended


class Around:
    """Runs the middleware of one job type around what an executor does; the first is the outermost. `grace`: seconds
    that a handler which was given up has to stop by itself, before its process is killed."""

    def __init__(
        self,
        inner: Executor,
        chain: Sequence[Middleware],
        ended: Ended,
        limits: Limits,
        *,
        clock: Clock,
        grace: float,
    ) -> None:
        self._inner = inner
        self._chain = chain
        self._ended = ended
        self._limits = limits
        self._clock = clock
        self._grace = grace
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, execution: Execution) -> None:
        inner = execution.inner = Inner()
        inner.task = self._loop.create_task(self._perform(execution, inner))
        self._tasks.add(inner.task)
        inner.task.add_done_callback(self._tasks.discard)

    def stop(self, execution: Execution, *, kill: bool) -> None:
        if execution.context is not None:
            execution.context.request_stop()
        inner = execution.inner
        if inner is None or inner.task is None:
            return
        if inner.running:
            self._inner.stop(execution, kill=kill)
            return
        inner.task.cancel()
        if not inner.started:  # as in `Tasks`
            inner.over = True
            self._ended(execution, TimedOut())

    async def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()

    async def _perform(self, execution: Execution, inner: Inner) -> None:
        inner.started = True
        if self._limits.bind is not None:
            self._limits.bind(execution.assignment)
        assert execution.context is not None
        call = chained(self._chain, execution.context, partial(self._call, execution, inner))
        try:
            value = await call()
            inner.over = True
            outcome = self._concluded(value, execution, inner)
        except BaseException as exc:
            inner.over = True
            if self._loop.is_closed():  # the coroutine is only being thrown away
                raise
            outcome = self._failed(exc, execution, inner)
        await self._until_idle(execution, inner)
        inner.returned = inner.written = inner.raised = None  # its traceback leads back here
        self._ended(execution, outcome)

    async def _call(self, execution: Execution, inner: Inner) -> Any:
        """The innermost `call_next`: executes the handler, as often as it is called, but once at a time."""
        if inner.over:
            raise RuntimeError("call_next() was called when its middleware had ended")
        if inner.running:
            raise RuntimeError("call_next() was called while it ran")
        if execution.why is not Why.RUNNING:
            raise asyncio.CancelledError
        inner.begin()
        if execution.context is not None:  # what the middleware gave up before was told to stop
            execution.context.withdraw_stop()
        execution.started, execution.task = False, None
        self._inner.start(execution)
        given_up = False
        while inner.running:
            try:
                await inner.ended()
            except asyncio.CancelledError:
                if self._closed:
                    raise
                if inner.running:  # else it has finished first
                    given_up = True
                    self._give_up(execution, inner)
        if given_up:
            raise asyncio.CancelledError
        return inner.answer(_adapter(execution), apart=execution.kind.handler.origin is not None)

    async def _until_idle(self, execution: Execution, inner: Inner) -> None:
        if inner.running and not self._closed:
            job = execution.assignment
            log.warning("middleware ended before its call_next(): job %s, type %s", job.job_id, job.type)
        while inner.running and not self._closed:
            self._give_up(execution, inner)
            with suppress(asyncio.CancelledError):
                await inner.ended()

    def _give_up(self, execution: Execution, inner: Inner) -> None:
        """Tells the handler to stop. One that runs in a process ends with it when its grace is over."""
        self._inner.stop(execution, kill=False)
        if inner.killing is None and execution.kind.handler.origin is not None:
            inner.killing = self._loop.create_task(self._kill(execution))
            self._tasks.add(inner.killing)
            inner.killing.add_done_callback(self._tasks.discard)

    async def _kill(self, execution: Execution) -> None:
        await self._clock.sleep(self._grace)
        self._inner.stop(execution, kill=True)

    def _concluded(self, value: Any, execution: Execution, inner: Inner) -> Outcome:
        adapter = _adapter(execution)
        if (kept := inner.kept(value, adapter)) is not None:
            return kept
        if execution.kind.handler.origin is None:
            return conclude(value, execution, self._limits)
        return admitted(encode(value, adapter), self._limits.admit, self._limits.max_bytes)

    def _failed(self, exc: BaseException, execution: Execution, inner: Inner) -> Outcome:
        passed = inner.passed(exc)
        if passed is None:
            return failed(execution, exc)
        if inner.unlogged is not None and execution.why is Why.RUNNING:
            log_failure(execution, inner.unlogged)
        return passed


def _adapter(execution: Execution) -> TypeAdapter[Any] | None:
    """By what a result of middleware is written. A process made JSON by the declared type, which is not done again."""
    handler = execution.kind.handler
    return handler.signature.result if handler.origin is None else None


def _written(value: Any, adapter: TypeAdapter[Any] | None) -> Content | None:
    """How a value would be written now; None when it cannot be, or cannot change."""
    if not isinstance(value, _UNCHANGING):
        with suppress(Exception):  # a closed session may raise anything
            return encode(value, adapter)
    return None


def decoded(content: Content) -> Any:
    """The value of JSON, or the bytes."""
    return msgspec.json.decode(content.data) if content.is_json else content.data


def _exception(outcome: Outcome | None) -> BaseException:
    match outcome:
        case Failed(failure, _, int(pause)):
            return RetryIn(pause / SECOND, failure.message, reason=failure.reason)
        case Failed(failure, False) if failure.code == Code.FAILED_PRECONDITION:
            return FailNow(failure.message, reason=failure.reason)
        case Failed(failure):
            return HandlerFailed(failure.message, reason=failure.reason)
        case Released(delay):
            return GiveBack(delay / SECOND)
        case _:
            return asyncio.CancelledError()
