"""The real grpcurl needs nothing but the address: reflection tells it the rest."""

from __future__ import annotations

import json
import subprocess
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.programs import PATIENCE, grpcurl

if TYPE_CHECKING:
    from tests.support.serving import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE + 100)]

SERVICE = "atlas.v1.JobService"


class Grpcurl:
    """grpcurl, with the address of a server."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._program = grpcurl()

    def __call__(self, *arguments: str, data: Any = None, fails: bool = False) -> str:
        """What it prints; on standard error when it is to fail."""
        flags = ["-plaintext", "-max-time", "30"]
        flags += [] if data is None else ["-d", json.dumps(data)]
        flags += ["-format-error"] if fails else []
        done = subprocess.run(
            [self._program, *flags, self._address, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert bool(done.returncode) is fails, done
        return done.stderr if fails else done.stdout

    def call(self, method: str, data: Any) -> list[dict[str, Any]]:
        """The messages of the answer."""
        return objects(self(f"{SERVICE}/{method}", data=data))


def objects(text: str) -> list[dict[str, Any]]:
    """JSON objects that stand one after another."""
    found: list[dict[str, Any]] = []
    decoder, rest = json.JSONDecoder(), text.lstrip()
    while rest:
        one, end = decoder.raw_decode(rest)
        found.append(one)
        rest = rest[end:].lstrip()
    return found


@pytest.fixture
def curl(server: Server) -> Grpcurl:
    return Grpcurl(server.grpc_address)


def test_list(curl: Grpcurl) -> None:
    assert set(curl("list").split()) >= {SERVICE, "grpc.health.v1.Health"}
    assert f"{SERVICE}.SubmitJob" in curl("list", SERVICE).split()


def test_describe(curl: Grpcurl) -> None:
    assert "rpc WatchJob ( .atlas.v1.WatchJobRequest ) returns ( stream .atlas.v1.WatchJobResponse )" in curl(
        "describe", SERVICE
    )
    assert "string resume_token = 2" in curl("describe", "atlas.v1.WatchJobRequest")


def test_submit_and_watch(curl: Grpcurl) -> None:
    request = {"type": "countdown", "payload": {"steps": 3, "delay": 0.05}, "requestId": str(uuid.uuid4())}
    (first,), (again,) = (curl.call("SubmitJob", request) for _ in range(2))
    job = first["job"]["id"]
    assert (again["job"]["id"], again["deduplicated"]) == (job, True)

    messages = curl.call("WatchJob", {"id": job})
    steps = [step for message in messages for step in message.get("transitions", [])]
    assert [step["state"] for step in steps] == ["PENDING", "RUNNING", "SUCCESS"]

    early = curl.call("WatchJob", {"id": job, "resumeToken": messages[0]["resume_token"]})
    later = [step for message in early for step in message.get("transitions", [])]
    assert later == [step for message in messages[1:] for step in message.get("transitions", [])]


def test_cancel(curl: Grpcurl) -> None:
    (submitted,) = curl.call("SubmitJob", {"type": "sleep", "payload": {"seconds": 60}})
    job = submitted["job"]["id"]
    curl.call("CancelJob", {"id": job})
    assert curl.call("GetJob", {"id": job, "wait": "20s"})[0]["job"]["state"] == "CANCELLED"


def test_details_of_an_error(curl: Grpcurl) -> None:
    request = {"type": "countdown", "payload": {"steps": "many"}}
    (status,) = objects(curl(f"{SERVICE}/SubmitJob", data=request, fails=True))
    assert status["code"] == 3
    details = {detail["@type"].rpartition(".")[2]: detail for detail in status["details"]}
    assert details["ErrorInfo"]["reason"] == "INVALID_ARGUMENT"
    assert details["BadRequest"]["field_violations"][0]["field"] == "payload.steps"
