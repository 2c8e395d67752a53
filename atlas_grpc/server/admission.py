"""The one validator of payloads and results, whatever door they come in by.

What is admitted can be read back in every way: as Struct, as JSON, from any store. A Struct nested deeper than about 32
levels cannot be parsed again from the wire, a NUL cannot be stored as jsonb, a number that is not finite has no JSON,
and a whole number may be too large for a Value.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import msgspec

from ..model import Content, Record

MAX_DEPTH = 24
MAX_VALUES = 50_000
MAX_KEY = 1_024
_LARGEST = int(sys.float_info.max)
_DIGITS = len(str(_LARGEST))
_HUGE = re.compile(rb"[0-9]{%d}" % _DIGITS)


class Limits(Record, frozen=True):
    """Sizes in bytes of the JSON text, or of the data."""

    payload: int = 1 << 20
    result: int = 1 << 20


def objection(content: Content, limit: int) -> str | None:
    """Why a content is not admitted; None when it is."""
    if len(content.data) > limit:
        return f"takes {len(content.data)} bytes, and at most {limit} are allowed"
    if not content.is_json or _is_plain(content.data):
        return None
    try:
        value = msgspec.json.decode(content.data)
    except (msgspec.DecodeError, RecursionError):
        return "is not valid JSON"
    return _object_to(value)


def _is_plain(data: bytes) -> bool:
    """Whether a valid JSON text, by its length and its punctuation alone, can break no rule."""
    return (
        len(data) <= MAX_KEY
        and data.count(b"{") + data.count(b"[") <= MAX_DEPTH
        and b"\\u0000" not in data
        and (len(data) < _DIGITS or _HUGE.search(data) is None)
    )


def _object_to(root: object) -> str | None:
    level: list[Any] = [root]
    values = 0
    depth = 0
    while level:
        depth += 1
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                for key in value:
                    if len(key) > MAX_KEY:
                        return f"has a key of {len(key)} characters, and at most {MAX_KEY} are allowed"
                    if "\0" in key:
                        return "has a key with a NUL character"
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            elif isinstance(value, str) and "\0" in value:
                return "has a text with a NUL character"
            elif isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
                return "has a number that is larger than a double can be"
        values += len(below)
        if values > MAX_VALUES:
            return f"holds more than {MAX_VALUES} values"
        if depth > MAX_DEPTH and any(isinstance(value, dict | list) for value in level):
            return f"is nested deeper than {MAX_DEPTH} levels"
        level = below
    return None
