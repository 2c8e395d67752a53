"""Stores: where jobs are kept, chosen by URL."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .memory import MemoryLimits, MemoryStore

if TYPE_CHECKING:
    from ..clock import Clock
    from ..config import Settings
    from .base import Store


SHARED = ("postgresql", "redis", "rediss")
"""Schemes of the stores that several servers can use at a time."""


class UnknownStore(ValueError):
    """The URL names no store that there is, or none that can be used so."""


def check_shared(url: str) -> None:
    """Raises UnknownStore unless several servers can use the store of that URL at a time."""
    scheme = urlsplit(url).scheme
    if scheme not in SHARED:
        known = ", ".join(f"{name}://" for name in SHARED)
        msg = f"a {scheme} store belongs to one server process; several need one that they can share: {known}"
        raise UnknownStore(msg)


def open_store(settings: Settings, clock: Clock) -> Store:
    """The store of `settings.store`, not opened yet. Raises UnknownStore."""
    scheme = urlsplit(settings.store).scheme
    if scheme != "memory":
        msg = f"there is no store {scheme!r}; known is memory://"
        raise UnknownStore(msg)
    limits = MemoryLimits(
        max_pending=settings.max_pending_jobs,
        max_finished=settings.max_finished_jobs,
        max_bytes=settings.max_store_bytes,
        max_log_lines=settings.max_log_lines,
    )
    return MemoryStore(clock, limits)
