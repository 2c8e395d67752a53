"""The naive model of a store that the state machine of test_model.py compares with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from atlas_grpc.model import Ask, Job, LogLine, Progress


class Moment(NamedTuple):
    """When a call was made: not before `start`, not after `end`."""

    start: int
    end: int


@dataclass
class Model:
    """What a store must be like."""

    jobs: dict[str, Job] = field(default_factory=dict)
    changes: list[tuple[str, Job | None, Any]] = field(default_factory=list)
    sessions: dict[str, Moment] = field(default_factory=dict)
    infos: dict[str, bytes] = field(default_factory=dict)
    documents: dict[str, dict[str, bytes]] = field(default_factory=dict)
    logs: dict[str, list[LogLine]] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    fence: int = 0

    def named(self, job: Job) -> Job | None:
        key = (job.spec.namespace, job.spec.request_id)
        return next((old for old in self.jobs.values() if (old.spec.namespace, old.spec.request_id) == key), None)

    def insert(self, job: Job) -> Job:
        old = self.named(job) if job.spec.request_id else None
        if old is not None:
            return old
        self.write(job)
        return job

    def write(self, job: Job) -> None:
        self.jobs[job.id] = job
        self.changes.append((job.id, job, job.spec))

    def put(self, job: Job, expected: int) -> bool:
        fits = job.id in self.jobs and self.jobs[job.id].version == expected
        if fits:
            self.write(job)
        return fits

    def delete(self, job: Job) -> bool:
        fits = job.id in self.jobs and self.jobs[job.id].version == job.version
        if fits:
            del self.jobs[job.id]
            self.logs.pop(job.id, None)
            self.progress.pop(job.id, None)
            self.changes.append((job.id, None, job.spec))
        return fits

    def claimable(self, wanted: list[Ask], limit: int) -> list[Job]:
        """Which jobs a claim takes, in order. No two asks are for the same type."""
        left = {ask.type: ask.slots for ask in wanted}
        queues = {ask.type: ask.queues for ask in wanted}
        taken: list[Job] = []
        for job in sorted(self.ready(), key=lambda job: (-job.spec.priority, job.next_start, job.id)):
            allowed = queues.get(job.spec.type)
            if left.get(job.spec.type, 0) > 0 and (allowed is None or job.spec.queue in allowed) and len(taken) < limit:
                left[job.spec.type] -= 1
                taken.append(job)
        return taken

    def ready(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.ready]

    def alive(self, session: str, moment: Moment) -> bool | None:
        """Whether a session lives at that moment; None when it cannot be told."""
        until = self.sessions.get(session)
        if until is None or until.end <= moment.start:
            return False
        return True if until.start > moment.end else None

    def feed(self, after: int) -> list[tuple[str, int | None]]:
        told = self.changes[after:]
        latest = {job_id: at for at, (job_id, _, _) in enumerate(told)}
        return [(job_id, job and job.version) for at, (job_id, job, _) in enumerate(told) if latest[job_id] == at]
