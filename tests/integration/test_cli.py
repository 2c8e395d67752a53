"""The command line and a real server, as two programs: `atlas serve`, and every verb against it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from atlas_grpc.cli.app import execute

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = [sys.executable, "-m", "atlas_grpc.cli"]
ENVIRON = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
FREE = ("--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0")


class Serving:
    """A server that was started with `atlas serve`."""

    def __init__(self, *flags: str) -> None:
        args = [*PROGRAM, "serve", *FREE, *flags]
        self.process = subprocess.Popen(args, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout
        # The banner names the address that the system chose.
        line = next(line for line in self.process.stdout if line.split()[:1] == ["gRPC"])
        self.address = line.split()[1]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it and answers its exit code."""
        with self.process:
            self.process.send_signal(number)
            try:
                return self.process.wait(30)
            finally:
                self.process.kill()

    def environ(self) -> dict[str, str]:
        return {**ENVIRON, "ATLAS_SERVER": self.address}

    def __call__(self, *args: str, stdin: str = "") -> tuple[int, str, str]:
        """Runs the command line in this process."""
        with CliRunner().isolation(stdin, env={"ATLAS_SERVER": self.address}) as streams:
            code = execute(args)
            sys.stdout.flush()
        out, err = (stream.getvalue().decode() for stream in streams[:2])
        return code, out, err

    def start(self, *args: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([*PROGRAM, *args], env=self.environ(), stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="module")
def atlas() -> Iterator[Serving]:
    server = Serving()
    yield server
    assert server.stop() == 0


def test_a_job_from_run_to_delete(atlas: Serving) -> None:
    code, out, err = atlas("run", "sleep", "seconds=0.01", "--label", "test=one")
    assert (code, json.loads(out)) == (0, {"slept": 0.01})
    job_id = err.split()[1]
    assert atlas("watch", job_id, "--quiet") == (0, out, "")
    code, listed, _ = atlas("list", "--label", "test=one", "-o", "jsonl")
    found = json.loads(listed)
    assert (code, found["id"], found["state"]) == (0, job_id, "SUCCESS")
    full = json.loads(atlas("get", job_id, "-o", "json")[1])
    assert (full["payload"], full["result"]) == ({"seconds": 0.01}, {"slept": 0.01})
    assert job_id in atlas("get", job_id)[1]
    assert atlas("explain", job_id)[0] == 0
    assert atlas("delete", job_id)[0] == 0
    assert atlas("get", job_id)[0] == 64 + 5


def test_the_job_decides_the_exit_code(atlas: Serving) -> None:
    late = ("run", "sleep", "seconds=60", "--attempt-timeout", "50ms", "--max-attempts", "1")
    code, out, err = atlas(*late)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("FAILED in ")
    assert atlas("run", "sleep", "seconds=-1")[0] == 64 + 3
    code, _, err = atlas("run", "nope")
    assert code == 64 + 3
    assert "UNKNOWN_JOB_TYPE" in err


def test_a_cancelled_job_ends_its_watch(atlas: Serving) -> None:
    process = atlas.start("run", "sleep", "seconds=600")
    with process:
        assert process.stderr
        job_id = process.stderr.readline().split()[1]
        while "started" not in process.stderr.readline():
            assert process.poll() is None
        assert atlas("cancel", job_id, "--reason", "enough")[0] == 0
        assert process.wait(30) == 3


def test_ctrl_c_leaves_the_job_running(atlas: Serving) -> None:
    process = atlas.start("run", "sleep", "seconds=600")
    with process:
        assert process.stderr
        job_id = process.stderr.readline().split()[1]
        while "started" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert f"atlas watch {job_id}" in process.stderr.read()
    assert json.loads(atlas("get", job_id, "-o", "json")[1])["state"] == "RUNNING"
    assert atlas("watch", job_id, "--wait", "200ms")[0] == 4
    assert atlas("cancel", job_id)[0] == 0
    assert atlas("watch", job_id)[0] == 3
    code, out, _ = atlas("retry", job_id)
    assert (code, out.split()[0]) == (0, job_id)
    assert atlas("cancel", job_id)[0] == 0


def test_many_jobs_from_lines(atlas: Serving) -> None:
    lines = '{"payload": {"seconds": 0}}\n{"payload": {"seconds": "x"}}\n{"type": "sleep", "payload": {"seconds": 0}}\n'
    code, out, err = atlas("submit", "sleep", "--from", "-", stdin=lines)
    assert (code, len(out.splitlines())) == (64 + 3, 2)
    assert err.startswith("atlas: line 2: ")


def test_a_dry_run_types_and_health(atlas: Serving) -> None:
    code, out, _ = atlas("submit", "sleep", "seconds=1", "--max-attempts", "3", "--validate-only", "-o", "json")
    assert (code, len(json.loads(out)["plannedAttempts"])) == (0, 3)
    assert json.loads(atlas("types", "sleep", "-o", "json")[1])["payloadSchema"]["type"] == "object"
    assert atlas("health") == (0, "SERVING\n", "")


def test_a_second_server_on_the_port_is_refused(atlas: Serving) -> None:
    args = [*PROGRAM, "serve", "--grpc-address", atlas.address, "--http-address", "off"]
    ended = subprocess.run(args, env=ENVIRON, capture_output=True, text=True, timeout=50, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert atlas.address in ended.stderr
    assert "Traceback" not in ended.stderr


def test_ctrl_c_stops_a_server() -> None:
    assert Serving("--no-worker").stop(signal.SIGINT) == 0


def test_handlers_that_cannot_be_loaded_are_wrong_usage(tmp_path: Path) -> None:
    args = [*PROGRAM, "serve", *FREE, "--handlers", str(tmp_path / "missing.py")]
    ended = subprocess.run(args, env=ENVIRON, capture_output=True, text=True, timeout=50, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "missing.py" in ended.stderr
    assert "Traceback" not in ended.stderr
