"""What all stores demand of documents and of the infos of sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import StoreFull
from .base import MAX_DOCUMENT, MAX_DOCUMENT_NAME, MAX_DOCUMENTS, MAX_INFO

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def check_info(info: bytes) -> None:
    """Raises ValueError when a session tells too much of itself."""
    if len(info) > MAX_INFO:
        msg = f"the info of a session has {len(info)} bytes; at most {MAX_INFO} are allowed"
        raise ValueError(msg)


def check_documents(kind: str, documents: Mapping[str, bytes]) -> None:
    """Raises ValueError when one of the documents must not be stored."""
    for name in (kind, *documents):
        if not _is_name(name):
            msg = f"kind and key of a document have 1 to {MAX_DOCUMENT_NAME} characters, none of them NUL: {name!r:.99}"
            raise ValueError(msg)
    for key, data in documents.items():
        if len(data) > MAX_DOCUMENT:
            msg = f"the {kind} {key!r} has {len(data)} bytes; at most {MAX_DOCUMENT} are allowed"
            raise ValueError(msg)


def possible(kind: str, keys: Collection[str] | None) -> list[str] | None:
    """Those of the keys that a document of the kind may have, each once, in order; None for all. What cannot be a name
    is not there, and some databases refuse to look for it."""
    if not _is_name(kind):
        return []
    return None if keys is None else sorted({key for key in keys if _is_name(key)})


def full() -> StoreFull:
    """The error for a kind that has as many documents as it may have."""
    return StoreFull(f"the store takes no more than {MAX_DOCUMENTS} documents of a kind")


def _is_name(name: str) -> bool:
    if not 0 < len(name) <= MAX_DOCUMENT_NAME or "\x00" in name:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
