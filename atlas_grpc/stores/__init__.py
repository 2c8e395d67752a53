"""Stores: where jobs are kept, chosen by URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .base import WrongUrl
from .memory import MemoryLimits, MemoryStore

if TYPE_CHECKING:
    from ..clock import Clock
    from ..config import Settings
    from .base import Store

__all__ = ["SHARED", "WrongUrl", "check_shared", "not_installed", "open_store"]

SHARED = ("postgresql", "redis", "rediss")
"""Stores that several servers can use at a time, by the scheme of their URL."""
_SINGLE = ("memory", "sqlite")
_POSTGRES = ("postgresql", "postgres")
_REDIS = ("redis", "rediss", "redis+unix", "unix", "redis+sentinel", "rediss+sentinel")


def check_shared(url: str) -> None:
    """Raises WrongUrl unless several servers can use the store of that URL at a time."""
    scheme = urlsplit(url).scheme
    if scheme not in _POSTGRES + _REDIS:
        known = ", ".join(f"{name}://" for name in SHARED)
        raise WrongUrl("store", f"a {scheme} store belongs to one server process; servers can share {known}")


def open_store(settings: Settings, clock: Clock) -> Store:
    """The store of `settings.store`, not opened yet. Raises WrongUrl."""
    scheme = urlsplit(settings.store).scheme
    limits: dict[str, Any] = {"max_log_lines": settings.max_log_lines}
    if settings.max_pending_jobs:
        limits["max_pending"] = settings.max_pending_jobs
    if scheme == "memory":
        kept = {"max_finished": settings.max_finished_jobs, "max_bytes": settings.max_store_bytes}
        return MemoryStore(clock, MemoryLimits(**limits, **kept))
    if scheme == "sqlite":
        from . import sqlite

        kept = {"max_finished": settings.max_finished_jobs}
        return sqlite.from_url(settings.store, clock, sqlite.SqliteLimits(**limits, **kept))
    if scheme in _POSTGRES:
        try:
            from . import postgres
        except ModuleNotFoundError as error:
            raise not_installed("postgres", error) from None
        return postgres.from_url(settings.store, clock, postgres.PostgresLimits(**limits))
    if scheme in _REDIS:
        try:
            from . import redis
        except ModuleNotFoundError as error:
            raise not_installed("redis", error) from None
        kept = {"max_finished": settings.max_finished_jobs}
        return redis.from_url(settings.store, clock, redis.RedisLimits(**limits, **kept))
    known = ", ".join(f"{name}://" for name in (*_SINGLE, *SHARED))
    raise WrongUrl("store", f"there is no store {scheme!r}; known are {known}")


def not_installed(extra: str, error: ModuleNotFoundError) -> WrongUrl:
    """The error for a store whose driver is missing."""
    return WrongUrl("store", f"needs the package {error.name}: pip install 'atlas-grpc[{extra}]'")
