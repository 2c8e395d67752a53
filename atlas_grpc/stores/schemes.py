"""Which store the scheme of a URL names; known without the drivers. The first of each is the one to show."""

from __future__ import annotations

MEMORY = ("memory",)
SQLITE = ("sqlite",)
POSTGRES = ("postgresql", "postgres")
REDIS = ("redis", "rediss", "redis+unix", "unix", "redis+sentinel", "rediss+sentinel")

SHARED = (POSTGRES, REDIS)
"""The stores that several servers can use at a time."""
ALL = (MEMORY, SQLITE, *SHARED)


def shown(stores: tuple[tuple[str, ...], ...]) -> str:
    """Some of these, as a message names them."""
    return ", ".join(f"{schemes[0]}://" for schemes in stores)
