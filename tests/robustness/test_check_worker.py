"""The conformance suite of workers is itself right: it passes workers that are, and finds what is wrong with others."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from atlas_grpc.testing.check_worker import CHECKS, check_worker
from tests.support.programs import demand
from tests.support.workers import failures, together

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
RAW = f"{sys.executable} {Path(__file__).with_name('raw_worker.py')} {{server}}"
PYTHON = f"{sys.executable} -m atlas_grpc.cli worker {ROOT}/docs/examples/check_handlers.py --drain-timeout 2s"
BASH = str(ROOT / "clients" / "bash" / "worker.sh")

FAULTS = {
    "garbles": ({"returns_results"}, "fails_for_good"),
    "never final": ({"fails_for_good"}, "fails_and_is_tried_again"),
    "always final": ({"fails_and_is_tried_again"}, "fails_for_good"),
    "no progress": ({"reports_progress"}, "hands_in_logs"),
    "no logs": ({"hands_in_logs"}, "reports_progress"),
    "logs twice": ({"hands_in_logs"}, "reports_progress"),
    "serial": ({"executes_several"}, "executes_each_once"),
    "stubborn": ({"reports_otherwise_what_is_refused"}, "returns_results"),
    "silent,serial": ({"beats"}, "takes_jobs"),
    "ignores cancelled": ({"stops_when_cancelled"}, "stops_when_time_is_up"),
    "lies": ({"stops_when_cancelled"}, "stops_when_time_is_up"),
    "ignores lost": ({"stops_when_time_is_up", "stops_what_it_lost", "meets_a_new_server"}, "stops_when_cancelled"),
    "trusts silence": ({"stops_in_silence"}, "goes_on_after_a_cut"),
    "loses": ({"asks_for_what_was_lost"}, "goes_on_after_a_cut"),
    "clings,loses": ({"leaves_what_it_gave_up"}, "goes_on_after_a_cut"),
    "forgets": ({"repeats_a_lost_report"}, "beats"),
    "gives up": ({"goes_on_after_a_cut", "meets_a_new_server"}, "beats"),
    "twice": ({"beats", "bears_a_lost_answer"}, "returns_results"),
    "ignores sigterm": ({"ends_when_idle", "gives_jobs_back"}, "beats"),
    "drops dead": ({"ends_when_idle", "lets_jobs_end", "gives_jobs_back"}, "beats"),
    "abandons": ({"lets_jobs_end", "gives_jobs_back"}, "ends_when_idle"),
    "keeps taking": ({"lets_jobs_end"}, "takes_jobs"),
}
"""For each fault of the raw worker: the checks that it must fail, and one beside them that it must pass."""


async def test_a_worker_of_stubs_passes():
    assert await failures(RAW) == {}


async def test_the_python_worker_passes():
    assert await failures(PYTHON) == {}


async def test_the_bash_worker_passes():
    for program in ("bash", "curl", "jq", "pgrep"):
        demand(program)
    assert await failures(BASH, without=["concurrency"]) == {}


async def test_faults_are_found():
    judged = await together(
        [
            check_worker(name, f"{RAW} '{fault}'", patience=10)
            for fault, (failing, passing) in FAULTS.items()
            for name in (*sorted(failing), passing)
        ]
    )
    wrong = []
    for fault, (failing, passing) in FAULTS.items():
        for name in (*sorted(failing), passing):
            result = judged.pop(0)
            expected = "PASS" if name == passing else "FAIL"
            if result.status != expected or bool(result.detail) != (expected == "FAIL"):
                wrong.append((fault, name, result))
    assert wrong == []


def test_each_check_is_seen_to_fail():
    found = set().union(*(failing for failing, _ in FAULTS.values()))
    assert set(CHECKS) - found == {"takes_jobs", "executes_each_once", "waits_for_work"}


async def test_a_worker_that_ends_at_once_is_told_apart():
    result = await check_worker("takes_jobs", f"{sys.executable} -c 'print(\"oh no\"); exit(3)'")
    assert (result.status, result.detail, result.output) == ("FAIL", "the worker ended, with exit code 3", "oh no")


async def run(*options: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atlas_grpc.testing.check_worker", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_the_command():
    code, output = await run("--cmd", f"{RAW} garbles", "--only", "takes_jobs,returns_results", "--json")
    lines = [json.loads(line) for line in output.splitlines()]
    assert (code, [(line["name"], line["status"]) for line in lines]) == (
        1,
        [("takes_jobs", "PASS"), ("returns_results", "FAIL")],
    )
    code, output = await run("--cmd", RAW, "--only", "takes_jobs,ends_when_idle", "--without", "drain")
    assert code == 0
    assert "SKIPPED" in output
    assert "not claimed" in output
    code, output = await run("--list")
    assert (code, all(name in output for name in CHECKS)) == (0, True)
    assert (await run("--cmd", "/nonexistent"))[0] == 2
    assert (await run("--cmd", RAW, "--only", "nonsense"))[0] == 2
