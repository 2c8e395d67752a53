"""HTTP headers to call metadata and back, as grpc-gateway does it."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from .scalars import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .failures import Headers

Metadata = list[tuple[str, str | bytes]]

_AS_IS = (b"authorization", b"atlas-namespace", b"traceparent", b"tracestate")
_PREFIX = b"grpc-metadata-"
_KEY = re.compile(r"[0-9a-z_.-]{1,128}")
_VALUE = re.compile(r"[\x20-\x7e]*")
_RESERVED = frozenset({"content-type", "user-agent", "te", "host", "connection", "content-length", "transfer-encoding"})
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_LONGEST = 10 * 366 * 86400.0
"""Seconds. gRPC counts nanoseconds in 64 bits: a deadline some centuries ahead would be one in the past."""
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def call_metadata(headers: Headers) -> Metadata | None:
    """The metadata of the call, from all headers in order. Raises `Malformed` for a value that gRPC cannot carry."""
    metadata: Metadata = []
    as_is = {name for name, _ in headers if name in _AS_IS}
    for name, value in headers:
        if name in as_is:
            metadata.append((name.decode(), _ascii(name.decode(), value)))
        elif name.startswith(_PREFIX) and name[len(_PREFIX) :] not in as_is:
            key = name[len(_PREFIX) :].decode("latin-1")
            if _KEY.fullmatch(key) and key not in _RESERVED and not key.startswith("grpc-"):
                metadata.append((key, _binary(key, value) if key.endswith("-bin") else _ascii(key, value)))
    return metadata or None


def timeout(headers: dict[bytes, bytes]) -> float | None:
    """Seconds from `Grpc-Timeout`, for instance `5S` or `200m`; None when it is not there, empty or zero."""
    value = headers.get(b"grpc-timeout")
    if not value:
        return None
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise Malformed("must be up to eight digits and one of H, M, S, m, u, n", "grpc-timeout")
    return min(int(match[1]) * _UNITS[match[2]], _LONGEST) or None


def answer_headers(metadata: Iterable[tuple[str, str | bytes]] | None) -> Headers:
    """`Grpc-Metadata-*` headers for the initial metadata of an answer."""
    headers: Headers = []
    for key, value in metadata or ():
        if key in _RESERVED or key.startswith("grpc-"):
            continue
        text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
        if _VALUE.fullmatch(text):
            headers.append((_PREFIX + key.encode(), text.encode()))
    return headers


def _ascii(key: str, value: bytes) -> str:
    text = value.decode("latin-1")
    if not _VALUE.fullmatch(text):
        raise Malformed("must be printable ASCII", key)
    return text


def _binary(key: str, value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        raise Malformed("must be base64", key) from None
