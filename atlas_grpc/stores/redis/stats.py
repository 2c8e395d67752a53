"""Numbers about a store, for whoever exports them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from .audit import Auditor
    from .link import Link
    from .server import Server

_SLOWEST_HALF_LIFE = 0.999


class Operation(msgspec.Struct):
    """How often an operation was called, how long it took in seconds, and how often it failed."""

    calls: int = 0
    failures: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    """The longest of late: it fades with every call."""


class Stats:
    """Operations by their name."""

    def __init__(self) -> None:
        self.operations: dict[str, Operation] = {}

    def note(self, name: str, seconds: float, *, failed: bool) -> None:
        """Counts one call."""
        operation = self.operations.get(name)
        if operation is None:
            operation = self.operations[name] = Operation()
        operation.calls += 1
        operation.failures += failed
        operation.seconds += seconds
        operation.slowest = max(seconds, operation.slowest * _SLOWEST_HALF_LIFE)


class Health(msgspec.Struct, frozen=True):
    """How a store's server and the ties to it are."""

    server: str
    version: str
    aof: str
    """`always`, `everysec`, `no`, `off` (no append-only file) or `unknown`."""
    used_memory: int
    max_memory: int
    """0: as much as the machine has."""
    feed_entries: int
    feed_head: int
    """The number of the last change."""
    feed_kept: int
    """How many changes can be resumed from, at least."""
    connects: int
    losses: int
    arrivals: int
    """How many server processes were met."""
    audits: int
    repaired: int

    @classmethod
    def of(cls, told: Server, feed: list[Any], link: Link, auditor: Auditor) -> Health:
        """From what the server answered; `feed`: number of entries, last change, first entry."""
        entries, head, oldest = feed[0], int(feed[1] or 0), feed[2]
        first = int(oldest[0][0].partition(b"-")[0]) if oldest else head + 1
        return cls(
            told.name,
            ".".join(map(str, told.version)),
            told.aof,
            told.used_memory,
            told.max_memory,
            entries,
            head,
            head - first + 1,
            link.pool.connects,
            link.losses,
            link.arrivals,
            auditor.passes,
            auditor.repaired,
        )
