"""Progress, logs, and the hints to the listener."""

from __future__ import annotations

import asyncio
from functools import partial

from msgspec.structs import replace

from ... import lifecycle
from ...model import SECOND, Job, LogLine, Progress, Severity, Succeeded, Update
from ...stores.base import Output
from ._kit import EMPTY, HOUR, Kit, check, equal, ids, present, true


def _lines(*texts: str) -> tuple[LogLine, ...]:
    return tuple(LogLine(Severity.INFO, text) for text in texts)


def _near(kit: Kit, time: int) -> bool:
    return abs(time - kit.store.now()) < 60 * SECOND


@check()
async def the_latest_progress_wins(kit: Kit) -> None:
    """Within a batch and across calls; the store stamps it."""
    job = await kit.running()
    equal(await kit.store.outputs([job.id]), [Output()], "nothing before the first report")
    reports = [Update(job.id, job.fence, Progress(n, 9.5, f"half {n}")) for n in (1.0, 2.0, 1.5)]
    equal(await kit.store.report(reports[:2]), [True, True], "reports of a running attempt")
    (output,) = await kit.store.outputs([job.id])
    progress = output.progress
    assert progress is not None
    equal((progress.current, progress.total, progress.message), (2.0, 9.5, "half 2.0"), "the latest of a batch")
    true(_near(kit, progress.time), "its time is the store's")
    await kit.store.report(reports[2:])
    (output,) = await kit.store.outputs([job.id])
    equal(output.progress and output.progress.current, 1.5, "the latest call, even if it goes back")
    await kit.store.report([Update(job.id, job.fence, None, _lines("x"))])
    (output,) = await kit.store.outputs([job.id])
    equal(output.progress and output.progress.current, 1.5, "log lines leave the progress")
    equal(await kit.get(job), job, "output changes no version")


@check()
async def log_lines_are_numbered(kit: Kit) -> None:
    """Lines are appended in order, from offset 0, with the attempt and the store's time; they are read by offset."""
    job = await kit.running()
    await kit.store.report([Update(job.id, job.fence, None, _lines("a", "b"))])
    last = LogLine(Severity.ERROR, "ünd\n\tc " + "x" * 5_000)
    await kit.store.report(
        [Update(job.id, job.fence, Progress(1.0), (last,)), Update(job.id, job.fence, None, _lines("d"))]
    )
    lines = await kit.store.logs(job.id, 0, 100)
    equal([line.message for line in lines], ["a", "b", last.message, "d"], "the texts, in order")
    equal([line.offset for line in lines], [0, 1, 2, 3], "offsets without a hole")
    equal(
        [line.severity for line in lines], [Severity.INFO, Severity.INFO, Severity.ERROR, Severity.INFO], "severities"
    )
    equal({line.attempt for line in lines}, {1}, "the attempt")
    true(all(_near(kit, line.time) for line in lines), "their times are the store's")
    (output,) = await kit.store.outputs([job.id])
    equal((output.log_start, output.log_end), (0, 4), "the extent")
    for start in range(6):
        equal(await kit.store.logs(job.id, start, 2), lines[start : start + 2], f"two lines from {start} on")


@check()
async def attempts_share_a_log(kit: Kit) -> None:
    """The next attempt, and the next run, go on where the log stands; the lines say whose they are."""
    job = await kit.running()
    await kit.store.report([Update(job.id, job.fence, None, _lines("one"))])
    back = lifecycle.released(job, kit.store.now(), 0)
    equal(await kit.put(back, job.version), True, "an undisputed release is stored")
    (second,) = await kit.claim()
    await kit.store.report([Update(second.id, second.fence, None, _lines("two"))])
    done = await kit.finish(second)
    again = lifecycle.new_run(done, kit.store.now())
    equal(await kit.put(again, done.version), True, "an undisputed new run is stored")
    (third,) = await kit.claim()
    await kit.store.report([Update(third.id, third.fence, None, _lines("three"))])
    lines = await kit.store.logs(job.id, 0, 10)
    equal(
        [(line.offset, line.attempt, line.message) for line in lines],
        [(0, 1, "one"), (1, 2, "two"), (2, 1, "three")],
        "one log over attempts and runs",
    )


@check()
async def only_the_running_token_reports(kit: Kit) -> None:
    """Older and unknown tokens, waiting and finished and unknown jobs: False, and nothing is kept."""
    job = await kit.running()
    other = kit.job(type="rest")
    await kit.insert(other)
    cases = [
        (job.id, job.fence - 1),
        (job.id, job.fence),
        (job.id, job.fence + 1),
        (other.id, 0),
        ("unknown", job.fence),
    ]
    updates = [Update(job_id, fence, Progress(1.0), _lines(f"{fence}")) for job_id, fence in cases]
    equal(await kit.store.report(updates), [False, True, False, False, False], "only the running token")
    lines = await kit.store.logs(job.id, 0, 10)
    equal([line.message for line in lines], [f"{job.fence}"], "only its line is kept")
    equal(await kit.store.outputs([other.id, "unknown"]), [Output(), Output()], "nothing of the others")
    marked = lifecycle.request_cancel(job, kit.store.now(), "", HOUR)
    equal(await kit.put(marked, job.version), True, "an undisputed request to cancel is stored")
    equal(await kit.store.report(updates[1:2]), [True], "an attempt that is told to stop may still report")
    done = await kit.finish(marked)
    equal(await kit.store.report(updates[1:2]), [False], "a finished one may not")
    (output,) = await kit.store.outputs([done.id])
    equal((output.progress is not None, output.log_end), (True, 2), "what was reported stays")


@check()
async def outputs_keep_order(kit: Kit) -> None:
    """Answers stand in the order of the ids, unknown ones are empty."""
    await kit.session()
    await kit.new(3)
    jobs = await kit.claim(3)
    await kit.store.report([Update(job.id, job.fence, Progress(float(n))) for n, job in enumerate(jobs)])
    found = await kit.store.outputs([jobs[2].id, "unknown", jobs[0].id, jobs[2].id])
    equal([output.progress and output.progress.current for output in found], [2.0, None, 0.0, 2.0], "output id by id")
    equal(await kit.store.logs("unknown", 0, 10), [], "logs of an unknown job")


@check(max_log_lines=10)
async def a_log_is_bounded(kit: Kit) -> None:
    """The oldest lines go; offsets stay what they were, and the extent says what is gone."""
    job = await kit.running()
    for n in range(0, 24, 3):
        await kit.store.report([Update(job.id, job.fence, None, _lines(*(f"{n + m}" for m in range(3))))])
    (output,) = await kit.store.outputs([job.id])
    equal(output.log_end, 24, "every line was counted")
    true(14 <= output.log_end - 10 <= output.log_start, "no more than the bound is kept")
    lines = await kit.store.logs(job.id, 0, 100)
    equal([line.offset for line in lines], list(range(output.log_start, 24)), "what is kept, from the first kept on")
    equal([line.message for line in lines], [f"{n}" for n in range(output.log_start, 24)], "under its own offset")
    equal(await kit.store.logs(job.id, 20, 2), [line for line in lines if line.offset in {20, 21}], "read from within")
    await kit.store.report([Update(job.id, job.fence, None, _lines(*(f"{n}" for n in range(24, 60))))])
    lines = await kit.store.logs(job.id, 24, 100)
    equal(lines[-1].offset, 59, "more lines in one report than are kept")
    true(0 < len(lines) <= 10, "the bound holds")
    equal([int(line.message) for line in lines], [line.offset for line in lines], "the last ones")


@check(max_log_bytes=50_000)
async def a_log_is_bounded_in_bytes(kit: Kit) -> None:
    """The oldest lines go when the text of all is too large, however few they are; the last words stay readable."""
    job = await kit.running()
    for n in range(40):
        await kit.store.report([Update(job.id, job.fence, None, _lines(f"{n} " + "x" * 3_000))])
    (output,) = await kit.store.outputs([job.id])
    equal(output.log_end, 40, "every line was counted")
    lines = await kit.store.logs(job.id, 0, 100)
    equal([line.offset for line in lines], list(range(output.log_start, 40)), "what is kept, from the first kept on")
    equal([int(line.message.split()[0]) for line in lines], [line.offset for line in lines], "under its own offset")
    size = sum(len(line.message) for line in lines)
    true(20_000 < size <= 50_000, "about as much as the bound allows is kept, and no more")
    await kit.store.report([Update(job.id, job.fence, None, _lines(*(f"{n} " + "y" * 3_000 for n in range(40, 80))))])
    lines = await kit.store.logs(job.id, 0, 100)
    equal(lines[-1].message.split()[0], "79", "more in one report than is kept: the last ones")
    true(sum(len(line.message) for line in lines) <= 50_000, "the bound holds")
    await kit.store.report([Update(job.id, job.fence, None, _lines("z" * 60_000, "end"))])
    equal(
        [line.message for line in await kit.store.logs(job.id, 0, 100)], ["end"], "a line beyond the bound goes alone"
    )


@check()
async def hints_arrive(kit: Kit) -> None:
    """on_ready when a job became claimable, with its kind or without any, on_changes with the record for every write,
    on_news for a deletion, on_output with the ids.
    """
    heard = kit.listener
    await kit.session()

    async def told(job: Job, what: str) -> None:
        await kit.hinted(lambda: heard.written[-1:] == [job], f"on_changes with the record after {what}")

    def told_ready() -> bool:
        return any(kinds is None or ("work", "main") in kinds for kinds in heard.kinds)

    (job,) = await kit.new(1)
    await kit.hinted(told_ready, "on_ready after the insert of a ready job")
    await told(job, "an insert")
    (taken,) = await kit.claim()
    await told(taken, "a claim")
    heard.kinds.clear()
    back = lifecycle.released(taken, kit.store.now(), 0)
    equal(await kit.put(back, taken.version), True, "an undisputed release is stored")
    await kit.hinted(told_ready, "on_ready after a job became ready again")
    await told(back, "a put")
    (taken,) = await kit.claim()
    heard.outputs.clear()
    await kit.store.report([Update(job.id, taken.fence, Progress(1.0))])
    await kit.hinted(lambda: job.id in heard.outputs, "on_output after progress")
    heard.outputs.clear()
    await kit.store.report([Update(job.id, taken.fence, None, _lines("x"))])
    await kit.hinted(lambda: job.id in heard.outputs, "on_output after a log line")
    done = lifecycle.ended(taken, kit.store.now(), Succeeded(EMPTY), kit.rng)
    equal(await kit.put(done, taken.version), True, "an undisputed end is stored")
    heard.written.clear()
    equal(await kit.put(done, taken.version), False, "it is stale now")
    heard.changes = 0
    equal(await kit.store.delete([done]), [True], "an undisputed delete")
    await kit.hinted(lambda: heard.changes > 0, "on_news after a delete")
    equal(heard.written, [], "what was refused is not told")


@check()
async def a_write_is_told_although_its_caller_is_gone(kit: Kit) -> None:
    """A call may be cancelled while it is under way. What it wrote then, watchers of this server must learn as ever: it
    is no news of others.
    """
    for turns, job in enumerate(await kit.new(20)):
        after = replace(job, version=job.version + 1)
        call = asyncio.ensure_future(kit.store.put([after], [job.version]))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        # This one is stored unless the other was, which is stale from now on.
        if not await kit.put(replace(after, cancel_reason="instead"), job.version):
            told = partial(kit.listener.written.__contains__, after)
            await kit.hinted(told, "on_changes with what a cancelled call wrote")


@check()
async def a_job_that_waits_gives_no_hint_when_it_is_due(kit: Kit) -> None:
    """Time alone is the sweeper's business: the step that makes a job ready gives the hint."""
    (job,) = await kit.new(1, delay=1_000)
    await kit.pass_time(2_000)
    kit.listener.ready = 0
    ready = present(lifecycle.on_timer(job, kit.store.now(), kit.rng))
    equal(await kit.put(ready, job.version), True, "an undisputed step is stored")
    await kit.hinted(lambda: kit.listener.ready > 0, "on_ready after a job became ready")
    await kit.session()
    equal(ids(await kit.claim()), [job.id], "and it can be claimed")
