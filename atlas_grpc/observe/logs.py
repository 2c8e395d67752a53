"""Structured logs: one JSON object (or one line of text) for each event, on stderr.

A program calls `configure` once; modules log through `get_logger(__name__)`:

    log = get_logger("atlas.server")
    log.info("listening", address="127.0.0.1:50051")
    → {"time":"2031-05-04T12:00:00.000001Z","level":"info","logger":"atlas.server","event":"listening","address":…}

The loggers of the standard library (grpc, uvicorn, asyncio, a user's own) and structlog's default configuration take
the same way. Until `configure` is called, as in a program that only embeds a part of Atlas, events go to the standard
library's logger of that name, and it is up to that program what becomes of them.

The name of an event is constant; what varies stands in fields. Payloads, results and messages are never written: fields
of such names are withheld, and of an object that is not a plain value only the type is shown.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO

import msgspec
import structlog

from ..clock import SystemClock
from . import safe
from .trace import TraceContext, parse_traceparent, trace_id_of
from .writer import LineWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token
    from types import TracebackType

    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

    from .safe import Plain

__all__ = [
    "LogPipeline",
    "Logger",
    "TraceContext",
    "bind_job",
    "configure",
    "get_logger",
    "parse_traceparent",
    "trace_id_of",
]

Level = Literal["debug", "info", "warning", "error", "critical"]
Format = Literal["json", "text", "auto"]

_RESERVED = frozenset({"time", "level", "logger", "event", "exception"})
_MAX_EVENT = 500
_MAX_LINE = 32 * 1024
_CALLER_LEFT = "ExecuteBatchError"
"""What gRPC logs as an error, with a stack, whenever a caller is gone before its answer could be sent."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}


class _Binding(msgspec.Struct, frozen=True, gc=False):
    job_id: str
    namespace: str
    traceparent: str


_bound: ContextVar[_Binding | None] = ContextVar("atlas_log_binding", default=None)


class bind_job:  # noqa: N801 - used like a function
    """Puts job_id, namespace, trace_id and span_id on every line of this context, and of tasks it starts.

    It holds from the call on; as a context manager, until the end of the block. The trace ids are left out when
    `traceparent` is empty or invalid.
    """

    __slots__ = ("_token",)

    def __init__(self, job_id: str, namespace: str, traceparent: str = "") -> None:
        self._token: Token[_Binding | None] = _bound.set(_Binding(job_id, namespace, traceparent))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _bound.reset(self._token)


class Logger:
    """A named logger. Each level takes the event and its fields; a level that is off costs a tenth of a microsecond.

    `exception` logs at error level with the exception that is being handled; `exc_info=error` adds a given one at any
    level.
    """

    __slots__ = ("bind", "critical", "debug", "error", "exception", "info", "name", "warning")

    name: str
    debug: Callable[..., None]
    info: Callable[..., None]
    warning: Callable[..., None]
    error: Callable[..., None]
    critical: Callable[..., None]
    exception: Callable[..., None]
    bind: Callable[..., FilteringBoundLogger]

    def __init__(self, name: str) -> None:
        self.name = name

    def point_to(self, target: FilteringBoundLogger) -> None:
        """Sends what is logged from now on to `target`."""
        self.debug, self.info, self.warning = target.debug, target.info, target.warning
        self.error, self.critical, self.exception = target.error, target.critical, target.exception
        self.bind = target.bind


class _Named:
    """What structlog takes for the wrapped logger: the name, and a receiver of what `_to_stdlib` or `_to_sink` left."""

    def __init__(self, name: str = "app") -> None:
        self.name = name


def _to_stdlib(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The way before `configure`: a plain record of the standard library."""
    target = logging.getLogger(logger.name)
    level = logging.getLevelNamesMapping()[method.upper()]
    if target.isEnabledFor(level):
        exc_info = event.pop("exc_info", None)
        text = safe.text(event.pop("event", ""), _MAX_EVENT)
        fields = "".join(f" {name}={_quoted(safe.field(name, value))}" for name, value in event.items())
        target.log(level, "%s", text + fields, exc_info=exc_info)
    raise structlog.DropEvent


_loggers: dict[str, Logger] = {}
_pipeline: LogPipeline | None = None


def get_logger(name: str) -> Logger:
    """The logger of that name. It follows `configure`, whenever that is called."""
    logger = _loggers.get(name)
    if logger is None:
        logger = _loggers[name] = Logger(name)
        logger.point_to(_target(name))
    return logger


def _target(name: str) -> FilteringBoundLogger:
    if _pipeline is None:
        processor, level = _to_stdlib, logging.DEBUG
    else:
        processor, level = _pipeline.process, _pipeline.level
    target: FilteringBoundLogger = structlog.wrap_logger(
        _Named(name),
        processors=[processor],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
    ).bind()
    return target


class LogPipeline:
    """Renders events and hands them to the writer. Made by `configure`."""

    def __init__(self, level: int, fmt: Format, stream: TextIO, now: Callable[[], int]) -> None:
        terminal = _is_terminal(stream)
        self.level = level
        self.format: Literal["json", "text"] = ("text" if terminal else "json") if fmt == "auto" else fmt
        self._colour = terminal and "NO_COLOR" not in os.environ
        self._now = now
        self._writer = LineWriter(stream, on_drop=self._drop_line)

    @property
    def dropped(self) -> int:
        """How many lines were dropped because the stream did not take them in time."""
        return self._writer.dropped

    def flush(self, timeout: float = 2.0) -> bool:
        """Waits until what was logged so far is written, at most `timeout` seconds; whether it is."""
        return self._writer.flush(timeout)

    def close(self, timeout: float = 2.0) -> bool:
        """Writes what is left, at most for `timeout` seconds, and ends; whether all was written."""
        return self._writer.close(timeout)

    def process(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """The one processor of structlog's chain: it ends it."""
        error = event.pop("exc_info", None)
        name = event.pop("event", "")
        fields = {**structlog.contextvars.get_contextvars(), **event}
        self.emit(method, getattr(logger, "name", "app"), name, fields, _error_of(error))
        raise structlog.DropEvent

    def emit(
        self, level: str, logger: str, event: object, fields: Mapping[str, object], error: BaseException | None
    ) -> None:
        """Writes one line. Never raises."""
        try:
            record = self._record(level, logger, event, fields, error)
            line = self._line(record)
            if len(line) > _MAX_LINE:
                line = self._line({**self._record(level, logger, event, {}, None), "truncated": len(line)})
        except Exception as fault:
            line = self._line(
                self._record("error", "atlas.logs", "unprintable log line", {"fault": type(fault).__name__}, None)
            )
        self._writer.write(line)

    def _record(
        self, level: str, logger: str, event: object, fields: Mapping[str, object], error: BaseException | None
    ) -> dict[str, Plain]:
        record: dict[str, Plain] = {
            "time": _rfc3339(self._now()),
            "level": level,
            "logger": logger,
            "event": safe.text(event, _MAX_EVENT),
            **_context(),
        }
        for name, value in fields.items():
            record[f"{name}_" if name in _RESERVED else name] = safe.field(name, value)
        if error is not None:
            record["exception"] = safe.exception(error)
        return record

    def _line(self, record: dict[str, Plain]) -> bytes:
        if self.format == "json":
            line = msgspec.json.encode(record)
            return (line if line.isascii() else _visible(line.decode()).encode()) + b"\n"
        return _text_line(record, colour=self._colour).encode("utf-8", "backslashreplace")

    def _drop_line(self, count: int) -> bytes:
        return self._line(self._record("warning", "atlas.logs", "log lines dropped", {"count": count}, None))


class _StdlibHandler(logging.Handler):
    """The way of standard library records into the pipeline."""

    def __init__(self, pipeline: LogPipeline) -> None:
        super().__init__()
        self._pipeline = pipeline

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = record.getMessage()
        except Exception:
            event = safe.text(record.msg, _MAX_EVENT)
        error = record.exc_info[1] if record.exc_info else None
        level = record.levelname.lower()
        if type(error).__name__ == _CALLER_LEFT:
            if self._pipeline.level > logging.DEBUG:
                return
            level = "debug"
        self._pipeline.emit(level, record.name, event, {}, error)


def configure(
    level: Level | str = "info",
    fmt: Format = "auto",
    stream: TextIO | None = None,
    *,
    now: Callable[[], int] | None = None,
) -> LogPipeline:
    """Sends all logs of the process to `stream` (stderr), those of the standard library and of structlog included.

    `fmt` auto is text on a terminal, else json. `now` gives microseconds since 1970 UTC. A second call replaces the
    first. What is still to be written at exit is, for up to two seconds. Raises ValueError for an unknown level or
    format.
    """
    global _pipeline
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None or fmt not in ("json", "text", "auto"):
        msg = f"no such log level or format: {level!r}, {fmt!r}"
        raise ValueError(msg)
    previous, _pipeline = _pipeline, LogPipeline(number, fmt, stream or sys.stderr, now or SystemClock().now)
    if previous is None:
        atexit.register(_close_at_exit)
    for name, logger in _loggers.items():
        logger.point_to(_target(name))
    _route_structlog(_pipeline)
    _route_stdlib(_pipeline)
    if previous is not None:
        previous.close()
    return _pipeline


def _close_at_exit() -> None:
    if _pipeline is not None:
        _pipeline.close()


def _route_structlog(pipeline: LogPipeline) -> None:
    """For handlers that use structlog by themselves."""
    structlog.configure(
        processors=[pipeline.process],
        wrapper_class=structlog.make_filtering_bound_logger(pipeline.level),
        context_class=dict,
        logger_factory=_Named,
        cache_logger_on_first_use=False,
    )


def _route_stdlib(pipeline: LogPipeline) -> None:
    root = logging.getLogger()
    root.handlers[:] = [_StdlibHandler(pipeline)]
    root.setLevel(pipeline.level)
    for name in ("grpc", "grpc._cython.cygrpc", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # At debug, gRPC says of each call that it has found the event loop.
    logging.getLogger("grpc").setLevel(max(pipeline.level, logging.INFO))
    # What uvicorn says of requests and of its own start, metrics and the server's line say too.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def _context() -> dict[str, Plain]:
    binding = _bound.get()
    if binding is None:
        return {}
    bound: dict[str, Plain] = {"job_id": binding.job_id, "namespace": binding.namespace}
    trace = parse_traceparent(binding.traceparent) if binding.traceparent else None
    if trace is not None:
        bound["trace_id"], bound["span_id"] = trace
    return bound


def _error_of(exc_info: Any) -> BaseException | None:
    """The exception meant by structlog's `exc_info`: True, an exception, or a triple."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple) and len(exc_info) == 3:
        return exc_info[1] if isinstance(exc_info[1], BaseException) else None
    return sys.exception() if exc_info else None


def _rfc3339(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _text_line(record: dict[str, Plain], *, colour: bool) -> str:
    level = str(record["level"])
    shown = f"\x1b[{_COLOURS.get(level, '0')}m{level:<8}\x1b[0m" if colour else f"{level:<8}"
    fields = "".join(f" {_visible(name)}={_quoted(value)}" for name, value in list(record.items())[4:])
    said = _visible(f"{record['logger']}: {record['event']}")
    return f"{record['time']} {shown} {said}{fields}\n"


def _visible(text: str) -> str:
    """One line, whatever the text holds: nobody forges a second one, steers the terminal or turns what it shows round.

    What cannot be printed is escaped as in JSON; msgspec does so with control characters below 32 only.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def _quoted(value: Plain) -> str:
    if isinstance(value, str) and value.isprintable() and value and not any(sign in value for sign in ' "='):
        return value
    return _visible(msgspec.json.encode(value).decode())


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (ValueError, AttributeError):
        return False
