"""A worker made of nothing but stubs and the unary calls. It is right by itself; behind the server's address stand the
faults that it shall have, for the conformance suite of workers to find.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time

import grpc

from atlas_grpc import pb

FAULTS = set(sys.argv[2].split(",")) if len(sys.argv) > 2 else set()
TYPES = ("check.echo", "check.steps", "check.fail", "check.tick")
DRAIN = 2.0


class Failed(Exception):
    def __init__(self, **fields) -> None:
        self.failure = pb.JobFailure(**fields)


class Worker:
    def __init__(self, stub: pb.WorkerServiceStub) -> None:
        self.stub = stub
        self.session = ""
        self.lease = 30.0
        self.kept = 0.0
        self.running: dict[str, tuple[pb.Assignment, asyncio.Task]] = {}
        self.draining = asyncio.Event()

    async def call(self, name: str, request, timeout: float | None = None):
        sent = time.monotonic()
        try:
            answer = await getattr(self.stub, name)(request, timeout=timeout or self.lease / 5)
        except grpc.aio.AioRpcError as error:
            if "gives up" in FAULTS:
                os._exit(1)
            if error.code() is grpc.StatusCode.NOT_FOUND and request.session == self.session:
                self.session = ""
                self.lose_all()
            return None
        self.kept = max(self.kept, sent)
        return answer

    def lose_all(self) -> None:
        if "ignores lost" in FAULTS:
            return
        for _, task in self.running.values():
            task.cancel("LOST")

    async def run(self) -> None:
        keeping = asyncio.create_task(self.keep())
        while not self.draining.is_set():
            if "serial" in FAULTS and self.running:
                await asyncio.sleep(0.05)
                continue
            await self.take()
        tasks = [task for _, task in self.running.values()]
        if "abandons" in FAULTS:
            os._exit(0)
        if tasks:
            await asyncio.wait(tasks, timeout=DRAIN)
        for task in tasks:
            task.cancel("RELEASED")
        await asyncio.gather(*tasks, return_exceptions=True)
        keeping.cancel()
        await self.call("Heartbeat", pb.HeartbeatRequest(session=self.session, goodbye=True))

    async def take(self) -> None:
        request = pb.LeaseJobsRequest(worker="raw", session=self.session, max_jobs=4)
        request.types.extend(pb.JobType(name=name) for name in TYPES)
        request.holding.extend(self.holding())
        request.return_others = "loses" not in FAULTS
        wait = self.lease / 4 if self.session else 0.0
        request.wait.FromMilliseconds(int(wait * 1000))
        sent = time.monotonic()
        asking = asyncio.create_task(self.call("LeaseJobs", request, wait + self.lease / 5))
        drained = asyncio.create_task(self.draining.wait())
        await asyncio.wait([asking, drained], return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        if not asking.done():
            asking.cancel()
            return
        answer = asking.result()
        if answer is None:
            await asyncio.sleep(0.1)
            return
        self.session = answer.session
        self.lease = answer.lease_duration.ToMilliseconds() / 1000
        self.kept = max(self.kept, sent)
        for job in answer.jobs:
            task = asyncio.create_task(self.execute(job))
            self.running[job.token] = job, task
            task.add_done_callback(lambda _, token=job.token: self.running.pop(token, None))

    async def keep(self) -> None:
        due = 0.0
        while True:
            await asyncio.sleep(0.05)
            now = time.monotonic()
            if self.running and now > self.kept + self.lease * 0.75 and "trusts silence" not in FAULTS:
                if "clings" not in FAULTS:
                    self.session = ""
                self.lose_all()
            if now > due and self.session and "silent" not in FAULTS:
                due = now + self.lease / 4
                await self.beat()

    def holding(self) -> list[pb.HeldJob]:
        return [pb.HeldJob(id=job.id, token=job.token) for job, _ in self.running.values()]

    async def beat(self) -> None:
        answer = await self.call("Heartbeat", pb.HeartbeatRequest(session=self.session, holding=self.holding()))
        for stop in answer.stops if answer else ():
            why = pb.JobStop.Reason.Name(stop.reason)
            if stop.token in self.running and f"ignores {why.lower()}" not in FAULTS:
                self.running[stop.token][1].cancel(why)

    async def execute(self, job: pb.Assignment) -> None:
        report = pb.JobReport(id=job.id, token=job.token)
        try:
            if "twice" in FAULTS:
                await self.handle(job)
            report.success.result_json = json.dumps(await self.handle(job))
        except Failed as failed:
            report.failure.CopyFrom(failed.failure)
        except asyncio.CancelledError as cancelled:
            why = cancelled.args[0]
            if why == "LOST":
                return
            if why == "CANCELLED" and "lies" in FAULTS:
                asyncio.create_task(tick(60, job.payload["file"]))  # noqa: RUF006 - that is the fault
            getattr(report, "cancelled" if why == "CANCELLED" else "release").SetInParent()
        await self.report(report)

    async def handle(self, job: pb.Assignment):
        payload = dict(job.payload)
        match job.type:
            case "check.echo":
                value = json.loads(msg_json(job))
                return str(value) if "garbles" in FAULTS else value
            case "check.steps":
                for step in range(1, int(payload["steps"]) + 1):
                    await self.step(job, step, int(payload["steps"]))
                return payload["steps"]
            case "check.fail":
                final = (payload["final"] and "never final" not in FAULTS) or "always final" in FAULTS
                raise Failed(reason=payload["reason"], message=payload["message"], final=bool(final))
            case _:
                return await tick(payload["seconds"], payload["file"])

    async def step(self, job: pb.Assignment, step: int, steps: int) -> None:
        update = pb.JobUpdate(id=job.id, token=job.token)
        if "no progress" not in FAULTS:
            update.progress.current, update.progress.total, update.progress.message = step, steps, f"step {step}"
        if "no logs" not in FAULTS:
            update.logs.add(message=f"step {step}", severity=pb.LogEntry.INFO)
        if "logs twice" in FAULTS:
            update.logs.add(message=f"step {step}", severity=pb.LogEntry.INFO)
        await self.call("Heartbeat", pb.HeartbeatRequest(session=self.session, updates=[update]))

    async def report(self, report: pb.JobReport) -> None:
        while True:
            session = self.session
            answer = await self.call("FinishJobs", pb.FinishJobsRequest(session=session or "none", reports=[report]))
            if answer is None and "forgets" not in FAULTS and session:
                await asyncio.sleep(0.1)
                continue
            if answer and answer.answers[0].status == pb.JobAnswer.REFUSED and "stubborn" not in FAULTS:
                report.failure.final = True
                continue
            if answer and answer.answers[0].status == pb.JobAnswer.REFUSED:
                await asyncio.sleep(0.1)
                continue
            return


def msg_json(job: pb.Assignment) -> str:
    from google.protobuf.json_format import MessageToDict

    value = MessageToDict(job.payload)["value"]
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


async def tick(seconds: float, file: str) -> None:
    def write(line: str) -> None:
        with open(file, "a") as lines:  # noqa: PTH123
            lines.write(line + "\n")

    write("begin")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        write("tick")
        await asyncio.sleep(0.1)
    write("end")


async def main() -> None:
    options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 300)]
    async with grpc.aio.insecure_channel(sys.argv[1], options=options) as channel:
        worker = Worker(pb.WorkerServiceStub(channel))
        if "ignores sigterm" not in FAULTS:
            end = (lambda: os._exit(1)) if "drops dead" in FAULTS else worker.draining.set
            if "keeps taking" in FAULTS:
                end = lambda: asyncio.get_running_loop().call_later(3, worker.draining.set)  # noqa: E731
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(asyncio.CancelledError):
            await worker.run()


asyncio.run(main())
