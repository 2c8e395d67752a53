"""The benchmark of stores runs from end to end, and the plain queues that it compares with are honest ones."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.stores.queues import QUEUES
from tests.support.debian import TIMEOUT

ROOT = Path(__file__).parents[2]
JOBS = 1_000
PATIENCE = 500


def measure(*arguments: str) -> tuple[int, str, str]:
    """Runs the benchmark; answers how it ended and what it said. It ends its servers when it is told to stop."""
    command = [sys.executable, "-m", "benchmarks.stores", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            stdout, stderr = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.terminate()
            stdout, stderr = process.communicate()
    return process.returncode, stdout, stderr


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE + 40)
def test_a_quick_run_measures_every_section_of_a_file_and_of_a_server(tmp_path):
    target = tmp_path / "figures.json"
    code, stdout, stderr = measure("--quick", "--stores", "sqlite,valkey", "--json", str(target))
    assert code == 0, stdout + stderr

    rows = json.loads(target.read_text())["rows"]
    for store in ("sqlite", "valkey"):
        alone = [row for row in rows if row["section"] == store]
        behind = [row for row in rows if row["section"].startswith(f"{store} with 2,000 jobs behind")]
        assert len(alone) == 6
        assert len(behind) == 5
        assert all(row["baseline"] for row in alone + behind if "as a client sees it" not in row["name"])
        assert sum(row["met"] is not None for row in alone) == 2
        assert all(isinstance(row["met"], bool) for row in behind)
        assert f"\n{store}: " in stdout, "the durability of the engine is not told"
    for row in rows:
        assert row["name"] in stdout
        assert row["atlas"]["values"]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_run_that_is_cut_short_keeps_what_it_has(tmp_path):
    target = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.stores", "--quick", "--stores", "memory", "--json", str(target)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert any("memory: batches" in line for line in process.stderr)
        process.terminate()
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    kept = json.loads(target.read_text())
    assert kept["rows"], kept["notes"]
    assert kept["rows"][0]["name"].startswith("SubmitJob, ")
    assert "cut short" in kept["notes"][-1]


def test_an_unknown_store_or_section_is_refused():
    for arguments in (["--stores", "oracle"], ["drains"]):
        code, _, stderr = measure(*arguments)
        assert code == 2
        assert arguments[-1] in stderr


@pytest.fixture
def address(request, store_servers, tmp_path):
    if request.param == "sqlite":
        return str(tmp_path / "plain.db")
    return (
        store_servers.postgresql().url() if request.param == "postgresql" else str(store_servers.redis("valkey").socket)
    )


@pytest.mark.timeout(TIMEOUT)
@pytest.mark.parametrize(
    ("kind", "address"), [("sqlite", "sqlite"), ("postgresql", "postgresql"), ("redis", "valkey")], indirect=["address"]
)
async def test_a_plain_queue_hands_out_each_job_once_and_the_most_urgent_first(kind, address):
    queue = QUEUES[kind](address)
    lanes = 1 if kind == "sqlite" else 4
    await queue.open(lanes)
    try:
        await queue.insert(0, [(0, b"first")])
        await queue.insert(0, [(number % 2, b"job") for number in range(JOBS)])
        await queue.settle()
        urgent = await queue.claim(0, JOBS // 2)
        claimed = [*urgent]

        async def drain(lane: int) -> None:
            while ids := await queue.claim(lane, 64):
                assert len(ids) <= 64
                claimed.extend(ids)
                await queue.finish(lane, ids)

        await asyncio.gather(*map(drain, range(lanes)))
        numbers = [int(job_id) for job_id in claimed]
        assert len(numbers) == len(set(numbers)) == JOBS + 1
        assert {number % 2 for number in numbers[: JOBS // 2]} == {1}
    finally:
        await queue.close()
