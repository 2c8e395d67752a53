"""Random operations on a SQLite store and on the naive model."""

from __future__ import annotations

from hypothesis import settings

from tests.conformance.stores.factories_sqlite import SqliteFactory
from tests.conformance.stores.test_model import DEEP, StoreMachine


class SqliteMachine(StoreMachine):
    factory = SqliteFactory()


class TestSqlite(SqliteMachine.TestCase):
    settings = settings(max_examples=30 * DEEP, stateful_step_count=40 if DEEP == 1 else 120, deadline=None)
