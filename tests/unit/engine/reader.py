"""A client that follows one job through cuts, and what it must have been told in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atlas_grpc.engine.tokens import JobToken, encode
from tests.unit.engine.world import NS

if TYPE_CHECKING:
    from atlas_grpc.engine.engine import Engine
    from atlas_grpc.engine.watches import JobUpdate, JobWatch
    from tests.unit.engine.world import World


class Reader:
    """A client that follows a job, is cut now and then, resumes where it was, and notes what it was told."""

    def __init__(self, job_id: str, *, logs: bool = True) -> None:
        self.job_id = job_id
        self.logs = logs
        self.versions: list[int] = []
        self.offsets: list[int] = []
        self.dropped = 0
        self.token = ""
        self.final = False
        self.last: Any = None

    async def follow(self, engine: Engine, messages: int = 10_000) -> None:
        watch: JobWatch = await engine.watch(NS, self.job_id, self.token, include_logs=self.logs)
        try:
            for _ in range(messages):
                self.note(await watch.next())
                if self.final:
                    return
        finally:
            watch.close()

    def note(self, update: JobUpdate) -> None:
        assert not self.final, "nothing follows the end"
        self.versions += [step.version for step in update.transitions]
        self.offsets += [line.offset for line in update.logs]
        self.dropped += update.dropped_logs
        self.token = encode(JobToken(self.job_id, update.version, update.log, update.time))
        self.final = update.final
        if update.job is not None:
            self.last = update.job
            assert update.job.version == update.version


async def check(world: World, reader: Reader) -> None:
    job = await world.job(reader.job_id)
    assert reader.final
    assert reader.versions == list(range(1, job.version + 1))
    assert reader.last.state.terminal
    if reader.logs:
        (output,) = await world.memory.outputs([reader.job_id])
        assert reader.offsets == list(range(output.log_end))
        assert reader.dropped == 0
