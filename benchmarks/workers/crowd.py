"""Many workers without work in one process: each has a connection, a session, a stream and its heartbeats.

They do what `atlas worker` does when there is nothing to do, but share an event loop. All take jobs of the same
kind, or each those of a queue of its own.
"""

from __future__ import annotations

import asyncio
import sys

import grpc.aio

from atlas_grpc import pb
from benchmarks.loops import run

_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
_TIMES = 4
"""Beats in the time of a lease."""
_AT_ONCE = 20


async def _work(target: str, queues: list[str], connecting: asyncio.Semaphore, connected: asyncio.Event) -> None:
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        stub = pb.WorkerServiceStub(channel)
        call = stub.Work()
        async with connecting:
            hello = pb.WorkerHello(worker="idle", types=[pb.JobType(name="idle")], slots=1, queues=queues)
            await call.write(pb.WorkRequest(hello=hello))
            first = await call.read()
            assert isinstance(first, pb.WorkResponse)
            room = [pb.TypeRoom(type="idle", slots=1)]
            await call.write(pb.WorkRequest(ready=pb.WorkerReady(room=room, limit=1)))
        connected.set()
        session = first.welcome.session
        pause = first.welcome.lease_duration.ToTimedelta().total_seconds() / _TIMES
        while True:
            await asyncio.sleep(pause)
            await stub.Heartbeat(pb.HeartbeatRequest(session=session))


async def _crowd(target: str, count: int, *, apart: bool) -> None:
    connecting = asyncio.Semaphore(_AT_ONCE)
    events = [asyncio.Event() for _ in range(count)]
    async with asyncio.TaskGroup() as group:
        for number, event in enumerate(events):
            queues = [f"of-{number}"] if apart else []
            group.create_task(_work(target, queues, connecting, event))
        await asyncio.gather(*(event.wait() for event in events))
        print("connected", flush=True)


if __name__ == "__main__":
    run(_crowd(sys.argv[1], int(sys.argv[2]), apart=sys.argv[3] == "apart"))
