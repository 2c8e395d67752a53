"""How much goes into one message, so that clients take it: they refuse more than 4 MiB unless told otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

if TYPE_CHECKING:
    from collections.abc import Iterable

M = TypeVar("M", bound=Message)

MESSAGE_BYTES = 3 << 20


def fitting(messages: Iterable[M]) -> list[M]:
    """Those at the beginning that fit into one message; the first one does in any case."""
    found: list[M] = []
    size = 0
    for message in messages:
        size += message.ByteSize()
        if size > MESSAGE_BYTES and found:
            break
        found.append(message)
    return found
