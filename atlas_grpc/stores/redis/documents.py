"""Documents that all servers share: a hash for each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._documents import full
from ..base import MAX_DOCUMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .link import Link


async def put(link: Link, kind: str, documents: Mapping[str, bytes]) -> None:
    """One call of one script, and acknowledged as jobs are. Raises StoreFull, and has then written nothing."""
    options = link.target.options
    # What is there already may have been written by a call that was never confirmed.
    trace = options.wait_aof or options.wait_replicas > 0
    told = (kind, MAX_DOCUMENTS, trace, *documents)
    (stored,) = await link.run_all("put_documents", [(told, tuple(documents.values()))], confirm=True)
    if not stored:
        raise full()


async def get(link: Link, kind: str, keys: Sequence[str] | None) -> dict[str, bytes]:
    """Those of the keys that are there, or all."""
    if keys is None:
        answer = await link.command("HGETALL", _hash(link, kind))
        return {name.decode(): data for name, data in zip(answer[::2], answer[1::2], strict=True)}
    found = await link.command("HMGET", _hash(link, kind), *keys) if keys else ()
    return {name: data for name, data in zip(keys, found, strict=True) if data is not None}


def _hash(link: Link, kind: str) -> bytes:
    return link.key(f"docs:{kind}")
