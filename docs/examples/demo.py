"""`make demo`: a server of its own, and jobs that succeed, fail, retry, are cancelled and are followed across a cut.

Everything that is said is checked; the exit code is 0 only if all of it was true.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
import tarfile
import tempfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from atlas_grpc import Client, JobFailed
from atlas_grpc.client import JobState, Logged, Progressed, Transitioned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atlas_grpc.client import JobEvent, Stream, SubmitOptions

HERE = Path(__file__).parent
LIMIT = 40
"""Seconds for all of it."""


class Untrue(Exception):
    """The demo said something that did not happen."""


def check(holds: bool, claim: str) -> None:
    """Says what was verified. Raises Untrue when it does not hold."""
    if not holds:
        raise Untrue(claim)
    print(f"    ok: {claim}", flush=True)


def title(number: int, text: str) -> None:
    print(f"\n{number}. {text}", flush=True)


class Proxy:
    """Stands between the client and the server, to cut their connection."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._open: set[asyncio.StreamWriter] = set()
        self.connections = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """The path of the socket that stands for the server."""
        path = f"{self._server}.proxy"
        server = await asyncio.start_unix_server(self._connected, path)
        try:
            yield path
        finally:
            server.close()
            self.cut()

    def cut(self) -> None:
        """Breaks every connection, as a network would."""
        for writer in self._open:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        server_reader, server_writer = await asyncio.open_unix_connection(self._server)
        self._open |= {writer, server_writer}
        await asyncio.gather(self._copy(reader, server_writer), self._copy(server_reader, writer))
        self._open -= {writer, server_writer}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def server(path: str) -> AsyncIterator[None]:
    """`atlas serve` with the example handlers on a Unix socket; drained and stopped at the end."""
    program = [str(Path(sys.executable).with_name("atlas")), "serve", "--handlers", str(HERE / "archive.py")]
    process = await asyncio.create_subprocess_exec(
        *program, "--grpc-address", f"unix:{path}", "--http-address", "off", "--log-level", "error",
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while process.returncode is None and not os.path.exists(path):  # noqa: ASYNC110, ASYNC240, PTH110
            await asyncio.sleep(0.02)
        check(process.returncode is None, "the server is up")
        yield
        process.send_signal(signal.SIGTERM)
        check(await process.wait() == 0, "the server drained on SIGTERM and ended with exit code 0")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def tell(event: JobEvent) -> None:
    """One line for each event of a watch."""
    match event:
        case Transitioned():
            why = f" ({event.error.reason})" if event.error else ""
            print(f"    {event.version:>3} {event.cause:<17} → {event.state}{why}", flush=True)
        case Progressed():
            done = event.progress.fraction or 0
            print(f"        [{'#' * round(done * 20):<20}] {done:4.0%} {event.progress.message}", flush=True)
        case Logged():
            print(f"        {event.severity.lower()}: {event.message}", flush=True)
        case _:
            pass


async def followed(events: Stream[JobEvent]) -> list[JobEvent]:
    """All events of a watch, told as they come."""
    seen: list[JobEvent] = []
    async with events:
        async for event in events:
            tell(event)
            seen.append(event)
    return seen


def steps(events: list[JobEvent]) -> list[Transitioned]:
    return [event for event in events if isinstance(event, Transitioned)]


def gapless(events: list[JobEvent]) -> bool:
    return [step.version for step in steps(events)] == list(range(1, len(steps(events)) + 1))


async def progress(client: Client) -> None:
    title(1, "A job with live progress: submitted and followed in one stream")
    events = await followed(client.run_events("countdown", {"steps": 5, "delay": 0.3}))
    check(any(isinstance(event, Progressed) for event in events), "progress came while the job ran")
    check(steps(events)[-1].state is JobState.SUCCESS, "it ended as SUCCESS")
    check(gapless(events), "every transition was seen once, in order")


def inspect(archive: Path) -> tuple[str, list[str]]:
    """The digest of an archive, and the names in it."""
    with tarfile.open(archive) as opened:
        return hashlib.sha256(archive.read_bytes()).hexdigest(), opened.getnames()


async def work(client: Client) -> None:
    title(2, "Real work in a process of its own: a directory is packed, with the digest of every file")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "docs.tar.gz")
        payload = {"source": str(HERE.parent), "target": str(target), "exclude": ["__pycache__"]}
        events = await followed(client.run_events("archive", payload))
        job = await client.get(steps(events)[-1].job)
        print(f"    {job.output}", flush=True)
        digest, names = inspect(target)
        check(job.output["sha256"] == digest, "the archive has that digest")
        check(f"examples/{Path(__file__).name}" in names, "and this very file is in it")


async def failure(client: Client) -> None:
    title(3, "A job that fails, with a typed error")
    job = await client.submit("flaky", {"fail_times": 99}, max_attempts=1)
    try:
        await job.result()
    except JobFailed as error:
        print(f"    {error.reason}: {error}", flush=True)
        check((await job.refresh()).state is JobState.FAILED, "it ended as FAILED, and the client raised JobFailed")
    else:
        check(holds=False, claim="the job failed")


async def retry(client: Client) -> None:
    title(4, "A job that fails twice, is retried with growing pauses, and succeeds")
    events = await followed(client.run_events("flaky", {"fail_times": 2}, max_attempts=5, initial_backoff=0.4))
    check(sum(step.cause == "ATTEMPT_FAILED" for step in steps(events)) == 2, "two attempts failed")
    check(steps(events)[-1].state is JobState.SUCCESS, "the third one succeeded")
    check(steps(events)[-1].attempt == 3, "no attempt was made without need")
    first, second = (step.next_start_time - step.time for step in steps(events) if step.next_start_time)
    check(second > first, f"the pauses grew, from {first.total_seconds():.2f} s to {second.total_seconds():.2f} s")


async def cancel(client: Client) -> None:
    title(5, "A job that is cancelled while it runs")
    job = await client.submit("sleep", {"seconds": 3600})
    seen: list[JobEvent] = []
    async with job.watch() as events:
        async for event in events:
            tell(event)
            seen.append(event)
            if isinstance(event, Transitioned) and event.cause == "STARTED":
                await job.cancel(reason="the demo is in a hurry")
    check(steps(seen)[-1].state is JobState.CANCELLED, "it ended as CANCELLED")
    check("the demo is in a hurry" in (steps(seen)[-1].error or ("", "", ""))[2], "its error says why")


async def cut(path: str) -> None:
    title(6, "A stream that is cut three times, and goes on exactly where it stopped")
    proxy = Proxy(path)
    policy: SubmitOptions = {"max_attempts": 5, "initial_backoff": 0.3, "backoff_multiplier": 1}
    seen: list[JobEvent] = []
    async with (
        proxy.listening() as other,
        Client(f"unix:{other}") as client,
        client.run_events("flaky", {"fail_times": 4}, **policy) as events,
    ):
        async for event in events:
            tell(event)
            seen.append(event)
            if isinstance(event, Transitioned) and event.version in {3, 7, 11}:
                print("        ✂ the connection is cut", flush=True)
                proxy.cut()
    check(proxy.connections >= 4, f"the client connected {proxy.connections} times")
    check(steps(seen)[-1].state is JobState.SUCCESS, "the job ended as SUCCESS, and never noticed")
    check(len(steps(seen)) == 15 and gapless(seen), "all 15 transitions were told, none lost, none twice")


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="atlas-demo-") as folder:
        path = f"{folder}/atlas.sock"
        print(f"A server of its own, on unix:{path}", flush=True)
        async with asyncio.timeout(LIMIT), server(path):
            async with Client(f"unix:{path}", wait_for_ready=True) as client:
                types = [one.name for one in await client.types()]
                print(f"It runs: {', '.join(types)}", flush=True)
                for scene in (progress, work, failure, retry, cancel):
                    await scene(client)
            await cut(path)
            title(7, "The end")
    print("\nAll of it was checked. Next: make run, then open http://127.0.0.1:8080/docs", flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except Untrue as untrue:
        sys.exit(f"not true: {untrue}")
