"""Numbers that somebody keeps for metrics: what each means, and how it becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from .series import Histogram

if TYPE_CHECKING:
    from prometheus_client import Metric

Number = float | Mapping[str, float] | Mapping[tuple[str, ...], float]
"""One number, or one for each label value (a tuple of them when there are several labels)."""
Reading = Number | Histogram


class Meaning(NamedTuple):
    """What a metric tells. The name of a counter is without `_total`."""

    kind: Literal["gauge", "counter", "histogram"]
    text: str
    labels: tuple[str, ...] = ()
    shared: bool = False
    """Whether it is of something that several servers share, so that all tell the same: not to be summed."""


def family(name: str, meaning: Meaning, reading: Reading) -> Metric:
    """The metric of a reading."""
    if isinstance(reading, Histogram):
        histogram = HistogramMetricFamily(name, meaning.text, labels=meaning.labels)
        histogram.add_metric((), reading.cumulative(), reading.sum)
        return histogram
    made = (CounterMetricFamily if meaning.kind == "counter" else GaugeMetricFamily)(
        name, meaning.text, labels=meaning.labels
    )
    if isinstance(reading, Mapping):
        for labels, number in reading.items():
            made.add_metric((labels,) if isinstance(labels, str) else labels, number)
    else:
        made.add_metric((), reading)
    return made
