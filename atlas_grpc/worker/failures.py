"""What an exception of a handler makes of its attempt."""

from __future__ import annotations

import re
import traceback

from ..errors import LONGEST_PAUSE, Code, FailNow, GiveBack, RetryIn
from ..model import SECOND, Failed, Failure, Released
from ..options import format_duration, format_size
from .problems import LifespanFailed, PayloadRefused, ResultRefused
from .text import REASON, clean

MAX_MESSAGE = 4 * 1024
"""Bytes of an error's message."""
MAX_FRAMES = 16 * 1024
"""Bytes of a traceback in the log."""
_WORD_END = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def outcome_of(exc: BaseException) -> Failed | Released:
    """What becomes of an attempt whose handler raised this. Never raises, whatever the exception does when asked."""
    try:
        return _outcome_of(exc)
    except BaseException:  # its attributes, and even its __class__, may be properties that raise anything
        return Failed(Failure(Code.UNKNOWN, "HANDLER_ERROR", "the handler raised what cannot be described"))


def _outcome_of(exc: BaseException) -> Failed | Released:
    match exc:
        case GiveBack():
            return Released(_pause(exc.delay))
        case RetryIn():
            failure = Failure(Code.UNAVAILABLE, _reason(exc, "RETRY_REQUESTED"), _text(exc.message))
            return Failed(failure, retry_in=_pause(exc.delay))
        case FailNow():
            failure = Failure(Code.FAILED_PRECONDITION, _reason(exc, "HANDLER_FAILED"), _text(exc.message))
            return Failed(failure, retryable=False)
        case ResultRefused():
            return refused(Code.INTERNAL, exc.reason, exc.message)
        case PayloadRefused():
            first = exc.violations[0]
            return refused(Code.INVALID_ARGUMENT, "INVALID_PAYLOAD", f"{first.field}: {first.description}")
        case LifespanFailed():  # what it raised is the worker's own affair, and may name the password of a database
            return Failed(Failure(Code.UNKNOWN, exc.reason, clean(f"lifespan {exc.lifespan} failed", MAX_MESSAGE)))
        case _:
            name, text = type(exc).__name__, _text(exc)
            message = clean(f"{name}: {text}", MAX_MESSAGE) if text else name
            return Failed(Failure(Code.UNKNOWN, _reason(exc, None), message))


def refused(code: Code, reason: str, message: str) -> Failed:
    """A failure that no retry can mend."""
    return Failed(Failure(code, reason, clean(message, MAX_MESSAGE)), retryable=False)


def died(how: str) -> Failed:
    """The process of the handler ended without a word."""
    return Failed(Failure(Code.ABORTED, "PROCESS_DIED", f"the process of the handler ended with {how}"))


def over_memory(limit: int) -> Failed:
    """The handler needed more memory than it may use."""
    text = f"the handler needed more than its memory limit of {format_size(limit)}"
    return Failed(Failure(Code.RESOURCE_EXHAUSTED, "MEMORY_LIMIT", text))


def over_cpu(limit: float) -> Failed:
    """The handler used more processor time than it may."""
    text = f"the handler used more than its limit of {format_duration(limit)} of processor time"
    return Failed(Failure(Code.RESOURCE_EXHAUSTED, "CPU_LIMIT", text))


def worth_logging(exc: BaseException) -> bool:
    """True for what its author did not ask for: the log gets its traceback."""
    return not issubclass(type(exc), RetryIn | FailNow | GiveBack | PayloadRefused)


class HandlerRaised(Exception):
    """Stands in the log for what a handler raised: its class and its traceback, but not its text, which may hold what
    the job was given and may be of any size."""


def stand_in(exc: BaseException) -> HandlerRaised:
    """For the log, in the process where it was raised."""
    return HandlerRaised(type(exc).__qualname__).with_traceback(exc.__traceback__)


def frames(exc: BaseException) -> str:
    """For the log of another process: the class and where it was raised. Of a lifespan, its text too, which holds
    nothing of a job."""
    what, raised = type(exc).__qualname__, exc
    if type(exc) is LifespanFailed:
        what, raised = clean(str(exc), MAX_MESSAGE), exc.__cause__ or exc
    lines = traceback.format_tb(raised.__traceback__, limit=-30)
    return f"{what}\n{clean(''.join(lines), MAX_FRAMES)}"


def _pause(seconds: float) -> int:
    return round(min(seconds, LONGEST_PAUSE) * SECOND)  # `delay` may have been set by hand


def _reason(exc: BaseException, default: str | None) -> str:
    try:
        own = getattr(exc, "reason", None)
    except BaseException:  # a property may raise anything
        own = None
    if isinstance(own, str) and REASON.fullmatch(own):
        return str.__str__(own)
    return default or _reason_of_class(type(exc).__name__)


def _reason_of_class(name: str) -> str:
    words = _WORD_END.sub("_", name).upper().strip("_")
    return words if REASON.fullmatch(words) else "HANDLER_ERROR"


def _text(what: object) -> str:
    try:
        text = str.__str__(str(what))  # plain, should it be of a subclass with methods of its own
    except BaseException:  # a broken __str__ may raise anything
        return "its text could not be made"
    return clean(text, MAX_MESSAGE)
