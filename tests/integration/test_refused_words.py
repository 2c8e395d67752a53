"""What a worker says and breaks a rule with is refused by itself, by every way to say it."""

from __future__ import annotations

import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToDict

from atlas_grpc import pb
from atlas_grpc.client import JobState
from tests.integration.worker_world import PATIENCE, World, a_world, success, tokens

pytestmark = pytest.mark.usefixtures("every_store")

ACCEPTED, REFUSED = pb.JobAnswer.ACCEPTED, pb.JobAnswer.REFUSED
EIGHT_DAYS = 8 * 86_400


def bad_reports(job: pb.Assignment) -> dict[str, pb.JobReport]:
    """Reports that break a rule of the contract, by the field whose rule it is."""
    own = {"id": job.id, "token": job.token}
    late = pb.JobReport(**own, release=pb.JobRelease())
    late.release.delay.FromSeconds(EIGHT_DAYS)
    later = pb.JobReport(**own, failure=pb.JobFailure())
    later.failure.retry_delay.FromSeconds(EIGHT_DAYS)
    return {
        "release.delay": late,
        "failure.retry_delay": later,
        "failure.reason": pb.JobReport(**own, failure=pb.JobFailure(reason="no reason")),
        "success.result_data.content_type": success(job, result_data=pb.Data(data=b"x", content_type="a b")),
        "id": pb.JobReport(id="x" * 101, token=job.token, success=pb.JobSuccess()),
        "outcome": pb.JobReport(**own),
    }


async def two_jobs(world: World) -> tuple[str, list[pb.Assignment]]:
    """A session, and two jobs of it."""
    for _ in range(2):
        await world.client.submit("echo")
    lease = pb.LeaseJobsRequest(worker="sh", types=[pb.JobType(name="echo")], max_jobs=2)
    lease.wait.FromSeconds(10)
    taken = await world.stub.LeaseJobs(lease)
    assert len(taken.jobs) == 2
    return taken.session, list(taken.jobs)


async def test_on_the_stream():
    async with a_world() as world:
        for _ in range(2):
            await world.client.submit("echo")
        stream = world.stream()
        await stream.hello()
        first, second = (await stream.take(2)).jobs
        bad = bad_reports(first)
        await stream.say(reports=pb.WorkerReports(id=1, reports=[*bad.values(), success(second)]))
        answers = (await stream.hear("reports_answer")).reports_answer.answers
        assert [one.status for one in answers] == [REFUSED] * len(bad) + [ACCEPTED]
        assert [one.error.message.partition(":")[0] for one in answers[:-1]] == list(bad)
        lines = [pb.LogEntry(message="x")] * 1001
        updates = [
            pb.JobUpdate(id=first.id, token=first.token, logs=lines),
            pb.JobUpdate(id=first.id, token=first.token, progress=pb.Progress(current=1)),
        ]
        await stream.say(updates=pb.WorkerUpdates(id=2, updates=updates))
        answers = (await stream.hear("updates_answer")).updates_answer.answers
        assert [one.status for one in answers] == [REFUSED, ACCEPTED]
        assert await stream.report(success(first)) == [ACCEPTED]
        await stream.goodbye()


@pytest.mark.parametrize(("kind", "count"), [("reports", 10_001), ("updates", 10_001)])
async def test_too_many_at_a_time_end_the_stream(kind: str, count: int):
    words = {
        "reports": pb.WorkerReports(reports=[pb.JobReport()] * count),
        "updates": pb.WorkerUpdates(updates=[pb.JobUpdate()] * count),
    }[kind]
    async with a_world() as world:
        stream = world.stream()
        await stream.hello()
        await stream.say(**{kind: words})
        code, details = await stream.end()
        assert (code, details.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, f"{kind}.{kind}")


async def test_by_unary_calls():
    async with a_world() as world:
        session, (first, second) = await two_jobs(world)
        bad = bad_reports(first)
        request = pb.FinishJobsRequest(session=session, reports=[*bad.values(), success(second)])
        answers = (await world.stub.FinishJobs(request)).answers
        assert [one.status for one in answers] == [REFUSED] * len(bad) + [ACCEPTED]
        assert [one.error.message.partition(":")[0] for one in answers[:-1]] == list(bad)
        updates = [
            pb.JobUpdate(id="x" * 101),
            pb.JobUpdate(id=first.id, token=first.token, progress=pb.Progress(current=1)),
        ]
        beat = pb.HeartbeatRequest(session=session, updates=updates, holding=tokens(first))
        answers = (await world.stub.Heartbeat(beat)).answers
        assert [one.status for one in answers] == [REFUSED, ACCEPTED]
        assert await world.state(second.id) is JobState.SUCCESS
        for call, request in (
            (world.stub.FinishJobs, pb.FinishJobsRequest(session=session)),
            (world.stub.FinishJobs, pb.FinishJobsRequest(reports=[success(first)])),
            (world.stub.Heartbeat, pb.HeartbeatRequest()),
            (world.stub.Heartbeat, pb.HeartbeatRequest(session=session, holding=[pb.HeldJob(id="x" * 101)])),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_over_rest():
    async with a_world(http_address="127.0.0.1:0") as world, httpx.AsyncClient(timeout=PATIENCE) as http:
        assert world.server.http is not None
        http.base_url = httpx.URL(f"http://127.0.0.1:{world.server.http.port}")
        session, (first, second) = await two_jobs(world)
        late = bad_reports(first)["release.delay"]
        request = pb.FinishJobsRequest(session=session, reports=[late, success(second)])
        answer = await http.post("/v1/worker:finish", json=MessageToDict(request))
        assert answer.status_code == 200
        assert [one["status"] for one in answer.json()["answers"]] == ["REFUSED", "ACCEPTED"]
        beat = pb.HeartbeatRequest(session=session, updates=[pb.JobUpdate(id="x" * 101)])
        answer = await http.post("/v1/worker:heartbeat", json=MessageToDict(beat))
        assert [one["status"] for one in answer.json()["answers"]] == ["REFUSED"]
