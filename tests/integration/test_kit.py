"""Middleware, dependencies and lifespans over gRPC: in a server, and in a worker beside one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from atlas_grpc import Client, errors
from atlas_grpc.client import Logged
from atlas_grpc.testing import serving
from tests.integration import kit_handlers
from tests.support.served import atlas
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PATIENCE = 30.0
HANDLERS = str(Path(__file__).with_name("kit_handlers.py"))
TYPES = ("kit.task", "kit.thread", "kit.process")


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    path = tmp_path / "notes"
    path.touch()
    monkeypatch.setenv("KIT_NOTES", str(path))
    return lambda: path.read_text().splitlines()


@asynccontextmanager
async def a_program(*arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atlas_grpc.cli", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def check_all(client: Client, notes: Callable[[], list[str]]) -> None:
    """What the handlers answer and leave, wherever they are executed."""
    for name in TYPES:
        job = await client.submit(name, labels={"tenant": "ada"})
        result: Any = await job.result(timeout=PATIENCE)
        if name == "kit.process":
            assert result == {"session": "session of kit.process with None", "own": True, "grpc": False}
        else:
            assert result == {"session": f"session of {name} with the pool", "tenant": "ada"}
        said = [event.message async for event in job.watch() if isinstance(event, Logged)]
        assert [line.split()[0] for line in said] == ["took"]
        bad = await client.submit(name, {"fail": True})
        with pytest.raises(errors.JobFailed) as caught:
            await bad.result(timeout=PATIENCE)
        assert caught.value.reason == "NO_SUCH_THING"
        assert len((await client.get(bad.id)).attempts) == 1
    assert [line for line in notes() if " kit." in line] == [
        f"{end} {name}" for name in TYPES for end in ("commit", "rollback")
    ]


async def test_in_a_server_of_its_own(notes):
    async with atlas("--handlers", HANDLERS) as server:
        async with Client(server.address) as client:
            schema = {info.name: info for info in await client.types()}["kit.task"].payload_schema
            assert list(schema["properties"]) == ["fail"]
            await check_all(client, notes)
        assert "leave pool" not in notes()
        server.send(signal.SIGTERM)
        assert await server.ended() == 0
    assert (notes()[0], notes()[-1]) == ("enter pool", "leave pool")


async def test_in_a_worker_beside_a_server(notes):
    async with (
        serving(HANDLERS, worker=False, grace=0) as server,
        a_program("worker", HANDLERS, "--server", server.grpc_address) as worker,
        Client(server.grpc_address) as client,
    ):
        await check_all(client, notes)
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(worker.wait(), PATIENCE) == 0
    assert (notes()[0], notes()[-1]) == ("enter pool", "leave pool")


async def test_in_the_server_of_a_test(notes):
    def fake_session() -> str:
        return "fake"

    handlers = (kit_handlers.in_task, kit_handlers.in_thread, kit_handlers.tenants, kit_handlers.pool)
    async with (
        serving(*handlers, overrides={kit_handlers.get_session: fake_session}) as server,
        Client(server.grpc_address) as client,
    ):
        for name in TYPES[:2]:
            result = await (await client.submit(name, labels={"tenant": "ada"})).result(timeout=PATIENCE)
            assert result == {"session": "fake", "tenant": "ada"}
    assert notes() == ["enter pool", "leave pool"]


def programs(server: str) -> dict[str, list[str]]:
    return {
        "serve": ["serve", "--handlers", HANDLERS, "--grpc-address", "127.0.0.1:0", "--http-address", "off"],
        "worker": ["worker", HANDLERS, "--server", server],
    }


@pytest.mark.parametrize("program", ["serve", "worker"])
async def test_a_lifespan_that_fails_is_the_end(program, notes):
    async with (
        serving(HANDLERS, worker=False, grace=0) as server,
        a_program(*programs(server.grpc_address)[program], KIT_LIFESPAN="fails") as process,
    ):
        _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 1
        last = said.decode().splitlines()[-1]
        assert last == "atlas: lifespan pool failed: ConnectionError: no database at 127.0.0.1:1"
        assert b"Traceback" not in said


@pytest.mark.parametrize("program", ["serve", "worker"])
async def test_a_signal_ends_a_program_whose_lifespan_hangs_at_its_start(program, notes):
    async with (
        serving(HANDLERS, worker=False, grace=0) as server,
        a_program(*programs(server.grpc_address)[program], KIT_LIFESPAN="hangs") as process,
    ):
        await until(lambda: "entering" in notes(), PATIENCE)
        process.send_signal(signal.SIGTERM)
        _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 0, said.decode()
        assert b"Traceback" not in said
