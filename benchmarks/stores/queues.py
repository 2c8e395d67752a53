"""What a store's engine does by itself: a job queue in the few statements that a person would write by hand.

One table (or a hash and a sorted set in Redis), no idempotency, no fences, no timers, no feed, no records: a job is its
priority, its state and the bytes of its request. They do with the same durability what Atlas does on the same engine.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncpg
    from redis.asyncio import Redis

Body = tuple[int, bytes]
"""A priority, and what the job is asked to do."""


class Queue(Protocol):
    """A plain job queue, empty when it is opened. `lane` is the number of a connection."""

    async def open(self, lanes: int) -> None:
        """Makes so many connections."""

    async def insert(self, lane: int, bodies: list[Body]) -> None:
        """Stores jobs in one transaction."""

    async def settle(self) -> None:
        """Called when all jobs are in, before they are claimed."""

    async def claim(self, lane: int, limit: int) -> list[Any]:
        """Takes the next jobs in one transaction; answers their ids."""

    async def finish(self, lane: int, ids: list[Any]) -> None:
        """Ends jobs in one transaction."""

    async def close(self) -> None:
        """Removes everything."""


class PostgresQueue:
    """SQL over asyncpg."""

    _SCHEMA = """
        drop schema if exists plain cascade;
        create schema plain;
        create table plain.job (
            id bigserial primary key, priority integer not null, state smallint not null default 0, body bytea not null,
            created timestamptz not null default now(), started timestamptz, finished timestamptz
        );
        create index on plain.job (priority desc, id) where state = 0;
    """
    _INSERT = "insert into plain.job (priority, body) select * from unnest($1::int[], $2::bytea[])"
    _CLAIM = """
        update plain.job set state = 1, started = now()
        where id = any(array(
            select id from plain.job where state = 0 order by priority desc, id limit $1 for update skip locked
        ))
        returning id, body
    """
    _FINISH = "update plain.job set state = 2, finished = now() where id = any($1::bigint[])"

    def __init__(self, address: str) -> None:
        self._address = address
        self._lanes: list[asyncpg.Connection] = []

    async def open(self, lanes: int) -> None:
        import asyncpg

        self._lanes = [await asyncpg.connect(self._address) for _ in range(lanes)]
        await self._lanes[0].execute(self._SCHEMA)

    async def insert(self, lane: int, bodies: list[Body]) -> None:
        await self._lanes[lane].execute(self._INSERT, [body[0] for body in bodies], [body[1] for body in bodies])

    async def settle(self) -> None:
        await self._lanes[0].execute("analyze plain.job")

    async def claim(self, lane: int, limit: int) -> list[Any]:
        return [row[0] for row in await self._lanes[lane].fetch(self._CLAIM, limit)]

    async def finish(self, lane: int, ids: list[Any]) -> None:
        await self._lanes[lane].execute(self._FINISH, ids)

    async def close(self) -> None:
        await self._lanes[0].execute("drop schema plain cascade")
        for connection in self._lanes:
            await connection.close()


class SqliteQueue:
    """The standard library's driver in the thread of the caller; there is one lane."""

    _SCHEMA = """
        pragma journal_mode = wal;
        pragma synchronous = full;
        drop table if exists job;
        create table job (
            id integer primary key, priority integer not null, state integer not null default 0, body blob not null,
            created real not null default (julianday('now')), started real, finished real
        );
        create index job_ready on job (priority desc, id) where state = 0;
    """
    _CLAIM = """
        update job set state = 1, started = julianday('now')
        where id in (select id from job where state = 0 order by priority desc, id limit ?)
        returning id, body
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._db: sqlite3.Connection | None = None

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._db is not None
        return self._db

    async def open(self, lanes: int) -> None:
        assert lanes == 1
        self._db = sqlite3.connect(self._address, isolation_level=None)
        self._db.executescript(self._SCHEMA)

    async def insert(self, lane: int, bodies: list[Body]) -> None:
        self._connection.execute("begin immediate")
        self._connection.executemany("insert into job (priority, body) values (?, ?)", bodies)
        self._connection.execute("commit")

    async def settle(self) -> None:
        self._connection.execute("analyze")

    async def claim(self, lane: int, limit: int) -> list[Any]:
        with closing(self._connection.execute(self._CLAIM, (limit,))) as rows:
            return [row[0] for row in rows]

    async def finish(self, lane: int, ids: list[Any]) -> None:
        self._connection.execute("begin immediate")
        self._connection.executemany(
            "update job set state = 2, finished = julianday('now') where id = ?", [(job_id,) for job_id in ids]
        )
        self._connection.execute("commit")

    async def close(self) -> None:
        self._connection.execute("drop table job")
        self._connection.close()


class RedisQueue:
    """A script for each step, over a Unix socket as Atlas has it."""

    _INSERT = """
        local last = redis.call('INCRBY', 'plain:id', #ARGV / 2)
        local ready = {}
        for i = 1, #ARGV, 2 do
            local id = last - (#ARGV - i - 1) / 2
            redis.call('HSET', 'plain:' .. id, 'state', 0, 'body', ARGV[i + 1])
            ready[i], ready[i + 1] = -ARGV[i], id
        end
        return redis.call('ZADD', 'plain:ready', unpack(ready))
    """
    _CLAIM = """
        local popped = redis.call('ZPOPMIN', 'plain:ready', ARGV[1])
        local time = redis.call('TIME')[1]
        local found = {}
        for i = 1, #popped, 2 do
            redis.call('HSET', 'plain:' .. popped[i], 'state', 1, 'started', time)
            found[i], found[i + 1] = popped[i], redis.call('HGET', 'plain:' .. popped[i], 'body')
        end
        return found
    """
    _FINISH = """
        local time = redis.call('TIME')[1]
        for _, id in ipairs(ARGV) do
            redis.call('HSET', 'plain:' .. id, 'state', 2, 'finished', time)
        end
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._lanes: list[Redis] = []
        self._scripts: list[str] = []

    async def open(self, lanes: int) -> None:
        from redis.asyncio import Redis

        self._lanes = [Redis(unix_socket_path=self._address, single_connection_client=True) for _ in range(lanes)]
        self._scripts = [await self._lanes[0].script_load(text) for text in (self._INSERT, self._CLAIM, self._FINISH)]
        await self._forget()

    async def insert(self, lane: int, bodies: list[Body]) -> None:
        await self._call(lane, 0, *(part for body in bodies for part in body))

    async def settle(self) -> None:
        pass

    async def claim(self, lane: int, limit: int) -> list[Any]:
        found: list[Any] = await self._call(lane, 1, limit)
        return found[::2]

    async def finish(self, lane: int, ids: list[Any]) -> None:
        await self._call(lane, 2, *ids)

    async def close(self) -> None:
        await self._forget()
        for connection in self._lanes:
            await connection.aclose()

    async def _call(self, lane: int, script: int, *arguments: Any) -> Any:
        return await self._lanes[lane].evalsha(self._scripts[script], 0, *arguments)

    async def _forget(self) -> None:
        first = self._lanes[0]
        keys = [key async for key in first.scan_iter("plain:*", count=10_000)]
        for start in range(0, len(keys), 10_000):
            await first.unlink(*keys[start : start + 10_000])


QUEUES: dict[str, type[PostgresQueue | SqliteQueue | RedisQueue]] = {
    "postgresql": PostgresQueue,
    "sqlite": SqliteQueue,
    "redis": RedisQueue,
}
