"""One PostgreSQL server for these tests, a schema for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import postgres
from tests.support.postgres_bench import Bench, bench_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.PostgresServer]:
    with postgres.running() as running:
        yield running


@pytest.fixture
async def bench(server: postgres.PostgresServer) -> AsyncIterator[Bench]:
    async with bench_on(server.url()) as made:
        yield made
