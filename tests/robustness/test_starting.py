"""Programs that cannot start, are slow to, or are told to stop meanwhile."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from atlas_grpc import Client
from atlas_grpc.testing import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HANDLERS = str(Path(__file__).with_name("starting_handlers.py"))
ATLAS = str(Path(sys.executable).with_name("atlas"))
"""The console command, which finds modules otherwise than `python -m` does."""
PATIENCE = 40.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@asynccontextmanager
async def a_program(*command: str, lifespan: str = "takes 0", cwd: Path | None = None) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=os.environ | {"ATLAS_TEST_LIFESPAN": lifespan},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Program:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def until(self, words: bytes) -> None:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while words not in await self._process.stdout.readline():
                assert not self._process.stdout.at_eof()

    async def end(self) -> tuple[int, str]:
        """The exit code, and what it said meanwhile."""
        said, _ = await asyncio.wait_for(self._process.communicate(), PATIENCE)
        assert self._process.returncode is not None
        return self._process.returncode, said.decode()

    def send(self, number: int) -> None:
        self._process.send_signal(number)


async def test_several_workers_that_cannot_start_say_so_once_and_end() -> None:
    async with (
        serving(HANDLERS, worker=False, grace=0) as server,
        a_program(
            *(ATLAS, "worker", HANDLERS, "--server", server.grpc_address, "--processes", "3"), lifespan="fails"
        ) as worker,
    ):
        code, said = await worker.end()
    assert (code, said.count("lifespan database failed"), said.count("beginning")) == (1, 1, 1), said


@pytest.mark.parametrize("command", ["worker", "serve"])
async def test_neighbours_of_handlers_shadow_nothing_in_several_processes(command: str, tmp_path: Path) -> None:
    """A module of the handlers' folder may be called as one of Python's own."""
    shutil.copy(HANDLERS, tmp_path / "handlers.py")
    for name in ("queue", "types", "click", "socketserver"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('it was shadowed')")
    if command == "worker":
        async with serving(HANDLERS, worker=False, grace=0) as server, Client(server.grpc_address) as client:
            job = await client.submit("one")
            options = ("--server", server.grpc_address, "--processes", "2", "--burst")
            async with a_program(ATLAS, command, "handlers.py", *options, cwd=tmp_path) as worker:
                assert (await worker.end())[0] == 0
            assert await job.result(timeout=PATIENCE) == 1
    else:
        options = ("--handlers", "handlers.py", "--grpc-address", "127.0.0.1:0", "--http-address", "off")
        async with a_program(ATLAS, command, *options, "--reload", cwd=tmp_path) as serve:
            await serve.until(b"serving")
            serve.send(signal.SIGTERM)
            assert (await serve.end())[0] == 0


SOON = (
    "from atlas_grpc.cli import main; from atlas_grpc.remote import main as worker; worker.BURST_PATIENCE = 1.0; main()"
)


async def test_the_patience_of_a_burst_begins_when_it_looks_for_a_server() -> None:
    async with serving(HANDLERS, worker=False, grace=0) as server, Client(server.grpc_address) as client:
        job = await client.submit("one")
        command = (sys.executable, "-c", SOON, "worker", HANDLERS, "--burst", "--server", server.grpc_address)
        async with a_program(*command, lifespan="takes 2") as worker:
            code, said = await worker.end()
            assert code == 0, said
        assert await job.result(timeout=PATIENCE) == 1


async def test_a_second_signal_ends_a_server_that_does_not_let_itself_be_stopped_while_it_starts() -> None:
    options = ("--handlers", HANDLERS, "--grpc-address", "127.0.0.1:0", "--http-address", "off")
    async with a_program(ATLAS, "serve", *options, lifespan="stays") as serve:
        await serve.until(b"beginning")
        serve.send(signal.SIGTERM)
        await serve.until(b"told to stop")
        serve.send(signal.SIGTERM)
        assert (await serve.end())[0] == 0
