"""How the store is doing, as plain numbers for whoever exports them."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

BOUNDS = (0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of durations, in seconds; the last bucket is without."""


class Operation:
    """How often a statement ran, how long it took with the wait for a connection, and how often it failed."""

    __slots__ = ("buckets", "count", "failed", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.failed = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)

    def took(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds
        self.buckets[bisect_left(BOUNDS, seconds)] += 1


class Vitals(msgspec.Struct, frozen=True):
    """The state of a store at a moment."""

    connections: int
    """Open, or being made; without the one that listens."""
    in_use: int
    waiting: int
    """Calls that wait for a connection."""
    listening: bool
    feed_lag: float
    """Seconds since the feed is behind what was written; 0 while it is not. An open transaction holds it back."""
    horizon_age: int
    """How many transactions began since the oldest one that is still open."""
    operations: dict[str, Operation]
    """By the name of the statement."""
