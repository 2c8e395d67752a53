"""The file's schema: numbered migrations, and refusals of files that this code must not touch.

A file says by `application_id` that it is ours and by `user_version` which migrations it has seen. Each migration runs
in one transaction with the new number, so that a file is never between two versions.
"""

from __future__ import annotations

import sqlite3
from importlib.resources import files
from typing import TYPE_CHECKING

from ...errors import FailedPrecondition, Internal
from .faults import code

if TYPE_CHECKING:
    from ...clock import Clock

APPLICATION_ID = 0x41544C53
"""ATLS"""
OLDEST_SQLITE = (3, 35, 0)
_CHECKED_WHOLE = 16 << 20
"""Bytes up to which a file is checked as a whole; that takes less than a tenth of a second."""


def migrations() -> list[str]:
    """The statements of each version, the first one at index 0."""
    folder = files(__package__) / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(folder / name).read_text("utf-8") for name in names]


def examine(connection: sqlite3.Connection, path: str) -> None:
    """Raises FailedPrecondition when the file is from a newer Atlas, or none of Atlas."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        msg = f"the SQLite library of this Python is {sqlite3.sqlite_version}; {wanted} or newer is needed"
        raise FailedPrecondition(msg)
    try:
        connection.execute("select json_group_array(1)")
    except sqlite3.OperationalError:
        raise FailedPrecondition("the SQLite library of this Python was built without JSON") from None
    version, known = _version(connection, path), len(migrations())
    if version > known:
        msg = f"{path} is from a newer Atlas (schema {version}; this one knows {known}): use that one"
        raise FailedPrecondition(msg, metadata={"path": path, "schema": str(version)})


def prepare(connection: sqlite3.Connection, path: str, clock: Clock) -> None:
    """Makes a file that may be used ready for use: new, of this version, or of an older one. Raises Internal when it is
    damaged."""
    version = _version(connection, path)
    for number, script in enumerate(migrations()[version:], version + 1):
        _migrate(connection, script, number, clock)
    _check(connection, path)


def _version(connection: sqlite3.Connection, path: str) -> int:
    try:
        (application,) = connection.execute("pragma application_id").fetchone()
        (version,) = connection.execute("pragma user_version").fetchone()
        (objects,) = connection.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        if code(error) == sqlite3.SQLITE_NOTADB:
            raise _foreign(path) from None
        raise
    if application != APPLICATION_ID and (application or version or objects):
        raise _foreign(path)
    return int(version)


def _foreign(path: str) -> FailedPrecondition:
    return FailedPrecondition(f"{path} is not a file of Atlas; it was left alone", metadata={"path": path})


def _migrate(connection: sqlite3.Connection, script: str, number: int, clock: Clock) -> None:
    connection.execute("begin immediate")
    try:
        for statement in _statements(script):
            connection.execute(statement)
        if number == 1:
            now = clock.now()
            connection.execute("insert into meta (one, epoch, fence) values (1, ?, ?)", (f"{now:x}", now))
            connection.execute("insert into feed (seq) values (0)")
            connection.execute(f"pragma application_id = {APPLICATION_ID}")
        connection.execute(f"pragma user_version = {number}")
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise


def _statements(script: str) -> list[str]:
    """The statements of a script. `executescript` would commit before it."""
    found: list[str] = []
    rest = ""
    for line in script.splitlines(keepends=True):
        rest += line
        if sqlite3.complete_statement(rest):
            found.append(rest)
            rest = ""
    return found


def _check(connection: sqlite3.Connection, path: str) -> None:
    """A quick look whether the file is sound: all of a small one, of a large one that each table can be read."""
    (pages,) = connection.execute("pragma page_count").fetchone()
    (size,) = connection.execute("pragma page_size").fetchone()
    if pages * size <= _CHECKED_WHOLE:
        (answer,) = connection.execute("pragma quick_check(1)").fetchone()
        if answer != "ok":
            msg = f"{path} is damaged: {answer}"
            raise Internal(msg, metadata={"path": path})
    for table in ("state", "spec", "name", "feed", "session", "output", "log", "session_info", "document"):
        connection.execute(f"select * from {table} limit 1").fetchone()  # noqa: S608 - constants
    if connection.execute("select count(*) from meta").fetchone() != (1,):
        msg = f"{path} is damaged: its counts are missing"
        raise Internal(msg, metadata={"path": path})
