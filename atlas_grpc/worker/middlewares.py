"""`@middleware`: marks a coroutine function as code around attempts. `around` runs it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .callables import name_of
from .context import JobContext
from .problems import InvalidHandler

if TYPE_CHECKING:
    from collections.abc import Sequence

CallNext = Callable[[], Awaitable[Any]]
"""Executes what a middleware is around. Answers what the handler returned, or raises what it raised."""
Middleware = Callable[[JobContext, CallNext], Awaitable[Any]]

M = TypeVar("M", bound=Middleware)

MARK = "__atlas_middleware__"


@dataclass(frozen=True, slots=True)
class Reach:
    """Which job types a middleware is around."""

    types: tuple[str, ...] = ("*",)

    def covers(self, name: str) -> bool:
        """Whether it is around that job type."""
        return any(fnmatchcase(name, pattern) for pattern in self.types)


@overload
def middleware(fn: M, /) -> M: ...


@overload
def middleware(*, types: Sequence[str] = ("*",)) -> Callable[[M], M]: ...


def middleware(fn: Any = None, /, *, types: Sequence[str] = ("*",)) -> Any:
    """Makes a coroutine function code around every attempt, bare or with arguments: `async def f(ctx, call_next)`.

    It runs in the worker's event loop, whatever executes the handler. `return await call_next()` executes the handler,
    with its dependencies; what the middleware returns is the result, and what it raises is what the attempt ends with.
    `types`: the job types that it is around, where `*` stands for any characters; all of the registry by default. The
    first that a registry got is the outermost. Raises `InvalidHandler`.
    """

    def mark(fn: M) -> M:
        setattr(fn, MARK, checked_reach(fn, types))
        return fn

    return mark if fn is None else mark(fn)


def checked_reach(fn: Any, types: Sequence[str]) -> Reach:
    """The options of `middleware` for that function. Raises `InvalidHandler`."""
    name = name_of(fn)
    if not inspect.iscoroutinefunction(fn):
        raise InvalidHandler(name, "must be a coroutine function, `async def f(ctx, call_next)`", kind="middleware")
    try:
        inspect.signature(fn).bind(None, None)
    except TypeError:
        raise InvalidHandler(name, "must take two arguments, `ctx` and `call_next`", kind="middleware") from None
    if getattr(fn, "__annotations__", {}).get("return", Any) in (None, "None"):
        raise InvalidHandler(name, "must return what `call_next()` answers, and says None", kind="middleware")
    given: object = types
    if isinstance(given, str) or not types or not all(types):
        raise InvalidHandler(name, "types must be a list of job types, or of patterns of them", kind="middleware")
    return Reach(tuple(types))
