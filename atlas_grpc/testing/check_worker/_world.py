"""What a check has: a server behind wires, the worker process, and jobs that leave traces in files."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Unpack

from ...client import Client, Transitioned
from ..server import serving
from ._kit import broken, expect
from ._wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from ...client import JobHandle, SubmitOptions
    from ...server.app import AtlasServer

LEASE = 3.0
"""Seconds that a session is kept: short, so that a check need not wait long for its end."""
MARGIN = 1.0
"""Seconds by which a worker may be late where the contract names a time: it runs on a machine that others use."""
TYPES = frozenset({"check.echo", "check.steps", "check.fail", "check.tick"})
_PAUSE = 0.02


class Worker:
    """The worker under test: a process, and all that it starts."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.returncode

    def tell_to_end(self) -> None:
        if self.code is None:
            self._process.terminate()

    def pause(self) -> None:
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    async def ended(self, seconds: float) -> int:
        """Waits for its end. Raises Broken."""
        try:
            return await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            broken(f"the worker still runs {seconds:g} s after SIGTERM")

    async def kill(self) -> None:
        self._signal_all(signal.SIGKILL)
        await self._process.wait()

    def output(self, lines: int) -> str:
        """The last lines that it wrote."""
        return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-lines:])

    def _signal_all(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


class Ticking:
    """A job of type `check.tick`, and the file to which each of its executions writes."""

    def __init__(self, job: JobHandle, file: Path) -> None:
        self.job = job
        self._file = file

    def lines(self) -> list[str]:
        return self._file.read_text("utf-8").split() if self._file.exists() else []

    def expect_executed_once(self) -> None:
        expect(self.lines().count("begin"), 1, "executions of the job")

    async def quiet_after(self, moment: float, why: str) -> None:
        """Raises Broken when it ticks after this time (of the wall clock), or comes to its end."""
        await asyncio.sleep(max(0.0, moment - time.time()) + 1.0)
        if "end" in self.lines():
            broken(f"the job went on to its end {why}")
        late = self._file.stat().st_mtime - moment
        if late > 0:
            broken(f"the job went on {why}: it still ticked {late:.1f} s after the last moment allowed")


class World:
    """A server, its client (which does not pass the wires), and the worker."""

    def __init__(self, folder: Path, patience: float, settings: dict[str, Any]) -> None:
        self.patience = patience
        self._folder = folder
        self._settings = settings
        self._files = 0
        self.client: Client
        self.server: AtlasServer
        self.worker: Worker
        self.wires: tuple[Wire, ...] = ()

    async def submit(self, type: str, payload: dict[str, Any], **options: Unpack[SubmitOptions]) -> JobHandle:
        return await self.client.submit(type, payload, **options)

    async def ticking(self, seconds: float, **options: Unpack[SubmitOptions]) -> Ticking:
        """A job that is to tick for so long."""
        self._files += 1
        file = self._folder / f"tick-{self._files}"
        return Ticking(await self.submit("check.tick", {"seconds": seconds, "file": str(file)}, **options), file)

    async def tick(self, seconds: float, **options: Unpack[SubmitOptions]) -> Ticking:
        """As `ticking`; returns once it has begun to."""
        ticking = await self.ticking(seconds, **options)
        await self.until(lambda: "tick" in ticking.lines(), "check.tick writes `begin` and `tick` to its file")
        return ticking

    async def until(self, holds: Callable[[], object], what: str) -> None:
        """Raises Broken when this does not come to hold."""
        try:
            async with asyncio.timeout(self.patience):
                while not holds():
                    if self.worker.code is not None:
                        broken(f"the worker ended, with exit code {self.worker.code}")
                    await asyncio.sleep(_PAUSE)
        except TimeoutError:
            broken(f"waited {self.patience:g} s in vain: {what}")

    async def finished(self, job: JobHandle) -> JobHandle:
        """The job at its end. Raises Broken when it does not come."""
        try:
            async with asyncio.timeout(self.patience):
                return await job.wait()
        except TimeoutError:
            now = await self.client.get(job)
            broken(f"the job of type {now.type} is still {now.state.name} after {self.patience:g} s")

    async def taken(self, job: JobHandle) -> None:
        """Waits until the server has given the job out. Raises Broken."""
        try:
            async with asyncio.timeout(self.patience):
                async with job.watch(include_logs=False) as events:
                    async for event in events:
                        if isinstance(event, Transitioned) and event.cause == "STARTED":
                            return
        except TimeoutError:
            broken(f"the job was not taken within {self.patience:g} s")

    async def announced(self) -> None:
        """Waits until the worker has announced all types of the suite."""
        known: set[str] = set()

        async def all_known() -> None:
            while not known >= TYPES and self.worker.code is None:
                known.update(kind.name for kind in await self.client.types())
                await asyncio.sleep(_PAUSE)

        try:
            await asyncio.wait_for(all_known(), self.patience)
        except TimeoutError:
            broken(f"after {self.patience:g} s it had not announced {', '.join(sorted(TYPES - known))}")
        if self.worker.code is not None:
            broken(f"the worker ended, with exit code {self.worker.code}")

    async def works(self) -> None:
        """Raises Broken unless the worker executes a job now."""
        job = await self.finished(await self.submit("check.echo", {"value": "still here"}))
        expect(job.state.name, "SUCCESS", "the state of a further job")

    async def attempts(self, job: JobHandle) -> list[str]:
        """How the attempts of a job ended."""
        return [attempt.outcome for attempt in (await self.client.get(job)).attempts]

    async def start_server(self) -> None:
        options: dict[str, Any] = {"store": "memory://", "lease": LEASE, "cancel_grace": 60.0, "worker": False}
        options |= self._settings
        self._serving = serving(grace=0, http_address="127.0.0.1:0", log_level="error", **options)
        self.server = await self._serving.__aenter__()
        self.client = Client(self.server.grpc_address)
        assert self.server.http is not None
        ports = (int(self.server.grpc_address.rpartition(":")[2]), self.server.http.port)
        if not self.wires:
            self.wires = tuple(Wire(port) for port in ports)
        for wire, port in zip(self.wires, ports, strict=True):
            wire.upstream = port

    async def stop_server(self) -> None:
        await self.client.close()
        await self._serving.__aexit__(None, None, None)


@asynccontextmanager
async def a_world(command: str, folder: Path, patience: float, **settings: Any) -> AsyncIterator[World]:
    """A world, whose worker has just been started. Raises OSError when it cannot be."""
    world = World(folder, patience, settings)
    await world.start_server()
    try:
        for wire in world.wires:
            await wire.start()
        world.worker = await _started(command, folder, *(f"127.0.0.1:{wire.port}" for wire in world.wires))
        try:
            yield world
        finally:
            await world.worker.kill()
    finally:
        for wire in world.wires:
            await wire.stop()
        await world.stop_server()


async def _started(command: str, folder: Path, server: str, http: str) -> Worker:
    words = [word.replace("{server}", server).replace("{http}", f"http://{http}") for word in shlex.split(command)]
    variables = {"ATLAS_SERVER": server, "ATLAS_HTTP_SERVER": f"http://{http}"}
    log = folder / "worker.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *words,
            env=os.environ | variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Worker(process, log)
