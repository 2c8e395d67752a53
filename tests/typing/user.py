"""A program as a user would write it; `mypy --strict` must accept it and see these types."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_type

import pydantic

import atlas_grpc
from atlas_grpc import AtlasError, Client, Job, JobCancelled, JobFailed, JobState, SyncClient, errors, new_job, pb
from atlas_grpc.client import (
    JobChanged,
    JobDeleted,
    JobEvent,
    JobHandle,
    Logged,
    LogsDropped,
    Progressed,
    Restarted,
    Stream,
    Synced,
    SyncJobHandle,
    SyncStream,
    Transitioned,
)


@dataclass
class Resize:
    width: int


class Fetch(pydantic.BaseModel):
    url: str


async def asynchronous() -> None:
    async with Client("127.0.0.1:50051", namespace="team", timeout=timedelta(seconds=5)) as client:
        job = await client.submit("sleep", {"seconds": 3}, queue="slow", delay=1.5, retention=timedelta(days=1))
        assert_type(job, JobHandle)
        assert_type(job.state, JobState)
        assert_type(job.message, pb.Job)
        assert_type(job.create_time, datetime | None)
        assert_type(await job.result(timeout=5), Any)
        await client.submit("resize", Resize(3), max_attempts=2)
        await client.submit("fetch", Fetch(url="x"), labels={"a": "b"})
        await client.submit("blob", b"\x00", content_type="image/png", request_id=None)
        for outcome in await client.submit_many(new_job("sleep", {"seconds": n}) for n in range(3)):
            assert_type(outcome, JobHandle | AtlasError)
        stream = client.watch(job)
        assert_type(stream, Stream[JobEvent])
        async for event in stream:
            match event:
                case Transitioned():
                    assert_type(event.job, Job)
                    assert_type(event.version, int)
                case Progressed():
                    assert_type(event.progress.fraction, float | None)
                case Logged(message=message):
                    assert_type(message, str)
                case LogsDropped(count=count):
                    assert_type(count, int)
        async for change in client.watch_all(types=["sleep"], states=[JobState.FAILED, "RUNNING"]):
            match change:
                case JobChanged():
                    assert_type(change.job, Job)
                case JobDeleted():
                    assert_type(change.job_id, str)
                case Synced() | Restarted():
                    pass
        async for listed in client.list(limit=10, labels={"a": "b"}):
            assert_type(listed, JobHandle)
            await listed.retry(if_version=listed.version)
        explanation = await client.explain(job.id)
        assert_type(explanation.next_event_time, datetime | None)


def synchronous() -> None:
    with SyncClient() as client:
        try:
            job = client.run("sleep", {"seconds": 3})
        except (JobFailed, JobCancelled) as err:
            assert_type(err.reason, str)
        except errors.InvalidArgument as err:
            assert_type(err.violations, tuple[errors.Violation, ...])
        else:
            assert_type(job, SyncJobHandle)
            assert_type(job.wait(timeout=3), SyncJobHandle)
            assert_type(job.watch(), SyncStream[JobEvent])
        for listed in client.list(states=["FAILED"]):
            assert_type(listed, SyncJobHandle)
        request = new_job("sleep")
        assert_type(request, pb.SubmitJobRequest)
        client.submit("sleep", quue="slow")  # type: ignore[call-arg]
        client.submit("sleep", {"seconds": 3}, delay="soon")  # type: ignore[arg-type]
        client.submit("sleep", 3)  # type: ignore[arg-type]


assert_type(atlas_grpc.__version__, str)
