"""The real grpcurl needs nothing but the address: reflection tells it the rest."""

from __future__ import annotations

import json
import subprocess
import uuid
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.support.programs import PATIENCE, grpcurl

if TYPE_CHECKING:
    from tests.support.serving import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE + 100)]

SERVICE = "atlas.v1.JobService"
WORKERS = "atlas.v1.WorkerService"


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

    def call(self, method: str, data: Any, service: str = SERVICE) -> list[dict[str, Any]]:
        """The messages of the answer."""
        return objects(self(f"{service}/{method}", data=data))

    def talk(self, method: str) -> Talk:
        """A stream of both sides."""
        return Talk([self._program, "-plaintext", "-max-time", "30", "-d", "@", self._address, method])


class Talk:
    """grpcurl in the midst of a stream, of which a person types one side."""

    def __init__(self, command: list[Any]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._process:
            self._process.kill()

    def say(self, message: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next message."""
        assert self._process.stdout is not None
        text = ""
        for line in self._process.stdout:
            text += line
            if line.rstrip() == "}" or text.strip() == "{}":
                return json.loads(text)  # type: ignore[no-any-return]
        assert self._process.stderr is not None
        raise AssertionError(text + self._process.stderr.read())

    def ended(self) -> int:
        """Its exit code, once the server has ended the stream."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(30)


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


def test_a_worker_by_hand(curl: Grpcurl) -> None:
    kind = f"by-hand-{uuid.uuid4()}"
    with curl.talk(f"{WORKERS}/Work") as worker:
        worker.say({"hello": {"worker": "me", "types": [{"name": kind}], "slots": 1}})
        welcome = worker.hear()["welcome"]
        assert welcome["session"]
        worker.say({"ready": {"room": [{"type": kind, "slots": 1}], "limit": 1}})
        worker.say({"beat": 7})
        assert worker.hear() == {"beat": "7"}

        (submitted,) = curl.call("SubmitJob", {"type": kind, "payload": {"word": "ü"}})
        job = submitted["job"]["id"]
        assignments = worker.hear()["assignments"]
        (assignment,) = assignments["jobs"]
        assert (assignment["id"], assignment["payload"]) == (job, {"word": "ü"})
        worker.say({"received": assignments["batch"]})
        told = {"id": job, "token": assignment["token"]}
        worker.say({"updates": {"id": 1, "updates": [told | {"progress": {"current": 1, "total": 2}}]}})
        assert worker.hear() == {"updates_answer": {"id": "1", "answers": [{"status": "ACCEPTED"}]}}
        assert curl.call("GetJob", {"id": job})[0]["job"]["progress"]["total"] == 2

        worker.say({"reports": {"id": 2, "reports": [told | {"success": {"result": {"said": "ü"}}}]}})
        assert worker.hear() == {"reports_answer": {"id": "2", "answers": [{"status": "ACCEPTED"}]}}
        worker.say({"reports": {"id": 3, "reports": [told | {"token": "another", "success": {}}]}})
        assert worker.hear() == {"reports_answer": {"id": "3", "answers": [{"status": "LOST"}]}}
        worker.say({"goodbye": {}})
        assert worker.ended() == 0
    done = curl.call("GetJob", {"id": job, "wait": "20s"})[0]["job"]
    assert (done["state"], done["result"]) == ("SUCCESS", {"said": "ü"})


def test_a_stream_of_a_worker_that_is_refused(curl: Grpcurl) -> None:
    with curl.talk(f"{WORKERS}/Work") as worker:
        worker.say({"ready": {"limit": 1}})
        assert worker.ended() != 0


def test_a_worker_of_single_calls(curl: Grpcurl) -> None:
    kind = f"by-calls-{uuid.uuid4()}"
    lease = {"worker": "me", "types": [{"name": kind}]}
    (opened,) = curl.call("LeaseJobs", lease, WORKERS)
    session = opened["session"]
    assert "jobs" not in opened
    (submitted,) = curl.call("SubmitJob", {"type": kind})
    (leased,) = curl.call("LeaseJobs", lease | {"session": session, "wait": "20s"}, WORKERS)
    (assignment,) = leased["jobs"]
    assert assignment["id"] == submitted["job"]["id"]

    told = {"id": assignment["id"], "token": assignment["token"]}
    (kept,) = curl.call("Heartbeat", {"session": session, "holding": [told]}, WORKERS)
    assert kept.keys() == {"lease_duration"}
    report = {"session": session, "reports": [told | {"failure": {"reason": "OUT_OF_INK", "final": True}}]}
    for _ in range(2):
        assert curl.call("FinishJobs", report, WORKERS) == [{"answers": [{"status": "ACCEPTED"}]}]
    curl.call("Heartbeat", {"session": session, "goodbye": True}, WORKERS)
    (status,) = objects(curl(f"{WORKERS}/Heartbeat", data={"session": session}, fails=True))
    assert status["code"] == 5
    (failed,) = curl.call("GetJob", {"id": assignment["id"]})
    assert failed["job"]["state"] == "FAILED"
