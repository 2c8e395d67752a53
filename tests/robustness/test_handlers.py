"""Whatever a handler does, its job ends, can be read, and the server goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from atlas_grpc import pb
from atlas_grpc.testing import serving
from tests.robustness.conftest import Rig
from tests.robustness.handlers import ERRORS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.usefixtures("every_store")

HANDLERS = str(Path(__file__).with_name("handlers.py"))


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """With a worker, and the handlers that behave badly."""
    async with (
        serving(HANDLERS, grace=0, handler_processes=1) as server,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
    ):
        yield Rig(server, channel)


async def run(rig: Rig, type: str, **payload: Any) -> pb.Job:
    """The job at its end; every way of reading it works."""
    job_id = await rig.submit(type, payload)
    job = (await rig.stub.GetJob(pb.GetJobRequest(id=job_id, wait={"seconds": 30}), timeout=40)).job
    assert job.state >= pb.Job.SUCCESS
    watch = rig.stub.WatchJob(pb.WatchJobRequest(id=job_id, include_logs=True), timeout=20)
    messages = [message async for message in watch]
    assert messages[-1].job.state == job.state
    where = pb.JobFilter(ids=[job_id])
    await rig.stub.ListJobs(pb.ListJobsRequest(filter=where, view=pb.JOB_VIEW_FULL), timeout=10)
    return job


@pytest.mark.parametrize("type", ["bad_task", "bad_thread"])
@pytest.mark.parametrize("what", ERRORS)
async def test_any_exception_ends_the_job(rig: Rig, type: str, what: str):
    job = await run(rig, type, what=what)
    assert job.state == pb.Job.FAILED
    assert len(job.error.message) <= 2048
    assert await rig.submit()


async def test_any_exception_of_a_process_ends_the_job(rig: Rig):
    for what in ERRORS:
        job = await run(rig, "bad_process", what=what)
        assert job.state == pb.Job.FAILED, what


@pytest.mark.parametrize("what", ["nan", "huge", "deep", "loop", "nul", "surrogate", "object", "large", "key"])
async def test_a_result_that_cannot_be_kept_fails_the_job(rig: Rig, what: str):
    job = await run(rig, "bad_result", what=what)
    assert job.state == pb.Job.FAILED
    assert not job.HasField("result")


@pytest.mark.parametrize("what", ["progress", "logs"])
async def test_output_that_cannot_be_kept_harms_nobody(rig: Rig, what: str):
    job = await run(rig, "bad_output", what=what)
    assert job.state == (pb.Job.FAILED if what == "progress" else pb.Job.SUCCESS)


async def test_a_killed_process_costs_one_attempt(rig: Rig, tmp_path: Path):
    job = await run(rig, "suicidal", marker=str(tmp_path / "tries"))
    assert job.state == pb.Job.SUCCESS
    assert job.result.number_value == 1
    assert [attempt.outcome for attempt in job.attempts] == [pb.Attempt.FAILED, pb.Attempt.SUCCEEDED]
    assert (await run(rig, "sleep", seconds=0)).state == pb.Job.SUCCESS
