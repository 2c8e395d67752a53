"""The real grpc-gateway, made from the same contract, and the mirror answer the same requests in the same way. What
differs is intended, and stands in the table in docs/rest.md.
"""

from __future__ import annotations

import re
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
from .kinds import kinds
from .peculiar import PARTICULAR
from .table import PECULIAR, REFUSALS, ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .conftest import Doors, Seen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE + 100)]  # the first one builds

SAME = ROUTES | REFUSALS
KINDS = kinds()
FUZZ = 400
"""Requests of each of the two kinds."""


@pytest.mark.parametrize("name", SAME)
def test_atlas_answers_the_same(name: str, atlas: Doors) -> None:
    assert _differences(atlas.compare(SAME[name])) == set()


@pytest.mark.parametrize("name", PECULIAR)
def test_atlas_differs_as_it_is_meant_to(name: str, atlas: Doors) -> None:
    row, asks = PECULIAR[name]
    assert _differences(atlas.compare(asks)) == {row}


@pytest.mark.parametrize("name", KINDS)
def test_a_backend_is_asked_and_shown_in_the_same_way(name: str, backend: Doors) -> None:
    backend.compare(KINDS[name])


@pytest.mark.parametrize("make", [queries, bodies])
def test_what_chance_makes_is_taken_or_refused_by_both(make: object, backend: Doors) -> None:
    unexplained, taken = [], 0
    for asked in make(FUZZ):  # type: ignore[operator]
        try:
            (seen,) = backend.compare([asked])
        except Unexplained as err:
            unexplained.append(str(err))
        else:
            taken += seen.mirror.status == 200
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


def _differences(seen: list[Seen]) -> set[str]:
    return {one.verdict.particular for one in seen} - {""}


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
