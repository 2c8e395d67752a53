"""The streaming half of the client process: watchers by the thousand."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc.aio

from atlas_grpc import pb

from . import wire
from .meter import Meter

if TYPE_CHECKING:
    from .meter import Answer

_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20)]
_STREAMS_EACH = 500
"""How many streams share a connection."""
_SUBMITTED_AT_ONCE = 500


class _Counts(dict[bytes, int]):
    """How many jobs a message of WatchJobs tells; many are told the same."""

    def __missing__(self, message: bytes) -> int:
        self[message] = len(pb.WatchJobsResponse.FromString(message).jobs)
        return self[message]


class Watching:
    """Connections, and the streams on them."""

    def __init__(self) -> None:
        self._channels: dict[tuple[str, int], grpc.aio.Channel] = {}
        self._idle: list[Any] = []

    def channel(self, target: str, number: int = 0) -> grpc.aio.Channel:
        """The connection of that number."""
        key = target, number
        if key not in self._channels:
            self._channels[key] = grpc.aio.insecure_channel(target, options=_OPTIONS)
        return self._channels[key]

    def unary_call(self, target: str, method: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
        """A method that takes and answers bytes."""
        return self.channel(target).unary_unary(method)

    def stream_call(self, target: str, method: str, number: int = 0) -> grpc.aio.UnaryStreamMultiCallable[bytes, bytes]:
        """The same for a stream of answers, on the connection of that number."""
        return self.channel(target, number).unary_stream(method)

    async def close(self) -> None:
        """Ends all connections."""
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))

    async def watch(
        self, target: str, pid: int, *, atlas: bool, watchers: int, pause_ms: float, seconds: float, warmup: float
    ) -> Answer:
        """Counts the messages that all watchers get; of Atlas about a job that changes all the time."""
        job_id = await self._start_bouncing(target, pause_ms) if atlas else "echo"
        streams = await self._open(target, [job_id] * watchers)
        counts = [0] * watchers
        latest = [b""] * watchers

        async def read(number: int, stream: Any) -> None:
            while (message := await stream.read()) is not grpc.aio.EOF:
                counts[number] += 1
                latest[number] = message

        if not atlas:
            await self.unary_call(target, wire.PACE)(str(pause_ms).encode())
        tasks = [asyncio.ensure_future(read(number, stream)) for number, stream in enumerate(streams)]
        await asyncio.sleep(warmup)
        meter = Meter(pid, 0, seconds)
        versions, before = _versions(latest), sum(counts)
        await meter.run()
        after, steps = sum(counts), sum(_versions(latest)) - sum(versions)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if atlas:
            await self._cancel(target, job_id)
        else:
            await self.unary_call(target, wire.PACE)(b"")
        return {**meter.answer(after - before, meter.took, []), "transitions": steps / meter.took}

    async def follow(self, target: str, followers: int, jobs: int) -> Answer:
        """Submits no-op jobs while so many follow all that end: until each of them has seen each end."""
        request = pb.WatchJobsRequest(filter=pb.JobFilter(states=[pb.Job.SUCCESS]), skip_snapshot=True)
        body, known = request.SerializeToString(), _Counts()
        numbers = range(followers)
        streams = [self.stream_call(target, wire.WATCH_MANY, 1 + number // _STREAMS_EACH)(body) for number in numbers]
        await asyncio.gather(*(stream.read() for stream in streams))

        async def read(stream: Any) -> None:
            left = jobs
            while left > 0:
                left -= known[await stream.read()]

        start = time.perf_counter()
        tasks = [asyncio.ensure_future(read(stream)) for stream in streams]
        submit, batches = self.unary_call(target, wire.SUBMIT_MANY), wire.batches("noop", _SUBMITTED_AT_ONCE)
        for _ in range(0, jobs, _SUBMITTED_AT_ONCE):
            await submit(next(batches))
        await asyncio.gather(*tasks)
        took = time.perf_counter() - start
        for stream in streams:
            stream.cancel()
        return {"rate": jobs / took, "latencies": []}

    async def open_idle(self, target: str, job_ids: list[str]) -> Answer:
        """Opens a watch of each job and keeps it."""
        self._idle += await self._open(target, job_ids)
        return {}

    async def close_idle(self) -> Answer:
        """Ends them."""
        for stream in self._idle:
            stream.cancel()
        self._idle.clear()
        return {}

    async def transition(self, target: str) -> bytes:
        """A message as watchers get it when a job changes."""
        job_id = await self._start_bouncing(target, 1)
        (stream,) = await self._open(target, [job_id])
        messages: list[bytes] = [await stream.read() for _ in range(5)]
        stream.cancel()
        await self._cancel(target, job_id)
        return messages[-1]

    async def _open(self, target: str, job_ids: list[str]) -> list[Any]:
        """A stream for each job, its first message read."""

        async def open_one(number: int, job_id: str) -> Any:
            call = self.stream_call(target, wire.WATCH, 1 + number // _STREAMS_EACH)
            stream = call(pb.WatchJobRequest(id=job_id).SerializeToString())
            if await stream.read() is grpc.aio.EOF:
                raise RuntimeError(f"a watch ended at once with {await stream.code()}")
            return stream

        return await asyncio.gather(*(open_one(number, job_id) for number, job_id in enumerate(job_ids)))

    async def _start_bouncing(self, target: str, pause_ms: float) -> str:
        request = pb.SubmitJobRequest(type="bounce")
        request.payload["pause_ms"] = pause_ms
        answer = await self.unary_call(target, wire.SUBMIT)(request.SerializeToString())
        return pb.SubmitJobResponse.FromString(answer).job.id

    async def _cancel(self, target: str, job_id: str) -> None:
        await self.unary_call(target, wire.CANCEL)(pb.CancelJobRequest(id=job_id).SerializeToString())


def _versions(messages: list[bytes]) -> list[int]:
    return [pb.WatchJobResponse.FromString(message).job.version for message in messages]
