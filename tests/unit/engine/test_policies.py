"""What a submitter can ask for, each from submit to the end: retries, deadlines, order, cancellation, retention."""

from __future__ import annotations

import pytest

from atlas_grpc.engine.submit import RetryOverride
from atlas_grpc.errors import JobNotFound, JobNotTerminal, JobTerminal, VersionMismatch
from atlas_grpc.lifecycle import attempts, pending_reason
from atlas_grpc.model import SECOND, AttemptOutcome, Cause, PendingReason, Released, State, Stopped
from tests.unit.engine.world import DONE, NS, World, a_world, boom


async def test_a_job_runs_to_success(world: World):
    job_id = await world.submit()
    assert (await world.job(job_id)).state is State.PENDING
    worker = await world.worker()
    taken = await worker.take_one()
    assert (await world.job(job_id)).state is State.RUNNING
    assert (taken.job_id, taken.attempt, taken.max_attempts, taken.time_left) == (job_id, 1, 3, None)
    assert await worker.end(taken)
    job = await world.job(job_id)
    assert (job.state, job.result, job.error) == (State.SUCCESS, DONE.result, None)
    assert await world.causes(job_id) == ["SUBMITTED", "STARTED", "SUCCEEDED"]


async def test_a_failed_attempt_is_retried_after_a_growing_pause(world: World):
    job_id = await world.submit()
    worker = await world.worker()
    await worker.end(await worker.take_one(), boom())
    job = await world.job(job_id)
    assert (job.state, pending_reason(job)) == (State.PENDING, PendingReason.WAITING_FOR_RETRY)
    await world.advance(0.999)
    assert await worker.take() == []
    await world.advance(0.001)
    second = await worker.take_one()
    assert second.attempt == 2
    await worker.end(second, boom())
    await world.advance(1.999)
    assert await worker.take() == []
    await world.advance(0.001)
    assert await worker.end(await worker.take_one(), boom("LAST"))
    job = await world.job(job_id)
    assert (job.state, job.error.reason, job.failures) == (State.FAILED, "LAST", 3)
    assert await worker.take() == []
    assert await world.causes(job_id) == [
        "SUBMITTED", "STARTED", "ATTEMPT_FAILED", "BECAME_READY", "STARTED", "ATTEMPT_FAILED", "BECAME_READY",
        "STARTED", "ATTEMPT_FAILED",
    ]  # fmt: skip


async def test_jitter_spreads_the_pauses_within_its_bounds(world: World):
    worker = await world.worker()
    ids = [await world.submit("jittery") for _ in range(40)]
    for taken in await worker.take(40):
        await worker.end(taken, boom())
    pauses = [(job := await world.job(job_id)).next_start - job.update_time for job_id in ids]
    assert all(5 * SECOND <= pause <= 15 * SECOND for pause in pauses)
    assert max(pauses) - min(pauses) > 6 * SECOND
    assert len(set(pauses)) > 30
    await world.advance(15)
    assert len(await worker.take(40)) == 40


@pytest.mark.parametrize("outcome", [boom("NEVER_AGAIN"), boom(retryable=False)])
async def test_what_is_not_retryable_fails_at_once(world: World, outcome):
    job_id = await world.submit(retry=RetryOverride(non_retryable=("NEVER_AGAIN",)))
    worker = await world.worker()
    await worker.end(await worker.take_one(), outcome)
    job = await world.job(job_id)
    assert (job.state, job.failures) == (State.FAILED, 1)


async def test_the_handler_chooses_its_pause(world: World):
    await world.submit()
    worker = await world.worker()
    await worker.end(await worker.take_one(), boom(retry_in=30 * SECOND))
    await world.advance(29.999)
    assert await worker.take() == []
    await world.advance(0.001)
    assert (await worker.take_one()).attempt == 2


async def test_a_job_given_back_does_not_count(world: World):
    job_id = await world.submit(retry=RetryOverride(max_attempts=1))
    worker = await world.worker()
    for number in range(1, 5):
        taken = await worker.take_one()
        assert taken.attempt == number
        await worker.end(taken, Released(2 * SECOND))
        assert await worker.take() == []
        await world.advance(2)
    await worker.end(await worker.take_one())
    assert (await world.job(job_id)).state is State.SUCCESS


async def test_an_attempt_times_out_and_is_retried(world: World):
    job_id = await world.submit("timed")
    worker = await world.worker()
    taken = await worker.take_one()
    assert taken.time_left == 5 * SECOND
    await world.advance(4.999)
    assert (await world.job(job_id)).state is State.RUNNING
    await world.advance(0.001)
    job = await world.job(job_id)
    assert (job.state, job.history[-1].cause) == (State.PENDING, Cause.ATTEMPT_TIMED_OUT)
    assert worker.stops == [(job_id, taken.fence, "lost")]
    assert not await worker.end(taken)
    await world.advance(1)
    assert await worker.end(await worker.take_one())
    outcomes = [view.outcome for view in attempts(await world.job(job_id))]
    assert outcomes == [AttemptOutcome.TIMED_OUT, AttemptOutcome.SUCCEEDED]


@pytest.mark.parametrize("running", [False, True])
async def test_the_total_deadline_ends_a_job_wherever_it_is(world: World, running: bool):
    job_id = await world.submit(total_timeout=20 * SECOND)
    worker = await world.worker()
    if running:
        taken = await worker.take_one()
    await world.advance(19.999)
    assert not (await world.job(job_id)).state.terminal
    await world.advance(0.001)
    job = await world.job(job_id)
    assert (job.state, job.error.reason, job.history[-1].cause) == (
        State.FAILED, "TOTAL_TIMEOUT", Cause.DEADLINE_EXCEEDED,
    )  # fmt: skip
    if running:
        assert worker.stops == [(job_id, taken.fence, "lost")]
        assert not await worker.end(taken)


async def test_no_retry_is_planned_beyond_the_total_deadline(world: World):
    job_id = await world.submit(total_timeout=10 * SECOND)
    worker = await world.worker()
    await worker.end(await worker.take_one(), boom("TOO_LATE", retry_in=10 * SECOND))
    job = await world.job(job_id)
    assert (job.state, job.error.reason) == (State.FAILED, "TOO_LATE")


async def test_start_by_fails_a_job_that_nobody_took(world: World):
    late = await world.submit(start_timeout=5 * SECOND)
    await world.advance(5)
    job = await world.job(late)
    assert (job.state, job.error.reason) == (State.FAILED, "START_TIMEOUT")
    worker = await world.worker()
    assert await worker.take() == []
    early = await world.submit(start_timeout=5 * SECOND)
    taken = await worker.take_one()
    await world.advance(6)
    assert (await world.job(early)).state is State.RUNNING
    await worker.end(taken, boom())
    await world.advance(1)
    assert (await worker.take_one()).attempt == 2, "only the first attempt has to begin by then"


async def test_start_by_counts_from_the_start_time(world: World):
    job_id = await world.submit(start_delay=60 * SECOND, start_timeout=5 * SECOND)
    await world.advance(64.9)
    assert (await world.job(job_id)).state is State.PENDING
    await world.advance(0.1)
    assert (await world.job(job_id)).state is State.FAILED


@pytest.mark.parametrize("how", ["delay", "time"])
async def test_a_delayed_job_starts_no_earlier(world: World, how: str):
    when = {"start_delay": 90 * SECOND} if how == "delay" else {"start_time": world.clock.now() + 90 * SECOND}
    job_id = await world.submit(**when)
    worker = await world.worker()
    job = await world.job(job_id)
    assert (pending_reason(job), job.ready) == (PendingReason.WAITING_FOR_START_TIME, False)
    await world.advance(89.999)
    assert await worker.take() == []
    await world.advance(0.001)
    assert (await worker.take_one()).job_id == job_id
    assert await world.causes(job_id) == ["SUBMITTED", "BECAME_READY", "STARTED"]


async def test_a_start_time_in_the_past_means_now(world: World):
    await world.submit(start_time=world.clock.now() - 1)
    worker = await world.worker()
    assert len(await worker.take()) == 1


async def test_priority_first_then_the_longest_ready(world: World):
    order = []
    for priority in (0, 5, -100, 5, 100, 0):
        order.append((-priority, await world.submit(priority=priority)))
        world.clock.tick()
    worker = await world.worker()
    taken = [(await worker.take_one()).job_id for _ in order]
    assert taken == [job_id for _, job_id in sorted(order)]


async def test_a_queued_job_is_cancelled_at_once_and_never_starts(world: World):
    job_id = await world.submit()
    job = await world.engine.cancel(NS, job_id, "not wanted", None)
    assert (job.state, job.error.reason, job.cancel_reason) == (State.CANCELLED, "JOB_CANCELLED", "not wanted")
    worker = await world.worker()
    assert await worker.take() == []
    assert await world.engine.cancel(NS, job_id, "again", None) == job, "a repeat is harmless"


async def test_a_running_job_is_told_and_stops(world: World):
    job_id = await world.submit()
    worker = await world.worker()
    taken = await worker.take_one()
    job = await world.engine.cancel(NS, job_id, "", None)
    assert (job.state, job.cancel_time) == (State.RUNNING, world.clock.now())
    assert worker.stops == [(job_id, taken.fence, "cancelled")]
    assert await world.engine.cancel(NS, job_id, "again", None) == job
    assert await worker.end(taken, Stopped())
    assert (await world.job(job_id)).state is State.CANCELLED
    assert worker.stops == [(job_id, taken.fence, "cancelled")], "it is told once"


async def test_a_running_job_that_does_not_stop_is_cut_when_its_grace_is_over(world: World):
    job_id = await world.submit()
    worker = await world.worker()
    await worker.take_one()
    await world.engine.cancel(NS, job_id, "", None)
    await world.advance(9.999)
    assert (await world.job(job_id)).state is State.RUNNING
    await world.advance(0.001)
    assert (await world.job(job_id)).state is State.CANCELLED


async def test_success_wins_over_a_cancellation_under_way(world: World):
    job_id = await world.submit()
    worker = await world.worker()
    taken = await worker.take_one()
    await world.engine.cancel(NS, job_id, "", None)
    assert await worker.end(taken)
    assert (await world.job(job_id)).state is State.SUCCESS


async def test_a_failed_job_is_retried_with_fresh_attempts_and_its_history(world: World):
    job_id = await world.submit("other")
    worker = await world.worker()
    await worker.end(await worker.take_one(), boom())
    assert (await world.job(job_id)).state is State.FAILED
    job = await world.engine.retry(NS, job_id, None)
    assert (job.state, job.run, job.attempt, job.error, job.finish_time) == (State.PENDING, 2, 0, None, None)
    taken = await worker.take_one()
    assert (taken.run, taken.attempt) == (2, 1)
    assert await worker.end(taken)
    views = attempts(await world.job(job_id))
    assert [(view.run, view.number, view.outcome) for view in views] == [
        (1, 1, AttemptOutcome.FAILED),
        (2, 1, AttemptOutcome.SUCCEEDED),
    ]


async def test_a_new_run_has_deadlines_of_its_own(world: World):
    job_id = await world.submit(total_timeout=10 * SECOND, start_timeout=5 * SECOND)
    await world.advance(5)
    assert (await world.job(job_id)).error.reason == "START_TIMEOUT"
    await world.advance(100)
    await world.engine.retry(NS, job_id, None)
    await world.advance(4.9)
    assert (await world.job(job_id)).state is State.PENDING
    await world.advance(0.1)
    assert (await world.job(job_id)).state is State.FAILED


async def test_a_finished_job_is_deleted_when_its_retention_is_over():
    async with a_world(retention=60 * SECOND) as world:
        short = await world.submit(retention=10 * SECOND)
        usual = await world.submit()
        worker = await world.worker()
        for taken in await worker.take(2):
            await worker.end(taken)
        await world.advance(9.999)
        assert (await world.job(short)).state is State.SUCCESS
        await world.advance(0.001)
        with pytest.raises(JobNotFound):
            await world.job(short)
        await world.advance(49.999)
        assert (await world.job(usual)).state is State.SUCCESS
        await world.advance(0.001)
        with pytest.raises(JobNotFound):
            await world.job(usual)


async def test_a_retry_stops_the_clock_of_the_retention(world: World):
    job_id = await world.submit(retention=10 * SECOND)
    await world.engine.cancel(NS, job_id, "", None)
    await world.advance(9)
    await world.engine.retry(NS, job_id, None)
    await world.advance(100)
    assert (await world.job(job_id)).state is State.PENDING


async def test_verbs_refuse_the_wrong_state_version_and_namespace(world: World):
    engine = world.engine
    job_id = await world.submit()
    for call in (engine.retry(NS, job_id, None), engine.delete(NS, job_id, None)):
        with pytest.raises(JobNotTerminal):
            await call
    for call in (engine.cancel(NS, job_id, "", 7), engine.retry(NS, job_id, 7), engine.delete(NS, job_id, 7)):
        with pytest.raises(VersionMismatch):
            await call
    for call in (
        engine.get("elsewhere", job_id),
        engine.cancel("elsewhere", job_id, "", None),
        engine.retry("elsewhere", job_id, None),
        engine.delete("elsewhere", job_id, None),
        engine.explain("elsewhere", job_id),
        engine.watch("elsewhere", job_id, "", include_logs=False),
        engine.wait("elsewhere", job_id, 1.0),
    ):
        with pytest.raises(JobNotFound):
            await call
    worker = await world.worker()
    await worker.end(await worker.take_one())
    with pytest.raises(JobTerminal):
        await engine.cancel(NS, job_id, "", None)
    await engine.delete(NS, job_id, 3)
    with pytest.raises(JobNotFound):
        await engine.get(NS, job_id)
