"""Jobs in PostgreSQL: durable, and one truth for any number of servers. How it is run: docs/stores/postgresql.md."""

from .database import MINIMUM_VERSION
from .migrations import Migration, migrate, verify
from .store import PostgresLimits, PostgresStore, from_url

__all__ = [
    "MINIMUM_VERSION",
    "Migration",
    "PostgresLimits",
    "PostgresStore",
    "from_url",
    "migrate",
    "verify",
]
