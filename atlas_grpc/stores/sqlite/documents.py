"""Documents, and what sessions tell of themselves: bytes by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..base import MAX_DOCUMENTS
from .batches import lists, repeated, write_rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

    from .transaction import Transaction

_AT_ONCE = 64
"""Documents read by one statement: each may have a MiB."""

# One row that holds all: see batches.py.
_GATHERED = (
    "select json_group_array(json_array(name, length(data))), cast(ifnull(group_concat(data, ''), '') as blob)"
    " from ({})"
)
_SESSIONS = _GATHERED.format(
    "select s.id as name, ifnull(i.info, x'') as data from session s left join session_info i on i.session = s.id"
    " where s.until > ?"
)
_DOCUMENTS = _GATHERED.format("select key as name, data from document where kind = ? and key in (?*)")
_KEYS = "select json_group_array(key) from document where kind = ?"
_COUNT = "select count(*) from document where kind = ?"
_PUT = "insert into document (kind, key, data) values ?* on conflict (kind, key) do update set data = excluded.data"

_names = msgspec.json.Decoder(list[str]).decode
_lengths = msgspec.json.Decoder(list[tuple[str, int]]).decode


def put(tx: Transaction, kind: str, documents: Mapping[str, bytes]) -> bool:
    """`Store.put_documents`. False when the kind is full."""
    stored = _read(tx.connection, kind, list(documents))
    changed = {key: data for key, data in documents.items() if stored.get(key) != data}
    new = changed.keys() - stored.keys()
    if new:
        (count,) = tx.connection.execute(_COUNT, (kind,)).fetchone()
        if count + len(new) > MAX_DOCUMENTS:
            return False
    if changed:
        tx.begin()
        write_rows(tx.connection, _PUT, "(?, ?, ?)", [(kind, key, data) for key, data in changed.items()])
    return True


def documents(connection: sqlite3.Connection, kind: str, keys: Sequence[str] | None) -> dict[str, bytes]:
    """`Store.documents`, on a connection that is in no transaction."""
    connection.execute("begin")
    try:
        if keys is None:
            keys = _names(connection.execute(_KEYS, (kind,)).fetchone()[0])
        return _read(connection, kind, keys)
    finally:
        connection.execute("rollback")


def _read(connection: sqlite3.Connection, kind: str, keys: Sequence[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for some in lists(keys, _AT_ONCE):
        found.update(_gathered(connection, repeated(_DOCUMENTS, "?", len(some)), kind, *some))
    return found


def sessions(connection: sqlite3.Connection, now: int) -> list[tuple[str, bytes]]:
    """`Store.sessions`."""
    return sorted(_gathered(connection, _SESSIONS, now))


def _gathered(connection: sqlite3.Connection, sql: str, *parameters: str | int) -> Iterator[tuple[str, bytes]]:
    lengths, blob = connection.execute(sql, parameters).fetchone()
    at = 0
    for name, length in _lengths(lengths):
        yield name, blob[at : at + length]
        at += length
