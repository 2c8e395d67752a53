"""How long to go on trying, and the pauses between two tries: exponential backoff with full jitter."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from ..clock import Clock, SystemClock

if TYPE_CHECKING:
    from ..errors import AtlasError

FIRST_PAUSE = 0.1
MAX_PAUSE = 5.0


@dataclass(frozen=True)
class Patience:
    """How long and how a cut stream is tried again."""

    limit: float
    """Seconds of continuous failure after which it is given up."""
    silence: float
    """Seconds without any message after which a stream counts as cut."""
    clock: Clock = field(default_factory=SystemClock)
    rng: Random = field(default_factory=Random)


class Tries:
    """The tries of one call or stream; they end after `limit` seconds of continuous failure."""

    def __init__(self, patience: Patience, limit: float, *, since: float | None = None) -> None:
        """The failure counts from its first error, or from `since`."""
        self._patience = patience
        self._limit = limit
        self._failing_since = since
        self._count = 0

    def heard(self, *, news: bool) -> None:
        """The server answered: the failure is over. With news, the next pause is a short one again."""
        self._failing_since = None
        if news:
            self._count = 0

    async def pause(self, error: AtlasError) -> float:
        """Waits before the next try; the seconds that are left then. Raises `error` when the limit is reached."""
        clock = self._patience.clock
        now = clock.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        left = self._failing_since + self._limit - now
        if left <= 0:
            raise error
        jitter = self._patience.rng.uniform(0, min(MAX_PAUSE, FIRST_PAUSE * 2 ** min(self._count, 10)))
        self._count += 1
        pause = min((error.retry_after or 0.0) + jitter, left)
        await clock.sleep(pause)
        return left - pause
