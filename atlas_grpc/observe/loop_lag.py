"""How late the event loop is: the first sign that something blocks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from ..clock import Clock
    from .metrics import Metrics

_INTERVAL = 0.25


class LoopLag:
    """Sleeps, and observes how much longer than asked for it took. Timers of a loop are exact to about 1 ms."""

    def __init__(self, clock: Clock, metrics: Metrics, interval: float = _INTERVAL) -> None:
        self._clock = clock
        self._histogram = metrics.loop_lag
        self._interval = interval
        self.latest = 0.0
        """The last sample, in seconds; what an overload guard may go by."""

    async def run(self) -> NoReturn:
        """Samples until it is cancelled."""
        while True:
            start = self._clock.monotonic()
            await self._clock.sleep(self._interval)
            self.latest = max(0.0, self._clock.monotonic() - start - self._interval)
            self._histogram.observe(self.latest)
