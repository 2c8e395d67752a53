"""Servers on one store, and workers elsewhere, as processes of their own."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from benchmarks import machine
from benchmarks.servers import Atlas, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.stores.engines import Engine

HANDLERS = "benchmarks.faults.handlers"
_PATIENCE = 120.0


class Event(NamedTuple):
    """What a handler wrote. `time` in seconds of the monotonic clock."""

    what: str
    job_id: str
    attempt: int
    time: float


class Worker(Server):
    """`atlas worker`."""

    def __init__(self, name: str, servers: list[str], events: Path, *options: str) -> None:
        targets = [part for server in servers for part in ("--server", server)]
        command = ["-m", "atlas_grpc.cli", "worker", HANDLERS, *targets, "--name", name, "--log-level", "warning"]
        environment = {"BENCH_EVENTS": str(events)}
        super().__init__(name, [*command, *options], machine.cores(), environment=environment)


class Crew:
    """A context: one server on the memory store, two on one that they can share; and workers as they are asked for."""

    def __init__(self, engine: Engine, lease: float) -> None:
        self._engine = engine
        self._lease = lease
        self._stack = ExitStack()
        self.targets: list[str] = []
        self.events = Path()

    def __enter__(self) -> Self:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="atlas-bench-"))
        self.events = Path(folder, "events")
        self.events.touch()
        url = self._engine.new_url()
        shared = self._engine.name in ("postgresql", "redis", "valkey")
        for _ in range(2 if shared else 1):
            options = ("--no-worker", "--lease", f"{self._lease:g}s")
            server = self._stack.enter_context(Atlas(machine.cores(), *options, store=url, handlers=""))
            self.targets.append(server.target)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def worker(self, name: str, *options: str, at: int = 0) -> Worker:
        """Starts a worker at the server of that number."""
        target = self.targets[at % len(self.targets)]
        return self._stack.enter_context(Worker(name, [target], self.events, *options))

    def read(self) -> Iterator[Event]:
        """What was written until now."""
        for line in self.events.read_text("ascii").splitlines():
            what, job_id, attempt, nanoseconds = line.split()
            yield Event(what, job_id, int(attempt), int(nanoseconds) / 1e9)

    def find(self, what: str, attempt: int = 1) -> dict[str, float]:
        """When that happened to each job first, in that attempt."""
        return {event.job_id: event.time for event in self.read() if (event.what, event.attempt) == (what, attempt)}


async def until(holds: Callable[[], object]) -> None:
    """Returns when that holds. Raises RuntimeError when it does not for long."""
    try:
        async with asyncio.timeout(_PATIENCE):
            while not holds():  # noqa: ASYNC110 - it is written by other processes
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise RuntimeError("what was waited for did not happen") from None
