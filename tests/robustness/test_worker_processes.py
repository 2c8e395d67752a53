"""`atlas worker` as several processes, for as long as there is something to do, and while its handlers are written."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from atlas_grpc import Client
from atlas_grpc.client import JobHandle, JobState, Logged
from atlas_grpc.testing import serving
from tests.support.postgres import free_port
from tests.support.processes import alive, end_family
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.timeout(240)
"""Seconds for the waits of a test together: one that takes too long says what it waited for."""

PATIENCE = 30.0
HANDLERS = str(Path(__file__).with_name("worker_handlers.py"))
WORKER = [sys.executable, "-m", "atlas_grpc.cli", "worker"]
CONNECTED = re.compile(r'"connected".*"session"')
SIBLING = re.compile(r'ATLAS_SIBLING={"name": "([^"]+)"')
AT_A_TERMINAL = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
"""Gives a program a terminal of its own, whose keyboard is this process's stdin."""


class Running:
    """A worker, or the parent of several, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def listen(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while line := await stream.readline():
            self.said += line.decode()

    async def connected(self, times: int) -> None:
        """Waits until so many streams were opened in all."""
        await until(lambda: len(CONNECTED.findall(self.said)) >= times, PATIENCE)

    def siblings(self) -> dict[str, int]:
        """The process of each, by name, as the system tells it."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        told = {int(child): Path(f"/proc/{child}/environ").read_text() for child in children}
        return {SIBLING.findall(text)[0]: child for child, text in told.items()}

    async def ended(self) -> int:
        return await asyncio.wait_for(self.process.wait(), PATIENCE)


@asynccontextmanager
async def a_worker(
    server: str, *options: str, handlers: str = HANDLERS, cwd: Path | None = None, terminal: bool = False
) -> AsyncIterator[Running]:
    command = [*WORKER, handlers, "--server", server, "--name", "far", "--log-format", "json", *options]
    process = await asyncio.create_subprocess_exec(
        *([sys.executable, "-c", AT_A_TERMINAL, *command] if terminal else command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
    )
    worker = Running(process)
    listening = asyncio.gather(worker.listen(process.stderr), worker.listen(process.stdout))
    try:
        yield worker
    finally:
        await end_family(process)
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(listening, PATIENCE)


@asynccontextmanager
async def a_server(**options: Any) -> AsyncIterator[tuple[Client, str]]:
    """A server that executes nothing itself."""
    async with (
        serving(HANDLERS, worker=False, grace=0, **options) as server,
        Client(server.grpc_address) as client,
    ):
        yield client, server.grpc_address


async def begun(job: JobHandle) -> None:
    async with asyncio.timeout(PATIENCE):
        async for event in job.watch():
            if isinstance(event, Logged) and event.message == "begun":
                return


async def names_of(client: Client, *jobs: JobHandle) -> list[str]:
    return [(await client.get(job.id)).attempts[-1].worker for job in jobs]


async def test_siblings_share_the_work_and_one_that_dies_is_started_again():
    async with a_server() as (client, address), a_worker(address, "--processes", "2", "--concurrency", "1") as worker:
        await worker.connected(2)
        naps = [await client.submit("nap", {"seconds": 1}) for _ in range(2)]
        for job in naps:
            await job.wait(timeout=PATIENCE)
        assert sorted(await names_of(client, *naps)) == ["far-1", "far-2"]
        os.kill(worker.siblings()["far-2"], signal.SIGKILL)
        await worker.connected(3)
        assert '"a sibling died and is started again","sibling":"far-2","exit_code":-9' in worker.said
        pids = worker.siblings().values()
        assert len(pids) == 2
        worker.process.terminate()
        assert await worker.ended() == 0
        assert not any(map(alive, pids))


async def test_the_first_signal_drains_all_and_the_second_forces_them():
    async with (
        a_server() as (client, address),
        a_worker(address, "--processes", "2", "--concurrency", "1", "--drain-timeout", "10m") as worker,
    ):
        await worker.connected(2)
        jobs = [await client.submit("nap", {"seconds": 600}) for _ in range(2)]
        await asyncio.gather(*map(begun, jobs))
        worker.process.terminate()
        await until(lambda: worker.said.count('"draining"') == 2, PATIENCE)
        assert worker.process.returncode is None
        worker.process.terminate()
        assert await worker.ended() == 0
        assert worker.said.count('"forced to stop"') == 2
        for job in jobs:
            found = await client.get(job.id)
            assert (found.state, found.attempts[-1].outcome) == (JobState.PENDING, "RELEASED")


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_ctrl_c_at_a_terminal_counts_once(processes: str):
    """The terminal sends it to all of its foreground group; twice would give the jobs back."""
    async with (
        a_server() as (client, address),
        a_worker(address, "--processes", processes, "--concurrency", "1", terminal=True) as worker,
    ):
        await worker.connected(int(processes))
        jobs = [await client.submit("nap", {"seconds": 2}) for _ in range(int(processes))]
        await asyncio.gather(*map(begun, jobs))
        assert worker.process.stdin is not None
        worker.process.stdin.write(b"\x03")
        assert await worker.ended() == 0
        assert worker.said.count('"draining"') == int(processes)
        assert "forced" not in worker.said
        for job in jobs:
            assert (await client.get(job.id)).state is JobState.SUCCESS


async def test_siblings_end_with_their_parent():
    async with a_server() as (_, address), a_worker(address, "--processes", "2") as worker:
        await worker.connected(2)
        pids = worker.siblings().values()
        assert len(pids) == 2
        worker.process.kill()
        await until(lambda: not any(map(alive, pids)), PATIENCE)
        assert worker.said.count('"draining"') == 2


@pytest.mark.parametrize("processes", ["1", "3"])
async def test_a_module_that_cannot_be_loaded_is_told_once(tmp_path: Path, processes: str):
    (tmp_path / "broken.py").write_text("def (:\n")
    async with a_worker("127.0.0.1:1", "--processes", processes, handlers="broken.py", cwd=tmp_path) as worker:
        assert await worker.ended() == 2
    assert worker.said.count("SyntaxError: invalid syntax (broken.py, line 1)") == 1


@pytest.mark.usefixtures("every_store")
@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_burst_does_what_is_ready_and_ends(processes: str):
    async with a_server() as (client, address):
        jobs = [await client.submit("add", {"a": number}) for number in range(50)]
        twice = await client.submit("fails_once", {"pause": 0})
        later = await client.submit("add", {"a": 1}, delay=3600)
        again = await client.submit("fails_once", {"pause": 3600})
        async with a_worker(address, "--burst", "--processes", processes, "--concurrency", "4") as worker:
            assert await worker.ended() == 0
        for job in (*jobs, twice):
            assert (await client.get(job.id)).state is JobState.SUCCESS
        for job in (later, again):
            assert (await client.get(job.id)).state is JobState.PENDING
        async with a_worker(address, "--burst", "--processes", processes) as worker:
            assert await worker.ended() == 0, "there is nothing to do at all"


async def test_a_burst_goes_on_through_a_cut(tmp_path: Path):
    """The server is away for a while: that is not the same as nothing to do."""
    address = f"127.0.0.1:{free_port()}"
    store = {"store": f"sqlite:///{tmp_path / 'jobs.db'}", "grpc_address": address}
    async with a_server(**store) as (client, _):
        jobs = [await client.submit("nap", {"seconds": 1}) for _ in range(4)]
        worker = await asyncio.create_subprocess_exec(
            *WORKER, HANDLERS, "--server", address, "--burst", "--concurrency", "2"
        )
        await begun(jobs[0])
    try:
        async with a_server(**store) as (client, _):
            assert await asyncio.wait_for(worker.wait(), PATIENCE) == 0
            for job in jobs:
                assert (await client.get(job.id)).state is JobState.SUCCESS
    finally:
        if worker.returncode is None:
            worker.kill()
        await worker.wait()


async def test_it_ends_after_so_many_jobs():
    async with a_server() as (client, address):
        jobs = [await client.submit("add", {"a": number}) for number in range(5)]
        async with a_worker(address, "--max-jobs", "3", "--concurrency", "2") as worker:
            assert await worker.ended() == 0
        states = [(await client.get(job.id)).state for job in jobs]
        assert (states.count(JobState.SUCCESS), states.count(JobState.PENDING)) == (3, 2)


async def test_a_sibling_is_renewed_after_so_many_jobs():
    async with a_server() as (client, address), a_worker(address, "--processes", "2", "--max-jobs", "1") as worker:
        pids = [await (await client.submit("worker_pid")).result(timeout=PATIENCE) for _ in range(4)]
        assert len(set(pids)) == 4
        worker.process.terminate()
        assert await worker.ended() == 0


HANDLER = """
from atlas_grpc import handler
from answer import ANSWER

@handler
async def answer() -> str:
    return ANSWER
"""


@pytest.mark.timeout(450)
async def test_it_is_started_anew_when_its_handlers_change(tmp_path: Path):
    (tmp_path / "handlers.py").write_text(HANDLER)
    (tmp_path / "answer.py").write_text("ANSWER = 'one'\n")
    (tmp_path / "pages").mkdir()
    options = ("--reload", "--reload-dir", str(tmp_path / "pages"))
    async with (
        a_server() as (client, address),
        a_worker(address, *options, handlers="handlers.py", cwd=tmp_path) as worker,
    ):
        await worker.connected(1)

        async def answer() -> Any:
            return await (await client.submit("answer")).result(timeout=PATIENCE)

        assert await answer() == "one"
        await changed(worker, tmp_path / "answer.py", "ANSWER = 'two'\n")
        await worker.connected(2)
        assert await answer() == "two"
        await changed(worker, tmp_path / "handlers.py", HANDLER + "\ndef (:\n")
        await until(lambda: "SyntaxError" in worker.said and "waiting for a change" in worker.said, PATIENCE)
        await changed(worker, tmp_path / "handlers.py", HANDLER.replace("return ANSWER", "return 'three'"))
        await worker.connected(3)
        assert await answer() == "three"
        await changed(worker, tmp_path / "pages" / "page.html", "new")
        await worker.connected(4)
        worker.process.terminate()
        assert await worker.ended() == 0


def write(file: Path, text: str) -> None:
    file.write_text(text)


async def changed(worker: Running, file: Path, text: str) -> None:
    """Writes the file, and waits until the worker says that it saw this."""
    before = worker.said.count("files changed")
    write(file, text)
    await until(lambda: worker.said.count("files changed") > before, PATIENCE)


async def test_a_job_that_runs_at_a_change_goes_back_soon(tmp_path: Path):
    shutil.copy(HANDLERS, tmp_path / "handlers.py")
    options = ("--reload", "--drain-timeout", "10m")
    async with (
        a_server() as (client, address),
        a_worker(address, *options, handlers="handlers.py", cwd=tmp_path) as worker,
    ):
        job = await client.submit("nap", {"seconds": 600})
        await begun(job)
        (tmp_path / "other.py").write_text("")
        await worker.connected(2)
        async with asyncio.timeout(PATIENCE):
            while (found := await client.get(job.id)).attempts[-1].number < 2:  # noqa: ASYNC110 - polled as clients do
                await asyncio.sleep(0.05)
        assert found.attempts[0].outcome == "RELEASED"
        await job.cancel()
        worker.process.terminate()
        assert await worker.ended() == 0


SOON = (
    "from atlas_grpc.cli import main; from atlas_grpc.remote import main as worker; worker.BURST_PATIENCE = 1.0; main()"
)


async def test_a_burst_without_a_server_gives_up():
    command = [sys.executable, "-c", SOON, "worker", HANDLERS, "--burst", "--server", f"127.0.0.1:{free_port()}"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 1
    assert b"no server takes the worker: it ends" in said


async def test_a_server_is_started_anew_when_its_handlers_change(tmp_path: Path):
    (tmp_path / "handlers.py").write_text(HANDLER)
    (tmp_path / "answer.py").write_text("ANSWER = 'one'\n")
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "atlas_grpc.cli", "serve", "--handlers", "handlers.py", "--grpc-address", address]
    process = await asyncio.create_subprocess_exec(
        *(*command, "--http-address", "off", "--reload", "--log-format", "json"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    server = Running(process)
    listening = asyncio.ensure_future(server.listen(process.stderr))
    try:
        async with Client(address) as client:
            for number, word in enumerate(("one", "two")):
                if number:
                    await changed(server, tmp_path / "answer.py", f"ANSWER = {word!r}\n")
                await until(lambda number=number: server.said.count('"serving"') > number, PATIENCE)
                assert await (await client.submit("answer")).result(timeout=PATIENCE) == word
        process.terminate()
        assert await server.ended() == 0
    finally:
        await end_family(process)
        await asyncio.wait_for(listening, PATIENCE)
