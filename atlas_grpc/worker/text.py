"""Text that a handler made, fit to be stored: any string becomes valid UTF-8 without NUL, within a bound."""

from __future__ import annotations

import re

REASON = re.compile(r"[A-Z][A-Z0-9_]{0,61}[A-Z0-9]", re.ASCII)
"""A legal google.rpc.ErrorInfo reason."""

_MARK = " … [cut]"
_UNFIT = re.compile("[\0\ud800-\udfff]")


def clean(text: str, limit: int) -> str:
    """The text in at most `limit` bytes of UTF-8; NUL and lone surrogates become U+FFFD, and a cut is said."""
    head = _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text[:limit])
    data = head.encode()
    if len(data) <= limit and len(text) <= limit:
        return head
    return data[: limit - len(_MARK.encode())].decode(errors="ignore") + _MARK
