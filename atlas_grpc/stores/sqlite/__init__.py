"""Jobs in a SQLite file."""

from __future__ import annotations

from .sqlite import SqliteStore, from_url
from .transaction import SqliteLimits

__all__ = ["SqliteLimits", "SqliteStore", "from_url"]
