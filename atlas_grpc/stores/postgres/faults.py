"""The one place where what the driver raises becomes an error of Atlas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from ...errors import AtlasError, Internal, StoreFull, Unavailable
from ...observe.logs import get_logger
from .._documents import full

if TYPE_CHECKING:
    import random

log = get_logger("atlas.store.postgres")

_pg = asyncpg.exceptions

LOST: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    TimeoutError,
    _pg.PostgresConnectionError,
    _pg.OperatorInterventionError,
    _pg.IdleInTransactionSessionTimeoutError,
    _pg.InternalClientError,
    _pg.InterfaceError,
)
"""After these a connection is not used again."""

REPEATABLE: tuple[type[Exception], ...] = (_pg.DeadlockDetectedError, _pg.SerializationError)
"""The server undid the whole statement, so that it may be given again."""

_AWAY: tuple[type[Exception], ...] = (
    *LOST,
    _pg.TooManyConnectionsError,
    _pg.LockNotAvailableError,
    _pg.QueryCanceledError,
    _pg.ReadOnlySQLTransactionError,
    _pg.OutOfMemoryError,
    _pg.InvalidCachedStatementError,
    _pg.ObjectNotInPrerequisiteStateError,
    *REPEATABLE,
)
_REFUSED: tuple[type[Exception], ...] = (
    _pg.InvalidAuthorizationSpecificationError,
    _pg.InvalidCatalogNameError,
    _pg.InsufficientPrivilegeError,
)
DRIVER_ERRORS: tuple[type[Exception], ...] = (*LOST, _pg.PostgresError)
"""All that a call of the driver may raise."""


def translated(error: Exception, rng: random.Random) -> AtlasError:
    """The error of Atlas for what the driver raised. No text of the server goes further than the log."""
    if isinstance(error, AtlasError):
        return error
    if isinstance(error, _pg.CheckViolationError):
        # There is but one check that a statement can meet: that of migrations/0002_documents.sql.
        return full()
    if isinstance(error, (_pg.DiskFullError, _pg.ConfigurationLimitExceededError)):
        log.error("the database takes no more", error=type(error).__name__)
        return StoreFull("the database has no room left", retry_after=_pause(rng, 5.0))
    if isinstance(error, _REFUSED):
        log.error("the database refuses the store", error=type(error).__name__, text=str(error))
        return Unavailable("the database refuses the server", retry_after=_pause(rng, 5.0))
    if isinstance(error, _AWAY):
        return Unavailable(_told(error), retry_after=_pause(rng, 0.3))
    log.error("the database failed", exc_info=error)
    return Internal("the store failed")


def _told(error: Exception) -> str:
    if isinstance(error, (TimeoutError, _pg.QueryCanceledError, _pg.LockNotAvailableError)):
        return "the database did not answer in time"
    if isinstance(error, (_pg.ReadOnlySQLTransactionError, _pg.ObjectNotInPrerequisiteStateError)):
        return "the database takes no writes now"
    if isinstance(error, _pg.TooManyConnectionsError):
        return "the database takes no more connections"
    return "the database cannot be reached, or the connection to it was lost"


def _pause(rng: random.Random, seconds: float) -> float:
    return seconds * rng.uniform(0.5, 1.5)
