"""Stores: where jobs are kept, chosen by URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from . import schemes
from .base import WrongUrl
from .memory import MemoryLimits, MemoryStore

if TYPE_CHECKING:
    from ..clock import Clock
    from ..config import Settings
    from .base import Store

__all__ = ["WrongUrl", "check_shared", "not_installed", "open_store"]


def check_shared(url: str) -> None:
    """Raises WrongUrl unless several servers can use the store of that URL at a time."""
    scheme = urlsplit(url).scheme
    if not any(scheme in known for known in schemes.SHARED):
        known = schemes.shown(schemes.SHARED)
        raise WrongUrl("store", f"a {scheme} store belongs to one server process; servers can share {known}")


def open_store(settings: Settings, clock: Clock) -> Store:
    """The store of `settings.store`, not opened yet. Raises WrongUrl."""
    scheme = urlsplit(settings.store).scheme
    limits: dict[str, Any] = {"max_log_lines": settings.max_log_lines, "max_log_bytes": settings.max_log_bytes}
    if settings.max_pending_jobs:
        limits["max_pending"] = settings.max_pending_jobs
    if scheme in schemes.MEMORY:
        kept = {"max_finished": settings.max_finished_jobs, "max_bytes": settings.max_store_bytes}
        return MemoryStore(clock, MemoryLimits(**limits, **kept))
    if scheme in schemes.SQLITE:
        from . import sqlite

        kept = {"max_finished": settings.max_finished_jobs}
        return sqlite.from_url(settings.store, clock, sqlite.SqliteLimits(**limits, **kept))
    if scheme in schemes.POSTGRES:
        try:
            from . import postgres
        except ModuleNotFoundError as error:
            raise not_installed("postgres", error) from None
        return postgres.from_url(settings.store, clock, postgres.PostgresLimits(**limits))
    if scheme in schemes.REDIS:
        try:
            from . import redis
        except ModuleNotFoundError as error:
            raise not_installed("redis", error) from None
        kept = {"max_finished": settings.max_finished_jobs}
        return redis.from_url(settings.store, clock, redis.RedisLimits(**limits, **kept))
    raise WrongUrl("store", f"there is no store {scheme!r}; known are {schemes.shown(schemes.ALL)}")


def not_installed(extra: str, error: ModuleNotFoundError) -> WrongUrl:
    """The error for a store whose driver is missing."""
    return WrongUrl("store", f"needs the package {error.name}: pip install 'atlas-grpc[{extra}]'")
