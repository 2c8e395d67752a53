"""Handlers for the tests of isolation, against whole servers and workers."""

from __future__ import annotations

import os
import subprocess
import sys

from atlas_grpc import JobContext, handler

ONCE = {"max_attempts": 1}


@handler(executor="process", retry=ONCE)
def prints(lines: int) -> None:
    for n in range(lines):
        print(f"line {n}")
    print("to stderr", file=sys.stderr)
    subprocess.run(["echo", "by a program"], check=True)


@handler(executor="process", retry=ONCE)
def ticks(*, ctx: JobContext) -> None:
    """Prints until it is cancelled."""
    number = 0
    while not ctx.wait_cancelled(0.05):
        print(f"tick {number}", flush=True)
        number += 1
    ctx.raise_if_cancelled()


@handler(executor="process", retry={"max_attempts": 2, "initial_backoff": 0})
def crashes(*, ctx: JobContext) -> None:
    """Leaves a daemon, says which, and dies."""
    daemon = subprocess.Popen(["setsid", "sh", "-c", "echo $$; exec sleep 600"], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    print(f"daemon {daemon.stdout.readline().strip()}")
    print(f"attempt {ctx.attempt}")
    os.abort()
