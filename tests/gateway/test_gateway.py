"""The real grpc-gateway, made from the same contract, and the mirror answer the same requests in the same way. What
differs is intended, and stands in the table in docs/rest.md.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from atlas_grpc.gateway.app import SERVICES
from atlas_grpc.gateway.rest import rules_of
from atlas_grpc.gateway.template import compile_template
from tests.meta.pages import ROOT
from tests.support.programs import PATIENCE

from .compare import GENERAL, Unexplained, compare
from .doors import Answer, Ask, ask
from .fuzz import bodies, queries
from .kinds import ROWS, kinds
from .peculiar import PARTICULAR
from .shapes import error, no_job
from .table import PECULIAR, REFUSALS, ROUTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .conftest import Doors, Seen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE + 100)]  # the first one builds

SAME = ROUTES | REFUSALS
KINDS = kinds()
FUZZ = 400
"""Requests of each of the two kinds."""
FUZZED = {queries: {"unknown-below", "mask", "wider", "strict"}, bodies: {"enum", "wider", "strict"}}
"""The rows that they may show."""

BROKEN = {"code": 13, "message": "the server failed", "details": []}
SPOILT: dict[str, Callable[[Answer], Answer]] = {
    "500": lambda one: replace(one, status=500, kind="application/json", body=[BROKEN]),
    "another status": lambda one: replace(one, status=one.status + 1),
    "another content type": lambda one: replace(one, kind="text/html"),
    "metadata": lambda one: replace(one, metadata=one.metadata | {"grpc-metadata-x": ["1"]}),
    "no body": lambda one: replace(one, body=[]),
    "an empty object": lambda one: replace(one, body=[{}]),
    "no JSON": lambda one: replace(one, body="no JSON"),
    "a body twice": lambda one: replace(one, body=one.body * 2),
}
HEADERS = {"method", "verb", "content-type", "events"}
"""The rows for which the mirror sends a header of its own."""


@pytest.mark.parametrize("name", SAME)
def test_atlas_answers_the_same(name: str, atlas: Doors) -> None:
    assert _differences(atlas.compare(SAME[name])) == set()


@pytest.mark.parametrize("name", PECULIAR)
def test_atlas_differs_as_it_is_meant_to(name: str, atlas: Doors) -> None:
    row, asks = PECULIAR[name]
    assert _differences(atlas.compare(asks)) == {row}


@pytest.mark.parametrize("name", KINDS)
def test_a_backend_is_asked_and_shown_in_the_same_way(name: str, backend: Doors) -> None:
    assert _differences(backend.compare(KINDS[name])) == {row for row, names in ROWS.items() if name in names}


@pytest.mark.parametrize("make", FUZZED)
def test_what_chance_makes_is_taken_or_refused_by_both(make: Callable[[int], Iterator[Ask]], backend: Doors) -> None:
    unexplained, taken = [], 0
    for asked in make(FUZZ):
        try:
            (seen,) = backend.compare([asked])
        except Unexplained as err:
            unexplained.append(str(err))
        else:
            taken += seen.mirror.status == 200
            assert _differences([seen]) <= FUZZED[make], asked
    assert not unexplained, f"{len(unexplained)} of {FUZZ}" + "\n".join(unexplained)
    assert FUZZ * 0.1 < taken < FUZZ * 0.9


def test_the_table_says_all_that_differs(atlas: Doors, backend: Doors) -> None:
    page = (ROOT / "docs" / "rest.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", page, re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == GENERAL | PARTICULAR.keys()
    seen = [*_all(atlas, SAME.values()), *_all(atlas, [asks for _, asks in PECULIAR.values()])]
    seen += _all(backend, KINDS.values())
    found = {name for one in seen for name in [*one.verdict.general, one.verdict.particular]}
    assert set(rows) - found == set(), "these do not differ any more"


def test_every_row_has_a_case_that_names_it() -> None:
    named = [name for names in ROWS.values() for name in names]
    assert set(named) <= KINDS.keys()
    assert len(named) == len(set(named))
    assert {row for row, _ in PECULIAR.values()} | ROWS.keys() == PARTICULAR.keys()


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_an_answer_that_is_broken_is_not_excused(
    spoil: Callable[[Answer], Answer], atlas: Doors, backend: Doors
) -> None:
    for one in _peculiar(atlas, backend):
        for go, mirror in [(one.go, spoil(one.mirror)), (spoil(one.go), one.mirror)]:
            if (go, mirror) != (one.go, one.mirror):
                assert _row(one.asked, go, mirror) != one.verdict.particular, one


def test_a_header_that_is_missing_is_not_excused(atlas: Doors, backend: Doors) -> None:
    seen = [one for one in _peculiar(atlas, backend) if one.verdict.particular in HEADERS and one.mirror.body]
    assert {one.verdict.particular for one in seen} == HEADERS
    for one in seen:
        assert _row(one.asked, one.go, replace(one.mirror, headers={})) == "", one


def test_every_route_is_asked_with_success(atlas: Doors) -> None:
    asked = [one.asked for one in _all(atlas, SAME.values()) if one.go.status == one.mirror.status == 200]
    assert _unasked(_routes(), asked) == set(), "give each a case in tests/gateway/table.py"


def test_a_route_without_a_case_is_seen() -> None:
    asked = [ask("GET /v1/jobs/$job"), ask("GET /v1/jobs/$job:watch")]
    assert _unasked(["GET /v1/jobs/{id}", "GET /v1/jobs/{id}:watch"], asked) == set()
    assert _unasked(["GET /v1/jobs/{id}", "GET /v1/jobs/{id}:new"], asked[:1]) == {"GET /v1/jobs/{id}:new"}


@pytest.mark.parametrize(
    "other",
    [
        Answer(201, "application/json", {}, [{"a": [{"b": 1}]}]),
        Answer(200, "text/plain", {}, [{"a": [{"b": 1}]}]),
        Answer(200, "application/json", {"grpc-metadata-x": ["1"]}, [{"a": [{"b": 1}]}]),
        Answer(200, "application/json", {}, [{"a": [{"b": "1"}]}]),
        Answer(200, "application/json", {}, [{"a": [{"b": 1}], "c": None}]),
        Answer(200, "application/json", {}, [{"a": [{}]}]),
        Answer(200, "application/json", {}, [{"a": []}]),
        Answer(200, "application/json", {}, [{"a": [{"b": 1}]}, {}]),
        Answer(200, "application/json", {}, "no JSON"),
    ],
)
def test_a_difference_that_nobody_meant_is_seen(other: Answer) -> None:
    one = Answer(200, "application/json", {}, [{"a": [{"b": 1}]}])
    compare(ask("GET /"), one, one)
    with pytest.raises(Unexplained):
        compare(ask("GET /"), one, other)


def test_what_the_server_says_is_not_only_other_words() -> None:
    go = Answer(404, "application/json", {}, [{"code": 5, "message": "Not Found", "details": []}])
    compare(ask("GET /"), go, replace(go, body=[error(5, "there is nothing at this path", "PATH_NOT_FOUND")]))
    for other in (no_job("x"), error(5, "", "PATH_NOT_FOUND"), error(13, "Not Found", "INTERNAL")):
        with pytest.raises(Unexplained):
            compare(ask("GET /"), go, replace(go, body=[other]))


def _differences(seen: list[Seen]) -> set[str]:
    return {one.verdict.particular for one in seen} - {""}


def _row(asked: Ask, go: Answer, mirror: Answer) -> str:
    """The row that excuses the difference, if one does."""
    try:
        return compare(asked, go, mirror).particular
    except Unexplained:
        return ""


def _peculiar(atlas: Doors, backend: Doors) -> Iterator[Seen]:
    """All that differs as it is meant to; what differs otherwise fails the test of its own."""
    cases = [(atlas, asks) for _, asks in PECULIAR.values()]
    cases += [(backend, KINDS[name]) for names in ROWS.values() for name in names]
    for doors, asks in cases:
        with suppress(Unexplained):
            yield from (one for one in doors.compare(asks) if one.verdict.particular)


def _all(doors: Doors, cases: Iterable[list[Ask]]) -> Iterator[Seen]:
    for asks in cases:
        yield from doors.compare(asks)


def _routes() -> list[str]:
    return [
        f"{rule.verb} {rule.path}" for service in SERVICES for method in service.methods for rule in rules_of(method)
    ]


def _unasked(routes: list[str], asked: list[Ask]) -> set[str]:
    """The routes that none of the requests is for."""
    templates = sorted(
        ((compile_template(path), f"{verb} {path}") for verb, path in (route.split(" ") for route in routes)),
        key=lambda one: one[0].rank,
    )
    left = set(routes)
    for one in asked:
        path = one.path.partition("?")[0].encode()
        fitting = (route for template, route in templates if template.regex.fullmatch(path))
        left.discard(next((route for route in fitting if route.startswith(one.method + " ")), ""))
    return left
