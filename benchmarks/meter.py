"""A window of time in which calls are counted, and the CPU time that both sides used in it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from . import machine

Answer = dict[str, Any]
"""What a command of the client process answers."""


class Meter:
    """Begins after `warmup` seconds and lasts for `seconds`, both on `time.perf_counter`."""

    def __init__(self, pid: int, warmup: float, seconds: float) -> None:
        """`pid` is the server's process."""
        self._pid = pid
        self.begin = time.perf_counter() + warmup
        self.stop = self.begin + seconds
        self.took = seconds
        """How long the window really was: a busy loop ends it late."""
        self._server = 0.0
        self._client = 0.0

    async def run(self) -> None:
        """Returns at the end of the window."""
        await asyncio.sleep(self.begin - time.perf_counter())
        start, server, client = time.perf_counter(), machine.cpu_seconds(self._pid), time.process_time()
        await asyncio.sleep(self.stop - time.perf_counter())
        self.took, after = time.perf_counter() - start, machine.cpu_seconds(self._pid)
        self._server = (after - server) / self.took if after is not None and server is not None else 0.0
        self._client = (time.process_time() - client) / self.took

    def answer(self, count: int, seconds: float, latencies: list[int]) -> Answer:
        """The count by second, the latencies, and the shares of a CPU that the server and this process used."""
        return {
            "rate": count / seconds,
            "latencies": latencies,
            "server_cpu": self._server,
            "client_cpu": self._client,
        }
