"""`atlas serve` as a process of its own, on a port that stays its own however often it is killed and started again."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc

from atlas_grpc import pb

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
_PATIENCE = 60
_LONGEST_LINE = 16 << 20
"""A log line may hold a traceback."""
_IMPATIENT = (
    # A test knows when its server is back, and need not be polite.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.max_receive_message_length", 64 << 20),
)


class Served:
    """A server process, a channel to it and the generated stub."""

    def __init__(
        self, flags: Sequence[str], *, stdout: Any = asyncio.subprocess.DEVNULL, with_spare: bool = False
    ) -> None:
        """`with_spare` keeps a process ready that has only to be told to go: a start takes a second otherwise."""
        self.address = "127.0.0.1:0"
        self.channel: Any = None
        self.stub: Any = None
        self.said: list[bytes] = []
        """Its last lines."""
        self._flags = flags
        self._stdout = stdout
        self._with_spare = with_spare
        self._spare: asyncio.subprocess.Process | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Starts it; returns when it serves. The first start chooses the port."""
        self._process, self._spare = self._spare or await self._launch(), None
        if self._process.stdin is not None:
            self._process.stdin.write(b"go\n")
        await self._serving()
        if self._with_spare:
            self._spare = await self._launch()

    async def _launch(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(_SPARE if self._with_spare else SERVE),
            *("--grpc-address", self.address, *self._flags),
            stdin=asyncio.subprocess.PIPE if self._with_spare else None,
            stdout=self._stdout,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
        )

    async def _serving(self) -> None:
        assert self._process is not None
        stream = self._process.stderr
        assert stream is not None
        lines: list[bytes] = []
        async with asyncio.timeout(_PATIENCE):
            while not (lines and _ADDRESS.search(lines[-1])):
                line = await stream.readline()
                assert line, b"".join(lines)
                lines.append(line)
        found = _ADDRESS.search(lines[-1])
        assert found is not None
        self._reading = asyncio.ensure_future(self._listen(stream))
        if self.channel is None:
            self.address = found[1].decode()
            self.channel = grpc.aio.insecure_channel(self.address, options=_IMPATIENT)
            self.stub = pb.JobServiceStub(self.channel)

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self.said = [*self.said[-49:], line]

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, patience: float = 20) -> int:
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), patience)

    async def kill(self) -> None:
        """kill -9. The channel stays: it finds the next process of this server."""
        assert self._process is not None
        assert self._process.returncode is None, b"".join(self.said)
        self._process.send_signal(signal.SIGKILL)
        await self._forget()

    async def close(self) -> None:
        """Ends the process, if it has not ended, and the channel."""
        if self.channel is not None:
            await self.channel.close()
        await self._forget()
        if self._spare is not None:
            await _end(self._spare)

    async def _forget(self) -> None:
        if self._process is not None:
            await _end(self._process)
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
    process._transport.close()  # type: ignore[attr-defined]


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
