"""The clock of a database server, as a process far from it knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Unavailable
from ..model import SECOND

if TYPE_CHECKING:
    from ..clock import Clock

_DRIFT = 0.000_2
"""How much faster or slower than the server's clock the local one may be taken to run; NTP allows 500 ppm."""


class ServerClock:
    """Time by samples of a server's clock, counted on by the local monotonic clock; wall clocks here do not matter.

    A sample tells the server's time somewhere between the request and the answer, so of several samples the one with
    the shortest way is the best. It grows worse with age, and a later one replaces it when that is better by then.
    """

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._offset: int | None = None
        self._error = 0.0
        self._at = 0.0
        self._latest = 0

    def began(self) -> float:
        """What to hand to `sample` as the time of the request."""
        return self._monotonic()

    def sample(self, began: float, server_time: int) -> None:
        """The server answered its time (microseconds) to a request made at `began`; call it as soon as it did."""
        ended = self._monotonic()
        error = (ended - began) / 2
        offset = server_time - round((began + ended) / 2 * SECOND)
        known = self._error + (ended - self._at) * _DRIFT
        if self._offset is None or error <= known or abs(offset - self._offset) > (error + known) * SECOND:
            self._offset, self._error, self._at = offset, error, ended

    def now(self) -> int:
        """Microseconds on the server's clock. Does not go back by what a better sample corrects. Raises Unavailable
        before the first sample.
        """
        if self._offset is None:
            raise Unavailable("the store's clock is not known yet")
        now = round(self._monotonic() * SECOND) + self._offset
        if now < self._latest <= now + SECOND:
            return self._latest
        self._latest = now
        return now
