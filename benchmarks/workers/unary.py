"""A worker of the unary calls: lanes that lease jobs, do nothing, and hand in all at once."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import grpc.aio

from atlas_grpc import pb
from benchmarks.handlers import gate
from benchmarks.loops import run

from .bench import TYPES

if TYPE_CHECKING:
    from atlas_grpc._gen.atlas.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub

_BATCH = 500
_WAIT = 2


async def _lane(stub: WorkerServiceAsyncStub, session: str, jobs: int) -> None:
    request = pb.LeaseJobsRequest(worker="unary", session=session, max_jobs=jobs)
    request.types.extend(pb.JobType(name=name) for name in TYPES)
    request.wait.FromSeconds(_WAIT)
    while True:
        leased = await stub.LeaseJobs(request)
        for job in leased.jobs:
            if job.type == "gate":
                await gate(str(job.payload["path"]))
        if leased.jobs:
            reports = [pb.JobReport(id=job.id, token=job.token, success=pb.JobSuccess()) for job in leased.jobs]
            await stub.FinishJobs(pb.FinishJobsRequest(session=session, reports=reports))


async def _work(target: str, slots: int) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = pb.WorkerServiceStub(channel)
        first = pb.LeaseJobsRequest(worker="unary", max_jobs=1)
        first.types.extend(pb.JobType(name=name) for name in TYPES)
        session = (await stub.LeaseJobs(first)).session
        jobs = min(slots, _BATCH)
        lanes = [jobs] * (slots // jobs) + [slots % jobs] * bool(slots % jobs)
        await asyncio.gather(*(_lane(stub, session, size) for size in lanes))


if __name__ == "__main__":
    run(_work(sys.argv[1], int(sys.argv[2])))
