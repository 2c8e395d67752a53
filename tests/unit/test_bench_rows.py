"""How the benchmarks make rows of figures, and hold them against aims."""

from __future__ import annotations

import pytest

from benchmarks.bench import interleave, row_of
from benchmarks.report import Figure, Row
from benchmarks.stores import plan as aims
from benchmarks.stores.bench import StoreBench
from benchmarks.stores.engines import Engine


def answer(rate: float, latencies: list[int] = (), server_cpu: float = 0.0, engine_cpu: float = 0.0) -> dict:
    return {"rate": rate, "latencies": list(latencies), "server_cpu": server_cpu, "engine_cpu": engine_cpu}


def test_sides_take_turns_and_every_other_round_goes_backwards():
    calls: list[str] = []
    sides = {name: lambda name=name: calls.append(name) or answer(len(calls)) for name in "abc"}
    found = interleave(sides, 2)
    assert calls == ["a", "b", "c", "c", "b", "a"]
    assert [round_["rate"] for round_ in found["c"]] == [3, 4]


def test_a_row_holds_the_median_ratio_of_its_rounds_and_what_a_job_cost():
    ours = [answer(10, [1000, 3000], server_cpu=0.5, engine_cpu=0.1), answer(30, [5000], server_cpu=0.6)]
    row = row_of("s", "n", "jobs/s", ours, [answer(20), answer(20)], scale=100)
    assert row.atlas == Figure("jobs/s", [1000, 3000])
    assert row.ratio == pytest.approx(1.0)
    assert row.more["CPU"].values == pytest.approx([500, 200])
    assert row.more["engine's CPU"].values == pytest.approx([100, 0])
    assert row.more["p99"].values == [3.0, 5.0]


def test_a_row_without_a_baseline_has_no_ratio_and_can_still_show_its_latency():
    row = row_of("s", "n", "/s", [answer(10, [2000])], []).promote("p50")
    assert row.atlas == Figure("ms", [2.0])
    assert (row.baseline, row.ratio) == (None, None)
    assert row.more["rate"] == Figure("/s", [10])


def plain_bench(connections: int) -> StoreBench:
    engine = Engine("postgresql", str, "", plain="postgresql", connections=connections)
    return StoreBench(aims.QUICK, None, [0], engine)


def test_the_baseline_is_the_plain_side_that_did_most():
    answers = {
        "Atlas": [answer(5), answer(5)],
        "memory store": [answer(100), answer(100)],
        "plain, 1 connection": [answer(10), answer(10)],
        "plain, 8 connections": [answer(20), answer(20)],
    }
    row = plain_bench(8).beside_plain("n", "jobs/s", answers, 10)
    assert row.baseline == Figure("jobs/s", [200, 200])
    assert row.ratio == pytest.approx(0.25)
    assert row.more["plain, 1 connection"] == Figure("jobs/s", [100, 100])


@pytest.mark.parametrize(("connections", "expected"), [(1, [1]), (8, [1, 8])])
def test_plain_sides_use_one_connection_and_as_many_as_the_store(connections, expected):
    used: list[int] = []
    for side in plain_bench(connections).plain_by_lanes(lambda lanes: used.append(lanes) or {}).values():
        side()
    assert used == expected


@pytest.mark.parametrize(
    ("hold", "figure", "least", "met"),
    [
        (aims.at_least, 25_000.0, 25_000, True),
        (aims.at_least, 24_999.0, 25_000, False),
        (aims.at_least, 1.0, None, None),
    ],
)
def test_aims_from_below(hold, figure, least, met):
    assert hold(Row("s", "n", Figure("jobs/s", [figure])), least).met is met


def test_aims_of_latency_and_of_ratios():
    assert aims.at_most(Row("s", "n", Figure("ms", [5.0])), 5.0, "ms").met
    assert not aims.at_most(Row("s", "n", Figure("ms", [5.1])), 5.0, "ms").met
    assert aims.ratio_at_least(Row("s", "n", ratio=0.8), 0.8).met
    assert not aims.ratio_at_least(Row("s", "n", ratio=0.79), 0.8).met
    assert aims.ratio_at_most(Row("s", "n", Figure("ms", [2.0]), ratio=1.25), 1 / aims.BY_FEW, "ms").met
    assert not aims.ratio_at_most(Row("s", "n", Figure("ms", [2.0]), ratio=1.3), 1 / aims.BY_FEW, "ms").met


def test_what_was_not_measured_misses_its_aim():
    silent = row_of("s", "n", "/s", [answer(0)], [answer(100)]).promote("p50")
    assert aims.at_most(silent, 5.0, "ms").met is False
    assert aims.ratio_at_most(silent, 1.25, "ms").met is False
    assert aims.ratio_at_least(Row("s", "n"), 0.8).met is False
    assert aims.at_least(Row("s", "n"), 1).met is False
