"""Counts are right, names are those of the documentation, and counting is cheap."""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from atlas_grpc.observe import metrics as names
from atlas_grpc.observe.loop_lag import LoopLag
from atlas_grpc.observe.metrics import Metrics
from atlas_grpc.observe.series import Family, Histogram
from atlas_grpc.stores.vitals import VITALS

if TYPE_CHECKING:
    from atlas_grpc.observe.readings import Meaning, Reading

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
METHOD = {"grpc_type": "unary", "grpc_service": "atlas.v1.JobService", "grpc_method": "GetJob"}
GAUGES = (
    names.QUEUE_DEPTH,
    names.QUEUE_OLDEST_AGE,
    names.WATCH_STREAMS,
    names.JOBS,
    names.STORE_BYTES,
    names.WORKER_SLOTS,
    names.WORKER_SLOTS_BUSY,
)


@pytest.fixture
def metrics():
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_registered_method_is_there_at_zero(metrics):
    metrics.rpc("/atlas.v1.JobService/GetJob", "unary")
    for name in ("started", "msg_received", "msg_sent"):
        assert value(metrics, f"grpc_server_{name}_total", **METHOD) == 0
    assert value(metrics, "grpc_server_handled_total", **METHOD, grpc_code="OK") == 0
    assert value(metrics, "grpc_server_handling_seconds_count", **METHOD) == 0


def test_calls_are_counted_as_go_grpc_prometheus_does(metrics):
    rpc = metrics.rpc("/atlas.v1.JobService/GetJob", "unary")
    for code, seconds in ((0, 0.004), (5, 0.3), (1, 100), (99, 0), (-1, 0)):
        rpc.started()
        rpc.received()
        rpc.sent(2)
        rpc.handled(code, seconds)
    assert metrics.rpc("/atlas.v1.JobService/GetJob", "unary") is rpc
    handled = {code: value(metrics, "grpc_server_handled_total", **METHOD, grpc_code=code) for code in names._CODES}
    assert {code: n for code, n in handled.items() if n} == {"OK": 1, "NotFound": 1, "Canceled": 1, "Unknown": 2}
    assert value(metrics, "grpc_server_started_total", **METHOD) == 5
    assert value(metrics, "grpc_server_msg_sent_total", **METHOD) == 10
    assert value(metrics, "grpc_server_handling_seconds_bucket", **METHOD, le="0.005") == 3
    assert value(metrics, "grpc_server_handling_seconds_bucket", **METHOD, le="0.5") == 4
    assert value(metrics, "grpc_server_handling_seconds_bucket", **METHOD, le="60.0") == 4
    assert value(metrics, "grpc_server_handling_seconds_bucket", **METHOD, le="+Inf") == 5


def test_jobs_are_counted_one_by_one_and_in_batches(metrics):
    metrics.submitted("a", "q")
    metrics.submitted_many([("a", "q"), ("b", "q"), ("a", "q")])
    metrics.deduplicated("a", 2)
    metrics.finished("a", "SUCCESS")
    metrics.finished("a", "SUCCESS")
    metrics.finished("a", "FAILED")
    metrics.attempts("a", "LOST", 3)
    metrics.attempts("a", "LOST", 4)
    assert value(metrics, "atlas_jobs_submitted_total", type="a", queue="q") == 3
    assert value(metrics, "atlas_jobs_submitted_total", type="b", queue="q") == 1
    assert value(metrics, "atlas_jobs_deduplicated_total", type="a") == 2
    assert value(metrics, "atlas_jobs_finished_total", type="a", state="SUCCESS") == 2
    assert value(metrics, "atlas_jobs_finished_total", type="a", state="FAILED") == 1
    assert value(metrics, "atlas_job_attempts_total", type="a", outcome="LOST") == 7


@pytest.mark.parametrize(("name", "method"), [("wait", "waited"), ("run", "ran")])
def test_times_are_observed_one_by_one_and_in_batches(metrics, name, method):
    getattr(metrics, method)("a", 0.2)
    getattr(metrics, f"{method}_many")("a", [0.001, 7200, -5, 0.0])
    assert value(metrics, f"atlas_job_{name}_seconds_bucket", type="a", le="0.001") == 3
    assert value(metrics, f"atlas_job_{name}_seconds_bucket", type="a", le="0.25") == 4
    assert value(metrics, f"atlas_job_{name}_seconds_bucket", type="a", le="3600.0") == 4
    assert value(metrics, f"atlas_job_{name}_seconds_count", type="a") == 5
    assert value(metrics, f"atlas_job_{name}_seconds_sum", type="a") == pytest.approx(7200.201)


def test_a_bound_belongs_to_its_bucket():
    histogram = Histogram((1.0, 2.0))
    histogram.observe_many([1.0, math.nextafter(1.0, 2), 2.0, math.nextafter(2.0, 3)])
    assert histogram.cumulative() == [("1.0", 1), ("2.0", 3), ("+Inf", 4)]


def test_label_values_that_callers_make_up_are_bounded():
    metrics = Metrics(max_series=3)
    for number in range(1000):
        metrics.submitted(f"type-{number}", f"queue-{number}")
        metrics.finished(f"type-{number}", "FAILED" if number % 2 else "SUCCESS")
        metrics.waited(f"type-{number}", 1)
        metrics.rpc(f"/s/method-{number}", "unary").started()
    assert value(metrics, "atlas_jobs_submitted_total", type="type-0", queue="queue-0") == 1
    assert value(metrics, "atlas_jobs_submitted_total", type="other", queue="other") == 997
    assert value(metrics, "atlas_jobs_finished_total", type="other", state="FAILED") == 499
    assert value(metrics, "atlas_job_wait_seconds_count", type="other") == 997
    other = {"grpc_type": "unary", "grpc_service": "other", "grpc_method": "other"}
    assert value(metrics, "grpc_server_started_total", **other) == 997
    assert len(metrics.render()[0].splitlines()) < 300


def test_a_full_family_still_knows_its_members():
    family: Family[str, list[int]] = Family(list, 1)
    first = family["a"]
    assert family["b"] is family["c"] is family["other"]
    assert family["a"] is first


def test_gauges_and_counters_are_read_at_the_scrape(metrics):
    depth = {"a": 1.0}
    metrics.gauge(*names.QUEUE_DEPTH, lambda: depth)
    metrics.gauge("two_labels", "Two.", ("x", "y"), lambda: {("1", "2"): 3})
    metrics.gauge(*names.WORKER_SLOTS, lambda: 8)
    metrics.counter(*names.LOG_LINES_DROPPED, lambda: 5)
    assert value(metrics, "atlas_queue_depth", queue="a") == 1
    depth["a"] = 2.0
    assert value(metrics, "atlas_queue_depth", queue="a") == 2
    assert value(metrics, "two_labels", x="1", y="2") == 3
    assert value(metrics, "atlas_worker_slots") == 8
    assert value(metrics, "atlas_log_lines_dropped_total") == 5


def test_a_callback_that_fails_costs_only_its_own_metric(metrics, caplog):
    metrics.gauge(*names.JOBS, lambda: 1 / 0)
    metrics.gauge(*names.WORKER_SLOTS, lambda: 8)
    text = metrics.render()[0].decode()
    assert "atlas_worker_slots 8.0" in text
    assert "atlas_jobs{" not in text
    assert value(metrics, "atlas_scrape_errors_total", metric="atlas_jobs") >= 1
    assert "a metric could not be read" in caplog.text


@pytest.mark.parametrize("name", ["atlas_queue_depth", "atlas_job_wait_seconds", "atlas_build"])
def test_a_name_is_taken_once(metrics, name):
    metrics.gauge(*names.QUEUE_DEPTH, dict)
    with pytest.raises(ValueError, match="already"):
        metrics.gauge(name, "Again.", (), lambda: 1)


def filled() -> Metrics:
    metrics = Metrics()
    metrics.rpc("/atlas.v1.JobService/GetJob", "unary").handled(0, 0.1)
    metrics.submitted('odd"type\\\n', "q")
    metrics.finished("a", "SUCCESS")
    metrics.attempts("a", "FAILED")
    metrics.deduplicated("a")
    metrics.waited("a", 1)
    metrics.ran("a", 1)
    for name, text, labels in GAUGES:
        metrics.gauge(name, text, labels, lambda labels=labels: {"a": 1} if labels else 1)
    metrics.counter(*names.LOG_LINES_DROPPED, lambda: 0)
    metrics.store_operation("put").seconds.observe(0.1)
    metrics.readings(VITALS, lambda: {name: _reading(meaning) for name, meaning in VITALS.items()})
    return metrics


def _reading(meaning: Meaning) -> Reading:
    if meaning.kind == "histogram":
        return Histogram((1, 2))
    return {tuple("a" for _ in meaning.labels): 1.0}


def test_both_formats_are_read_by_their_parsers():
    metrics = filled()
    plain, plain_type = metrics.render()
    openmetrics, openmetrics_type = metrics.render("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert plain_type.startswith("text/plain; version=0.0.4")
    assert openmetrics_type.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in parse_openmetrics(openmetrics.decode())}
    assert families["atlas_jobs_submitted"].samples[0].labels == {"type": 'odd"type\\\n', "queue": "q"}
    assert {family.name for family in parse_prometheus(plain.decode())} >= {
        "atlas_jobs_submitted",
        "process_cpu_seconds",
    }
    assert "python_gc_collections" in families


def test_the_documentation_names_each_metric_with_its_type_and_labels():
    documented = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(
            r"^\| `(\w+)` \| (counter|gauge|histogram) \|([^|]*)\|", DOCS.read_text(), re.MULTILINE
        )
    }
    rendered = {}
    for metric in filled().collect():
        suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
        kind = "gauge" if metric.type == "info" else metric.type
        used = {label for sample in metric.samples for label in sample.labels} - {"le"}
        rendered[metric.name + suffix] = (kind, used or documented.get(metric.name + suffix, ("", set()))[1])
    assert documented == rendered


class LateClock:
    """Each sleep takes longer than asked for by the next of `delays`; when they are used up it waits for ever."""

    def __init__(self, delays):
        self.time = 0.0
        self.delays = list(delays)
        self.used_up = asyncio.Event()

    def now(self):
        return int(self.time * 1e6)

    def monotonic(self):
        return self.time

    async def sleep(self, seconds):
        if not self.delays:
            self.used_up.set()
            await asyncio.Event().wait()
        self.time += seconds + self.delays.pop(0)


async def test_loop_lag_is_what_a_sleep_took_too_long(metrics):
    clock = LateClock([0.0, 0.002, 0.4])
    sampler = LoopLag(clock, metrics)
    task = asyncio.create_task(sampler.run())
    await clock.used_up.wait()
    task.cancel()
    await asyncio.wait([task])
    assert sampler.latest == pytest.approx(0.4)
    assert value(metrics, "atlas_event_loop_lag_seconds_count") == 3
    assert value(metrics, "atlas_event_loop_lag_seconds_bucket", le="0.0025") == 2
    assert value(metrics, "atlas_event_loop_lag_seconds_sum") == pytest.approx(0.402)
