"""The client processes, seen from the program that commands them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

from . import machine
from .servers import ROOT

if TYPE_CHECKING:
    from .meter import Answer

_TIMEOUT = 300
"""Seconds after which a command counts as failed."""


class ClientProcess:
    """One process that makes calls."""

    def __init__(self, cpus: list[int]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.client"],
            cwd=ROOT,
            env=os.environ | {"GRPC_VERBOSITY": "none"},  # it tells of each server that ends
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        machine.pin(self._process.pid, cpus)

    def send(self, op: str, arguments: dict[str, Any]) -> None:
        """Starts a command."""
        if self._process.stdin:
            self._process.stdin.write(json.dumps({"op": op, "timeout": _TIMEOUT, **arguments}) + "\n")
            self._process.stdin.flush()

    def receive(self) -> Answer:
        """The answer to the last command. Raises RuntimeError when it failed."""
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError("a client process died")
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


class Clients:
    """All client processes, each on a CPU of its own where there are enough."""

    def __init__(self, cpus: list[list[int]]) -> None:
        self._processes = [ClientProcess(share) for share in cpus]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.close()

    def call(self, op: str, **arguments: Any) -> Answer:
        """One command in the first process."""
        self._processes[0].send(op, arguments)
        return self._processes[0].receive()

    def load(self, in_flight: int, **arguments: Any) -> Answer:
        """`unary` in as many processes as have something to do; rates add up, the busiest client is shown."""
        used = self._processes[: min(len(self._processes), in_flight)]
        share, rest = divmod(in_flight, len(used))
        for number, process in enumerate(used):
            process.send("unary", {**arguments, "in_flight": share + (number < rest)})
        answers = [process.receive() for process in used]
        return {
            "rate": sum(answer["rate"] for answer in answers),
            "latencies": [value for answer in answers for value in answer["latencies"]],
            "server_cpu": fmean(answer["server_cpu"] for answer in answers),
            "engine_cpu": fmean(answer["engine_cpu"] for answer in answers),
            "client_cpu": max(answer["client_cpu"] for answer in answers),
        }
