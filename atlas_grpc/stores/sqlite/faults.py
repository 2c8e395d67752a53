"""What SQLite's errors mean to a caller."""

from __future__ import annotations

import sqlite3

from ...errors import AtlasError, Internal, StoreFull, Unavailable

_RETRY_AFTER = 1.0
_RETRY_WHEN_FULL = 5.0
"""Somebody has to make room first."""
_OUTSIDE = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_OUTSIDE_TOO = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def code(error: BaseException) -> int:
    """SQLite's primary result code; 0 for what did not come from SQLite."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def is_outside(error: BaseException) -> bool:
    """Whether the file or the machine is to blame: it would have met any other operation as well."""
    return code(error) in _OUTSIDE | _OUTSIDE_TOO | _DAMAGED


def is_broken(error: BaseException) -> bool:
    """Whether the connection should be replaced before it is used again."""
    return is_outside(error) and code(error) not in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def is_full(error: BaseException) -> bool:
    """Whether there was no room: on the disk, or below the bound of a quota or of the process (a write error too)."""
    extended = getattr(error, "sqlite_errorcode", None)
    return code(error) == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_WRITE


def translated(error: Exception) -> Exception:
    """The error for the caller of an operation that met this one."""
    if isinstance(error, AtlasError) or not isinstance(error, sqlite3.Error):
        return error
    answer = _answer(error)
    answer.__cause__ = error
    return answer


def _answer(error: sqlite3.Error) -> AtlasError:
    if is_full(error):
        return StoreFull("there is no room left for the store's file", retry_after=_RETRY_WHEN_FULL)
    if code(error) in _DAMAGED:
        return Internal("the store's file is damaged")
    if is_outside(error):
        return Unavailable("the store's file cannot be used now", retry_after=_RETRY_AFTER)
    return Internal("the store cannot do this")
