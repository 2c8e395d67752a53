"""Jobs in PostgreSQL: durable, and one truth for any number of servers. How it is run: docs/stores/postgresql.md."""

from .database import MINIMUM_VERSION
from .migrations import Migration, migrate, verify
from .store import PostgresLimits, PostgresStore, from_url
from .vitals import BOUNDS, Operation, Vitals

__all__ = [
    "BOUNDS",
    "MINIMUM_VERSION",
    "Migration",
    "Operation",
    "PostgresLimits",
    "PostgresStore",
    "Vitals",
    "from_url",
    "migrate",
    "verify",
]
