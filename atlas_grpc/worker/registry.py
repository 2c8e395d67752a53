"""The handlers of a worker, by job type."""

from __future__ import annotations

from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from ..model import TypeInfo
from .decorator import MARK, Executor, F, Options, RetryOptions, checked_options
from .loading import load_module, origin_of
from .problems import DuplicateType, LoadFailed, NotAHandler
from .signature import Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from ..errors import Violation
    from ..model import Content


class Handler:
    """A function, how it is called and what it announces. Raises `InvalidHandler` when it cannot be one."""

    __slots__ = ("fn", "info", "options", "origin", "signature")

    def __init__(self, fn: Callable[..., Any], options: Options) -> None:
        self.fn = fn
        self.options = options
        self.signature = Signature(fn)
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


class Registry:
    """Handlers by job type. Empty at first; `load("atlas_grpc.worker.builtin")` brings `sleep`."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

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

    def load(self, spec: str) -> list[Handler]:
        """Adds all handlers of a dotted module or a `.py` file: marked functions, and those of its registries.

        Raises `LoadFailed` when it cannot be imported or holds none, and what `add` raises.
        """
        module = load_module(spec)
        added = [self._put(fn, options) for fn, options in _handlers_of(module)]
        if not added:
            raise LoadFailed(spec, "it holds no handlers: decorate functions with @handler")
        return added

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

    def _put(self, fn: Callable[..., Any], options: Options) -> Handler:
        there = self._handlers.get(options.name)
        if there is None:
            there = self._handlers[options.name] = Handler(fn, options)
        elif there.fn is not fn:
            raise DuplicateType(options.name, _name(there.fn), _name(fn))
        return there


def _handlers_of(module: ModuleType) -> Iterator[tuple[Callable[..., Any], Options]]:
    for value in list(vars(module).values()):
        if isinstance(value, Registry):
            for one in value:
                yield one.fn, one.options
        elif isinstance(value, FunctionType) and isinstance(options := getattr(value, MARK, None), Options):
            yield value, options


def _name(what: object) -> str:
    module, name = getattr(what, "__module__", None), getattr(what, "__qualname__", None)
    return f"{module}.{name}" if name else repr(what)
