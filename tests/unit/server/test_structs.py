"""Struct and Value to plain values and back."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from atlas_grpc.server.structs import NotJson, fill_struct, fill_value, from_struct

EXACT = 2**53
SCALARS = (
    st.none() | st.booleans() | st.integers(1 - EXACT, EXACT - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(
    SCALARS | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@pytest.mark.slow
@given(st.dictionaries(st.text(), JSON))
def test_a_round_trip_changes_nothing(values: dict[str, Any]):
    struct = Struct()
    fill_struct(struct, values)
    assert from_struct(Struct.FromString(struct.SerializeToString())) == values


@given(st.integers(1 - EXACT, EXACT - 1))
def test_whole_numbers_below_2_to_the_53_are_int(number: int):
    (found,) = from_struct(Struct(fields={"n": Value(number_value=number)})).values()
    assert (type(found), found) == (int, number)


@pytest.mark.parametrize("number", [float(EXACT), -float(EXACT), 1e300, 0.5, 5e-324])
def test_other_numbers_are_float(number: float):
    (found,) = from_struct(Struct(fields={"n": Value(number_value=number)})).values()
    assert (type(found), found) == (float, number)


def test_true_is_not_one():
    struct = Struct()
    fill_struct(struct, {"a": True, "b": 1})
    assert [value.WhichOneof("kind") for _, value in sorted(struct.fields.items())] == ["bool_value", "number_value"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused_where_it_stands(number: float):
    inner = Struct(fields={"deep": Value(list_value=ListValue(values=[Value(), Value(number_value=number)]))})
    inner.fields["deep"].list_value.values[0].bool_value = False
    outer = Struct(fields={"a": Value(struct_value=inner)})
    with pytest.raises(NotJson) as caught:
        from_struct(outer)
    assert caught.value.args == (".a.deep[1]", "must be a finite number")


@pytest.mark.parametrize("where", ["field", "item"])
def test_a_value_of_no_kind_is_refused_where_it_stands(where: str):
    unset = Value() if where == "field" else Value(list_value=ListValue(values=[Value()]))
    with pytest.raises(NotJson) as caught:
        from_struct(Struct(fields={"a": unset}))
    assert caught.value.args == (".a" if where == "field" else ".a[0]", "has no value")


@pytest.mark.parametrize("empty", [{}, {"a": {}}, {"a": []}, {"a": [{}, []]}, {"": ""}])
def test_emptiness_is_kept(empty: dict[str, Any]):
    struct = Struct()
    fill_struct(struct, empty)
    assert from_struct(struct) == empty


def test_an_empty_struct_is_present():
    value = Value()
    fill_value(value, {})
    assert value.WhichOneof("kind") == "struct_value"


@pytest.mark.parametrize("number", [2**53 + 1, 2**64, 10**308])
def test_large_whole_numbers_become_the_nearest_double(number: int):
    value = Value()
    fill_value(value, number)
    assert value.number_value == float(number)
