"""Running a handler in a test, without a server or a worker: `run_handler`."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import msgspec

from .. import lifecycle
from ..errors import InvalidArgument
from ..model import EMPTY_OBJECT, SECOND, Content, JobSpec, State, Succeeded
from ..server.admission import objection
from ..worker.around import Inner, chained, decoded
from ..worker.decorator import MARK, Options
from ..worker.execution import Why, verdict_on
from ..worker.failures import outcome_of
from ..worker.lifespans import Lifespans
from ..worker.problems import NotAHandler, ResultRefused
from ..worker.registry import Handler, Registry
from ..worker.results import DEFAULT_MAX_BYTES, admitted, encode
from .context import FakeContext, fake_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from pydantic import TypeAdapter
    from typing_extensions import Unpack

    from ..model import Failure, Job, LogLine, Outcome, Progress
    from ..worker.lifespans import Lifespan
    from ..worker.middlewares import Middleware

    Included = Callable[..., Any] | Registry | str


@dataclass(frozen=True)
class HandlerRun:
    """What came of an attempt, and what would become of its job."""

    state: Literal["SUCCESS", "FAILED", "CANCELLED", "PENDING"]
    """Of the job after the attempt: PENDING when it would be tried again, or was given back."""
    outcome: Literal["SUCCEEDED", "FAILED", "CANCELLED", "RELEASED"]
    """Of the attempt."""
    result: Any
    """What a client would get: the value of the JSON, or bytes. None unless it succeeded."""
    error: Failure | None
    """What the job's error would be: `reason`, `message` and `code`. None when the attempt did not fail."""
    exception: BaseException | None
    """What was raised, by the handler or around it."""
    retry_in: float | None
    """Seconds until the next attempt may start, without jitter; None when there would be none."""
    progress: list[Progress]
    """All reports, in order, each with `current`, `total` and `message`."""
    logs: list[LogLine]
    """Each with `severity` and `message`."""


class RunOptions(TypedDict, total=False):
    """The options of `run_handler`."""

    ctx: FakeContext
    include: Sequence[Included]
    overrides: Mapping[Callable[..., Any], Callable[..., Any]]


async def run_handler(fn: Callable[..., Any], payload: object = None, **options: Unpack[RunOptions]) -> HandlerRun:
    """Makes an attempt with a handler: its payload is validated, dependencies are made and cleaned up, the result is
    written as JSON. Nothing is retried; the answer says what would be.

    `payload`: a dict, a model or a dataclass, bytes, or a `model.Content`. `ctx`: a context from `fake_context`, with
    the number of the attempt, a deadline, the state …, and what the handler declares where it says nothing; its
    `cancel()` stops the handler. `include`: middleware and
    lifespans that apply, and registries, modules or files that hold some. `overrides`: what stands in for dependencies.

    Coroutines run in this event loop, plain functions in a thread, those with `executor="process"` too: these have the
    state of a process, the middleware around them has that of a worker and sees JSON and `HandlerFailed`. Raises
    `errors.InvalidArgument` when a server would refuse the payload, and `NotAHandler`, `InvalidHandler` or
    `LifespanFailed`.
    """
    registry = _included(options.get("include", ()))
    there = next((one for one in registry if one.fn is fn), None)
    marked = _options_of(fn, there)
    in_process = marked.executor == "process"
    # What runs here is reached by overrides, and no process needs to find it.
    overrides = {**(there.overrides if there else {}), **options.get("overrides", {})}
    handler = Handler(fn, replace(marked, executor="thread") if in_process else marked, overrides)
    content = _content(payload, handler)
    ctx = options.get("ctx") or fake_context()
    ctx.fill_in(handler.info)
    chain = registry.around(handler.info.name)
    # Where the handler runs, and where its middleware does: a process apart has lifespans of its own.
    within = [one for one in registry.lifespans() if (one.in_processes if in_process else one.in_worker)]
    around = [one for one in registry.lifespans() if one.in_worker] if in_process and chain else []
    async with _entered(around) as outer, _entered(within) as inner:
        attempt = _Attempt(handler, content, ctx, inner, apart=in_process)
        with ctx.given(outer if in_process else inner):
            outcome = await attempt.outcome(chain)
    return _run(handler, content, ctx, outcome, attempt.raised)


def run_handler_sync(fn: Callable[..., Any], payload: object = None, **options: Unpack[RunOptions]) -> HandlerRun:
    """`run_handler` for tests that are plain functions."""
    return asyncio.run(run_handler(fn, payload, **options))


@asynccontextmanager
async def _entered(lifespans: Iterable[Lifespan]) -> AsyncIterator[Mapping[str, Any]]:
    entered = Lifespans(lifespans)
    await entered.enter()
    try:
        yield entered.state
    finally:
        await entered.leave()


class _Attempt:
    """Makes the attempt and keeps what it raised. `apart`: as one in a process, whose handler has that state."""

    def __init__(
        self, handler: Handler, content: Content, ctx: FakeContext, state: Mapping[str, Any], *, apart: bool
    ) -> None:
        self._handler = handler
        self._content = content
        self._ctx = ctx
        self._within = ctx.elsewhere(state) if apart else ctx
        self._apart = apart
        self._adapter = None if apart else handler.signature.result
        """By what a result of middleware is written."""
        self._inner = Inner()
        self._raised: BaseException | None = None
        self.raised: BaseException | None = None

    async def outcome(self, chain: Sequence[Middleware]) -> Outcome:
        call = chained(chain, self._ctx, self._call)
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._perform(call))
        if inspect.iscoroutinefunction(self._handler.fn):
            self._ctx.on_cancel(lambda: loop.call_soon_threadsafe(task.cancel))
        elif self._apart:
            self._ctx.on_cancel(self._within.request_stop)
        try:
            await asyncio.wait((task,))
        finally:  # the test may have been cancelled
            self._ctx.on_cancel(None)
            if not task.done():
                self._ctx.request_stop()
                self._within.request_stop()
                task.cancel()
                await asyncio.wait((task,))
        if task.cancelled():  # before its first step
            return outcome_of(asyncio.CancelledError())
        return task.result()

    async def _perform(self, call: Callable[[], Any]) -> Outcome:
        try:
            value = await call()
            return self._inner.kept(value, self._adapter) or _admitted(value, self._adapter)
        except BaseException as exc:  # as the worker does
            passed = self._inner.passed(exc)
            self.raised = exc if passed is None else self._raised
            return outcome_of(exc) if passed is None else passed

    async def _call(self) -> Any:
        signature, inner = self._handler.signature, self._inner
        inner.begin()
        if inspect.iscoroutinefunction(self._handler.fn):
            inner.end(await signature.perform_async(self._content, self._within, self._conclude))
        else:
            inner.end(await asyncio.to_thread(self._perform_plain))
        return inner.answer(self._adapter, apart=self._apart)

    def _perform_plain(self) -> Outcome:
        try:
            return self._handler.signature.perform(self._content, self._within, self._conclude)
        except BaseException as exc:
            if not self._apart:
                raise
            self._raised = exc
            return outcome_of(exc)

    def _conclude(self, value: Any) -> Succeeded:
        self._inner.returned = value
        return _admitted(value, self._handler.signature.result)


def _admitted(value: Any, adapter: TypeAdapter[Any] | None) -> Succeeded:
    return admitted(encode(value, adapter), _objection, DEFAULT_MAX_BYTES)


def _included(things: Sequence[Included]) -> Registry:
    registry = Registry()
    for thing in things:
        if isinstance(thing, str):
            registry.load(thing)
        else:
            registry.include(thing)
    return registry


def _options_of(fn: Callable[..., Any], there: Handler | None) -> Options:
    options = getattr(fn, MARK, None) or (there and there.options)
    if not isinstance(options, Options):
        raise NotAHandler(repr(fn))
    return options


def _content(payload: object, handler: Handler) -> Content:
    try:
        content = EMPTY_OBJECT if payload is None else encode(payload, None)
    except ResultRefused as exc:
        raise InvalidArgument.of("payload", exc.message) from exc
    if (problem := _objection(content)) is not None:
        raise InvalidArgument.of("payload", problem)
    if violations := handler.signature.violations(content):
        raise InvalidArgument.all_of(violations)
    return content


def _objection(content: Content) -> str | None:
    return objection(content, DEFAULT_MAX_BYTES)


def _run(
    handler: Handler, content: Content, ctx: FakeContext, outcome: Outcome, raised: BaseException | None
) -> HandlerRun:
    reported = verdict_on(Why.CANCELLED, outcome) if ctx.cancelled else outcome
    assert reported is not None
    job = _after(handler, content, ctx, reported)
    attempt = lifecycle.attempts(job)[-1]
    return HandlerRun(
        state=job.state.name,  # type: ignore[arg-type]
        outcome=attempt.outcome.name,  # type: ignore[arg-type]
        result=None if job.result is None else decoded(job.result),
        error=attempt.error,
        exception=raised,
        retry_in=(job.next_start - job.update_time) / SECOND if job.state is State.PENDING else None,
        progress=list(ctx.reports),
        logs=list(ctx.lines),
    )


def _after(handler: Handler, content: Content, ctx: FakeContext, outcome: Outcome) -> Job:
    """The job after the attempt, by the rules that the server has."""
    info = handler.info
    spec = JobSpec(
        id=ctx.id,
        namespace=ctx.namespace,
        type=info.name,
        queue=ctx.queue,
        payload=content,
        retry=msgspec.structs.replace(info.retry, max_attempts=ctx.max_attempts, jitter=0.0),
        create_time=0,
        start_time=0,
        retention=0,
    )
    before = msgspec.structs.replace(lifecycle.submitted(spec), attempt=ctx.attempt - 1, failures=ctx.attempt - 1)
    job = lifecycle.started(before, 0, session="", worker="test", fence=ctx.fence)
    if ctx.cancelled:
        job = lifecycle.request_cancel(job, 0, "", 0)
    return lifecycle.ended(job, 0, outcome, Random(0))
