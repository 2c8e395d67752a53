"""Where a runner gets its work: the one seam between executing jobs and the engine (in process) or gRPC (remote)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..model import Ask, Assignment, Report, TypeInfo, Update


class WorkSource(Protocol):
    """A session with whoever hands out work. All calls are made from one event loop."""

    async def open(
        self, worker: str, types: Sequence[TypeInfo], slots: int, on_stop: Callable[[str, int, str], None]
    ) -> None:
        """Opens a session for the worker of that name.

        `on_stop(job_id, fence, why)` is called from the loop for an attempt of this session that must stop: `why` is
        `cancelled` (report Stopped, or how it ended if it ended first) or `lost` (the lease is gone: a report would be
        refused).
        """
        ...

    async def lease(self, asks: Sequence[Ask], limit: int) -> list[Assignment]:
        """Takes up to `limit` jobs that match the asks, best first. Waits until there is at least one.

        Cancelling the call loses nothing: a job that was claimed meanwhile goes back uncounted.
        """
        ...

    async def finish(self, reports: Sequence[Report]) -> list[bool]:
        """Hands in how attempts ended; True for each that was accepted, False for each whose lease was lost."""
        ...

    async def update(self, updates: Sequence[Update]) -> list[bool]:
        """Hands in progress and logs; False for each whose lease was lost."""
        ...

    async def close(self) -> None:
        """Ends the session. Attempts that it still holds go back at once, uncounted."""
        ...
