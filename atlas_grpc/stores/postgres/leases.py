"""Claims, and the sessions that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import rows
from .columns import text
from .jobs import BATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...model import Ask, Job
    from .database import Database


class Claimed:
    """Jobs in the order of the claim, its transaction, and whether it held more than it took."""

    __slots__ = ("jobs", "left", "xid")

    def __init__(self, jobs: list[Job], xid: int = 0, *, left: bool = False) -> None:
        self.jobs = jobs
        self.xid = xid
        self.left = left


class Sessions:
    """Worker sessions, and what they hold."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, session: str, worker: str, asks: Sequence[Ask], now: int, limit: int) -> Claimed:
        """Claims in one round trip. A claim locks the row of its session, so that closing it waits."""
        limit = min(limit, BATCH)
        session, worker = text(session), text(worker)
        slots: dict[tuple[str, frozenset[str] | None], int] = {}
        for ask in asks:
            key = (ask.type, ask.queues)
            slots[key] = min(limit, slots.get(key, 0) + max(0, ask.slots))
        slots = {key: count for key, count in slots.items() if count and key[1] != frozenset()}
        if not slots or limit < 1:
            return Claimed([])
        (job_type, queues), count = next(iter(slots.items()))
        if len(slots) == 1 and queues is None:
            found = await self._database.fetch("claim_type", session, worker, now, job_type, count)
        else:
            lines = [
                (number, job_type, queue, count)
                for number, ((job_type, queues), count) in enumerate(slots.items())
                for queue in ((None,) if queues is None else sorted(queues))
            ]
            found = await self._database.fetch(
                "claim", session, worker, now, *map(list, zip(*lines, strict=True)), limit
            )
        if not found:
            return Claimed([])
        ordered = sorted(found, key=lambda row: row["fence"])
        jobs = [rows.claimed(row, session, worker, now) for row in ordered]
        return Claimed(jobs, found[0]["xid"], left=found[0]["locked"] > len(found))

    async def open(self, session: str, until: int, info: bytes) -> None:
        await self._database.fetch("open_session", session, until, info)

    async def alive(self, now: int) -> list[tuple[str, bytes]]:
        return [(row["session"], row["info"]) for row in await self._database.fetch("sessions", now)]

    async def renew(self, sessions: Sequence[str], now: int, until: int) -> list[bool]:
        if not sessions:
            return []
        renewed = {row["session"] for row in await self._database.fetch("renew", sorted({*sessions}), now, until)}
        return [session in renewed for session in sessions]

    async def close(self, session: str) -> None:
        await self._database.fetch("close_session", session)

    async def expired(self, now: int, limit: int) -> list[str]:
        return [row["session"] for row in await self._database.fetch("expired", now, limit)]

    async def held(self, session: str, limit: int) -> list[Job]:
        return [rows.decode(row) for row in await self._database.fetch("held", session, limit)]
