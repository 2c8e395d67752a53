"""The pauses of a worker between tries to reach its source."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from ..clock import Clock

FIRST = 0.1
LONGEST = 0.8
"""However long the source was away: its jobs go on within a second of its return."""


class Backoff:
    """Pauses that double from 0.1 s to 0.8 s, each between a half and the whole of that, drawn."""

    __slots__ = ("_clock", "_rng", "failures")

    def __init__(self, clock: Clock, rng: Random) -> None:
        self._clock = clock
        self._rng = rng
        self.failures = 0

    def reset(self) -> None:
        """It worked."""
        self.failures = 0

    def next(self) -> float:
        """It failed (again): the seconds to wait."""
        whole = min(LONGEST, FIRST * 2.0 ** min(self.failures, 10))
        self.failures += 1
        return whole * self._rng.uniform(0.5, 1.0)

    async def pause(self) -> None:
        """It failed (again): waits."""
        await self._clock.sleep(self.next())
