"""Functions that users write: what their annotations say, and how one comes by what they make."""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager, contextmanager
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, get_type_hints

from ..model import Content
from .context import JobContext
from .problems import InvalidHandler

if TYPE_CHECKING:
    from collections.abc import Callable


class Style(Enum):
    """How the value of a call is to be had."""

    CALL = auto()
    """It is what is returned."""
    AWAIT = auto()
    WITH = auto()
    """It is what a context manager gives; leaving that cleans up."""
    ASYNC_WITH = auto()

    @property
    def asynchronous(self) -> bool:
        return self in (Style.AWAIT, Style.ASYNC_WITH)


def styled(fn: Callable[..., Any]) -> tuple[Callable[..., Any], Style]:
    """What to call for a function, a class or an object that can be called, and the style of what that returns.
    Generator functions become context managers."""
    body = _body(fn)
    if inspect.isasyncgenfunction(body):
        return asynccontextmanager(fn), Style.ASYNC_WITH
    if inspect.isgeneratorfunction(body):
        return contextmanager(fn), Style.WITH
    if inspect.iscoroutinefunction(body):
        return fn, Style.AWAIT
    wrapped = inspect.unwrap(body)  # contextlib's decorators leave the generator there
    if inspect.isasyncgenfunction(wrapped):
        return fn, Style.ASYNC_WITH
    if inspect.isgeneratorfunction(wrapped):
        return fn, Style.WITH
    return fn, Style.CALL


def hints_of(owner: str, fn: Callable[..., Any], *, result: bool) -> dict[str, Any]:
    """The annotations of the parameters, and that of the result if it is of interest: its names need not be there at
    run time otherwise. Raises `InvalidHandler`, for the handler `owner`."""
    body = _body(fn)
    # A module may import JobContext for type checkers only.
    # A decorator may come from another module than what it wraps, and it is the latter's names that count.
    names = {"JobContext": JobContext, "Content": Content, **getattr(inspect.unwrap(body), "__globals__", {})}
    try:
        return get_type_hints(body if result else _without_result(body), globalns=names, include_extras=True)
    except Exception as exc:
        whose = "its annotations" if owner == name_of(fn) else f"the annotations of {name_of(fn)}"
        raise InvalidHandler(owner, f"{whose} cannot be read: {type(exc).__name__}: {exc}") from exc


def is_context(parameter: inspect.Parameter, hints: dict[str, Any]) -> bool:
    """Whether the parameter asks for the `JobContext`: by its annotation, or without one by its name."""
    hint = hints.get(parameter.name)
    return hint is JobContext or (hint is None and parameter.name == "ctx")


def name_of(fn: Callable[..., Any]) -> str:
    """What people call it."""
    if isinstance(fn, partial):
        return name_of(fn.func)
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else type(fn).__qualname__


def _without_result(body: Callable[..., Any]) -> Callable[..., Any]:
    def stand_in() -> None: ...

    annotations = getattr(body, "__annotations__", {})
    stand_in.__annotations__ = {name: hint for name, hint in annotations.items() if name != "return"}
    return stand_in


def _body(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function that has the annotations and the code."""
    if isinstance(fn, partial):
        return _body(fn.func)
    if inspect.isclass(fn):
        return fn.__init__
    if inspect.isroutine(fn):
        return fn
    return type(fn).__call__
