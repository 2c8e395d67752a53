"""The OpenAPI document, and the generated comments behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from atlas_grpc._gen.atlas.v1 import job_service_pb2
from atlas_grpc.gateway.openapi import document

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def spec() -> Any:
    return json.loads(document([job_service_pb2.DESCRIPTOR.services_by_name["JobService"]], 4 * 2**20))


def test_it_is_valid(spec: Any) -> None:
    assert spec["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(spec).validate()


def test_a_service_with_everything_is_valid(echo: Any) -> None:
    spec = json.loads(document([echo], 1))
    OpenAPIV31SpecValidator(spec).validate()
    assert "/v1/chat" not in spec["paths"]
    assert "/v1/echo/{inner.text}" in spec["paths"]


def test_every_method_is_described(spec: Any) -> None:
    named = {operation["operationId"] for path in spec["paths"].values() for operation in path.values()}
    methods = job_service_pb2.DESCRIPTOR.services_by_name["JobService"].methods_by_name
    assert set(methods) | {"createJob", "readJob", "SubmitJob2"} <= named
    for path in spec["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["responses"]


def test_comments_and_constraints_show(spec: Any) -> None:
    schemas = spec["components"]["schemas"]
    request = schemas["SubmitJobRequest"]
    assert request["required"] == ["type"]
    assert request["properties"]["type"]["description"].startswith("The job type;")
    type_ = request["properties"]["type"]
    assert (type_["minLength"], type_["maxLength"], type_["pattern"]) == (1, 100, "^[A-Za-z][A-Za-z0-9_.-]*$")
    priority = request["properties"]["priority"]
    assert (priority["minimum"], priority["maximum"]) == (-100, 100)
    labels = request["properties"]["labels"]
    assert (labels["maxProperties"], labels["propertyNames"]["maxLength"]) == (32, 63)
    assert labels["additionalProperties"]["maxLength"] == 255
    assert {"not": {"required": ["payload", "payloadData"]}} in request["allOf"]
    assert schemas["Job"]["properties"]["id"]["readOnly"] is True
    assert schemas["Job.State"]["enum"][1] == "PENDING"
    assert "Accepted and stored" in schemas["Job.State"]["description"]


def test_streams_and_queries_show(spec: Any) -> None:
    watch = spec["paths"]["/v1/jobs/{id}:watch"]["get"]
    assert set(watch["responses"]["200"]["content"]) == {"application/x-ndjson", "text/event-stream"}
    assert {"$ref": "#/components/parameters/LastEventId"} in watch["parameters"]
    listing = {one.get("name"): one for one in spec["paths"]["/v1/jobs"]["get"]["parameters"]}
    assert listing["filter.labels"]["style"] == "deepObject"
    assert listing["filter.states"]["schema"]["type"] == "array"
    cancel = spec["paths"]["/v1/jobs/{id}:cancel"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(cancel["properties"]) == {"reason", "ifVersion"}
    run = spec["paths"]["/v1/jobs:run"]["post"]
    assert run["parameters"][0]["name"] == "includeLogs"


def test_what_a_form_of_swagger_ui_holds_when_it_opens_is_sane(spec: Any) -> None:
    """It fills what has no example with values that it makes up, and they are sent."""
    operations = [one for path, item in spec["paths"].items() if path.startswith("/v1/") for one in item.values()]
    parameters = [one for operation in operations for one in operation["parameters"] if "style" in one]
    assert parameters
    assert all(one["example"] == {} for one in parameters)
    bodies = [operation["requestBody"] for operation in operations if "requestBody" in operation]
    assert bodies
    for body in bodies:
        assert body["content"]["application/json"]["examples"]


def test_the_committed_comments_are_up_to_date() -> None:
    made = subprocess.run(
        [sys.executable, "proto/openapi.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.mark.asyncio(loop_scope="session")
async def test_it_is_served(stack: Any) -> None:
    status, spec = await stack.json("GET", "/openapi.json")
    assert (status, spec["openapi"]) == (200, "3.1.0")
    assert "/v1/echo" in spec["paths"]
