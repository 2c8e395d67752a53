"""Where a runner gets its work: the one seam between executing jobs and the engine (in process) or gRPC (remote)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..model import patiently

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..model import Assignment, AtOnce, Report, Room, TypeInfo, Update


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

    async def lease(self, room: Room, *, at_once: AtOnce = patiently) -> list[Assignment]:
        """Takes jobs that there is room for, best first. Waits until there is at least one; while `at_once()` holds,
        which is looked at whenever `room` is, answers with none as soon as there is none that is ready. One call at a
        time.

        Cancelling the call loses nothing: a job that was claimed meanwhile goes back uncounted.
        """
        ...

    def more_room(self) -> None:
        """There is room for types that the lease that waits did not ask for, or it shall wait no longer: it asks
        again."""
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
