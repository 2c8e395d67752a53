"""The books of a test that breaks things: what clients were told and what handlers did, and what is wrong with it.

`check` is a pure function of a `History`. It knows nothing of what was broken or when, so any test that kills, stops
or cuts servers, databases or workers can use it: no timing decides, only what was recorded.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

TERMINAL = frozenset({"SUCCESS", "FAILED", "CANCELLED"})


class Kind(StrEnum):
    """What can be wrong."""

    LOST = "an acknowledged job is not there"
    TWICE = "a request was accepted as several jobs"
    STUCK = "a job did not end"
    GAP = "a watcher missed a step"
    ORDER = "a watcher was told a step again, or late"
    STEP_LOST = "a step that was told is not there"
    CONFLICT = "two were told different steps of one version"
    TERMINAL_LEFT = "a job that had ended went on"
    TWO_RESULTS = "one run has two results"
    STALE_RESULT = "a result was accepted although a later attempt had begun"
    UNKNOWN_RESULT = "a result that no handler returned"
    RAN_TWICE = "a lease was executed more than once"
    RAN_UNLEASED = "a handler ran without a lease"
    FENCES = "the fences of a job's attempts do not grow"
    ENDED_RESULT = "the result is of an attempt that had ended otherwise"
    ACCEPTED_TWICE = "two attempts of a run were told that their results are accepted"
    ACCEPTED_LOST = "a worker was told that its result is accepted, and it is not the job's"
    STALE_WRITE = "what one attempt wrote was taken as written by another"


class Violation(NamedTuple):
    """One thing that is wrong, with the job (or the request) it is about."""

    kind: Kind
    about: str
    detail: str


class Acknowledged(NamedTuple):
    """A submit that was answered."""

    request_id: str
    job_id: str


class Step(NamedTuple):
    """A transition, as a watcher was told it. States and causes by their names in the contract."""

    version: int
    state: str
    cause: str
    run: int = 1
    attempt: int = 0
    """0 before the first of the run, or where it was not recorded."""


class Reading(NamedTuple):
    """A job, as GetJob, ListJobs or a watch showed it. `result` is None where none was shown."""

    job_id: str
    version: int
    state: str
    run: int = 1
    request_id: str = ""
    result: str | None = None


class Execution(NamedTuple):
    """A handler's start (`result` None), or its return with a result."""

    job_id: str
    fence: int
    run: int = 1
    result: str | None = None
    attempt: int = 0
    """0 where it was not recorded."""


class Answer(NamedTuple):
    """What a worker was told about a result that it handed in."""

    job_id: str
    fence: int
    accepted: bool


class Line(NamedTuple):
    """A line of a job's log: which attempt wrote it, as Atlas says, and of which fence, as the line says."""

    job_id: str
    attempt: int
    fence: int


@dataclass
class History:
    """What was recorded, each list in the order of recording."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    steps: dict[tuple[str, str], list[Step]] = field(default_factory=lambda: defaultdict(list))
    """What each watcher (its name first) was told of each job (its id), over all reconnects, from the beginning on."""
    changes: dict[tuple[str, str], list[Reading]] = field(default_factory=lambda: defaultdict(list))
    """The same of watchers that may be told only the latest of several steps."""
    readings: list[Reading] = field(default_factory=list)
    """What was read meanwhile: each was true when it was answered."""
    final: list[Reading] = field(default_factory=list)
    """All jobs, when everything is over."""
    executions: list[Execution] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)


def check(history: History) -> list[Violation]:
    """All that is wrong."""
    final = {job.job_id: job for job in history.final}
    found = [
        *_submits(history, final),
        *_stuck(history.final),
        *_watches(history, final),
        *_changes(history, final),
        *_steps(history, final),
        *_results(history),
        *_executions(history),
        *_fences(history),
        *_answers(history, final),
        *_ended_results(history),
        *_lines(history),
    ]
    return sorted(set(found))


def summary(violations: Sequence[Violation], shown: int = 5) -> str:
    """How many of each kind, and the first few."""
    lines = [f"{count} x {kind}" for kind, count in Counter(found.kind for found in violations).items()]
    return "\n".join([*lines, *(f"{found.kind.name} {found.about}: {found.detail}" for found in violations[:shown])])


def _submits(history: History, final: Mapping[str, Reading]) -> Iterator[Violation]:
    jobs: dict[str, set[str]] = defaultdict(set)
    for told in history.acknowledged:
        jobs[told.request_id].add(told.job_id)
        if told.job_id not in final:
            yield Violation(Kind.LOST, told.job_id, f"request {told.request_id}")
    for job in history.final:
        if job.request_id:
            jobs[job.request_id].add(job.job_id)
    for request, ids in jobs.items():
        if request and len(ids) > 1:
            yield Violation(Kind.TWICE, request, ", ".join(sorted(ids)))


def _stuck(final: Iterable[Reading]) -> Iterator[Violation]:
    for job in final:
        if job.state not in TERMINAL:
            yield Violation(Kind.STUCK, job.job_id, f"{job.state} at version {job.version}")


def _watches(history: History, final: Mapping[str, Reading]) -> Iterator[Violation]:
    for (watcher, job_id), steps in history.steps.items():
        expected = 1
        for step in steps:
            if step.version > expected:
                yield Violation(Kind.GAP, job_id, f"{watcher}: {step.version} after {expected - 1}")
            elif step.version < expected:
                yield Violation(Kind.ORDER, job_id, f"{watcher}: {step.version} after {expected - 1}")
            expected = step.version + 1
        job = final.get(job_id)
        if job is not None and expected <= job.version:
            yield Violation(Kind.GAP, job_id, f"{watcher}: ended after {expected - 1}, the job at {job.version}")


def _changes(history: History, final: Mapping[str, Reading]) -> Iterator[Violation]:
    for (watcher, job_id), told in history.changes.items():
        latest = 0
        for job in told:
            if job.version < latest:
                yield Violation(Kind.ORDER, job_id, f"{watcher}: {job.version} after {latest}")
            latest = max(latest, job.version)
        last = final.get(job_id)
        if last is not None and latest < last.version:
            yield Violation(Kind.GAP, job_id, f"{watcher}: told {latest}, the job at {last.version}")
    for watcher in {watcher for watcher, _ in history.changes}:
        for job_id in final.keys() - {job_id for name, job_id in history.changes if name == watcher}:
            yield Violation(Kind.GAP, job_id, f"{watcher}: was told nothing")


def _readings(history: History) -> Iterator[Reading]:
    yield from history.readings
    for told in history.changes.values():
        yield from told
    yield from history.final


def _steps(history: History, final: Mapping[str, Reading]) -> Iterator[Violation]:
    """All that was told of a job, by whomever, is one line of versions that ends at its first terminal state, or goes
    on from there by RetryJob."""
    states: dict[str, dict[int, str]] = defaultdict(dict)
    retried: set[tuple[str, int]] = set()
    causes: dict[tuple[str, int], str] = {}
    told = [(job_id, step.version, step.state) for (_, job_id), steps in history.steps.items() for step in steps]
    told += [(job.job_id, job.version, job.state) for job in _readings(history)]
    for job_id, version, state in told:
        if states[job_id].setdefault(version, state) != state:
            yield Violation(Kind.CONFLICT, job_id, f"version {version}: {states[job_id][version]} and {state}")
    for (_, job_id), steps in history.steps.items():
        for step in steps:
            if causes.setdefault((job_id, step.version), step.cause) != step.cause:
                yield Violation(Kind.CONFLICT, job_id, f"version {step.version}: other causes")
            if step.cause == "RETRIED":
                retried.add((job_id, step.version))
    for job_id, line in states.items():
        versions = sorted(line)
        job = final.get(job_id)
        if job is not None and versions[-1] > job.version:
            yield Violation(Kind.STEP_LOST, job_id, f"told {versions[-1]}, the job at {job.version}")
        for version in versions[:-1]:
            if line[version] in TERMINAL and (job_id, version + 1) not in retried:
                yield Violation(Kind.TERMINAL_LEFT, job_id, f"{line[version]} at {version}, then {versions[-1]}")


def _results(history: History) -> Iterator[Violation]:
    results: dict[tuple[str, int], set[str]] = defaultdict(set)
    for job in _readings(history):
        if job.result is not None and job.state == "SUCCESS":
            results[job.job_id, job.run].add(job.result)
    began: dict[tuple[str, int], int] = {}
    returned: dict[tuple[str, int, str], int] = {}
    for ran in history.executions:
        key = ran.job_id, ran.run
        began[key] = max(began.get(key, 0), ran.fence)
        if ran.result is not None:
            returned[*key, ran.result] = ran.fence
    for (job_id, run), told in results.items():
        if len(told) > 1:
            yield Violation(Kind.TWO_RESULTS, job_id, f"run {run}: {' and '.join(sorted(told))}")
        for result in told if history.executions else ():
            fence = returned.get((job_id, run, result))
            if fence is None:
                yield Violation(Kind.UNKNOWN_RESULT, job_id, f"run {run}: {result}")
            elif fence < began[job_id, run]:
                yield Violation(Kind.STALE_RESULT, job_id, f"of fence {fence}, and {began[job_id, run]} had begun")


def _executions(history: History) -> Iterator[Violation]:
    starts = Counter((ran.job_id, ran.fence) for ran in history.executions if ran.result is None)
    for (job_id, fence), count in starts.items():
        if count > 1:
            yield Violation(Kind.RAN_TWICE, job_id, f"fence {fence}: {count} times")
    leases: dict[str, int] = {}
    for (_, job_id), steps in history.steps.items():
        started = len({step.version for step in steps if step.cause == "STARTED"})
        leases[job_id] = max(leases.get(job_id, 0), started)
    fences = Counter(job_id for job_id, _ in starts)
    for job_id, count in fences.items():
        if job_id in leases and count > leases[job_id]:
            yield Violation(Kind.RAN_UNLEASED, job_id, f"{count} executions, {leases[job_id]} leases")


def _fences(history: History) -> Iterator[Violation]:
    """A later attempt has a larger fence, and each attempt has one."""
    fences: dict[str, set[tuple[int, int, int]]] = defaultdict(set)
    for ran in history.executions:
        if ran.attempt:
            fences[ran.job_id].add((ran.run, ran.attempt, ran.fence))
    for job_id, found in fences.items():
        for one, other in pairwise(sorted(found)):
            if one[:2] == other[:2] or one[2] >= other[2]:
                yield Violation(Kind.FENCES, job_id, f"run, attempt, fence: {one} and {other}")


def _answers(history: History, final: Mapping[str, Reading]) -> Iterator[Violation]:
    """What workers were told of their results is what became of the jobs."""
    runs = {(ran.job_id, ran.fence): ran.run for ran in history.executions}
    returned = {(ran.job_id, ran.result): ran.fence for ran in history.executions if ran.result is not None}
    accepted: dict[tuple[str, int], set[int]] = defaultdict(set)
    for answer in history.answers:
        if answer.accepted:
            accepted[answer.job_id, runs.get((answer.job_id, answer.fence), 1)].add(answer.fence)
    for (job_id, run), fences in accepted.items():
        if len(fences) > 1:
            yield Violation(Kind.ACCEPTED_TWICE, job_id, f"run {run}: fences {sorted(fences)}")
        job = final.get(job_id)
        if job is None or job.run != run:
            continue
        fence = None if job.result is None else returned.get((job_id, job.result))
        if job.state != "SUCCESS" or fence not in fences:
            yield Violation(Kind.ACCEPTED_LOST, job_id, f"fences {sorted(fences)}; it is {job.state} by {fence}")


def _ended_results(history: History) -> Iterator[Violation]:
    """A success is of the attempt that returned the result."""
    succeeded: dict[tuple[str, int], int] = {}
    for (_, job_id), steps in history.steps.items():
        succeeded.update(((job_id, step.run), step.attempt) for step in steps if step.cause == "SUCCEEDED")
    attempts = {(ran.job_id, ran.run, ran.result): ran.attempt for ran in history.executions if ran.result is not None}
    for job in _readings(history):
        told = succeeded.get((job.job_id, job.run))
        wrote = attempts.get((job.job_id, job.run, job.result or ""))
        if job.state == "SUCCESS" and told and wrote and told != wrote:
            yield Violation(Kind.ENDED_RESULT, job.job_id, f"attempt {told} succeeded, with the result of {wrote}")


def _lines(history: History) -> Iterator[Violation]:
    attempts = {(ran.job_id, ran.fence): ran.attempt for ran in history.executions}
    for line in history.lines:
        wrote = attempts.get((line.job_id, line.fence))
        if wrote is None or wrote != line.attempt:
            detail = f"a line of fence {line.fence}, attempt {wrote}, as one of attempt {line.attempt}"
            yield Violation(Kind.STALE_WRITE, line.job_id, detail)
