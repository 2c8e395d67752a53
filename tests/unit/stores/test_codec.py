"""What a store keeps of a job is the whole job."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from atlas_grpc import lifecycle
from atlas_grpc.model import Content, Failed, Job, Released, Succeeded
from atlas_grpc.stores.codec import decode_job, decode_spec, encode_spec, encode_state
from tests.unit.lives import BOOM, T0, new, running, start, timer


def _read(job: Job, *, apart: bool) -> Job:
    spec = decode_spec(encode_spec(job.spec, payload=not apart), job.spec.payload if apart else None)
    return decode_job(spec, encode_state(job, result=not apart), job.result if apart else None)


def _ended(outcome: Succeeded | Failed | Released) -> Job:
    return lifecycle.ended(running(attempt_timeout=7), T0 + 5, outcome, random.Random(1))


JOBS = {
    "new": new(request_id="r", fingerprint=b"\0\xff", labels={"a": "1", "ü": ""}, priority=-100, traceparent="00-ab"),
    "later": new(delay=10, attempt_timeout=1, total_timeout=2, start_timeout=3),
    "running": running(),
    "marked": lifecycle.request_cancel(running(), T0 + 1, "because", 10),
    "waits for a retry": _ended(Failed(BOOM)),
    "given back": _ended(Released(3)),
    "failed": _ended(Failed(BOOM, retryable=False)),
    "timed out": timer(running(attempt_timeout=7), rng=random.Random(1)),
    "json": _ended(Succeeded(Content(b'{"a":[1,2.5,null,"x"]}'))),
    "bytes": _ended(Succeeded(Content(b"\0\xff", "image/png"))),
    "bytes of no type": _ended(Succeeded(Content(b"", ""))),
    "second run": start(lifecycle.new_run(_ended(Succeeded(Content(b"1"))), T0 + 9)),
}


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_read_back(name: str, apart: bool):
    assert _read(JOBS[name], apart=apart) == JOBS[name]


def test_what_is_kept_apart_is_not_kept_twice():
    done = _ended(Succeeded(Content(b'"kept apart"')))
    assert b"kept apart" in encode_state(done)
    assert b"kept apart" not in encode_state(done, result=False)


def test_a_state_holds_nothing_of_the_spec():
    one, other = running(labels={"some": "label"}), running()
    assert encode_state(one) == encode_state(other)


def test_a_payload_is_read_back():
    for payload in (Content(b'{"x":1}'), Content(b"some bytes", "a/b")):
        spec = replace(new().spec, payload=payload)
        assert decode_spec(encode_spec(spec)) == spec
        assert decode_spec(encode_spec(spec, payload=False), payload) == spec
        assert payload.data not in encode_spec(spec, payload=False)
