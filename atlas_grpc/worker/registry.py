"""The handlers of a worker, by job type."""

from __future__ import annotations

from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from ..model import TypeInfo
from .decorator import MARK, Executor, F, Options, RetryOptions, checked_options
from .lifespans import MARK as LIFESPAN
from .lifespans import L, Lifespan, Where
from .loading import load_module, origin_of
from .middlewares import MARK as MIDDLEWARE
from .middlewares import M, Middleware, Reach, checked_reach
from .problems import DuplicateType, InvalidHandler, LoadFailed, NotAHandler
from .signature import Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import timedelta

    from ..errors import Violation
    from ..model import Content
    from .depends import Overrides
    from .loading import Origin

_NONE: Overrides = MappingProxyType({})


class Handler:
    """A function, how it is called and what it announces; `overrides` has what stands in for some of its dependencies.
    Raises `InvalidHandler` when it cannot be one."""

    __slots__ = ("fn", "info", "options", "origin", "overrides", "signature")

    def __init__(self, fn: Callable[..., Any], options: Options, overrides: Overrides = _NONE) -> None:
        self.fn = fn
        self.options = options
        self.overrides = overrides
        self.signature = Signature(fn, overrides)
        self.origin = origin_of(fn) if options.executor == "process" else None
        """Where a child process finds it; None when it runs in this one."""
        self.info = TypeInfo(
            name=options.name,
            description=options.description,
            payload_schema=self.signature.payload_schema(),
            result_schema=self.signature.result_schema(),
            queue=options.queue,
            retry=options.retry,
            attempt_timeout=options.attempt_timeout,
            total_timeout=options.total_timeout,
            concurrency=options.concurrency,
            executor=options.executor,
        )
        plan = self.signature.dependencies
        if self.origin is not None and plan is not None and plan.overridden:
            raise InvalidHandler(fn.__qualname__, f"no override of {plan.overridden[0]} reaches its process")


class _Placed(NamedTuple):
    """A middleware, what it is around, and whose handlers."""

    fn: Middleware
    reach: Reach
    of: Registry


class Registry:
    """Handlers by job type, the middleware around them and the lifespans that they need. Empty at first;
    `load("atlas_grpc.worker.builtin")` brings `sleep`.

    `overrides`, for tests: functions that stand in for dependencies, by those that they stand in for. They go with
    the handlers of this registry where another includes it, whose own come first.
    """

    def __init__(self, *, overrides: Overrides | None = None) -> None:
        self._overrides = overrides or _NONE
        self._handlers: dict[str, Handler] = {}
        self._middleware: list[_Placed] = []
        self._lifespans: list[Lifespan] = []

    def add(self, fn: Callable[..., Any]) -> Handler:
        """Adds a function that `@handler` marked; harmless when it was added before.

        Raises `NotAHandler`, `InvalidHandler` or `DuplicateType`.
        """
        options = getattr(fn, MARK, None) if isinstance(fn, FunctionType) else None
        if not isinstance(options, Options):
            raise NotAHandler(_name(fn))
        return self._put(fn, options)

    def handler(
        self,
        *,
        name: str | None = None,
        queue: str = "default",
        retry: RetryOptions | None = None,
        attempt_timeout: float | timedelta | None = None,
        total_timeout: float | timedelta | None = None,
        concurrency: int = 0,
        executor: Executor | None = None,
        memory_limit: int | str | None = None,
        cpu_limit: float | timedelta | None = None,
    ) -> Callable[[F], F]:
        """A decorator that adds the function here; the arguments are those of `atlas_grpc.worker.handler`."""

        def decorate(fn: F) -> F:
            options = checked_options(
                fn,
                name=name,
                queue=queue,
                retry=retry,
                attempt_timeout=attempt_timeout,
                total_timeout=total_timeout,
                concurrency=concurrency,
                executor=executor,
                memory_limit=memory_limit,
                cpu_limit=cpu_limit,
            )
            self._put(fn, options)
            return fn

        return decorate

    @overload
    def middleware(self, fn: M, /) -> M: ...

    @overload
    def middleware(self, /, *, types: Sequence[str] = ("*",)) -> Callable[[M], M]: ...

    def middleware(self, fn: M | None = None, /, *, types: Sequence[str] = ("*",)) -> M | Callable[[M], M]:
        """A decorator that puts a middleware around the handlers that this registry has or will have; the arguments are
        those of `atlas_grpc.worker.middleware`."""

        def place(fn: M) -> M:
            self._place(fn, checked_reach(fn, types), self)
            return fn

        return place if fn is None else place(fn)

    @overload
    def lifespan(self, fn: L, /) -> L: ...

    @overload
    def lifespan(self, /, *, where: Where | None = None) -> Callable[[L], L]: ...

    def lifespan(self, fn: L | None = None, /, *, where: Where | None = None) -> L | Callable[[L], L]:
        """A decorator that adds a lifespan; the arguments are those of `atlas_grpc.worker.lifespan`."""

        def enlist(fn: L) -> L:
            self._enlist(Lifespan(fn, where))
            return fn

        return enlist if fn is None else enlist(fn)

    def include(self, *things: Callable[..., Any] | Registry) -> list[Handler]:
        """Adds what `@handler`, `@middleware` and `@lifespan` marked, and what other registries hold: their middleware
        stays around their own handlers, and so do their overrides. Answers the handlers.

        Raises what `add` raises, and `InvalidHandler` for overrides of a handler that is there already, without them.
        """
        added: list[Handler] = []
        for thing in things:
            if isinstance(thing, Registry):
                added += [self._put(one.fn, one.options, one.overrides) for one in thing]
                for placed in thing._middleware:
                    self._place(*placed)
                for one in thing._lifespans:
                    self._enlist(one)
            elif isinstance(reach := _mark(thing, MIDDLEWARE), Reach):
                self._place(thing, reach, self)
            elif _is_marked(thing, LIFESPAN):
                self._enlist(Lifespan(thing, _mark(thing, LIFESPAN)))
            else:
                added.append(self.add(thing))
        return added

    def load(self, spec: str) -> list[Handler]:
        """Includes all that a dotted module or a `.py` file holds: marked functions, and registries. Answers the
        handlers.

        Raises `LoadFailed` when it cannot be imported or holds nothing, and what `add` raises.
        """
        found = [value for value in list(vars(load_module(spec)).values()) if _is_ours(value)]
        if not found:
            raise LoadFailed(spec, "it holds no handlers: decorate functions with @handler")
        return self.include(*found)

    def around(self, type_name: str) -> list[Middleware]:
        """The middleware around a job type, the outermost first."""
        covering = (
            one
            for one in self._middleware
            if (one.of is self or type_name in one.of._handlers) and one.reach.covers(type_name)
        )
        return list(dict.fromkeys(one.fn for one in covering))

    def lifespans(self) -> list[Lifespan]:
        """All of them, in order."""
        return list(self._lifespans)

    def process_lifespans(self) -> list[Origin]:
        """Where processes of handlers find those that they enter. Raises `InvalidHandler` for one that they cannot
        find."""
        if all(handler.origin is None for handler in self):
            return []
        return [_origin_of(one) for one in self._lifespans if one.in_processes]

    def types(self) -> list[TypeInfo]:
        """What each handler announces, by name."""
        return [self._handlers[name].info for name in sorted(self._handlers)]

    def get(self, name: str) -> Handler | None:
        """The handler of that job type."""
        return self._handlers.get(name)

    def violations(self, type_name: str, content: Content) -> list[Violation]:
        """What is wrong with the payload for that job type; empty when it may be submitted.

        Raises KeyError for a type that nobody handles.
        """
        return self._handlers[type_name].signature.violations(content)

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers.values())

    def __len__(self) -> int:
        return len(self._handlers)

    def _put(self, fn: Callable[..., Any], options: Options, overrides: Overrides = _NONE) -> Handler:
        """`overrides`: those that it brings from another registry."""
        wanted = {**overrides, **self._overrides}
        there = self._handlers.get(options.name)
        if there is None:
            there = self._handlers[options.name] = Handler(fn, options, wanted)
        elif there.fn is not fn:
            raise DuplicateType(options.name, _name(there.fn), _name(fn))
        elif any(there.overrides.get(real) is not fake for real, fake in wanted.items()):
            raise InvalidHandler(_name(fn), "it is there already, without the overrides of this registry")
        return there

    def _place(self, fn: Middleware, reach: Reach, of: Registry) -> None:
        if not any(one.fn is fn and one.of is of for one in self._middleware):
            self._middleware.append(_Placed(fn, reach, of))

    def _enlist(self, lifespan: Lifespan) -> None:
        if not any(one.fn is lifespan.fn for one in self._lifespans):
            self._lifespans.append(lifespan)


def _is_marked(thing: object, mark: str) -> bool:
    return isinstance(thing, FunctionType) and hasattr(thing, mark)


def _mark(thing: object, mark: str) -> Any:
    return getattr(thing, mark) if _is_marked(thing, mark) else None


def _is_ours(thing: object) -> bool:
    if isinstance(thing, Registry):
        return bool(thing._handlers or thing._middleware or thing._lifespans)
    return any(_is_marked(thing, mark) for mark in (MARK, MIDDLEWARE, LIFESPAN))


def _origin_of(lifespan: Lifespan) -> Origin:
    if "<" in lifespan.name:
        problem = "handlers with executor 'process' need it at the top of its module, or with where='worker'"
        raise InvalidHandler(lifespan.name, problem, kind="lifespan")
    return origin_of(lifespan.fn)


def _name(what: object) -> str:
    module, name = getattr(what, "__module__", None), getattr(what, "__qualname__", None)
    return f"{module}.{name}" if name else repr(what)
