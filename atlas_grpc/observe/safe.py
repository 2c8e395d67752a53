"""Turns whatever was logged into small, plain, printable values. Nothing here raises, whatever an object does."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]
"""A value that JSON can hold."""

WITHHELD = frozenset({"payload", "payload_data", "result", "result_data", "request", "response", "data", "body"})
"""Field names whose values are never written: what jobs are given and what they return is not for logs."""

MAX_TEXT = 2_000
MAX_MESSAGE = 1_000
_MAX_DEPTH = 4
_MAX_ITEMS = 50
_MAX_FRAMES = 24
_OUTER_FRAMES = 4
_MAX_CHAIN = 4


def text(value: object, limit: int = MAX_TEXT) -> str:
    """`str(value)`, at most `limit` characters and without lone surrogates."""
    try:
        full = str(value)
        # A subclass of str may override anything: take a plain one out of it.
        cut = str.__getitem__(full, slice(limit + 1))
        short = cut if len(cut) <= limit else f"{cut[:limit]}…"
        return short if short.isascii() else short.encode("utf-8", "backslashreplace").decode()
    except BaseException:
        return f"<unprintable {type(value).__name__}>"


def plain(value: object, depth: int = 0) -> Plain:
    """A JSON value for `value`: scalars and small containers as they are, of anything else only its type."""
    if value is None or value is True or value is False or type(value) is int:
        return value if not isinstance(value, int) or value.bit_length() <= 63 else text(hex(value))
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if isinstance(value, int):
        return plain(int(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, datetime | timedelta):
        return text(value)
    if isinstance(value, dict):
        return _mapping(value, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return _sequence(value, depth)
    return f"<{type(value).__qualname__}>"


def field(name: str, value: object) -> Plain:
    """The value of a field, unless the name says that it must not be written."""
    return "<withheld>" if name in WITHHELD else plain(value)


def exception(error: BaseException) -> dict[str, Plain]:
    """Type, message, stack and causes of an exception: a bounded structure without source lines or values."""
    return _exception(error, 0, set())


def _exception(error: BaseException, depth: int, seen: set[int]) -> dict[str, Plain]:
    seen.add(id(error))
    kind = type(error)
    described: dict[str, Plain] = {
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "message": text(error, MAX_MESSAGE),
        "stack": list(_stack(error.__traceback__)),
    }
    if isinstance(error, BaseExceptionGroup) and depth < _MAX_CHAIN:
        described["exceptions"] = [_exception(one, depth + 1, seen) for one in error.exceptions[:_MAX_CHAIN]]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and depth < _MAX_CHAIN and id(cause) not in seen:
        described["cause"] = _exception(cause, depth + 1, seen)
    return described


def _stack(traceback: TracebackType | None) -> Iterator[str]:
    """The frames, outermost first; the middle of a deep stack is left out."""
    frames = []
    while traceback is not None:
        frames.append((traceback.tb_frame.f_code, traceback.tb_lineno))
        traceback = traceback.tb_next
    skipped = len(frames) - _MAX_FRAMES
    for place, (code, line) in enumerate(frames):
        if skipped > 0 and _OUTER_FRAMES <= place < _OUTER_FRAMES + skipped:
            if place == _OUTER_FRAMES:
                yield f"… {skipped} more"
            continue
        yield f"{code.co_filename}:{line} {code.co_qualname}"


def _mapping(value: dict[object, object], depth: int) -> Plain:
    if depth >= _MAX_DEPTH:
        return f"<{len(value)} entries>"
    taken: dict[str, Plain] = {}
    for key, item in value.items():
        if len(taken) == _MAX_ITEMS:
            taken["…"] = f"{len(value) - _MAX_ITEMS} more"
            break
        name = text(key, 100)
        taken[name] = "<withheld>" if name in WITHHELD else plain(item, depth + 1)
    return taken


def _sequence(value: Iterable[object], depth: int) -> Plain:
    items = list(value)
    if depth >= _MAX_DEPTH:
        return f"<{len(items)} items>"
    taken = [plain(item, depth + 1) for item in items[:_MAX_ITEMS]]
    if len(items) > _MAX_ITEMS:
        taken.append(f"… {len(items) - _MAX_ITEMS} more")
    return taken
