"""What a store holds, so that a test can see what grows: rows, entries, bytes, by table or key."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import redis

if TYPE_CHECKING:
    from collections.abc import Mapping

Weight = dict[str, int]

COUNTING = "shared_preload_libraries = 'pg_stat_statements'"
"""A setting of PostgreSQL."""
_ALLOCATED = " allocated"
_LENGTH = {"string": "STRLEN", "hash": "HLEN", "list": "LLEN", "set": "SCARD", "zset": "ZCARD", "stream": "XLEN"}


async def weight(url: str) -> Weight:
    """Of the store of that URL."""
    scheme = urlsplit(url).scheme
    if scheme == "postgresql":
        return await _postgresql(url)
    return _sqlite(url) if scheme == "sqlite" else _redis(url)


async def _postgresql(url: str) -> Weight:
    async with _Connection(url) as (connection, schema):
        tables = await connection.fetch("select relname from pg_stat_user_tables where schemaname = $1", schema)
        found: Weight = {}
        for (table,) in tables:
            name = f'"{schema}".{table}'
            found[f"{table} bytes"] = await connection.fetchval("select pg_total_relation_size($1::regclass)", name)
            found[f"{table} rows"] = await connection.fetchval(f"select count(*) from {name}")
        return found


def _sqlite(url: str) -> Weight:
    with sqlite3.connect(urlsplit(url).path[1:], uri=False) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        found = {f"{name} rows": database.execute(f"select count(*) from {name}").fetchone()[0] for name in tables}
        found["pages"] = database.execute("pragma page_count").fetchone()[0]
    database.close()
    return found


def _redis(url: str) -> Weight:
    found: Weight = {}
    with redis_client(url) as client:
        prefix = parse_qs(urlsplit(url).query)["prefix"][0]
        for key in client.scan_iter(f"{{{prefix}}}:*", count=1_000):
            name, kind = key.decode(), client.type(key).decode()
            found[f"{name} entries"] = client.execute_command(_LENGTH[kind], key)
            found[f"{name}{_ALLOCATED}"] = client.memory_usage(key, samples=0)
    return found


def redis_client(url: str) -> Any:
    return redis.Redis(unix_socket_path=urlsplit(url).path)


class _Connection:
    """A connection to the database of a store, and its schema."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)

    async def __aenter__(self) -> tuple[asyncpg.Connection, str]:
        self._connection = await asyncpg.connect(self._parts._replace(query="").geturl())
        return self._connection, parse_qs(self._parts.query)["schema"][0]

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()


async def statements(url: str) -> int:
    """How many the database of a shared store has executed. PostgreSQL has to be started with `COUNTING`."""
    if urlsplit(url).scheme == "postgresql":
        async with _Connection(url) as (connection, _):
            await connection.execute("create extension if not exists pg_stat_statements")
            counted = "select sum(calls)::bigint from pg_stat_statements where query not like '%pg_stat_statements%'"
            return int(await connection.fetchval(counted) or 0)
    with redis_client(url) as client:
        return int(client.info("stats")["total_commands_processed"])


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> Weight:
    """What is more than it was.

    Valkey's allocator now and then gives the same content a block of the next size (an entry whose score changes,
    once in some 50 times): what it gave is more when it is beyond the next sizes, which are a quarter apart at most.
    """

    def least(name: str) -> int:
        was = before.get(name, 0)
        return was + max(64, was // 4) if name.endswith(_ALLOCATED) else was

    return {name: now - before.get(name, 0) for name, now in after.items() if now > least(name)}
