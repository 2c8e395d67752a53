"""Path templates of google.api.http."""

from __future__ import annotations

import pytest

from atlas_grpc.gateway.scalars import Malformed
from atlas_grpc.gateway.template import compile_template, decode


@pytest.mark.parametrize("text", ["v1/x", "/v1/{id", "/v1/{a.*}", "/v1/x*y"])
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="path template"):
        compile_template(text)


def test_a_variable_over_segments_keeps_reserved_characters_encoded() -> None:
    template = compile_template("/v1/{name=a/**}")
    assert template.regex.fullmatch(b"/v1/a/b%2Fc%20d") is not None
    assert decode(b"a/b%2Fc%20d", template.variables[0]) == "a/b%2Fc d"
    with pytest.raises(Malformed):
        decode(b"%80", template.variables[0])
