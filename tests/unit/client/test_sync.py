from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from atlas_grpc import errors
from atlas_grpc.client import Client, JobHandle, JobState, SyncClient, SyncJobHandle, Transitioned, _generate_sync


@pytest.fixture
async def sync_client(server):
    client = SyncClient(server.target, timeout=5)
    yield client
    await asyncio.to_thread(client.close)


def test_it_is_what_the_generator_writes():
    assert _generate_sync.TARGET.read_text() == _generate_sync.generate()


@pytest.mark.parametrize(("sync", "original"), [(SyncClient, Client), (SyncJobHandle, JobHandle)])
def test_it_has_every_method_with_types_and_docstring(sync, original):
    names = [name for name, _ in inspect.getmembers(original, inspect.isfunction) if not name.startswith("_")]
    assert len(names) > 5
    for name in names:
        method = getattr(sync, name)
        assert method.__doc__
        assert not inspect.iscoroutinefunction(method)
        ours, theirs = inspect.signature(method), inspect.signature(getattr(original, name))
        assert list(ours.parameters) == list(theirs.parameters)
        assert all(one.annotation is not one.empty for one in list(ours.parameters.values())[1:])


async def test_calls_from_several_threads(script, sync_client):
    def work(number):
        job = sync_client.submit("sleep", {"n": number})
        return sync_client.get(job).id

    with ThreadPoolExecutor(8) as pool:
        loop = asyncio.get_running_loop()
        ids = await asyncio.gather(*(loop.run_in_executor(pool, work, number) for number in range(40)))
    assert len(set(ids)) == 40


async def test_handles_and_streams_block_too(script, sync_client):
    def work():
        job = sync_client.submit("sleep")
        seen = []
        with job.watch() as events:
            for event in events:
                assert isinstance(event, Transitioned)
                seen.append(event.version)
                if event.version == 1:
                    finish("STARTED", "SUCCEEDED")
        return job, seen, job.result(), [one.id for one in sync_client.list(limit=3)]

    def finish(*causes):
        for cause in causes:
            asyncio.run_coroutine_threadsafe(script.advance("job-1", cause), loop).result()

    loop = asyncio.get_running_loop()
    job, seen, result, listed = await asyncio.to_thread(work)
    assert isinstance(job, SyncJobHandle)
    assert (seen, result, listed) == ([1, 2, 3], 42, ["job-1"])


async def test_errors_are_the_same(sync_client):
    with pytest.raises(errors.JobNotFound):
        await asyncio.to_thread(sync_client.get, "nothing")


async def test_close_of_a_stream_ends_the_thread_that_reads_it_and_the_call(script, sync_client):
    job_id = script.add_job("SUBMITTED")
    stream = sync_client.watch(job_id)
    first = await asyncio.to_thread(next, stream)
    assert first.state is JobState.PENDING
    reading = asyncio.ensure_future(asyncio.to_thread(next, stream, "the end"))
    await asyncio.sleep(0)
    await asyncio.to_thread(stream.close)
    async with asyncio.timeout(5):
        assert await reading == "the end"
        await script.cancelled.wait()
    assert next(stream, "the end") == "the end"
    stream.close()


async def test_close_ends_calls_and_with_the_last_client_the_thread(script, server):
    script.gates["GetJob"] = asyncio.Event()
    one, other = SyncClient(server.target), SyncClient(server.target)
    reading = asyncio.ensure_future(asyncio.to_thread(one.get, "x"))
    await script.called(1)
    await asyncio.to_thread(one.close)
    with pytest.raises(errors.Cancelled):
        await reading
    with pytest.raises(RuntimeError):
        await asyncio.to_thread(one.get, "x")
    assert await asyncio.to_thread(other.submit, "sleep")
    await asyncio.to_thread(other.close)
    await asyncio.to_thread(other.close)
    assert "atlas-client" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(RuntimeError):
        other.submit("sleep")


async def run_program(program: str, *args: str) -> asyncio.subprocess.Process:
    # What runs in the background of a shell ignores Ctrl-C, and so would its children.
    prologue = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", prologue + textwrap.dedent(program), *args, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def test_ctrl_c_cancels_the_running_call(script, server):
    job_id = script.add_job("SUBMITTED")
    script.gates["GetJob"] = asyncio.Event()
    program = """
        import sys
        from atlas_grpc import SyncClient
        with SyncClient(sys.argv[1]) as client:
            try:
                client.wait(sys.argv[2])
            except KeyboardInterrupt:
                print("interrupted", client.get(sys.argv[2]).state)
    """
    process = await run_program(program, server.target, job_id)
    await script.called(1)
    process.send_signal(2)
    async with asyncio.timeout(10):
        await script.cancelled.wait()
        script.gates["GetJob"].set()
        out, err = await process.communicate()
    assert (out, err, process.returncode) == (b"interrupted PENDING\n", b"", 0)


async def test_a_program_that_forgets_to_close_ends(server):
    program = """
        import sys
        from atlas_grpc import SyncClient
        job = SyncClient(sys.argv[1]).submit("sleep")
        next(job.watch())
        print(job.id)
    """
    process = await run_program(program, server.target)
    async with asyncio.timeout(10):
        out, err = await process.communicate()
    assert (out, err, process.returncode) == (b"job-1\n", b"", 0)
