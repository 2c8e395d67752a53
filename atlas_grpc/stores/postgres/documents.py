"""Documents that all servers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .database import Database


class Documents:
    """The tables of documents."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, kind: str, documents: Mapping[str, bytes]) -> None:
        """Raises StoreFull, and has then written nothing."""
        keys = sorted(documents)
        await self._database.fetch("put_documents", kind, keys, [documents[key] for key in keys])

    async def get(self, kind: str, keys: Sequence[str] | None) -> dict[str, bytes]:
        if keys is None:
            rows = await self._database.fetch("documents_of", kind)
        else:
            rows = await self._database.fetch("documents", kind, keys) if keys else ()
        return {row["key"]: row["data"] for row in rows}
