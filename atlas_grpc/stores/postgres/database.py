"""Calls to the database: the statements by name, a connection for each, a limit on time.

Every statement is planned once for a connection and keeps that plan. Plans that are made while a table is empty must
still be good with a million rows, so what could be chosen for an empty table and is ruinous later (sequential scans,
hash and merge joins, sorting instead of an index) is switched off: every statement here is made of index scans and
nested loops. Behind a pooler in transaction mode there are no settings and no kept plans: each call is a transaction,
planned anew.
"""

from __future__ import annotations

import asyncio
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

import asyncpg

from ...errors import Unavailable
from ..base import UnsuitableDatabase
from .columns import expanded
from .faults import DRIVER_ERRORS, LOST, REPEATABLE, log, translated
from .pool import Pool

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Sequence

    from ...clock import Clock
    from .options import Options

    Rows = Sequence[asyncpg.Record]

MINIMUM_VERSION = 13
"""Of PostgreSQL: transaction ids that do not wrap, gen_random_uuid()."""

_REPEATS = 5
_JOB_COLUMNS = (
    "s.version, s.session, s.worker, s.fence, s.attempt_start, s.result, s.doc as state, p.doc as spec, p.payload"
)
_SETTINGS = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_sort": "off",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
_PART = re.compile(r"\{part (\w+)\}")


def _texts() -> dict[str, str]:
    """The statements by name; what several have in common stands in `parts`."""
    folder = files(__package__) / "sql"

    def part(match: re.Match[str]) -> str:
        return (folder / "parts" / f"{match[1]}.sql").read_text("utf-8").rstrip()

    return {
        path.name.removesuffix(".sql"): _PART.sub(part, path.read_text("utf-8"))
        for path in folder.iterdir()
        if path.name.endswith(".sql")
    }


_TEXTS = _texts()


def in_schema(text: str, schema: str) -> str:
    """A statement for a schema. Its name needs no escaping: options.py lets nothing else pass."""
    return text.replace("{schema}", f'"{schema}"').replace("{job}", _JOB_COLUMNS)


class Database:
    """The pool, and the statements of one schema."""

    def __init__(self, options: Options, clock: Clock, rng: random.Random) -> None:
        self.options = options
        self.rng = rng
        self.greet: Callable[[asyncpg.Connection], Awaitable[None]] | None = None
        """Looks at each new connection: which server it leads to."""
        self._statements = {name: in_schema(expanded(text), options.schema) for name, text in _TEXTS.items()}
        self.pool = Pool(self.connect, options.pool, options.timeout, clock, rng)

    async def connect(self) -> asyncpg.Connection:
        """A connection for calls."""
        connection = await connect(self.options.dsn, self.options, planned=not self.options.pgbouncer)
        try:
            if self.greet is not None:
                await self.greet(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def text(self, name: str) -> str:
        """A statement, for a connection in hand."""
        return self._statements[name]

    async def fetch(self, name: str, *arguments: Any) -> Rows:
        """Runs a statement. Raises Unavailable when the connection is lost, whether or not the statement took
        effect, and other errors of Atlas."""
        return await self._repeat(self._statements[name], arguments)

    async def row(self, name: str, *arguments: Any) -> asyncpg.Record:
        """The one row that a statement always answers."""
        (row,) = await self.fetch(name, *arguments)
        return row

    async def _repeat(self, statement: str, arguments: tuple[Any, ...]) -> Rows:
        for attempt in range(_REPEATS):
            if attempt:
                await asyncio.sleep(0.005 * 2**attempt * self.rng.random())
            try:
                return await self._run(statement, arguments)
            except REPEATABLE as error:
                log.info("a statement that collided is repeated", error=type(error).__name__)
                if attempt == _REPEATS - 1:
                    raise translated(error, self.rng) from error
        raise AssertionError

    async def _run(self, statement: str, arguments: tuple[Any, ...]) -> Rows:
        connection = await self.pool.lend()
        try:
            if not self.options.pgbouncer:
                return cast("Rows", await connection.fetch(statement, *arguments, timeout=self.options.timeout))
            async with asyncio.timeout(self.options.timeout), connection.transaction():
                return cast("Rows", await connection.fetch(statement, *arguments))
        except REPEATABLE:
            raise
        except DRIVER_ERRORS as error:
            if isinstance(error, LOST):
                connection.terminate()
            raise translated(error, self.rng) from error
        finally:
            self.pool.give_back(connection)


async def connect(
    dsn: str, options: Options, *, planned: bool, settings: dict[str, str] | None = None
) -> asyncpg.Connection:
    """A connection. `planned` ones have the settings that statements rely on; a pooler hands on none."""
    milliseconds = str(round(options.timeout * 1000))
    ours = {
        **_SETTINGS,
        "lock_timeout": str(round(options.timeout * 500)),
        "statement_timeout": milliseconds,
        "idle_in_transaction_session_timeout": milliseconds,
        **(settings or {}),
    }
    return await asyncpg.connect(
        dsn,
        timeout=options.timeout,
        command_timeout=options.timeout,
        statement_cache_size=200 if planned else 0,
        max_cached_statement_lifetime=0,
        server_settings={"application_name": "atlas", **(ours if planned else {})},
    )


async def check_server(connection: asyncpg.Connection) -> None:
    """Raises UnsuitableDatabase when this server cannot hold a store; Unavailable when it takes no writes now."""
    version = connection.get_server_version()
    if version.major < MINIMUM_VERSION:
        msg = f"PostgreSQL {MINIMUM_VERSION} or newer is needed, and this is {version.major}.{version.minor}"
        raise UnsuitableDatabase(msg)
    encoding = await connection.fetchval("select current_setting('server_encoding')")
    if encoding != "UTF8":
        raise UnsuitableDatabase(f"the database must be encoded in UTF8, and this one is in {encoding}")
    if await connection.fetchval("select pg_is_in_recovery()"):
        raise Unavailable("the database is a standby, which takes no writes", retry_after=1.0)
