"""`atlas serve` as a process of its own, on a port that stays its own however often it is killed and started again."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc

from atlas_grpc import pb
from tests.support.program import Program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

SERVE = [sys.executable, "-m", "atlas_grpc.cli", "serve", "--http-address", "off"]

_SPARE = [
    *(sys.executable, "-c"),
    # All of an `atlas serve` but its last step.
    "import sys, atlas_grpc.server.main; from atlas_grpc.cli import main; sys.stdin.readline() and sys.exit(main())",
    *SERVE[3:],
]

_ADDRESS = re.compile(rb'serving.*grpc(?:":"|=)([^" ]+)')
_IMPATIENT = (
    # A test knows when its server is back, and need not be polite.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.max_receive_message_length", 64 << 20),
)


class Served(Program):
    """A server process, a channel to it and the generated stub."""

    def __init__(
        self, flags: Sequence[str], *, stdout: Any = asyncio.subprocess.DEVNULL, with_spare: bool = False
    ) -> None:
        super().__init__(stdout=stdout, with_spare=with_spare)
        self.address = "127.0.0.1:0"
        self.channel: Any = None
        self.stub: Any = None
        self._flags = flags

    def _command(self, life: int) -> Sequence[str]:
        return [*(_SPARE if self._with_spare else SERVE), "--grpc-address", self.address, *self._flags]

    async def start(self) -> None:
        """Starts it; returns when it serves. The first start chooses the port."""
        found = await self._begin(_ADDRESS)
        assert found is not None, b"".join(self.said)
        if self.channel is None:
            self.address = found[1].decode()
            self.channel = grpc.aio.insecure_channel(self.address, options=_IMPATIENT)  # it finds the next process too
            self.stub = pb.JobServiceStub(self.channel)
        await self._prepare()

    async def close(self) -> None:
        """Ends the process, if it has not ended, and the channel."""
        if self.channel is not None:
            await self.channel.close()
        await super().close()


@asynccontextmanager
async def atlas(
    *flags: str, stdout: Any = asyncio.subprocess.DEVNULL, log_format: str = "json"
) -> AsyncIterator[Served]:
    """Starts a server on a free port, and sees to it that it ends."""
    server = Served(["--log-format", log_format, *flags], stdout=stdout)
    try:
        await server.start()
        yield server
    finally:
        await server.close()
