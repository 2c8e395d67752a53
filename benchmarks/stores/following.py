"""The same jobs for a server that takes over the store: what was behind has its turn after all others of its type."""

from __future__ import annotations

from atlas_grpc import handler
from benchmarks.handlers import gate, noop

__all__ = ["behind", "gate", "noop"]


@handler
async def behind() -> None:
    """Does nothing, in the event loop."""
