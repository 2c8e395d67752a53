"""A load of jobs that goes on whatever breaks, and the history of it.

Submitters repeat what was cut until it is answered, under the same request ids. One watcher follows every job from its
first step to its last and resumes from its own token after each cut; another follows all jobs by the feed. What they
are told goes into a `History`, in order; what handlers did comes from the file of `storm_handlers`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from atlas_grpc import pb
from tests.support.history import TERMINAL, Acknowledged, Answer, Execution, History, Line, Reading, Step
from tests.support.waiting import Patience

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

HANDLERS = str(Path(__file__).parent.parent / "robustness" / "storm_handlers.py")
ENDS = {
    **dict.fromkeys(("instant", "short", "flaky", "long", "threaded", "crunched"), "SUCCESS"),
    "hopeless": "FAILED",
    "endless": "CANCELLED",
}
CUTS = frozenset({
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
})  # fmt: skip
"""What a call may end with when its server, or the database behind it, is gone."""

MIX = "i" * 70 + "s" * 12 + "f" * 10 + "h" * 3 + "e" * 5
"""How often each type is submitted, by its first letter."""
_NAMES = {name[0]: name for name in ENDS}
KEPT = 20
"""Endless jobs that are there from the beginning and cancelled at the end, so that each cut meets running ones."""
BATCH = 20
_SUBMITTERS = 4
_WATCHED = 250
"""Jobs that are watched at a time; the next ones wait for their turn."""
_PAUSE = 0.02
_CALL = 20.0
_STALL = 60.0
"""Seconds without anything to be told after which nothing is expected to come any more; leases and pauses are short."""
_PAGE = 1_000
_STATES = {value.number: value.name for value in pb.Job.State.DESCRIPTOR.values}
_CAUSES = {value.number: value.name for value in pb.Transition.Cause.DESCRIPTOR.values}


class Cut(NamedTuple):
    """What was going on when something was broken."""

    submitting: int
    """Submits without an answer."""
    running: int
    unfinished: int
    """Acknowledged jobs whose end was not told yet."""


class Storm:
    """So many jobs, which are submitted as they are released; then their cancellations and watches."""

    def __init__(
        self,
        stub: Any,
        executions: Path,
        jobs: int,
        seed: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        mix: str = MIX,
    ) -> None:
        """`executions` is the file of the handlers. What workers elsewhere were answered is in `answers` beside it."""
        self.history = History()
        self.types: dict[str, str] = {}
        """Of each acknowledged job, by id."""
        self.told = 0
        """Acknowledgements and steps until now."""
        self.deduplicated = 0
        self.resumed: Counter[str] = Counter()
        """How often the watch of each job was cut and went on."""
        self.refused: Counter[str] = Counter()
        """Calls and streams that failed, by code."""
        self.last_end = 0.0
        """When the last job ended, by the clock of the store: seconds since 1970."""
        self._stub = stub
        self._clock = clock
        self._executions = executions
        self._rng = random.Random(seed)
        self._jobs = jobs
        self._requests = self._made(jobs, mix)
        self._wanted: deque[tuple[str, str]] = deque()
        self._allowed = asyncio.Semaphore(0)
        self._to_watch: asyncio.Queue[str] = asyncio.Queue()
        self._to_cancel: asyncio.Queue[str] = asyncio.Queue()
        self._kept: set[str] = set()
        self._running: dict[str, str] = {}
        self._submitting = 0
        self._ended: set[str] = set()
        self._ended_in_feed: set[str] = set()
        self._firsts: dict[str, float] = {}
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        work = [self._submit() for _ in range(_SUBMITTERS)]
        work += [self._watch() for _ in range(_WATCHED)]
        work += [self._cancel() for _ in range(_SUBMITTERS)]
        work += [self._watch_all("all")]
        self._tasks = [asyncio.create_task(one) for one in work]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def release(self, jobs: int) -> None:
        """Lets so many more be submitted."""
        for _ in range(0, jobs, BATCH):
            self._allowed.release()

    def want(self, job_type: str, queue: str) -> None:
        """Submits such a job next, in that queue, and what goes with it."""
        self._wanted.append((job_type, queue))
        self.release(BATCH)

    def server_died(self) -> None:
        """What runs from now on was started by the next one."""
        self._running.clear()

    async def reaches(self, told: int) -> Cut:
        """Returns when so much was told and a job runs that will not end by itself; says what is going on then."""
        await self.until(lambda: self.told >= told and self._running.keys() & self._kept)
        return Cut(self._submitting, len(self._running), len(self.types) - len(self._ended))

    async def until(self, holds: Callable[[], object]) -> None:
        """Returns when that holds, which is looked at whenever there is news."""
        patience = Patience(_STALL)
        while not holds():
            await self._next_news(patience)

    def at(self, worker: str, *types: str) -> frozenset[str]:
        """Jobs that the worker of that name executes, as far as was told; of these types only, if any are given."""
        mine = (job_id for job_id, name in self._running.items() if name == worker)
        return frozenset(job_id for job_id in mine if not types or self.types[job_id] in types)

    @property
    def left(self) -> int:
        """Jobs that have not ended, but for those that do not end before `finish`, as the feed tells."""
        return self._jobs - len(self._kept) - len(self._ended_in_feed)

    async def notices(self, refusals: int) -> None:
        """Returns when so many more calls were refused or cut."""
        patience, goal = Patience(_STALL), self.refused.total() + refusals
        while self.refused.total() < goal:
            await self._next_news(patience)

    async def recovers(self) -> tuple[float, float]:
        """How long it takes until a submit is answered, and until a job is started: seconds on the clock."""
        patience, since = Patience(_STALL), self._clock()
        self._firsts.clear()
        while len(self._firsts) < 2:
            await self._next_news(patience)
        return self._firsts["answered"] - since, self._firsts["started"] - since

    async def finish(self) -> None:
        """Submits the rest, cancels what is endless, waits for every end and reads all jobs. What has not ended when no
        end came for long is to be found in the history."""
        self.release(self._jobs)
        patience = Patience(_STALL)
        while len(self.types) < self._jobs:
            await self._next_news(patience)
        for job_id in self._kept:
            self._to_cancel.put_nowait(job_id)
        patience, ended = Patience(_STALL), 0
        try:
            while min(len(self._ended), len(self._ended_in_feed)) < self._jobs:
                await self._next_news(patience)
                if len(self._ended) > ended:
                    patience, ended = Patience(_STALL), len(self._ended)
        except TimeoutError:
            self.refused["ends that did not come"] += self._jobs - len(self._ended)
        await self._read_all()
        self.history.executions += self._read_executions()
        self.history.answers += self._read_answers()

    def _tell(self) -> None:
        """Wakes all who wait for news."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _next_news(self, patience: Patience) -> None:
        for task in self._tasks:
            if task.done():
                task.result()
        try:
            await patience.wait(self._news)
        except TimeoutError:
            raise TimeoutError(f"nothing more was told: {self._state()}") from None

    def _state(self) -> str:
        kept = self._running.keys() & self._kept
        return (
            f"of {self._jobs} jobs {len(self.types)} are acknowledged, {len(self._ended)} ended, {self._submitting} "
            f"submits wait for an answer, {len(self._running)} jobs run, {len(kept)} kept; "
            f"to be watched: {self._to_watch.qsize()}; {dict(self.refused)}"
        )

    def _made(self, jobs: int, mix: str) -> Iterator[pb.SubmitJobRequest]:
        for number in range(jobs):
            kind, queue = "endless" if number < KEPT else _NAMES[self._rng.choice(mix)], "default"
            if number >= KEPT and self._wanted:
                kind, queue = self._wanted.popleft()
            request = pb.SubmitJobRequest(type=kind, queue=queue, request_id=f"r{number}")
            if kind == "short":
                request.payload["seconds"] = self._rng.uniform(0.01, 0.2)
            yield request

    async def _answered(self, method: Any, request: Any) -> Any:
        """The answer, after as many tries as it takes."""
        while True:
            try:
                return await method(request, timeout=_CALL, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                await self._cut(error)

    async def _cut(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() not in CUTS:
            raise error
        self.refused[error.code().name] += 1
        self._tell()
        await asyncio.sleep(_PAUSE)

    def _note(self) -> None:
        self.told += 1
        self._tell()

    async def _submit(self) -> None:
        while True:
            await self._allowed.acquire()
            batch = list(islice(self._requests, BATCH))
            if not batch:
                continue
            self._submitting += 1
            answer = await self._answered(self._stub.SubmitJobs, pb.SubmitJobsRequest(requests=batch))
            self._submitting -= 1
            for request, outcome in zip(batch, answer.outcomes, strict=True):
                assert outcome.HasField("response"), outcome
                self._accept(request, outcome.response)
            self._firsts.setdefault("answered", self._clock())

    def _accept(self, request: pb.SubmitJobRequest, answer: pb.SubmitJobResponse) -> None:
        job = answer.job
        self.history.acknowledged.append(Acknowledged(request.request_id, job.id))
        self.history.readings.append(_reading(job))
        self.deduplicated += answer.deduplicated
        self.types[job.id] = request.type
        self._to_watch.put_nowait(job.id)
        if int(request.request_id[1:]) < KEPT:
            self._kept.add(job.id)
        elif request.type == "endless" and self._rng.random() < 0.5:
            self._to_cancel.put_nowait(job.id)  # the others when they run
        self._note()

    async def _cancel(self) -> None:
        while True:
            request = pb.CancelJobRequest(id=await self._to_cancel.get())
            self.history.readings.append(_reading((await self._answered(self._stub.CancelJob, request)).job))

    async def _watch(self) -> None:
        while True:
            await self._watch_job(await self._to_watch.get())

    async def _watch_job(self, job_id: str) -> None:
        token = ""
        while True:
            try:
                request = pb.WatchJobRequest(id=job_id, resume_token=token, include_logs=True)
                async for message in self._stub.WatchJob(request, wait_for_ready=True):
                    token = message.resume_token
                    for step in message.transitions:
                        self._step(job_id, step)
                    for line in message.logs:
                        if line.message.isdigit():  # and not printed by what the process of a handler has beside it
                            self.history.lines.append(Line(job_id, line.attempt, int(line.message)))
                    if message.HasField("job"):
                        self.history.readings.append(_reading(message.job))
            except grpc.aio.AioRpcError as error:
                self.resumed[job_id] += bool(token)
                await self._cut(error)
            else:
                break
        self._ended.add(job_id)
        self._note()

    def _step(self, job_id: str, told: pb.Transition) -> None:
        step = Step(told.version, _STATES[told.state], _CAUSES[told.cause], told.run, told.attempt)
        self.history.steps["each", job_id].append(step)
        if step.cause == "STARTED":
            self._running[job_id] = told.worker
            self._firsts.setdefault("started", self._clock())
            if self.types[job_id] == "endless" and job_id not in self._kept:
                self._to_cancel.put_nowait(job_id)
        elif step.state != "RUNNING":
            self._running.pop(job_id, None)
        self._note()

    async def _watch_all(self, watcher: str) -> None:
        token = ""
        while True:
            try:
                request = pb.WatchJobsRequest(resume_token=token)
                async for message in self._stub.WatchJobs(request, wait_for_ready=True):
                    token = message.resume_token or token
                    for job in message.jobs:
                        reading = _reading(job)
                        self.history.changes[watcher, job.id].append(reading)
                        if reading.state in TERMINAL:
                            self._ended_in_feed.add(job.id)
                    self._tell()
            except grpc.aio.AioRpcError as error:
                self.resumed[watcher] += bool(token)
                await self._cut(error)

    async def _read_all(self) -> None:
        async for job in self._list():
            self.history.final.append(_reading(job))
            self.last_end = max(self.last_end, job.finish_time.ToNanoseconds() / 1e9)
        for job in self._rng.sample(self.history.final, min(200, len(self.history.final))):
            answer = await self._answered(self._stub.GetJob, pb.GetJobRequest(id=job.job_id))
            self.history.readings.append(_reading(answer.job))

    async def _list(self) -> AsyncIterator[pb.Job]:
        request = pb.ListJobsRequest(page_size=_PAGE, view=pb.JOB_VIEW_FULL)
        while True:
            answer = await self._answered(self._stub.ListJobs, request)
            for job in answer.jobs:
                yield job
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    def _read_executions(self) -> Iterator[Execution]:
        for line in self._executions.read_text("ascii").splitlines():
            job_id, fence, run, attempt, *result = line.split()
            yield Execution(job_id, int(fence), int(run), *(result or [None]), int(attempt))

    def _read_answers(self) -> Iterator[Answer]:
        path = self._executions.with_name("answers")
        for line in path.read_text("ascii").splitlines() if path.exists() else ():
            job_id, fence, answer = line.split()
            yield Answer(job_id, int(fence), answer == "accepted")


def _reading(job: pb.Job) -> Reading:
    result = job.result.string_value if job.HasField("result") else None
    return Reading(job.id, job.version, _STATES[job.state], job.run, job.request_id, result)


def wrong_ends(storm: Storm) -> list[str]:
    """Jobs that ended otherwise than such jobs do."""
    return [
        f"{storm.types[job.job_id]} {job.job_id}: {job.state}"
        for job in storm.history.final
        if job.job_id in storm.types and job.state != ENDS[storm.types[job.job_id]]
    ]


def told_of(storm: Storm) -> str:
    """What happened, for who runs the test."""
    causes = Counter(step.cause for steps in storm.history.steps.values() for step in steps)
    resumed = [times for name, times in storm.resumed.items() if name in storm.types]
    return (
        f"{len(storm.types)} jobs; calls and streams cut: {dict(storm.refused)}; submits found stored: "
        f"{storm.deduplicated}; leases lost: {causes['WORKER_LOST']}; watches resumed: {sum(resumed)}, "
        f"of one job up to {max(resumed, default=0)} times"
    )
