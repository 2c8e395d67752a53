"""The schema: numbered files, each run once, in order, in one transaction, under a lock.

await migrate(url, dry_run=True)     # what would be run
await migrate(url)                   # runs it; harmless to repeat, from any number of servers at a time
await verify(url)                    # what differs from the schema as it should be
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from importlib.resources import files
from random import Random
from typing import TYPE_CHECKING

from ...model import Record
from ..base import UnsuitableDatabase
from .database import check_server, connect, in_schema
from .faults import DRIVER_ERRORS, log, translated
from .options import Options, parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_PATIENCE = 600.0
"""Seconds that a migration, and waiting for that of another server, may take."""
_TABLE = """
create table if not exists {schema}.migrations (
    version integer primary key,
    name text not null,
    applied timestamptz not null default now()
)
"""
_DESCRIBE = """
select 'column ' || c.relname || '.' || a.attname as name,
    format_type(a.atttypid, a.atttypmod) || case when a.attnotnull then ' not null' else '' end
        || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '') as definition
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relnamespace = $1::text::regnamespace and c.relkind in ('r', 'v')
union all
select 'index ' || c.relname, pg_get_indexdef(c.oid)
from pg_class c where c.relnamespace = $1::text::regnamespace and c.relkind = 'i'
union all
select 'view ' || c.relname, pg_get_viewdef(c.oid)
from pg_class c where c.relnamespace = $1::text::regnamespace and c.relkind = 'v'
union all
select 'sequence ' || c.relname, q.seqincrement::text
from pg_class c join pg_sequence q on q.seqrelid = c.oid where c.relnamespace = $1::text::regnamespace
"""


class Migration(Record, frozen=True):
    """One step of the schema. `sql` is as it runs, for the schema of the URL."""

    version: int
    name: str
    sql: str


# Not by `to_regclass`: within a transaction that answers what it answered before, whatever others made meanwhile.
_HAS_SCHEMA = "select exists (select from pg_catalog.pg_namespace where nspname = $1)"
_HAS_TABLE = "select exists (select from pg_catalog.pg_tables where schemaname = $1 and tablename = 'migrations')"


class _Undo(Exception):
    """Ends a transaction that was only for looking."""


def all_migrations(schema: str) -> list[Migration]:
    """All steps, in order."""
    found = [
        Migration(int(match[1]), match[2], in_schema(path.read_text("utf-8"), schema))
        for path in (files(__package__) / "migrations").iterdir()
        if (match := _NAME.fullmatch(path.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


async def migrate(url: str, *, dry_run: bool = False) -> list[Migration]:
    """Brings the schema up to date, and answers the steps that this took, or would take.

    Raises WrongUrl, UnsuitableDatabase, Unavailable.
    """
    options = parse(url)
    async with administering(options) as connection:
        if not dry_run:
            return await bring_up_to_date(connection, options)
        return _missing(options, await _version(connection, options))


async def verify(url: str) -> list[str]:
    """What is missing in the schema, or differs from what the migrations make; empty when all is well. What was added
    is no difference. It is compared with a second schema that is made and undone in one transaction.

    Raises WrongUrl, UnsuitableDatabase, Unavailable.
    """
    options = parse(url)
    async with administering(options) as connection:
        missing = _missing(options, await _version(connection, options))
        if missing:
            return [f"migration {step.version:04} ({step.name}) was not run" for step in missing]
        found = await _describe(connection, options.schema)
        wanted = await _as_it_should_be(connection, options)
    return [
        f"{name} is missing" if name not in found else f"{name} differs: {found[name]} instead of {definition}"
        for name, definition in sorted(wanted.items())
        if found.get(name) != definition
    ]


async def check_schema(connection: asyncpg.Connection, options: Options) -> None:
    """Sees that the schema is the one that the statements are written for, and migrates it if that is allowed."""
    missing = _missing(options, await _version(connection, options))
    if missing and not options.migrate:
        raise UnsuitableDatabase(
            f"the schema {options.schema} is not up to date: run `atlas db migrate`, or give the store migrate=true"
        )
    if missing:
        await bring_up_to_date(connection, options)


async def bring_up_to_date(connection: asyncpg.Connection, options: Options) -> list[Migration]:
    """Runs what is missing, all or nothing."""
    async with connection.transaction():
        await connection.execute(
            "select pg_advisory_xact_lock(hashtextextended('atlas ' || $1, 0))", options.schema, timeout=_PATIENCE
        )
        missing = _missing(options, await _version(connection, options))
        if not missing:
            return []
        if not await connection.fetchval(_HAS_SCHEMA, options.schema):
            await connection.execute(in_schema("create schema {schema}", options.schema))
        await connection.execute(in_schema(_TABLE, options.schema))
        for step in missing:
            await connection.execute(step.sql, timeout=_PATIENCE)
            await connection.execute(
                in_schema("insert into {schema}.migrations (version, name) values ($1, $2)", options.schema),
                step.version,
                step.name,
            )
    log.info("schema migrated", schema=options.schema, version=missing[-1].version)
    return missing


def _missing(options: Options, version: int) -> list[Migration]:
    steps = all_migrations(options.schema)
    if version > steps[-1].version:
        raise UnsuitableDatabase(
            f"the schema {options.schema} is of version {version}, and this program, which knows {steps[-1].version},"
            " is too old for it"
        )
    return [step for step in steps if step.version > version]


async def _version(connection: asyncpg.Connection, options: Options) -> int:
    if not await connection.fetchval(_HAS_TABLE, options.schema):
        return 0
    version = await connection.fetchval(in_schema("select max(version) from {schema}.migrations", options.schema))
    return version or 0


async def _as_it_should_be(connection: asyncpg.Connection, options: Options) -> dict[str, str]:
    scratch = f"{options.schema}_verify"
    wanted: dict[str, str] = {}
    try:
        async with connection.transaction():
            await connection.execute(in_schema("create schema {schema}", scratch))
            for step in all_migrations(scratch):
                await connection.execute(step.sql, timeout=_PATIENCE)
            wanted = await _describe(connection, scratch)
            raise _Undo
    except _Undo:
        return wanted


async def _describe(connection: asyncpg.Connection, schema: str) -> dict[str, str]:
    rows = await connection.fetch(_DESCRIBE, schema)
    return {row["name"]: row["definition"].replace(f"{schema}.", "") for row in rows}


@asynccontextmanager
async def administering(options: Options) -> AsyncIterator[asyncpg.Connection]:
    """A connection for looking after the schema, to a server that can hold a store. Raises errors of Atlas."""
    try:
        connection = await connect(options.dsn, options, planned=False)
        try:
            await check_server(connection)
            yield connection
        finally:
            await connection.close(timeout=1)
    except DRIVER_ERRORS as error:
        raise translated(error, Random()) from error
