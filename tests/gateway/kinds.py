"""Requests to a backend that echoes or fails as it is told (backend.py): every kind of field in query, path and body,
every code, streams that break, metadata.
"""

from __future__ import annotations

from typing import Any

from .doors import Ask, ask

QUERY: dict[str, list[str]] = {
    "text": ["a", "", "ü", "a+b", "null", "%00", "%22"],
    "number": ["0", "-5", "%2B5", "2147483647", "-2147483648", "2147483648", "", " 1", "1.0", "1e2", "x"],
    "big": ["-9223372036854775808", "9223372036854775807", "9223372036854775808", "null"],
    "natural": ["0", "4294967295", "4294967296", "-1"],
    "huge": ["18446744073709551615", "18446744073709551616", "-1"],
    "zigzag": ["-1", "9"],
    "fixed": ["1", "-1"],
    "real": ["1.5e3", "-0", ".5", "5.", "1e-400", "1e400", "NaN", "x", ""],
    "single": ["0.1", "16777217", "3.4e38", "1e39"],
    "flag": ["true", "1", "t", "T", "TRUE", "True", "false", "0", "f", "F", "yes", "tRUE", ""],
    "data": ["AP8=", "_-8=", "%2B/8=", "====", "A", "*", ""],
    "colour": ["RED", "-2", "BLUE", "9", "red", "", "01"],
    "maybe": ["0", "7", "x"],
    "inner.text": ["a"],
    "inner.inner.inner.number": ["1", "x"],
    "inner": ["x", "", "{}"],
    "texts": ["a", ""],
    "list": ["1", "x", "[1]"],
    "colours": ["1", "RED", "NOPE"],
    "many": ["x", "{}"],
    "many.text": ["x"],
    "labels[a]": ["b", ""],
    "labels[]": ["b"],
    "labels[a.b]": ["c"],
    "weights[true]": ["2.5", "x"],
    "weights[maybe]": ["1"],
    "numbered[1]": ["x"],
    "first": ["a"],
    "second.text": ["b"],
    "thirdOne": ["4"],
    "third_one": ["x"],
    "at": [
        "2024-01-02T03:04:05Z",
        "2024-01-02T03:04:05.123456789%2B01:30",
        "2024-01-02",
        "2024-01-02T3:04:05Z",
        "0001-01-01T00:00:00Z",
        "",
        "x",
    ],
    "wait": ["1.5s", "250ms", "1h2m3.5s", "-5s", "-0.5s", "1us", "5", "s", "", "1.s", ".5s", "%2B3s", "0", "1d", "1 s"],
    "object": ['{"a": [1, null, {"b": "c"}]}', "[]", "x", ""],
    "value": ["1", '"x"', "null", "[1]", "x"],
    "any": ["x"],
    "mask": ["a,b", "a.b", "", "text", "a_b", "aB", "a,,b", "_", "a..b", "6"],
    "wrappedBig": ["5", "-9223372036854775808", "x"],
    "wrapped_text": ["w", ""],
    "wrappedFlag": ["0", "true", "x"],
    "wrappedData": ["AP8=", "*"],
    "nothing": ["NULL_VALUE", "0", "1", "x"],
    "other-name": ["r"],
    "renamed": ["r"],
    "waits": ["1s", "x"],
    "inner[a]": ["b"],
    "text.x": ["y"],
    "labels.a": ["b"],
    "at.seconds": ["5"],
    "wrappedBig.value": ["5"],
    "object.fields[a].stringValue": ["x"],
}
"""Values of query parameters, one at a time."""

PAIRS = [
    "number=1&number=2",
    "texts=a&texts=b&list=1&list=2&colours=1&colours=-2&waits=1s&waits=2s",
    "labels[a]=1&labels[b]=2&labels[A]=3",
    "labels[a]=1&labels[a]=2",
    "weights[true]=1&weights[false]=0",
    "first=a&third_one=4",
    "first=a&second.text=b",
    "first=a&second.nope=b",
    "second.text=a&second.number=5&second.second.text=b",
    "inner.text=a&inner.number=2&inner.inner.text=b&text=c",
    "maybe=1&maybe=2",
    "at=2024-01-01T00:00:00Z&at=2024-01-01T00:00:00Z",
    "text=a=b&texts=%26&texts==",
    "thirdOne=1&third_one=1",
    "wrapped_big=1&wrappedBig=1",
    "other-name=a&renamed=b",
    "labels[a]=1&labels[b]=2&labels=c",
    "texts[]=a&texts[]=b",
    "number=010&big=007&maybe=-0",
    "number=0x10",
    "number=1_000",
    "at=2024-01-02t03:04:05z",
    "nope=1&nope=2&inner.nope=3",
    "inner.many.text=a",
]

BODY: dict[str, list[str]] = {
    "text": ['"a"', '"\\u00fc\\n\\/"', "1", "true", "[]", "{}", "null", '"\\ud83d\\ude00"', '"\\udc00"', '"\\x"'],
    "number": ["1", "-1", "1.0", "1e2", "1.5", '"7"', '"1e2"', '"1.0"', '"+7"', '"07"', '" 7"', '""', "01", "true"],
    "big": [
        "9007199254740993",
        '"9007199254740993"',
        "9223372036854775808",
        "1e18",
        "-9.5",
        '"x"',
        "9007199254740993.5",
    ],
    "natural": ["4294967295", "4294967296", "-1", '"-1"', "-0"],
    "huge": ['"18446744073709551615"', "18446744073709551615", "18446744073709551616"],
    "zigzag": ["-1"],
    "fixed": ['"1"'],
    "real": ["1.5", '"1.5"', '"NaN"', '"Infinity"', '"-Infinity"', '"inf"', '""', '".5"', "1e-400", "1e400", '" 1"'],
    "single": ["0.1", "16777217", "1e39", '"0.1"'],
    "flag": ["true", "false", '"true"', "1", "null"],
    "data": ['"AP8="', '"AP8"', '"_-8"', '"+/8="', '"A"', '"*"', '""', "[1]"],
    "colour": ['"RED"', "1", "-2", "9", "1.0", '"1"', "1.5", "null", "true"],
    "maybe": ["0", "null", '"5"'],
    "inner": ["{}", '{"inner": {"text": "a"}}', "null", "[]", '"x"'],
    "texts": ["[]", '["a", ""]', '"a"', "null", "[null]", "[1]"],
    "list": ['[1, "2"]', "[[1]]", "[1.5]"],
    "many": ["[]", '[{}, {"text": "a"}]', "[null]", "{}"],
    "colours": ['["RED", 1, -2]', "[null]"],
    "labels": ["{}", '{"a": "b"}', '{"a": 1}', '{"a": null}', "[]", '{"": ""}', '{"a": "1", "a": "2"}'],
    "numbered": ['{"1": {}}', '{"-1": {"text": "a"}}', '{"x": {}}', '{"1": null}', '{"+1": {}}', '{"1.0": {}}'],
    "weights": ['{"true": 1, "false": "NaN"}', '{"1": 1}', '{"True": 1}', '{"t": 1}'],
    "first": ['"a"', "null"],
    "second": ["{}", '{"first": "x"}', "null"],
    "third_one": ["0"],
    "at": [
        '"2024-01-02T03:04:05Z"',
        '"2024-01-02T03:04:05.5+01:00"',
        '"2024-01-02T03:04:05.1234567891Z"',
        '"2024-02-30T00:00:00Z"',
        '"2024-01-02 03:04:05Z"',
        '"2024-01-02T03:04:05"',
        '"9999-12-31T23:59:59.999999999Z"',
        '"0000-12-31T23:59:59Z"',
        '"0001-01-01T00:00:00+01:00"',
        '"2024-01-02T24:00:00Z"',
        '"2024-01-02T03:04:60Z"',
        "1",
        "null",
    ],
    "wait": [
        *('"1.5s"', '"-1.5s"', '"+1s"', '".5s"', '"1.s"', '"01s"', '"1s "', '"1"', '"1m"', '"1.0000000001s"', '"s"'),
        *('"315576000000s"', '"315576000001s"', '"-0.000000001s"', "1", '"."', '".s"', '"-s"', '"-.5s"'),
    ],
    "object": ["{}", '{"a": {"b": [null, true, "x", -1.5e-7]}}', "[]", "null", '{"a": 1, "a": 2}', '{"a": NaN}'],
    "value": ["null", "1", '"x"', "[]", "{}", "false", "12345678901234567890", "1e21"],
    "values": ["[1, null, []]", "{}", "null"],
    "any": [
        "{}",
        '{"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}',
        '{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "R", "metadata": {"a": "b"}}',
        '{"@type": "type.googleapis.com/no.such.Type"}',
        '{"@type": 5}',
        '{"reason": "R"}',
        "[]",
    ],
    "mask": ['"a,bC.d"', '""', '"a_b"', '"a..b"', '"{"', "[]"],
    "wrappedBig": ["5", '"5"', "null", "{}", '{"value": 5}'],
    "wrappedText": ['"w"', '""', "1"],
    "wrappedFlag": ["true", '"true"'],
    "wrappedData": ['"AP8="'],
    "nothing": ["null", '"NULL_VALUE"', "0", "1"],
    "other-name": ['"r"'],
    "renamed": ['"r"'],
    "otherName": ['"ignored"'],
    "waits": ['["1s", "2.5s"]', '["x"]'],
    "unknown": ["1", '{"a": [1, {}]}', "[1", '"\\x"', '"\\ud800"', "01", "tru"],
}
"""JSON of a field, one at a time."""

BODIES = [
    '{"text": "a",}',
    '{"text": "a" "number": 1}',
    "{'text': 'a'}",
    '{text: "a"}',
    '{"text": "a"',
    '{"text": "a\nb"}',
    '{"text": "a"} ',
    '\t{"text": "a"}\n',
    '{"first": "a", "thirdOne": 1}',
    '{"first": "a", "second": null}',
    '{"thirdOne": 1, "third_one": 1}',
    '{"text": "a", "text": "b"}',
    '{"nope": 1, "nope": 2}',
    '{"nope": NaN}',
    '{"nope": 1e999}',
    '{"text": "a"} x',
    '/* a */ {"text": "a"}',
    '{"text": "' + "x" * 100_000 + '"}',
    '{"inner": ' * 60 + "{}" + "}" * 60,
]

PATHS = [
    "GET /v1/echo/literal",
    "GET /v1/echo/other",
    "GET /v1/echo/a%20b%2Bc",
    "GET /v1/echo/a+b",
    "GET /v1/echo/a:verb",
    "GET /v1/echo/a%2Fb:verb",
    "GET /v1/echo/a%3Averb",
    "GET /v1/echo/a?inner=b&inner.inner.text=c",
    "GET /v1/echo/a:b:verb",
    "GET /v1/echo/a:other",
    "GET /v1/echo/shelves/1/books/a/b/c",
    "GET /v1/echo/shelves/1/books/a%20b",
    "GET /v1/echo/shelves/1/films/2",
    "GET /v1/echo/x/number/5",
    "GET /v1/echo/x/number/five",
    "GET /v1/echo/x/number/-5?number=7&text=a",
    "GET /v1/echo/x/number/3000000000",
    "GET /v1/echo/other?inner.text=ignored&inner.number=5",
    "REPORT /v1/echo?text=a",
    "POST /v1/echo/a",
    "PUT /v1/echo/a/inner?text=ignored&inner.text=ignored&number=5",
]

CODES = [f"GET /v1/jobs/{kind}.{code}" for kind in ("code", "bare") for code in range(1, 17)]
STREAMS = [
    f"GET /v1/jobs/messages.{count}{end}:watch"
    for count in (0, 1, 3)
    for end in ("", ".code.14", ".bare.2", ".headers.1")
]
METADATA = {
    "time is up": [ask("GET /v1/jobs/slow.20000", headers={"Grpc-Timeout": "100m"})],
    "time is up for a stream": [ask("GET /v1/jobs/slow.20000:watch", headers={"Grpc-Timeout": "100m"})],
    "initial": [ask("GET /v1/jobs/headers.1")],
    "trailing": [ask("GET /v1/jobs/trailers.1")],
    "trailing, asked for": [ask("GET /v1/jobs/trailers.1", headers={"TE": "trailers"})],
    "initial, with an error": [ask("GET /v1/jobs/headers.1.code.5")],
    "both": [ask("GET /v1/jobs/headers.1.trailers.1")],
    "heard": [
        ask(
            "GET /v1/jobs/heard.1",
            headers=[
                ("Grpc-Metadata-One", "1"),
                ("grpc-metadata-two", "a, b"),
                ("Grpc-Metadata-Two", "c"),
                ("Grpc-Metadata-Raw-Bin", "AP8="),
                ("Authorization", "Bearer t"),
                ("Grpc-Timeout", "20S"),
                ("Cookie", "c"),
                ("X-Other", "o"),
            ],
        )
    ],
    "heard, of Atlas": [
        ask(
            "GET /v1/jobs/heard.1",
            headers={"Atlas-Namespace": "other", "Traceparent": "00-1-2-01", "Tracestate": "a=b"},
        )
    ],
}
EVENTS = {
    f"{count} messages{end}": [
        ask(f"GET /v1/jobs/messages.{count}{end}:watch", headers={"Accept": "text/event-stream"})
    ]
    for count in (0, 1, 3)
    for end in ("", ".code.14")
}

ROWS: dict[str, list[str]] = {
    "mask": [f"GET /v1/echo?mask={value}" for value in ("aB", "a,,b", "_", "a..b", "6")],
    "unknown-below": [
        "GET /v1/echo?object.fields[a].stringValue=x",
        "GET /v1/echo?first=a&second.nope=b",
        "GET /v1/echo?nope=1&nope=2&inner.nope=3",
    ],
    "wider": [
        "GET /v1/echo?at=2024-01-02t03:04:05z",
        'POST /v1/echo/x {"big": 9007199254740993.5}',
        'POST /v1/echo/x {"unknown": "\\ud800"}',
    ],
    "enum": ['POST /v1/echo/x {"colour": "1"}'],
    "strict": [
        "GET /v1/echo?at=2024-01-02T3:04:05Z",
        'POST /v1/echo/x {"wait": ".s"}',
        'POST /v1/echo/x {"any": {"reason": "R"}}',
        'POST /v1/echo/x {"nope": 1, "nope": 2}',
        'POST /v1/echo/x {"nope": 1e999}',
        'POST /v1/echo/x {"text": "a"} x',
    ],
    "escape": ["GET /v1/echo/a%2Fb:verb", "GET /v1/echo/a%3Averb"],
    "empty-body": ["PUT /v1/echo/a/inner?text=ignored&inner.text=ignored&number=5"],
    "binary": [
        *[f"GET /v1/jobs/messages.{count}.headers.1:watch" for count in (0, 1, 3)],
        *[f"metadata: {name}" for name in ("initial", "initial, with an error", "both")],
    ],
    "trailers": ["metadata: trailing, asked for"],
    "forwarded": ["metadata: heard"],
    "own-header": ["metadata: heard, of Atlas"],
    "events": [f"events: {name}" for name in EVENTS if name != "0 messages.code.14"],
}
"""The cases that show a difference of the table in docs/rest.md, by its row."""


def kinds() -> dict[str, list[Ask]]:
    """All of them, by name."""
    made: dict[str, list[Ask]] = {}

    def add(asked: Ask) -> None:
        body = asked.body if asked.body is None or len(asked.body) < 100 else f"{asked.body[:20]}…{asked.body[-20:]}"
        made[" ".join([asked.method, asked.path, *([body] if body is not None else [])])] = [asked]

    for name, values in QUERY.items():
        for value in values:
            add(ask(f"GET /v1/echo?{name}={_quoted(value)}"))
    for query in PAIRS:
        add(ask(f"GET /v1/echo?{query}"))
    for name, texts in BODY.items():
        for text in texts:
            add(ask("POST /v1/echo/x", f'{{"{name}": {text}}}'))
    for body in BODIES:
        add(ask("POST /v1/echo/x", body))
    for line in [*PATHS, *CODES, *STREAMS]:
        add(ask(line))
    made |= {f"metadata: {name}": asks for name, asks in METADATA.items()}
    return made | {f"events: {name}": asks for name, asks in EVENTS.items()}


def _quoted(value: str) -> Any:
    """As a query may have it; what is escaped already stays."""
    return "".join(one if (one.isalnum() and one.isascii()) or one in "-._~+%*/:,=" else _escaped(one) for one in value)


def _escaped(one: str) -> str:
    return "".join(f"%{byte:02X}" for byte in one.encode())
