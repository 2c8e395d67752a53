"""Requests to Atlas itself, each asked at both doors: every route, every kind of error, headers, streams.

A case is a list of requests in order. `PECULIAR` names those that show a difference of the table in docs/rest.md.
"""

from __future__ import annotations

from .doors import Ask, ask, begun

SLEEP = {"type": "sleep", "payload": {"seconds": 0}}
LATER = SLEEP | {"startDelay": "3600s"}
FULL = LATER | {
    "queue": "nobody",
    "labels": {"a": "b", "x/y.z": "ü \u2028 <&>"},
    "priority": -4,
    "retryPolicy": {"maxAttempts": 3, "initialBackoff": "1.500s", "backoffMultiplier": 2.5, "jitter": 0},
    "attemptTimeout": "60s",
    "totalTimeout": "7200s",
    "start_timeout": "10s",
    "retention": "3600.000000001s",
}

WAITING = ask("POST /v1/jobs", LATER, job="id")
DONE = [ask("POST /v1/jobs", SLEEP, job="id"), ask("GET /v1/jobs/$job?wait=20s")]
FAILED = [
    ask("POST /v1/jobs", {"type": "checksum", "payload": {"path": "/no/such/file"}}, job="id"),
    ask("GET /v1/jobs/$job?wait=20s"),
]
LEASE = ask("POST /v1/worker:lease", {"worker": "w", "types": [{"name": "$door"}], "wait": "0s"}, session="session")

ROUTES: dict[str, list[Ask]] = {
    "submit": [ask("POST /v1/jobs", FULL)],
    "submit with the whole answer": [ask("POST /v1/jobs:submit", FULL)],
    "submit under proto names": [ask("POST /v1/jobs", LATER | {"request_id": "", "total_timeout": "7201s"})],
    "submit by start time": [ask("POST /v1/jobs", SLEEP | {"startTime": "2030-01-02T03:04:05.678+02:00"})],
    "submit bytes": [ask("POST /v1/jobs", {"type": "sleep", "payloadData": {"data": "AP8", "contentType": "a/b"}})],
    "submit again": [
        ask("POST /v1/jobs:submit", LATER | {"requestId": "again-$door"}, job="job.id"),
        ask("POST /v1/jobs:submit", LATER | {"requestId": "again-$door"}),
        ask("POST /v1/jobs:submit", LATER | {"requestId": "again-$door", "priority": 1}),
    ],
    "validate only": [ask("POST /v1/jobs:submit", LATER | {"validateOnly": True, "retryPolicy": {"maxAttempts": 4}})],
    "submit many": [ask("POST /v1/jobs:batchSubmit", {"requests": [LATER, {"type": "nope"}, {}, LATER]})],
    "submit none": [ask("POST /v1/jobs:batchSubmit", {"requests": []})],
    "run what is there": [
        ask("POST /v1/jobs", SLEEP | {"requestId": "run-$door"}, job="id"),
        ask("GET /v1/jobs/$job?wait=20s"),
        ask("POST /v1/jobs:run?includeLogs=true", SLEEP | {"requestId": "run-$door"}),
    ],
    "run until the deadline": [ask("POST /v1/jobs:run?include_logs=false", LATER, {"Grpc-Timeout": "5S"})],
    "get what waits": [WAITING, ask("GET /v1/jobs/$job"), ask("GET /v1/jobs/$job?view=JOB_VIEW_BASIC")],
    "get what is done": [*DONE, ask("GET /v1/jobs/$job?view=1"), ask("GET /v1/jobs/$job?view=JOB_VIEW_FULL")],
    "get what failed": [*FAILED, ask("GET /v1/jobs/$job")],
    "get with a wait that ends": [WAITING, ask("GET /v1/jobs/$job?wait=50ms")],
    "list": [ask("GET /v1/jobs?filter.types=nothing-of-the-kind"), ask("GET /v1/jobs?pageSize=5")],
    "list by everything": [
        WAITING,
        ask(
            "GET /v1/jobs?filter.ids=$job&filter.ids=other&filter.states=PENDING&filter.states=2&filter.types=sleep"
            "&filter.queues=default&filter.createTimeFrom=2020-01-01T00:00:00Z&view=JOB_VIEW_FULL"
            "&filter.create_time_before=2100-01-01T00:00:00.5%2B01:00&page_size=10&page_token="
        ),
    ],
    "list by label": [
        ask("POST /v1/jobs", LATER | {"labels": {"door.x": "$door", "two": "a b"}}),
        ask("GET /v1/jobs?filter.labels[door.x]=$door&filter.labels[two]=a+b"),
        ask("GET /v1/jobs?filter.labels%5Bdoor.x%5D=$door&filter.labels[two]=a%20c"),
    ],
    "list in pages": [
        *[ask("POST /v1/jobs", LATER | {"queue": "$door"})] * 3,
        ask("GET /v1/jobs?filter.queues=$door&pageSize=2", next="nextPageToken"),
        ask("GET /v1/jobs?filter.queues=$door&pageSize=2&pageToken=$next"),
        ask("GET /v1/jobs?filter.queues=other&pageSize=2&pageToken=$next"),
    ],
    "watch to the end": [*DONE, ask("GET /v1/jobs/$job:watch?includeLogs=1")],
    "watch on": [
        *DONE,
        ask("GET /v1/jobs/$job:watch", token="result.resumeToken"),
        ask("GET /v1/jobs/$job:watch?resumeToken=$token"),
    ],
    "watch what never ends": [WAITING, begun(ask("GET /v1/jobs/$job:watch"))],
    "watch many to the end": [*DONE, ask("GET /v1/jobs:watch?filter.ids=$job")],
    "watch many without end": [begun(ask("GET /v1/jobs:watch?skipSnapshot=true&filter.queues=silent"))],
    "read a log": [
        *FAILED,
        ask("GET /v1/jobs/$job/logs"),
        ask("GET /v1/jobs/$job/logs?startOffset=1&tailLines=0&attempt=1&pageSize=10"),
        ask("GET /v1/jobs/no-such-job/logs"),
        ask("GET /v1/jobs/$job/logs?tailLines=-1"),
    ],
    "follow a log": [
        *FAILED,
        ask("GET /v1/jobs/$job/logs:tail", token="result.resumeToken"),
        ask("GET /v1/jobs/$job/logs:tail?resumeToken=$token&tailLines=3"),
        ask("GET /v1/jobs/no-such-job/logs:tail"),
    ],
    "follow a log that has no end": [WAITING, begun(ask("GET /v1/jobs/$job/logs:tail"))],
    "cancel what waits": [
        WAITING,
        ask("POST /v1/jobs/$job:cancel", {"reason": "no \u2028 need", "ifVersion": "1"}),
        ask("POST /v1/jobs/$job:cancel", {"ifVersion": 1}),
        ask("POST /v1/jobs/$job:cancel"),
    ],
    "cancel what is done": [*DONE, ask("POST /v1/jobs/$job:cancel", {})],
    "retry": [
        *FAILED,
        ask("POST /v1/jobs/$job:retry", {"ifVersion": "77"}),
        ask("POST /v1/jobs/$job:retry", ""),
        ask("GET /v1/jobs/$job?wait=20s&view=JOB_VIEW_BASIC"),
    ],
    "retry what waits": [WAITING, ask("POST /v1/jobs/$job:retry")],
    "delete": [
        *DONE,
        ask("DELETE /v1/jobs/$job?ifVersion=1"),
        ask("DELETE /v1/jobs/$job"),
        ask("DELETE /v1/jobs/$job"),
        ask("GET /v1/jobs/$job"),
    ],
    "delete what waits": [WAITING, ask("DELETE /v1/jobs/$job?if_version=1")],
    "explain": [WAITING, ask("GET /v1/jobs/$job:explain"), *DONE, ask("GET /v1/jobs/$job:explain")],
    "job types": [ask("GET /v1/jobTypes"), ask("GET /v1/jobTypes?pageSize=2"), ask("GET /v1/jobTypes?page_token=x")],
    "lease nothing": [LEASE, ask("POST /v1/worker:heartbeat", {"session": "$session", "goodbye": True})],
    "the life of a worker": [
        LEASE,
        ask("POST /v1/jobs", {"type": "$door", "payload": {"n": 1.5}, "labels": {"a": "b"}}, job="id"),
        ask(
            "POST /v1/worker:lease",
            {
                "worker": "w",
                "session": "$session",
                "types": [{"name": "$door"}],
                "maxJobs": 1,
                "wait": "20s",
                "holding": [{"id": "other", "token": "x"}],
                "returnOthers": True,
            },
            token="jobs.0.token",
        ),
        ask(
            "POST /v1/worker:heartbeat",
            {
                "session": "$session",
                "holding": [{"id": "$job", "token": "$token"}, {"id": "other", "token": "x"}],
                "updates": [
                    {
                        "id": "$job",
                        "token": "$token",
                        "progress": {"current": 1e21, "total": 0.1, "message": "half"},
                        "logs": [{"severity": "WARNING", "message": "hm"}, {"severity": 2, "message": "so"}],
                    }
                ],
            },
        ),
        ask("GET /v1/jobs/$job"),
        ask(
            "POST /v1/worker:finish",
            {
                "session": "$session",
                "reports": [
                    {"id": "$job", "token": "$token", "success": {"result": [None, {"a": None}, -0.5, "x"]}},
                    {"id": "$job", "token": "stale", "failure": {"reason": "X_Y", "code": 3}},
                ],
            },
        ),
        ask("GET /v1/jobs/$job"),
        ask("GET /v1/jobs/$job:watch?includeLogs=true"),
        ask("POST /v1/worker:heartbeat", {"session": "$session", "goodbye": True}),
        ask("POST /v1/worker:heartbeat", {"session": "$session"}),
        ask("POST /v1/worker:finish", {"session": "$session", "reports": [{"id": "x", "token": "y"}]}),
    ],
}
"""Every route, with what it does when all is well and the refusals of the server."""

_BODIES = {
    "no JSON": "{",
    "a word": "nope",
    "an array": "[]",
    "text": '"x"',
    "null": "null",
    "a wrong type": '{"type": 5}',
    "a fraction": '{"type": "sleep", "priority": 1.5}',
    "a number too large": '{"type": "sleep", "priority": 3000000000}',
    "a number in words": '{"type": "sleep", "priority": "many"}',
    "an integer as a float": '{"type": "sleep", "priority": 1e2}',
    "a bool in words": '{"type": "sleep", "validateOnly": "true"}',
    "a bad duration": '{"type": "sleep", "startDelay": "1h"}',
    "a bad time": '{"type": "sleep", "startTime": "tomorrow"}',
    "a time of no calendar": '{"type": "sleep", "startTime": "2030-02-30T00:00:00Z"}',
    "bad base64": '{"type": "sleep", "payloadData": {"data": "*"}}',
    "a message that is a list": '{"type": "sleep", "retryPolicy": []}',
    "a list that is none": '{"type": "sleep", "retryPolicy": {"nonRetryableReasons": "X"}}',
    "a null in a list": '{"type": "sleep", "retryPolicy": {"nonRetryableReasons": [null]}}',
    "a null in a map": '{"type": "sleep", "labels": {"a": null}}',
    "a map that is none": '{"type": "sleep", "labels": ["a"]}',
    "a key twice": '{"type": "sleep", "type": "sleep"}',
    "both names": '{"type": "sleep", "startDelay": "1s", "start_delay": "1s"}',
    "two of a oneof": '{"type": "sleep", "payload": {}, "payloadData": {}}',
    "nulls": '{"type": "sleep", "payload": null, "labels": null, "priority": null, "startDelay": "3600s"}',
    "an unknown field": '{"type": "sleep", "colour": {"deep": [1, {}]}, "startDelay": "3600s", "validateOnly": true}',
    "a lone surrogate": '{"type": "\\ud800"}',
    "a NUL": '{"type": "sleep\\u0000"}',
    "not UTF-8": b'{"type": "\xff"}',
    "a byte order mark": '\ufeff{"type": "sleep"}',
    "NaN": '{"type": "sleep", "payload": {"seconds": NaN}}',
    "a number beyond a double": '{"type": "sleep", "payload": {"seconds": 1e999}}',
    "rules of the contract": '{"type": "!", "queue": "?", "priority": 101, "labels": {"": ""}, "requestId": "ü"}',
    "an unknown type": '{"type": "nope"}',
    "a payload that does not fit": '{"type": "sleep", "payload": {"seconds": "x", "more": 1}}',
    "nothing": "",
    "blanks": " \r\n\t",
    "an empty object": "{}",
    "25 levels": '{"type": "sleep", "payload": ' + '{"a":' * 25 + "1" + "}" * 25 + "}",
}

_QUERIES = {
    "no number": "pageSize=x",
    "a negative number": "pageSize=-1",
    "a number too large": "pageSize=99999999999",
    "a fraction": "pageSize=1.5",
    "an empty number": "pageSize=",
    "a scalar twice": "pageSize=1&pageSize=2",
    "an unknown enum": "view=NOPE",
    "an unknown number of an enum": "view=9",
    "an enum in lower case": "view=job_view_full",
    "an unknown state": "filter.states=DONE",
    "the state that none has": "filter.states=0",
    "a message": "filter=x",
    "a map without key": "filter.labels=x",
    "a map with a dot": "filter.labels.a=x",
    "a key of a map twice": "filter.labels[a]=1&filter.labels[a]=2",
    "a key of no map": "pageSize[a]=1",
    "below a scalar": "pageSize.x=1",
    "below a list": "filter.ids.x=1",
    "a bad time": "filter.createTimeFrom=now",
    "a token that is none": "pageToken=x",
    "a bad escape": "pageToken=%zz",
    "an escape cut short": "pageToken=%2",
    "unknown names": "nope=1&filter.nope=2&filter.labels.nope[a]=3&=4&[]=5&.=6",
    "an empty query": "",
    "only ampersands": "&&",
    "a name without value": "pageToken",
    "escapes in names": "page%53ize=3&filter%2Etypes=none",
    "a plus": "filter.types=a+b",
    "brackets after a list": "filter.ids[]=a",
    "a number that is not decimal": "pageSize=0x1",
    "both names of a field": "pageSize=1&page_size=1",
}

_PATHS = {
    "an unknown path": "GET /v1/nothing",
    "an unknown path below": "GET /v1/jobs/x/y",
    "an unknown version": "GET /v2/jobs",
    "another unknown verb": "POST /v1/jobs:nothing",
    "an unknown job": "GET /v1/jobs/no-such-job",
    "an id with a colon": "GET /v1/jobs/x:nothing",
    "an id that is too long": f"GET /v1/jobs/{'x' * 65}",
    "an id with escapes": "GET /v1/jobs/a%20b%C3%BC",
    "a verb with an unknown job": "GET /v1/jobs/no-such-job:explain",
    "a stream of an unknown job": "GET /v1/jobs/no-such-job:watch",
    "a stream that is refused": "GET /v1/jobs:watch?filter.states=0",
    "a token of no stream": "GET /v1/jobs/no-such-job:watch?resumeToken=x",
    "a path with another slash": "GET //v1/jobs",
    "a path in capitals": "GET /V1/jobs",
    "no id before a verb": "GET /v1/jobs/:explain",
    "a body where none belongs": "DELETE /v1/jobs/no-such-job",
}

_TIMEOUT = "GET /v1/jobs/no-such-job"

REFUSALS: dict[str, list[Ask]] = {
    **{f"body: {name}": [ask("POST /v1/jobs", body)] for name, body in _BODIES.items()},
    **{f"query: {name}": [ask(f"GET /v1/jobs?{query}")] for name, query in _QUERIES.items()},
    **{f"path: {name}": [ask(line)] for name, line in _PATHS.items()},
    "a run that is refused": [ask("POST /v1/jobs:run", {"type": "nope"})],
    "a run of nothing": [ask("POST /v1/jobs:run", {})],
    "the body is in the way of the query": [ask("POST /v1/jobs:run?job.type=sleep&includeLogs=x", SLEEP)],
    "a query beside a whole body": [ask("POST /v1/jobs:submit?priority=x", LATER | {"validateOnly": True})],
    "a body with a GET": [ask("GET /v1/jobs/no-such-job", "{")],
    "no type": [ask("POST /v1/jobs", SLEEP | {"validateOnly": True}, {"Content-Type": "application/json"})],
    "a charset": [ask("POST /v1/jobs", {}, {"Content-Type": "application/json; charset=utf-8"})],
    "a bad timeout": [ask(_TIMEOUT, headers={"Grpc-Timeout": "5x"})],
    "a timeout without number": [ask(_TIMEOUT, headers={"Grpc-Timeout": "S"})],
    "an empty timeout": [ask(_TIMEOUT, headers={"Grpc-Timeout": ""})],
    "less than no time": [ask(_TIMEOUT, headers={"Grpc-Timeout": "-1S"})],
    "no time, which is without limit": [ask(_TIMEOUT, headers={"Grpc-Timeout": "0S"})],
    "a long timeout": [ask(_TIMEOUT, headers={"Grpc-Timeout": "99999999S"})],
    "a namespace": [
        ask("POST /v1/jobs", LATER, {"Grpc-Metadata-Atlas-Namespace": "other"}, job="id"),
        ask("GET /v1/jobs/$job", headers={"grpc-metadata-atlas-namespace": "other"}),
        ask("GET /v1/jobs/$job"),
        ask("GET /v1/jobs?filter.ids=$job"),
    ],
    "a bad namespace": [ask("GET /v1/jobs", headers={"Grpc-Metadata-Atlas-Namespace": "a b"})],
    "an answer that is asked for": [ask("GET /v1/jobTypes", headers={"Accept": "application/json"})],
    "any answer": [ask("GET /v1/jobTypes", headers={"Accept": "*/*;q=0.1"})],
}
"""What is refused, by the server or by the gateways, and what nearly is."""

PECULIAR: dict[str, tuple[str, list[Ask]]] = {
    "a run without a job": ("empty-body", [ask("POST /v1/jobs:run")]),
    "POST to a path of GET": ("method", [ask("POST /v1/jobTypes", {})]),
    "PUT": ("method", [ask("PUT /v1/jobs", {})]),
    "OPTIONS": ("method", [ask("OPTIONS /v1/jobs")]),
    "GET of a verb of POST": ("method", [ask("GET /v1/worker:lease")]),
    "HEAD": ("head", [ask("HEAD /v1/jobTypes")]),
    "DELETE of a verb": ("verb", [ask("DELETE /v1/jobs/x:cancel")]),
    "no id": ("empty-segment", [ask("GET /v1/jobs/")]),
    "a colon in an id": ("escape", [ask("GET /v1/jobs/no-such-job%3Aexplain")]),
    "a slash in an id": ("escape", [ask("GET /v1/jobs/a%2Fb:explain")]),
    "a bad escape in the path": ("plain", [ask("GET /v1/jobs/%zz")]),
    "an id that is not UTF-8": ("utf8", [ask("GET /v1/jobs/%ff")]),
    "a query that is not UTF-8": ("utf8", [ask("GET /v1/jobs?pageToken=%ff")]),
    "a semicolon": ("semicolon", [ask("GET /v1/jobs?filter.types=a;b")]),
    "a time in lower case": (
        "wider",
        [WAITING, ask("GET /v1/jobs?filter.ids=$job&filter.createTimeFrom=2020-01-01t00:00:00z")],
    ),
    "an unknown enum in a body": (
        "enum",
        [
            LEASE,
            ask(
                "POST /v1/worker:heartbeat",
                {"session": "$session", "updates": [{"id": "x", "token": "y", "logs": [{"severity": "LOUD"}]}]},
            ),
        ],
    ),
    "something after the body": ("strict", [ask("POST /v1/jobs", '{"type": "sleep", "validateOnly": true} x')]),
    "an unknown key twice": ("strict", [ask("POST /v1/jobs:batchSubmit", '{"x": 1, "x": 2, "requests": []}')]),
    "90 levels": ("deep", [ask("POST /v1/jobs", '{"type": "sleep", "payload": ' + '{"a":' * 90 + "1" + "}" * 91)]),
    "a form": ("content-type", [ask("POST /v1/jobs", "a=b", {"Content-Type": "text/plain"})]),
    "JSON that says it is a form": (
        "content-type",
        [ask("POST /v1/jobs", LATER | {"validateOnly": True}, {"Content-Type": "application/x-www-form-urlencoded"})],
    ),
    "a form for a GET": (
        "method",
        [ask("POST /v1/jobTypes", "pageSize=1", {"Content-Type": "application/x-www-form-urlencoded"})],
    ),
    "5 MiB": ("too-large", [ask("POST /v1/jobs", {"type": "x", "queue": "x" * (5 << 20)})]),
    "a namespace by its own name": (
        "own-header",
        [
            ask("POST /v1/jobs", LATER, {"Grpc-Metadata-Atlas-Namespace": "other"}, job="id"),
            ask("GET /v1/jobs/$job", headers={"Atlas-Namespace": "other"}),
        ],
    ),
    "events": ("events", [*DONE, ask("GET /v1/jobs/$job:watch", headers={"Accept": "text/event-stream"})]),
}
"""What differs, and by which row of the table in docs/rest.md."""
