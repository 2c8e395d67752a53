"""The W3C trace context (https://www.w3.org/TR/trace-context/), read strictly."""

from __future__ import annotations

import re
from typing import NamedTuple

_TRACEPARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})-[0-9a-f]{2}(?P<rest>-.*)?"
)
_LONGEST = 512


class TraceContext(NamedTuple):
    """Whose child the work is. Both ids are lower-case hex, 32 and 16 digits."""

    trace_id: str
    span_id: str


def parse_traceparent(traceparent: str) -> TraceContext | None:
    """The ids of a `traceparent` header; None unless it is valid to the letter.

    Version 00 has exactly four fields. A later version may have more, which are ignored; version ff, ids of zeros and
    upper-case digits are invalid.
    """
    if len(traceparent) > _LONGEST or (match := _TRACEPARENT.fullmatch(traceparent)) is None:
        return None
    if match["rest"] is not None and match["version"] == "00":
        return None
    return TraceContext(match["trace"], match["span"])


def trace_id_of(traceparent: str) -> str | None:
    """The trace id of a `traceparent` header; None unless it is valid."""
    context = parse_traceparent(traceparent)
    return context.trace_id if context else None
