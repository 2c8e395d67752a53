"""Several server processes on one port."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from atlas_grpc import Client
from atlas_grpc.client import JobState
from tests.support.processes import alive
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.stores import Servers

SERVE = [sys.executable, "-m", "atlas_grpc.cli", "serve", "--log-format", "json", "--grpc-address", "127.0.0.1:0"]
SERVING = re.compile(r'"serving","grpc":"([^"]+)","http":"([^"]+)".*"name":".*-([0-9]+)"')


class Family:
    """A parent with its siblings, and what they said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def listen(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.said += line.decode()

    @property
    def serving(self) -> list[tuple[str, str, int]]:
        """Address of gRPC, of HTTP and process id of each that said that it serves."""
        return [(found[1], found[2], int(found[3])) for found in SERVING.finditer(self.said)]

    @property
    def pids(self) -> list[int]:
        return [pid for _, _, pid in self.serving if alive(pid)]


@asynccontextmanager
async def family(store: str) -> AsyncIterator[Family]:
    """Two siblings that serve; whatever happens, none is left behind."""
    process = await asyncio.create_subprocess_exec(
        *SERVE, "--http-address", "127.0.0.1:0", "--processes", "2", "--store", store,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    parent = Family(process)
    listening = asyncio.ensure_future(parent.listen())
    try:
        await until(lambda: len(parent.serving) == 2, 30)
        yield parent
    finally:
        for pid in parent.pids:
            os.kill(pid, signal.SIGKILL)
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


@pytest.fixture
def store(store_servers: Servers, tmp_path: Path) -> str:
    return store_servers.url("postgresql", tmp_path)


async def test_both_serve_and_one_that_dies_is_started_again(store: str):
    async with family(store) as parent:
        (address, http, _), (same, _, victim) = parent.serving
        assert address == same
        async with Client(address) as client:
            assert (await client.run("sleep", {"seconds": 0})).state is JobState.SUCCESS
            text = await asyncio.to_thread(_read, f"{http}/metrics")
            processes = set(re.findall(r'atlas_build_info{[^}]*process="([0-9]+)"', text))
            assert processes == {"0", "1"}
            assert set(re.findall(r'atlas_postgresql_pool_size{process="([0-9]+)"}', text)) == {"0", "1"}
            # All processes tell the same of the store that they share.
            assert len(re.findall(r'^atlas_jobs{state="SUCCESS"}', text, re.MULTILINE)) == 1
            assert len(re.findall(r'^atlas_postgresql_dead_tuples{table="job_states"}', text, re.MULTILINE)) == 1
            os.kill(victim, signal.SIGKILL)
            await until(lambda: len(parent.serving) == 3, 30)
            assert "a sibling died" in parent.said
            for _ in range(20):
                assert (await client.run("sleep", {"seconds": 0})).state is JobState.SUCCESS
        pids = parent.pids
        parent.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(parent.process.wait(), 20) == 0
        assert not any(map(alive, pids))


def _read(url: str) -> str:
    with urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


async def test_siblings_end_with_their_parent(store: str):
    async with family(store) as parent:
        pids = parent.pids
        assert len(pids) == 2
        parent.process.kill()
        await until(lambda: not any(map(alive, pids)), 20)


async def _fails(*flags: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *SERVE, *flags, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.parametrize("store", ["memory://", "sqlite:///jobs.db"])
@pytest.mark.parametrize("flag", ["--processes=2", "--reuse-port"])
async def test_a_store_for_one_process_is_refused_with_the_reason(store: str, flag: str):
    code, said = await _fails("--store", store, flag, "--http-address", "off")
    assert code == 1
    assert "belongs to one server process; servers can share postgresql://" in said


async def test_what_keeps_the_first_from_serving_ends_all_with_its_code(unused_tcp_port: int):
    store = f"postgresql://127.0.0.1:{unused_tcp_port}/none"
    code, said = await _fails("--store", store, "--processes=2", "--http-address", "off")
    assert code == 1
    assert said.count("cannot be reached") == 1


async def test_a_port_that_is_taken_is_refused(store: str):
    async with family(store) as parent:
        address, http, _ = parent.serving[0]
        for flags in (["--processes=2"], []):
            code, said = await _fails(
                "--store", store, "--grpc-address", address, "--http-address", http.removeprefix("http://"), *flags
            )
            assert code == 1
            assert "in use" in said
