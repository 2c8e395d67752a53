"""`Depends`: values that a handler is given beside its arguments, made for each attempt and cleaned up after it.

The plan of a handler is drawn up once, when it is registered: each dependency stands in it once, after those that it
needs itself. A context manager among them is left when the attempt is over, the last one first, and sees what the
handler raised. It cannot make a success of a failure, but what it raises itself replaces the outcome: so a commit after
`yield` that fails makes the attempt fail. That is why all are left before the outcome is reported.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args, get_origin

from .callables import Style, hints_of, is_context, name_of, styled
from .problems import InvalidHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, ExitStack

    from .context import JobContext

    Overrides = Mapping[Callable[..., Any], Callable[..., Any]]

_CONTEXT = -1


@dataclass(frozen=True, slots=True)
class Depends:
    """Marks a parameter as a dependency: `session: Annotated[Session, Depends(get_session)]`.

    `get_session` is a function, a coroutine function, a generator function with one `yield` or an asynchronous one, or
    a class; left out, it is the annotated type. It is called once for each attempt, however many ask for it. It may
    have dependencies and ask for the `JobContext` itself. What comes after its `yield` runs when the attempt is over,
    before the outcome is reported. A plain handler cannot have a dependency that is asynchronous.
    """

    dependency: Callable[..., Any] | None = None


class _Step(NamedTuple):
    call: Callable[..., Any]
    style: Style
    takes: tuple[tuple[str, int], ...]
    """Parameters, each with the step that makes its value."""


class Plan:
    """How the dependencies of a handler are made. Raises `InvalidHandler` for those that cannot be."""

    __slots__ = ("_asynchronous", "_overrides", "_owner", "_places", "_steps", "_wanted", "overridden", "takes_context")

    def __init__(
        self, owner: str, wanted: Mapping[str, Callable[..., Any]], overrides: Overrides, *, asynchronous: bool
    ) -> None:
        self._owner = owner
        self._overrides = overrides
        self._asynchronous = asynchronous
        self._places: dict[Callable[..., Any], int] = {}
        self._steps: list[_Step] = []
        self.takes_context = False
        """Whether any of them asks for the `JobContext`."""
        self.overridden: list[str] = []
        """The names of those that another one stands in for."""
        self._wanted = tuple((name, self._place(fn, ())) for name, fn in wanted.items())

    def open(self, context: JobContext | None, stack: ExitStack) -> dict[str, Any]:
        """Makes all, and answers the arguments of the handler; leaving the stack cleans up. None is asynchronous."""
        made: list[Any] = []
        for call, style, takes in self._steps:
            value = call(**_arguments(takes, made, context))
            if style is Style.WITH:
                manager, value = value, value.__enter__()
                stack.push(partial(_leave, manager))
            made.append(value)
        return _arguments(self._wanted, made, context)

    async def open_async(self, context: JobContext | None, stack: AsyncExitStack) -> dict[str, Any]:
        """The same for a coroutine function."""
        made: list[Any] = []
        for call, style, takes in self._steps:
            value = call(**_arguments(takes, made, context))
            match style:
                case Style.AWAIT:
                    value = await value
                case Style.WITH:
                    manager, value = value, value.__enter__()
                    stack.push(partial(_leave, manager))
                case Style.ASYNC_WITH:
                    manager, value = value, await value.__aenter__()
                    stack.push_async_exit(partial(_leave_async, manager))
                case Style.CALL:
                    pass
            made.append(value)
        return _arguments(self._wanted, made, context)

    def _place(self, fn: Callable[..., Any], path: tuple[Callable[..., Any], ...]) -> int:
        """The step that makes the value of `fn`, which those of `path` need, each for the one before."""
        try:
            standing_in = self._overrides.get(fn)
        except TypeError:
            raise InvalidHandler(self._owner, f"dependency {name_of(fn)} must be hashable") from None
        if standing_in is not None:
            self.overridden.append(name_of(fn))
            fn = standing_in
        if fn in path:
            cycle = " → ".join(name_of(one) for one in (*path[path.index(fn) :], fn))
            raise InvalidHandler(self._owner, f"its dependencies form a cycle: {cycle}")
        if fn not in self._places:
            call, style = styled(fn)
            if style.asynchronous and not self._asynchronous:
                raise InvalidHandler(
                    self._owner, f"dependency {name_of(fn)} is asynchronous, which a plain function cannot have"
                )
            takes = tuple(self._parameters(fn, (*path, fn)))
            self._places[fn] = len(self._steps)
            self._steps.append(_Step(call, style, takes))
        return self._places[fn]

    def _parameters(self, fn: Callable[..., Any], path: tuple[Callable[..., Any], ...]) -> Iterator[tuple[str, int]]:
        try:
            parameters = inspect.signature(fn).parameters.values()
        except ValueError:
            raise InvalidHandler(self._owner, f"the parameters of dependency {name_of(fn)} are unknown") from None
        hints = hints_of(self._owner, fn, result=False)
        for p in parameters:
            needed = dependency_of(self._owner, p, hints)
            if needed is None and not is_context(p, hints):
                if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                    problem = (
                        f"parameter {p.name!r} of dependency {name_of(fn)} is neither the context nor a dependency"
                    )
                    raise InvalidHandler(self._owner, problem)
                continue
            if p.kind is p.POSITIONAL_ONLY:
                problem = f"parameter {p.name!r} of dependency {name_of(fn)} must not be positional-only"
                raise InvalidHandler(self._owner, problem)
            if needed is None:
                self.takes_context = True
            yield p.name, _CONTEXT if needed is None else self._place(needed, path)


def dependency_of(owner: str, parameter: inspect.Parameter, hints: dict[str, Any]) -> Callable[..., Any] | None:
    """What makes the value of that parameter; None when it is no dependency. Raises `InvalidHandler`."""
    if isinstance(parameter.default, Depends):
        raise InvalidHandler(owner, f"parameter {parameter.name!r}: write Annotated[type, Depends(…)]")
    hint = hints.get(parameter.name)
    if get_origin(hint) is not Annotated:
        return None
    kind, *extras = get_args(hint)
    found = [extra for extra in extras if isinstance(extra, Depends) or extra is Depends]
    if not found:
        return None
    given = found[-1].dependency if isinstance(found[-1], Depends) else None
    made_by = kind if given is None else given
    if not callable(made_by):
        raise InvalidHandler(owner, f"parameter {parameter.name!r} depends on {made_by!r}, which cannot be called")
    return made_by


def _arguments(takes: tuple[tuple[str, int], ...], made: list[Any], context: JobContext | None) -> dict[str, Any]:
    return {name: context if place == _CONTEXT else made[place] for name, place in takes}


def _leave(manager: AbstractContextManager[Any], *raised: Any) -> None:
    """Answers None, so that whatever the handler raised goes on."""
    manager.__exit__(*raised)


async def _leave_async(manager: AbstractAsyncContextManager[Any], *raised: Any) -> None:
    await manager.__aexit__(*raised)
