"""Counters, histograms and gauges, rendered for Prometheus when it asks.

The hot paths only add to plain integers: an observation costs a few tenths of a microsecond. All the work of names,
labels and text is done at the scrape. Observations belong to the event loop's thread; one made elsewhere at the same
instant may be lost, which is all that can happen. docs/metrics.md lists every name.
"""

from __future__ import annotations

import platform
from collections import Counter as Tally
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector

from .. import __version__
from ..errors import Code
from .logs import get_logger
from .readings import Meaning, Number, Reading, family
from .series import Counter, Family, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric

RPC_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
JOB_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
STORE_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

QUEUE_DEPTH = ("atlas_queue_depth", "Jobs that could run now and wait for a worker.", ("queue",))
QUEUE_OLDEST_AGE = (
    "atlas_queue_oldest_age_seconds",
    "For how long the longest waiting of them could have run.",
    ("queue",),
)
WATCH_STREAMS = ("atlas_watch_streams", "Open watch streams.", ("method",))
JOBS = ("atlas_jobs", "Jobs in the store.", ("state",))
STORE_BYTES = ("atlas_store_bytes", "What the jobs take in the store, as it estimates.", ())
OF_THE_STORE = (JOBS, QUEUE_DEPTH, QUEUE_OLDEST_AGE, STORE_BYTES)
"""Those of which servers that share a store tell the same."""
WORKER_SLOTS = ("atlas_worker_slots", "Jobs that the connected workers can execute at a time.", ())
WORKER_SLOTS_BUSY = ("atlas_worker_slots_busy", "Jobs that the connected workers are executing.", ())
LOG_LINES_DROPPED = ("atlas_log_lines_dropped", "Log lines dropped because nobody read stderr.", ())
"""Arguments of `Metrics.gauge` and `Metrics.counter`, up to the callback."""

_CODES = (
    "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
    "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable",
    "DataLoss", "Unauthenticated",
)  # fmt: skip
"""The codes as go-grpc-prometheus labels them, by number."""

_RPC = ("grpc_type", "grpc_service", "grpc_method")

log = get_logger("atlas.metrics")


class RpcMetrics:
    """The counts of one method. Ask `Metrics.rpc` for it once."""

    __slots__ = ("codes", "messages_received", "messages_sent", "seconds", "starts")

    def __init__(self) -> None:
        self.starts = 0
        self.messages_received = 0
        self.messages_sent = 0
        self.codes = [0] * len(Code)
        self.seconds = Histogram(RPC_BUCKETS)

    def started(self) -> None:
        """A call came in."""
        self.starts += 1

    def received(self, n: int = 1) -> None:
        """The client sent `n` messages."""
        self.messages_received += n

    def sent(self, n: int = 1) -> None:
        """The client was sent `n` messages."""
        self.messages_sent += n

    def handled(self, code: int, seconds: float) -> None:
        """A call ended with that gRPC code after so long. A number that is no code counts as UNKNOWN."""
        self.codes[code if 0 <= code <= Code.UNAUTHENTICATED else Code.UNKNOWN] += 1
        self.seconds.observe(seconds)


class OperationMetrics:
    """The counts of one operation of the store. Ask `Metrics.store_operation` for it once."""

    __slots__ = ("failures", "seconds")

    def __init__(self) -> None:
        self.seconds = Histogram(STORE_BUCKETS)
        """Of the calls that were answered."""
        self.failures: dict[int, Histogram] = {}
        """Of the others, by gRPC code."""

    def failed(self, code: int, seconds: float) -> None:
        """A call was refused with the code after so long."""
        histogram = self.failures.get(code)
        if histogram is None:
            histogram = self.failures[code] = Histogram(STORE_BUCKETS)
        histogram.observe(seconds)


class Metrics:
    """All metrics of one server, in a registry of its own.

    Label values that requests make up are bounded: a metric that has `max_series` of them counts new ones as "other".
    The methods with an `n` may be called with 0, to make a series appear before its first event.
    """

    def __init__(self, *, max_series: int = 100) -> None:
        self.max_series = max_series
        self._rpcs: Family[tuple[str, ...], RpcMetrics] = Family(RpcMetrics, max_series, open_labels=(1, 2))
        self._submitted: Family[tuple[str, ...], Counter] = Family(Counter, max_series, open_labels=(0, 1))
        self._deduplicated: Family[str, Counter] = Family(Counter, max_series)
        self._finished: Family[tuple[str, ...], Counter] = Family(Counter, max_series)
        self._attempts: Family[tuple[str, ...], Counter] = Family(Counter, max_series)
        self._waits: Family[str, Histogram] = Family(lambda: Histogram(JOB_BUCKETS), max_series)
        self._runs: Family[str, Histogram] = Family(lambda: Histogram(JOB_BUCKETS), max_series)
        self._operations: dict[str, OperationMetrics] = {}
        self._sources: list[tuple[Mapping[str, Meaning], Callable[[], Mapping[str, Reading]]]] = []
        self._faults: Family[str, Counter] = Family(Counter, max_series)
        self.loop_lag = Histogram(LAG_BUCKETS)
        """What `LoopLag` observes."""
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics as text, and its content type: OpenMetrics if the Accept header asks for it, else Prometheus."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def rpc(self, full_method: str, kind: str) -> RpcMetrics:
        """The counts of `/package.Service/Method`; `kind` is unary, client_stream, server_stream or bidi_stream."""
        service, _, method = full_method.removeprefix("/").rpartition("/")
        return self._rpcs[kind, service, method]

    def store_operation(self, name: str) -> OperationMetrics:
        """The counts of an operation of the store."""
        return self._operations.setdefault(name, OperationMetrics())

    def submitted(self, job_type: str, queue: str, n: int = 1) -> None:
        """`n` new jobs were stored."""
        self._submitted[job_type, queue].value += n

    def submitted_many(self, jobs: Iterable[tuple[str, str]]) -> None:
        """New jobs were stored, of these types and queues."""
        for key, n in Tally(jobs).items():
            self._submitted[key].value += n

    def deduplicated(self, job_type: str, n: int = 1) -> None:
        """`n` submits were answered with a job that was there already."""
        self._deduplicated[job_type].value += n

    def finished(self, job_type: str, state: str, n: int = 1) -> None:
        """`n` jobs became terminal; `state` is the name of their state."""
        self._finished[job_type, state].value += n

    def attempts(self, job_type: str, outcome: str, n: int = 1) -> None:
        """`n` attempts ended; `outcome` is the name of an `atlas.v1.Attempt.Outcome`."""
        self._attempts[job_type, outcome].value += n

    def waited(self, job_type: str, seconds: float) -> None:
        """A job was claimed so long after it could have run."""
        self._waits[job_type].observe(seconds)

    def waited_many(self, job_type: str, seconds: Iterable[float]) -> None:
        """Several jobs of one type were claimed."""
        self._waits[job_type].observe_many(seconds)

    def ran(self, job_type: str, seconds: float) -> None:
        """An attempt ended so long after it was claimed."""
        self._runs[job_type].observe(seconds)

    def ran_many(self, job_type: str, seconds: Iterable[float]) -> None:
        """Several attempts of one type ended."""
        self._runs[job_type].observe_many(seconds)

    def gauge(self, name: str, text: str, labels: Sequence[str], callback: Callable[[], Number]) -> None:
        """Adds a gauge whose values `callback` is asked for at each scrape. Raises ValueError for a name that is taken.

        A callback that raises leaves its metric out of that scrape, which counts in `atlas_scrape_errors_total`.
        """
        self.readings({name: Meaning("gauge", text, tuple(labels))}, lambda: {name: callback()})

    def counter(self, name: str, text: str, labels: Sequence[str], callback: Callable[[], Number]) -> None:
        """The same for a number that only grows; `_total` is added to its name."""
        self.readings({name: Meaning("counter", text, tuple(labels))}, lambda: {name: callback()})

    def readings(self, meanings: Mapping[str, Meaning], read: Callable[[], Mapping[str, Reading]]) -> None:
        """The same for several that `read` tells by their names; what it does not tell is left out."""
        taken = {name for known, _ in self._sources for name in known} | {own.name for own in self._collect_own()}
        for name in meanings:
            if name in taken:
                msg = f"there is a metric {name!r} already"
                raise ValueError(msg)
        self._sources.append((meanings, read))

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for."""
        yield from self._collect_own()
        for meanings, read in self._sources:
            try:
                yield from [family(name, meanings[name], reading) for name, reading in read().items()]
            except Exception as error:
                for name in meanings:
                    self._faults[name].value += 1
                log.warning("a metric could not be read", metric=next(iter(meanings)), exc_info=error)

    def _collect_own(self) -> Iterator[Metric]:
        yield InfoMetricFamily("atlas_build", "The versions that run here; always 1.", value=_versions())
        yield from self._collect_rpcs()
        yield from self._collect_jobs()
        yield self._collect_operations()
        lag = HistogramMetricFamily("atlas_event_loop_lag_seconds", "How late the event loop woke a timer.", labels=())
        lag.add_metric((), self.loop_lag.cumulative(), self.loop_lag.sum)
        yield lag
        yield _counters("atlas_scrape_errors", "Metrics left out of a scrape by a fault.", ("metric",), self._faults)

    def _collect_rpcs(self) -> Iterator[Metric]:
        started = CounterMetricFamily("grpc_server_started", "Calls that began.", labels=_RPC)
        handled = CounterMetricFamily("grpc_server_handled", "Calls that ended, by code.", labels=(*_RPC, "grpc_code"))
        received = CounterMetricFamily("grpc_server_msg_received", "Messages from clients.", labels=_RPC)
        sent = CounterMetricFamily("grpc_server_msg_sent", "Messages to clients.", labels=_RPC)
        seconds = HistogramMetricFamily("grpc_server_handling_seconds", "How long calls took.", labels=_RPC)
        for labels, rpc in self._rpcs.items():
            started.add_metric(labels, rpc.starts)
            received.add_metric(labels, rpc.messages_received)
            sent.add_metric(labels, rpc.messages_sent)
            seconds.add_metric(labels, rpc.seconds.cumulative(), rpc.seconds.sum)
            for code, n in enumerate(rpc.codes):
                if n or code == Code.OK:
                    handled.add_metric((*labels, _CODES[code]), n)
        yield from (started, handled, received, sent, seconds)

    def _collect_jobs(self) -> Iterator[Metric]:
        yield _counters("atlas_jobs_submitted", "Jobs accepted and stored.", ("type", "queue"), self._submitted)
        yield _counters(
            "atlas_jobs_deduplicated",
            "Submits answered with the job of their request id.",
            ("type",),
            self._deduplicated,
        )
        yield _counters("atlas_jobs_finished", "Jobs that became terminal.", ("type", "state"), self._finished)
        yield _counters("atlas_job_attempts", "Attempts that ended.", ("type", "outcome"), self._attempts)
        yield _histograms("atlas_job_wait_seconds", "From when a job could run to when it was claimed.", self._waits)
        yield _histograms("atlas_job_run_seconds", "From the claim to the end of an attempt.", self._runs)

    def _collect_operations(self) -> Metric:
        seconds = HistogramMetricFamily(
            "atlas_store_operation_seconds", "How long operations of the store took.", labels=("operation", "outcome")
        )
        for name, operation in self._operations.items():
            for code, histogram in ((Code.OK, operation.seconds), *operation.failures.items()):
                if histogram.count:
                    seconds.add_metric((name, _CODES[code]), histogram.cumulative(), histogram.sum)
        return seconds


def _counters(
    name: str, text: str, labels: Sequence[str], numbers: Family[str, Counter] | Family[tuple[str, ...], Counter]
) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, counter in numbers.items():
        family.add_metric((values,) if isinstance(values, str) else values, counter.value)
    return family


def _histograms(name: str, text: str, numbers: Family[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=("type",))
    for value, histogram in numbers.items():
        family.add_metric((value,), histogram.cumulative(), histogram.sum)
    return family


def _versions() -> dict[str, str]:
    return {"version": __version__, "python": platform.python_version(), "grpcio": _installed("grpcio")}


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
