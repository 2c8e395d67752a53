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


def pieces(text: str, limit: int) -> list[str]:
    """A text that is clean, in parts of at most `limit` bytes of UTF-8."""
    data = text.encode()
    if len(data) <= limit:
        return [text]
    parts = []
    while data:
        end = cut(data, limit)
        parts.append(data[:end].decode())
        data = data[end:]
    return parts


def cut(data: bytes, limit: int) -> int:
    """Where to cut UTF-8 so that no character is cut: at `limit` or up to three bytes before."""
    if len(data) <= limit:
        return len(data)
    for back in range(4):
        if data[limit - back] & 0xC0 != 0x80:
            return limit - back
    return limit
