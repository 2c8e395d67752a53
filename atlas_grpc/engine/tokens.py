"""Opaque tokens: where a listing or a watch continues.

A token states a position and what it belongs to, nothing secret: the namespace comes from the call, so a forged token
can only ask for what its caller may see anyway. It is checked for shape, for damage, and for belonging to the call.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import TypeVar

import msgspec

from ..errors import InvalidArgument

_VERSION = 1


class PageToken(msgspec.Struct, array_like=True, frozen=True, tag="p"):
    """After which id a listing continues, and for which query."""

    after: str
    query: bytes


class JobToken(msgspec.Struct, array_like=True, frozen=True, tag="j"):
    """What a watcher of a job has seen: transitions up to a version, log lines up to an offset."""

    job_id: str
    version: int
    log: int = 0
    time: int = 0
    """When that version was made: a store that was brought back from a backup may make another of the same number."""


class LogToken(msgspec.Struct, array_like=True, frozen=True, tag="l"):
    """What a follower of a job's log has seen: lines before an offset."""

    job_id: str
    log: int


class FeedToken(msgspec.Struct, array_like=True, frozen=True, tag="f"):
    """What a watcher of many jobs has seen: the feed up to a cursor, for which query."""

    epoch: str
    cursor: int
    query: bytes


Token = TypeVar("Token", PageToken, JobToken, LogToken, FeedToken)


def encode(token: PageToken | JobToken | LogToken | FeedToken) -> str:
    """The text of a token: URL-safe, without padding."""
    body = msgspec.msgpack.encode(token)
    packed = bytes([_VERSION]) + zlib.crc32(body).to_bytes(4, "big") + body
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def decode(text: str, kind: type[Token], field: str) -> Token:
    """The token of a text. Raises InvalidArgument for `field` when it is not one of that kind."""
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if packed[0] != _VERSION or zlib.crc32(packed[5:]) != int.from_bytes(packed[1:5], "big"):
            raise ValueError
        return msgspec.msgpack.decode(packed[5:], type=kind)
    except (ValueError, IndexError, binascii.Error, msgspec.DecodeError):
        raise InvalidArgument.of(field, "is not a token of this method", reason="INVALID_TOKEN") from None
