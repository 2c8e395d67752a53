"""Time, sleep and chance, injected everywhere so that the whole engine runs in a deterministic simulation."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import random


class Clock(Protocol):
    """A source of time."""

    def now(self) -> int:
        """The wall clock: microseconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only ever grow, from an arbitrary start."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Returns after so many seconds of this clock."""
        ...


class SystemClock:
    """The clock of the machine. Its wall time never goes back within a process, whatever happens to the host's."""

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.monotonic_ns()

    def now(self) -> int:
        return (time.monotonic_ns() + self._offset) // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def uuid7(now: int, rng: random.Random) -> str:
    """A UUID of version 7 (RFC 9562): it sorts by `now` (microseconds, kept in full), then at random."""
    millis, micros = divmod(now, 1000)
    bits = millis << 80 | 0x7 << 76 | (micros << 2) << 64 | 0b10 << 62 | rng.getrandbits(62)
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
