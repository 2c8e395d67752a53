"""A window of time in which calls are counted, and the CPU time that all sides used in it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from . import machine

Answer = dict[str, Any]
"""What a command of the client process answers."""


class Usage:
    """The CPU time that a server, the engine of its store, its worker and this process use from now on."""

    def __init__(self, pid: int, engine: int = 0, worker: int = 0) -> None:
        """`pid` is the server's process, `engine` the main one of its store; 0 where there is none."""
        self._pids = pid, engine, worker
        self._before = self._seconds()
        self.start = time.perf_counter()

    def shares(self) -> Answer:
        """As shares of a CPU, 0 where the system does not tell."""
        took = time.perf_counter() - self.start
        names = ("server_cpu", "engine_cpu", "worker_cpu", "client_cpu")
        return {
            name: (after - before) / took
            for name, after, before in zip(names, self._seconds(), self._before, strict=True)
        }

    def _seconds(self) -> tuple[float, ...]:
        return *map(machine.cpu_seconds, self._pids), time.process_time()


class Meter:
    """Begins after `warmup` seconds and lasts for `seconds`, both on `time.perf_counter`."""

    def __init__(self, pid: int, warmup: float, seconds: float, engine: int = 0, worker: int = 0) -> None:
        """The processes are those of `Usage`."""
        self._pids = pid, engine, worker
        self.begin = time.perf_counter() + warmup
        self.stop = self.begin + seconds
        self.took = seconds
        """How long the window really was: a busy loop ends it late."""
        self._shares: Answer = {}

    async def run(self) -> None:
        """Returns at the end of the window."""
        await asyncio.sleep(self.begin - time.perf_counter())
        usage = Usage(*self._pids)
        await asyncio.sleep(self.stop - time.perf_counter())
        self.took, self._shares = time.perf_counter() - usage.start, usage.shares()

    def answer(self, count: int, seconds: float, latencies: list[int]) -> Answer:
        """The count by second, the latencies in µs, and what `Usage` tells."""
        return {"rate": count / seconds, "latencies": latencies, **self._shares}
