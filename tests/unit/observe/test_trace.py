"""The W3C trace context is read to the letter."""

from __future__ import annotations

import pytest

from atlas_grpc.observe.trace import parse_traceparent, trace_id_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01"


def test_reads_both_ids():
    assert parse_traceparent(VALID) == (TRACE, SPAN)
    assert trace_id_of(VALID) == TRACE


@pytest.mark.parametrize("later", [f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-00-what-comes-later"])
def test_a_later_version_is_read_as_far_as_it_is_known(later):
    assert parse_traceparent(later) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "broken",
    [
        "",
        VALID + "\n",
        " " + VALID,
        VALID.upper(),
        VALID + "-more",
        VALID + "-",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}x-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"01-{TRACE}-{SPAN}-01more",
        f"cc-{TRACE}-{SPAN}-00-{'x' * 1000}",
        "00-\u0660af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ],
)
def test_refuses_everything_else(broken):
    assert parse_traceparent(broken) is None
    assert trace_id_of(broken) is None
