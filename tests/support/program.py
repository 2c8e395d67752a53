"""A program as a process of its own, that says when it is ready, is told to end, killed and started again."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping, Sequence

PATIENCE = 60
_LONGEST_LINE = 16 << 20
"""A log line may hold a traceback."""


class Program(ABC):
    """A process, and the next one in its place. What is started is for those who inherit from it to say."""

    def __init__(
        self, *, environment: Mapping[str, str] | None = None, stdout: Any = None, with_spare: bool = False
    ) -> None:
        """`with_spare` keeps a process ready that has only to be told to go: a start takes a second otherwise. That one
        waits for a line on its standard input."""
        self.said: list[bytes] = []
        """Its last lines."""
        self.life = 0
        """How often it was started."""
        self._environment = environment
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

    @abstractmethod
    def _command(self, life: int) -> Sequence[str]:
        """What starts that life of it."""

    async def _begin(self, ready: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Starts it; answers what it said to be ready, or None when it said no such thing and nothing more."""
        await self._forget()
        self.life += 1
        self._process, self._spare = self._spare or await self._launch(self.life), None
        if self._process.stdin is not None:
            self._process.stdin.write(b"go\n")
        found: asyncio.Future[re.Match[bytes] | None] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._listen(self._process, ready, found))
        return await asyncio.wait_for(found, PATIENCE)

    async def _prepare(self) -> None:
        """Has the spare process ready, if there shall be one."""
        if self._with_spare:
            self._spare = await self._launch(self.life + 1)

    async def _launch(self, life: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command(life),
            env=self._environment,
            stdin=asyncio.subprocess.PIPE if self._with_spare else asyncio.subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
        )

    async def _listen(
        self,
        process: asyncio.subprocess.Process,
        ready: re.Pattern[bytes],
        found: asyncio.Future[re.Match[bytes] | None],
    ) -> None:
        assert process.stderr is not None
        try:
            while line := await process.stderr.readline():
                self.said = [*self.said[-49:], line]
                if not found.done() and (match := ready.search(line)):
                    found.set_result(match)
        finally:
            if not found.done():
                found.set_result(None)

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, patience: float = 20) -> int:
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
        process.kill()
    await process.wait()
    process._transport.close()  # type: ignore[attr-defined]
