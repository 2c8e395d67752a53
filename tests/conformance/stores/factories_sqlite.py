"""SQLite stores for the conformance tests, each on a fresh file."""

from __future__ import annotations

from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

from atlas_grpc.model import SECOND
from atlas_grpc.stores.sqlite import SqliteLimits, SqliteStore
from atlas_grpc.testing import FakeClock
from atlas_grpc.testing.stores import StoreFactory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atlas_grpc.stores.base import Store


class SqliteFactory(StoreFactory):
    """On a clock that stands still until the check asks it to move."""

    durable = True
    limits = frozenset(SqliteLimits.__struct_fields__)

    @asynccontextmanager
    async def __call__(self, **limits: int) -> AsyncIterator[Store]:
        with TemporaryDirectory() as folder:
            yield SqliteStore(f"{folder}/jobs.db", FakeClock(), SqliteLimits(**limits))

    def another(self, store: Store) -> Store:
        mine = cast("SqliteStore", store)
        # Two kits that begin at the same instant would make the same ids.
        cast("FakeClock", mine._clock).tick(SECOND)
        return SqliteStore(mine.path, mine._clock, mine._limits)

    async def pass_time(self, store: Store, micros: int) -> None:
        cast("FakeClock", cast("SqliteStore", store)._clock).tick(micros)
