"""`atlas worker` as a process of its own, that is killed, stopped and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PROGRAM = [sys.executable, str(Path(__file__).with_name("tapped_worker.py")), "worker"]
_PATIENCE = 60


class Worked:
    """A worker process, and the next one of the same name."""

    def __init__(
        self,
        name: str,
        servers: Sequence[str],
        handlers: str,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        with_spare: bool = False,
    ) -> None:
        """`with_spare` keeps a process ready that has only to be told to go."""
        self.name = name
        self.said: list[bytes] = []
        """Its last lines."""
        self.life = 0
        """How often it was started."""
        targets = [part for server in servers for part in ("--server", server)]
        self._command = [*_PROGRAM, handlers, *targets, *flags, "--log-format", "json"]
        self._environment = {**os.environ, **(environment or {})}
        self._with_spare = with_spare
        self._spare: asyncio.subprocess.Process | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._ever_connected = False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def life_name(self) -> str:
        """What Atlas knows this life of it by."""
        return f"{self.name}-{self.life}"

    async def start(self) -> None:
        """Starts it; returns when it is connected, and perhaps dead again already."""
        await self._forget()
        self.life += 1
        self._connected.clear()
        self._ever_connected = False
        self._process, self._spare = self._spare or await self._launch(self.life), None
        if self._with_spare:
            assert self._process.stdin is not None
            self._process.stdin.write(b"go\n")
            self._spare = await self._launch(self.life + 1)
        self._reading = asyncio.ensure_future(self._listen(self._process))
        await asyncio.wait_for(self._connected.wait(), _PATIENCE)
        killed = self._process.returncode == -signal.SIGKILL  # perhaps before its last line had left
        assert self._ever_connected or killed, b"".join(self.said)

    async def _launch(self, life: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command,
            *("--name", f"{self.name}-{life}"),
            env={**self._environment, **({"ATLAS_TEST_SPARE": "1"} if self._with_spare else {})},
            stdin=asyncio.subprocess.PIPE if self._with_spare else asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=16 << 20,
        )

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            self.said = [*self.said[-49:], line]
            if b'"connected"' in line:
                self._ever_connected = True
                self._connected.set()
        self._connected.set()

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, patience: float = _PATIENCE) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), patience)

    async def kill(self) -> None:
        """kill -9."""
        assert self.running, b"".join(self.said)
        await self._forget()

    async def close(self) -> None:
        """Ends the process, if it has not ended."""
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
        process.send_signal(signal.SIGCONT)
        process.kill()
    await process.wait()
    process._transport.close()  # type: ignore[attr-defined]
