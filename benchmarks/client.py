"""A process that makes calls: it takes commands as lines of JSON on stdin and answers each with one on stdout.

Requests are ready bytes and answers stay bytes wherever a measurement does not ask for more; the same code serves both
servers.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from atlas_grpc import pb

from . import wire
from .loops import run
from .meter import Meter, Usage
from .stores.plain import Plain
from .watching import Watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .meter import Answer

SOURCES: dict[str, Callable[..., Iterator[bytes]]] = {
    "submits": wire.submits,
    "batches": wire.batches,
    "gets": wire.gets,
}
_FILL_LANES = 4
_GATES = 500


class Client(Watching, Plain):
    """The commands. Each is a coroutine that answers what JSON can hold."""

    async def unary(
        self,
        target: str,
        pid: int,
        method: str,
        source: list[Any],
        in_flight: int,
        seconds: float,
        warmup: float,
        engine: int = 0,
    ) -> Answer:
        """Calls as fast as the answers come, `in_flight` at a time. `source` names the requests and their arguments."""
        call = self.unary_call(target, method)
        bodies = SOURCES[source[0]](*source[1:])
        latencies: list[int] = []
        meter = Meter(pid, warmup, seconds, engine)

        async def lane() -> None:
            clock, begin, stop = time.perf_counter, meter.begin, meter.stop
            start = clock()
            while start < stop:
                await call(next(bodies))
                end = clock()
                if begin <= end <= stop:
                    latencies.append(int((end - start) * 1e6))
                start = end

        await asyncio.gather(meter.run(), *(lane() for _ in range(in_flight)))
        return meter.answer(len(latencies), seconds, latencies)

    async def run_jobs(
        self,
        target: str,
        pid: int,
        seconds: float,
        warmup: float,
        engine: int = 0,
        worker: int = 0,
        kind: str = "noop",
    ) -> Answer:
        """RunJob of a job that does nothing, one after the other, each read to its end. `stamp` jobs tell when their
        handler began: then `starts` has how long that took, in µs."""
        call = self.stream_call(target, wire.RUN)
        bodies = wire.runs(kind)
        latencies: list[int] = []
        starts: list[int] = []
        meter = Meter(pid, warmup, seconds, engine, worker)

        async def lane() -> None:
            while (start := time.perf_counter()) < meter.stop:
                submitted = time.time()
                last = await _last_message(call(next(bodies)))
                end = time.perf_counter()
                job = pb.RunJobResponse.FromString(last).update.job
                if job.state != pb.Job.SUCCESS:
                    raise RuntimeError(f"RunJob ended with a job of state {job.state}")
                if meter.begin <= end <= meter.stop:
                    latencies.append(int((end - start) * 1e6))
                    starts.append(int((job.result.number_value - submitted) * 1e6))

        await asyncio.gather(meter.run(), lane())
        return {**meter.answer(len(latencies), seconds, latencies), "starts": starts if kind == "stamp" else []}

    async def await_types(self, target: str, types: list[str]) -> Answer:
        """Returns when all these types are announced, as a worker does."""
        call = self.unary_call(target, wire.LIST_TYPES)
        while True:
            listed = pb.ListJobTypesResponse.FromString(await call(b""))
            if {kind.name for kind in listed.job_types} >= set(types):
                return {}
            await asyncio.sleep(0.05)

    async def fill(self, target: str, kind: str, jobs: int, batch: int, sample: int, priority: int = 0) -> Answer:
        """Submits so many jobs. Answers the seconds that took, the ids of `sample` of them and that of the last."""
        call = self.unary_call(target, wire.SUBMIT_MANY)
        sizes = iter([batch] * (jobs // batch) + [jobs % batch] * bool(jobs % batch))
        whole = wire.batches(kind, batch, priority)
        answers: list[bytes] = []

        async def lane() -> None:
            for size in sizes:
                body = next(whole) if size == batch else next(wire.batches(kind, size, priority))
                answers.append(await call(body))

        start = time.perf_counter()
        await asyncio.gather(*(lane() for _ in range(_FILL_LANES)))
        took = time.perf_counter() - start
        ids: list[str] = []
        for answer in answers:
            ids.extend(_ids(answer))
        return {"seconds": took, "ids": random.sample(ids, min(sample, len(ids))), "last": ids[-1]}

    async def replies(self, target: str, batch: int) -> Answer:
        """What Atlas answers, in base64 by method, for the echo server to answer alike."""
        one = await self.unary_call(target, wire.SUBMIT)(next(wire.submits("later")))
        many = await self.unary_call(target, wire.SUBMIT_MANY)(next(wire.batches("later", batch)))
        job_id = pb.SubmitJobResponse.FromString(one).job.id
        got = await self.unary_call(target, wire.GET)(next(wire.gets([job_id])))
        event = await self.transition(target)
        bodies = {"SubmitJob": one, "SubmitJobs": many, "GetJob": got, "WatchJob": event}
        return {name: base64.b64encode(body).decode() for name, body in bodies.items()}

    async def drain(
        self,
        target: str,
        jobs: int,
        slots: int,
        batch: int = 500,
        kind: str = "noop",
        path: str = "",
        pid: int = 0,
        engine: int = 0,
        worker: int = 0,
    ) -> Answer:
        """Queues jobs that do nothing while gates hold every slot, then lets them run. `path`: gates already there.

        Answers the seconds from the first start to the last end by the server's stamps, and to the moment that a client
        knew; the shares of a CPU that were used meanwhile; and how many jobs were claimed at a time.
        """
        with tempfile.TemporaryDirectory(prefix="atlas-bench-") as folder:
            gate = Path(path or f"{folder}/open")
            if not path:
                await self.hold(target, slots, str(gate))
            filled = await self.fill(target, kind, jobs, batch, 0)
            usage = Usage(pid, engine, worker)
            gate.touch()  # noqa: ASYNC240 - it is quick
            last = pb.GetJobRequest(id=filled["last"])
            last.wait.FromSeconds(300)
            await self.unary_call(target, wire.GET)(last.SerializeToString())
            known, shares = time.time(), usage.shares()
        spans = await self._spans(target, kind, jobs)
        start, end = min(span[0] for span in spans), max(span[1] for span in spans)
        return {
            "seconds": end - start,
            "known": max(known, end) - start,
            "claimed": jobs / len({span[0] for span in spans}),
            **shares,
        }

    async def hold(self, target: str, slots: int, path: str) -> Answer:
        """Queues gates before all other jobs; they hold their slots until there is a file of that name."""
        gate = pb.SubmitJobRequest(type="gate", priority=100)
        gate.payload["path"] = path
        while slots > 0:
            request = pb.SubmitJobsRequest(requests=[gate] * min(slots, _GATES))
            await self.unary_call(target, wire.SUBMIT_MANY)(request.SerializeToString())
            slots -= _GATES
        return {}

    async def _spans(self, target: str, kind: str, jobs: int) -> list[tuple[float, float]]:
        """Start and end of the newest jobs of a type; waits until so many have succeeded."""
        call = self.unary_call(target, wire.LIST)
        query = pb.ListJobsRequest(page_size=1000)
        query.filter.types.append(kind)
        query.filter.states.append(pb.Job.SUCCESS)
        while True:
            found: list[tuple[float, float]] = []
            query.page_token = ""
            while len(found) < jobs:
                page = pb.ListJobsResponse.FromString(await call(query.SerializeToString()))
                found += [(_seconds(job.attempts[-1].start_time), _seconds(job.finish_time)) for job in page.jobs]
                query.page_token = page.next_page_token
                if not page.next_page_token:
                    break
            if len(found) >= jobs:
                return found[:jobs]
            await asyncio.sleep(0.2)


async def _last_message(stream: Any) -> bytes:
    """The last message of a stream that must end with OK."""
    last = b""
    while (message := await stream.read()) is not grpc.aio.EOF:
        last = message
    if (code := await stream.code()) is not grpc.StatusCode.OK:
        raise RuntimeError(f"a stream ended with {code}")
    return last


def _ids(answer: bytes) -> list[str]:
    outcomes = pb.SubmitJobsResponse.FromString(answer).outcomes
    for outcome in outcomes:
        if outcome.HasField("error"):
            raise RuntimeError(f"a job was refused: {outcome.error}")
    return [outcome.response.job.id for outcome in outcomes]


def _seconds(stamp: Any) -> float:
    return float(stamp.seconds + stamp.nanos / 1e9)


async def _serve() -> None:
    client = Client()
    loop = asyncio.get_running_loop()
    try:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command = json.loads(line)
            try:
                operation = getattr(client, command.pop("op"))
                async with asyncio.timeout(command.pop("timeout")):
                    answer = await operation(**command)
            except Exception:
                answer = {"error": traceback.format_exc(limit=-4)}
            print(json.dumps(answer), flush=True)
    finally:
        await client.close()


if __name__ == "__main__":
    run(_serve())
