"""`@handler`: marks a function as the handler of a job type. It changes nothing else, and keeps no global list."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, overload

from ..model import SECOND, RetryPolicy
from ..options import parse_size
from .problems import InvalidHandler
from .text import REASON

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

F = TypeVar("F", bound="Callable[..., Any]")

MARK = "__atlas_handler__"

Executor = Literal["task", "thread", "process"]

DAY = 86_400
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}", re.ASCII)
_QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)


class RetryOptions(TypedDict, total=False):
    """What should differ from the default `RetryPolicy`. Pauses in seconds or as timedelta."""

    max_attempts: int
    initial_backoff: float | timedelta
    multiplier: float
    max_backoff: float | timedelta
    jitter: float
    non_retryable: Sequence[str]


@dataclass(frozen=True, slots=True)
class Options:
    """What a decorator said about a function, checked. Times in microseconds."""

    name: str
    description: str
    queue: str
    retry: RetryPolicy
    attempt_timeout: int | None
    total_timeout: int | None
    concurrency: int
    executor: Executor
    memory_limit: int | None = None
    """Bytes."""
    cpu_limit: int | None = None


@overload
def handler(fn: F, /) -> F: ...


@overload
def handler(
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
) -> Callable[[F], F]: ...


def handler(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Makes a function the handler of a job type, bare or with arguments.

    `name`: the job type; the function's name by default. `queue`: where its jobs wait by default. `retry`: what differs
    from 3 attempts, 1 s, doubling. `attempt_timeout`, `total_timeout`: seconds or timedelta. `concurrency`: how many of
    its jobs one worker executes at a time, 0 for as many as it has room for. `executor`: `task` for `async def` and
    `thread` for `def` by themselves; `"process"` for CPU-bound work in `def`, which must stand at the top of a module.
    `memory_limit` (bytes, or a text such as `"512MiB"`) and `cpu_limit` (seconds or timedelta): what one attempt in a
    process may use.

    The arguments are one model (`def f(args: Model, ctx: JobContext)`) or plain parameters (`def f(path: str, level:
    int = 3, *, ctx: JobContext)`); both are validated when a job is submitted. Raises `InvalidHandler`.
    """
    if fn is not None:
        return _mark(fn, options)
    return lambda fn: _mark(fn, options)


def _mark(fn: F, options: dict[str, Any]) -> F:
    unknown = set(options) - _OPTIONS
    if unknown:
        raise InvalidHandler(getattr(fn, "__qualname__", repr(fn)), f"there is no option {', '.join(sorted(unknown))}")
    setattr(fn, MARK, checked_options(fn, **options))
    return fn


def checked_options(
    fn: Callable[..., Any],
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
) -> Options:
    """The options of `handler` for that function. Raises `InvalidHandler`."""
    if not inspect.isfunction(fn):
        raise InvalidHandler(repr(fn), "only a function can be a handler")
    check = _Check(fn.__qualname__)
    check.that(not inspect.isgeneratorfunction(fn) and not inspect.isasyncgenfunction(fn), "must not be a generator")
    check.that(_is_whole(concurrency) and 0 <= concurrency < 2**31, "concurrency must be a whole number, 0 or more")
    doc = inspect.getdoc(fn) or ""
    ran_by = check.executor(fn, executor)
    for what, limit in (("memory_limit", memory_limit), ("cpu_limit", cpu_limit)):
        check.that(limit is None or ran_by == "process", f"{what} needs executor 'process'")
    return Options(
        name=check.name("job type", fn.__name__ if name is None else name, _NAME),
        description=" ".join(doc.split("\n\n", 1)[0].split()),
        queue=check.name("queue", queue, _QUEUE),
        retry=check.retry(retry),
        attempt_timeout=check.timeout("attempt_timeout", attempt_timeout, 30 * DAY),
        total_timeout=check.timeout("total_timeout", total_timeout, 366 * DAY),
        concurrency=concurrency,
        executor=ran_by,
        memory_limit=check.size("memory_limit", memory_limit),
        cpu_limit=check.cpu("cpu_limit", cpu_limit),
    )


_OPTIONS = set(inspect.signature(checked_options).parameters) - {"fn"}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class _Check:
    """Checks options of one handler; a failure names it."""

    def __init__(self, owner: str) -> None:
        self._owner = owner

    def that(self, holds: bool, problem: str) -> None:
        if not holds:
            raise InvalidHandler(self._owner, problem)

    def micros(self, what: str, value: float | timedelta, longest: float) -> int:
        number = value.total_seconds() if isinstance(value, timedelta) else value
        self.that(_is_number(number), f"{what} must be seconds or a timedelta")
        self.that(0 <= number <= longest, f"{what} must be 0 to {longest:g} seconds")
        return round(number * SECOND)

    def timeout(self, what: str, value: float | timedelta | None, longest: float) -> int | None:
        if value is None:
            return None
        micros = self.micros(what, value, longest)
        self.that(micros > 0, f"{what} must be more than 0 seconds")
        return micros

    def cpu(self, what: str, value: float | timedelta | None) -> int | None:
        if value is None:
            return None
        micros = self.micros(what, value, 366 * DAY)
        self.that(micros >= SECOND, f"{what} must be 1 second or more")
        return micros

    def size(self, what: str, value: int | str | None) -> int | None:
        if value is None:
            return None
        try:
            size = parse_size(value)
        except ValueError:
            raise InvalidHandler(self._owner, f"{what} must be bytes or a text such as '512MiB'") from None
        self.that(2**20 <= size < 2**60, f"{what} must be 1 MiB or more")
        return size

    def number(self, what: str, value: float, low: float, high: float) -> float:
        self.that(_is_number(value) and low <= value <= high, f"{what} must be a number from {low:g} to {high:g}")
        return value

    def name(self, what: str, value: object, pattern: re.Pattern[str]) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise InvalidHandler(self._owner, f"{what} {value!r} must match {pattern.pattern}")
        return value

    def retry(self, given: RetryOptions | None) -> RetryPolicy:
        default = RetryPolicy()
        self.that(given is None or isinstance(given, dict), "retry must be a dict of options")
        options = given or RetryOptions()
        unknown = set(options) - set(RetryOptions.__annotations__)
        self.that(not unknown, f"retry has no option {', '.join(map(str, unknown))}")
        attempts = self.number("retry max_attempts", options.get("max_attempts", default.max_attempts), 1, 100)
        self.that(_is_whole(attempts), "retry max_attempts must be a whole number")
        reasons = options.get("non_retryable", default.non_retryable)
        self.that(len(reasons) <= 64, "retry non_retryable must be at most 64 reasons")
        return RetryPolicy(
            max_attempts=int(attempts),
            initial_backoff=self.micros(
                "retry initial_backoff", options.get("initial_backoff", default.initial_backoff / SECOND), 7 * DAY
            ),
            multiplier=float(self.number("retry multiplier", options.get("multiplier", default.multiplier), 1, 100)),
            max_backoff=self.micros(
                "retry max_backoff", options.get("max_backoff", default.max_backoff / SECOND), 7 * DAY
            ),
            jitter=float(self.number("retry jitter", options.get("jitter", default.jitter), 0, 1)),
            non_retryable=tuple(self.name("retry non_retryable reason", one, REASON) for one in reasons),
        )

    def executor(self, fn: Callable[..., Any], asked: str | None) -> Executor:
        natural: Executor = "task" if inspect.iscoroutinefunction(fn) else "thread"
        if asked is None or asked == natural:
            return natural
        self.that(asked == "process", f"executor must be 'process', or left out for {natural!r}")
        self.that(natural == "thread", "an async function cannot have executor 'process'")
        self.that("<" not in fn.__qualname__, "executor 'process' needs a function at the top of its module")
        return "process"
