"""`@lifespan`: what a worker needs for as long as it lives, such as a pool of connections or a loaded model."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from .callables import Style, name_of, styled
from .problems import InvalidHandler, LifespanFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

L = TypeVar("L", bound="Callable[[], Any]")

Where = Literal["worker", "process"]

MARK = "__atlas_lifespan__"

LEAVE_TIME = 10.0
"""Seconds that an asynchronous lifespan has to be left, before it is cancelled."""
HURRIED_LEAVE_TIME = 1.0
CUT_TIME = 1.0
"""Seconds that it has to end then, before it is given up."""

log = logging.getLogger("atlas.worker")


@overload
def lifespan(fn: L, /) -> L: ...


@overload
def lifespan(*, where: Where | None = None) -> Callable[[L], L]: ...


def lifespan(fn: Any = None, /, *, where: Where | None = None) -> Any:
    """Makes a generator function with one `yield`, asynchronous or not, part of a worker's life; bare or with
    arguments. A function that returns a context manager, made by `contextlib`, will do too.

    It is entered before the first job is leased and left after the last one was handed in. It yields nothing or a dict:
    the dicts of all are `JobContext.state`. `where`: `"worker"` for once in the process of the worker or server,
    `"process"` for once in each process of handlers with `executor="process"`; by default an asynchronous one is
    entered in the worker and a plain one in both. When one fails to begin, the worker does not start; for a process
    of handlers, the attempt fails. Raises `InvalidHandler`.
    """

    def mark(fn: L) -> L:
        setattr(fn, MARK, Lifespan(fn, where).where)
        return fn

    return mark if fn is None else mark(fn)


class Lifespan:
    """A function that `lifespan` marked, checked. Raises `InvalidHandler`."""

    def __init__(self, fn: Callable[[], Any], where: Where | None = None) -> None:
        self.fn = fn
        self.name = name_of(fn)
        self.open, style = styled(fn)
        """Makes a context manager."""
        self.asynchronous = style is Style.ASYNC_WITH
        self.where = where
        if style not in (Style.WITH, Style.ASYNC_WITH):
            self._refuse("must be a generator function, with one `yield`")
        try:
            inspect.signature(fn).bind()
        except TypeError:
            self._refuse("must not need arguments")
        if where not in (None, "worker", "process"):
            self._refuse("where must be 'worker' or 'process'")
        if where == "process" and self.asynchronous:
            self._refuse("an asynchronous one cannot be entered in processes of handlers")

    @property
    def in_worker(self) -> bool:
        """Whether it is entered in the process of the worker."""
        return self.where != "process"

    @property
    def in_processes(self) -> bool:
        """Whether it is entered in processes of handlers."""
        return self.where == "process" or (self.where is None and not self.asynchronous)

    def _refuse(self, problem: str) -> None:
        raise InvalidHandler(self.name, problem, kind="lifespan")


class Lifespans:
    """Enters lifespans in order and leaves them in reverse, all in one task; `state` is what they yielded. `stuck` is
    set when one neither ends nor minds its cancellation."""

    def __init__(self, lifespans: Iterable[Lifespan]) -> None:
        self._waiting = list(lifespans)
        self._entered: list[tuple[Lifespan, Any]] = []
        self._state: dict[str, Any] = {}
        self.state: Mapping[str, Any] = MappingProxyType(self._state)
        self._patience = LEAVE_TIME
        self._leaving: asyncio.Timeout | None = None
        self._at_work = ""
        self._giving_up: asyncio.TimerHandle | None = None
        self.stuck = asyncio.Event()

    async def enter(self) -> None:
        """Enters those that were not entered yet. Raises `LifespanFailed`, with none of them entered."""
        for one in self._waiting[len(self._entered) :]:
            self._at_work = one.name
            try:
                manager = one.open()
                value = await manager.__aenter__() if one.asynchronous else manager.__enter__()
                self._entered.append((one, manager))
                self._keep(value)
                if self.stuck.is_set():
                    raise asyncio.CancelledError  # nobody waits for them any more
            except BaseException as exc:
                await self.leave()
                if isinstance(exc, Exception | SystemExit):
                    raise LifespanFailed(one.name, f"{type(exc).__name__}: {exc}") from exc
                raise

    async def leave(self) -> None:
        """Leaves those that were entered; what they raise goes to the log."""
        self._expect_no_more()
        while self._entered:
            one, manager = self._entered.pop()
            self._at_work = one.name
            try:
                if one.asynchronous:
                    async with asyncio.timeout(self._patience) as self._leaving:
                        self.expect(self._patience + CUT_TIME)
                        await manager.__aexit__(None, None, None)
                else:
                    manager.__exit__(None, None, None)
            except (Exception, SystemExit) as exc:
                late = self._leaving is not None and self._leaving.expired()
                how = "took too long to end" if late else "failed at its end"
                log.error("lifespan %s %s", one.name, how, exc_info=exc)
            finally:
                self._leaving = None
                self._expect_no_more()
        self._state.clear()

    def hurry(self) -> None:
        """Leaves little time to those that are left now or later."""
        self._patience = min(self._patience, HURRIED_LEAVE_TIME)
        end = asyncio.get_running_loop().time() + self._patience
        if self._leaving is not None and not self._leaving.expired():
            self._leaving.reschedule(min(end, self._leaving.when() or end))
        if self._giving_up is not None:
            self.expect(self._patience + CUT_TIME)

    def expect(self, seconds: float | None = None) -> None:
        """Gives the one at work up unless it has ended by then, or by an earlier time that was set; without a time, it
        was just cancelled."""
        loop = asyncio.get_running_loop()
        when = loop.time() + (self._patience if seconds is None else seconds)
        if self._giving_up is not None:
            when = min(when, self._giving_up.when())
            self._giving_up.cancel()
        self._giving_up = loop.call_at(when, self._give_up)

    def rest(self) -> Lifespans:
        """Those that are still to be left when one is stuck; nothing is left to this object."""
        rest = Lifespans(())
        rest._patience = self._patience
        rest._entered, self._entered = self._entered, []
        return rest

    def _expect_no_more(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _give_up(self) -> None:
        log.error("lifespan %s ignores its cancellation: it is given up", self._at_work)
        self.stuck.set()

    def _keep(self, value: object) -> None:
        if value is None:
            return
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise TypeError(f"it must yield nothing or a dict with names as keys, not a {type(value).__name__}")
        twice = self._state.keys() & value.keys()
        if twice:
            raise ValueError(f"another lifespan yields {', '.join(sorted(twice))} too")
        self._state.update(value)


class Life:
    """The lifespans of a runner: `begin` and `leave` are called by what it gives to `hold`, the others by anybody."""

    def __init__(self, lifespans: Iterable[Lifespan]) -> None:
        self._lifespans = Lifespans(lifespans)
        self._entering: asyncio.Task[Any] | None = None
        self._called_off = False
        self.begun = False
        self._tried = asyncio.Event()
        self._failure: LifespanFailed | None = None
        self._given_up: list[asyncio.Task[None]] = []
        self.state = self._lifespans.state

    async def hold(self, work: Coroutine[Any, Any, None]) -> None:
        """Awaits `work` in a task of its own, which is given up when a lifespan is stuck; the others are left then."""
        task = asyncio.create_task(work)
        stuck = asyncio.create_task(self._lifespans.stuck.wait())
        cancelled: asyncio.CancelledError | None = None
        while not task.done() and not stuck.done():
            try:
                await asyncio.wait((task, stuck), return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError as exc:
                cancelled = exc
                task.cancel()
                if self._entering is not None:
                    self._lifespans.expect()
        stuck.cancel()
        if task.done():
            return task.result()
        self._given_up.append(task)  # asyncio would not keep it
        self._called_off = True
        self._tried.set()
        self._lifespans = self._lifespans.rest()
        await self.hold(self._lifespans.leave())
        if cancelled is not None:
            raise cancelled
        return None

    async def begin(self) -> bool:
        """Enters the lifespans; False when it was called off first. Raises `LifespanFailed`."""
        if self._called_off:
            return False
        self._entering = task = asyncio.current_task()
        try:
            await self._lifespans.enter()
            if self._called_off:
                await self._lifespans.leave()
            self.begun = not self._called_off
        except asyncio.CancelledError:
            if task is None or not self._called_off:
                raise
            task.uncancel()
        except LifespanFailed as exc:
            self._failure = exc
            raise
        finally:
            self._entering = None
            self._tried.set()
        return self.begun

    async def leave(self) -> None:
        """Leaves them."""
        await self._lifespans.leave()

    def hurry(self) -> None:
        """Leaves little time to those that are left now or later."""
        self._lifespans.hurry()

    async def ready(self) -> None:
        """Returns when they are entered, or will never be. Raises `LifespanFailed` as `begin` did."""
        await self._tried.wait()
        if self._failure is not None:
            raise self._failure

    async def call_off(self) -> bool:
        """Sees to it that they are not entered, unless they are. Answers whether they are not."""
        first, self._called_off = not self._called_off, True
        if self._entering is None:
            self._tried.set()
        else:
            if first:
                self._entering.cancel()
                self._lifespans.expect()
            await self._tried.wait()
        return not self.begun


def at_once(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine that awaits nothing, where there is no event loop: `Lifespans` of plain ones only."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("it awaits something")
