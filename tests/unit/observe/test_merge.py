"""Metrics of several processes as one."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from atlas_grpc.observe import metrics as names
from atlas_grpc.observe.merge import SharedMetrics
from atlas_grpc.observe.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: that of a Unix socket has a bound."""
    path = Path(tempfile.mkdtemp(prefix="atlas-"))
    yield path
    shutil.rmtree(path)


def _samples(text: bytes, name: str) -> dict[str, float]:
    return {
        sample.labels["process"]: sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name
    }


async def _started(folder: Path, name: str) -> tuple[Metrics, SharedMetrics]:
    metrics = Metrics()

    async def render() -> bytes:
        return metrics.render()[0]

    shared = SharedMetrics(folder, name, render, {names.JOBS[0]})
    await shared.start()
    return metrics, shared


async def test_whoever_is_asked_answers_for_all(folder: Path):
    one, first = await _started(folder, "0")
    two, second = await _started(folder, "1")
    one.submitted("a", "q", 3)
    two.submitted("a", "q", 4)
    for shared in (first, second):
        text, kind = await shared.render("")
        assert kind.startswith("text/plain")
        assert _samples(text, "atlas_jobs_submitted_total") == {"0": 3, "1": 4}
        assert text.count(b"# TYPE atlas_jobs_submitted_total counter") == 1
    await first.stop()
    await second.stop()


async def test_histograms_and_open_metrics(folder: Path):
    one, first = await _started(folder, "0")
    two, second = await _started(folder, "1")
    one.ran_many("a", [0.1, 0.2])
    two.ran_many("a", [5.0])
    text, kind = await first.render("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    families = {family.name: family for family in open_metrics(text.decode())}
    counts = {
        s.labels["process"]: s.value for s in families["atlas_job_run_seconds"].samples if s.name.endswith("count")
    }
    assert counts == {"0": 2, "1": 1}
    await first.stop()
    await second.stop()


async def test_what_is_of_the_shared_store_is_told_once(folder: Path):
    _, first = await _started(folder, "0")
    two, second = await _started(folder, "1")
    three, third = await _started(folder, "2")
    for metrics, count in ((two, 5), (three, 6)):
        metrics.gauge(*names.JOBS, lambda count=count: {"PENDING": count})
        metrics.gauge(*names.WORKER_SLOTS, lambda: 8)
    text, _ = await first.render("")
    assert [line for line in text.decode().splitlines() if line.startswith("atlas_jobs{")] == [
        'atlas_jobs{state="PENDING"} 5.0'
    ]
    assert _samples(text, "atlas_worker_slots") == {"1": 8, "2": 8}
    for shared in (first, second, third):
        await shared.stop()


async def test_one_that_is_gone_is_left_out(folder: Path):
    one, first = await _started(folder, "0")
    _, second = await _started(folder, "1")
    one.submitted("a", "q")
    await second.stop()
    (folder / "2.sock").touch()
    text, _ = await first.render("")
    assert _samples(text, "atlas_jobs_submitted_total") == {"0": 1}
    await first.stop()


async def test_one_that_came_back_takes_its_place(folder: Path):
    _, first = await _started(folder, "0")
    await first.stop()
    again, second = await _started(folder, "0")
    again.submitted("a", "q", 2)
    text, _ = await second.render("")
    assert _samples(text, "atlas_jobs_submitted_total") == {"0": 2}
    await second.stop()
    await asyncio.sleep(0)
