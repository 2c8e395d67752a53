"""The parts of the OpenAPI document that no descriptor holds: the interface of 0.2, health, errors, examples."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

INFO: Schema = {
    "title": "Atlas",
    "summary": "Submit slow work, watch it live, get its result.",
    "description": (
        "The REST mirror of the gRPC services (`/v1`), with grpc-gateway's conventions: lowerCamelCase names, enums by "
        "name, 64-bit integers as strings, fields without presence always shown, unknown fields ignored. Streams are "
        "lines of JSON, or Server-Sent Events for `Accept: text/event-stream`. `/jobs` is the interface of Atlas 0.2."
    ),
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}
TAGS = [
    {"name": "Atlas 0.2", "description": "The first interface, kept as it was."},
    {"name": "Operation", "description": "Health, metrics and this description."},
]
STREAM = (
    "The messages of the stream as they come: a line of JSON each, or Server-Sent Events whose `id` is the resume "
    "token (send it back as `Last-Event-ID`), with comments as heartbeats, the event `error` with a status when it "
    "does not end well and the event `end` when it does. An error before the first message has its HTTP status."
)
EVENTS_EXAMPLE = 'id: tok1\ndata: {"job":{"state":"RUNNING"}}\n\n: hb\n\nevent: end\ndata: {}\nretry: 86400000\n\n'
REQUEST_EXAMPLES: dict[str, Schema] = {
    "atlas.v1.JobService.SubmitJob": {
        "sleep": {"value": {"type": "sleep", "payload": {"seconds": 3}}},
        "policy": {
            "value": {
                "type": "sleep",
                "payload": {"seconds": 3},
                "labels": {"env": "prod"},
                "startDelay": "60s",
                "retryPolicy": {"maxAttempts": 5, "initialBackoff": "2s"},
                "requestId": "5f0c2f9e-7a55-4f6e-8a55-6f9d0b2f9c11",
            }
        },
    },
    "atlas.v1.JobService.SubmitJobs": {
        "two": {"value": {"requests": [{"type": "sleep", "payload": {"seconds": n}} for n in (1, 2)]}}
    },
    "atlas.v1.JobService.RunJob": {"sleep": {"value": {"type": "sleep", "payload": {"seconds": 3}}}},
    "atlas.v1.JobService.CancelJob": {"reason": {"value": {"reason": "no longer needed"}}},
    "atlas.v1.JobService.RetryJob": {
        "any": {"value": {}},
        "version": {"summary": "only if nothing changed meanwhile", "value": {"ifVersion": "7"}},
    },
}
_ERROR_EXAMPLE: Schema = {
    "code": 5,
    "message": "job '0190' does not exist",
    "details": [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "JOB_NOT_FOUND",
            "domain": "atlas",
            "metadata": {"job_id": "0190"},
        }
    ],
}


def components(max_body: int) -> Schema:
    """Everything under `components` but the schemas."""
    return {
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        "parameters": {
            "Namespace": _header("Atlas-Namespace", "The namespace to act in; `default` when absent."),
            "Timeout": {
                **_header("Grpc-Timeout", "The deadline of the call, for instance `5S` or `200m` (milliseconds)."),
                "schema": {"type": "string", "pattern": "^[0-9]{1,8}[HMSmun]$"},
            },
            "LastEventId": _header("Last-Event-ID", "The same as `resumeToken`; browsers send it by themselves."),
        },
        "responses": {
            "Error": {
                "description": (
                    "A google.rpc.Status. 400 INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE; 401 "
                    "UNAUTHENTICATED; 403 PERMISSION_DENIED; 404 NOT_FOUND; 409 ALREADY_EXISTS, ABORTED; 429 "
                    "RESOURCE_EXHAUSTED; 499 CANCELLED; 500 UNKNOWN, INTERNAL, DATA_LOSS; 501 UNIMPLEMENTED; 503 "
                    "UNAVAILABLE; 504 DEADLINE_EXCEEDED. "
                    f"And of HTTP: 405, 413 (more than {max_body:,} bytes), 415, 421."
                ),
                "content": {
                    "application/json": {
                        "schema": {"$ref": "#/components/schemas/google.rpc.Status"},
                        "example": _ERROR_EXAMPLE,
                    }
                },
            }
        },
    }


def _header(name: str, text: str) -> Schema:
    return {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}


def _json(text: str, schema: Schema, example: object) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema, "example": example}}}


def _plain(text: str, kind: str = "text/plain") -> Schema:
    return {"description": text, "content": {kind: {"schema": {"type": "string"}}}}


_STATE = {"type": "string", "enum": ["PENDING", "RUNNING", "SUCCESS", "FAILED", "CANCELLED"]}
_PAYLOAD: Schema = {
    "type": "object",
    "properties": {"type": {"type": "string", "description": "The job type."}},
    "required": ["type"],
    "additionalProperties": True,
}
_DETAIL: Schema = {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}
_PROBLEMS: Schema = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "msg", "type"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                    "type": {"type": "string"},
                },
            },
        }
    },
}
_PROBLEMS_EXAMPLE = {"detail": [{"loc": ["body", "seconds"], "msg": "field required", "type": "missing"}]}
_OTHER = {
    "description": "Another error, with the HTTP status of its code.",
    "content": {"application/json": {"schema": _DETAIL}},
}

PATHS: dict[str, Schema] = {
    "/jobs": {
        "post": {
            "operationId": "createJob",
            "tags": ["Atlas 0.2"],
            "summary": "Submit a job",
            "description": "All members besides `type` are the payload. The state is that at the submission.",
            "parameters": [_header("Idempotency-Key", "Repeating the request with it answers the first job.")],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _PAYLOAD, "example": {"type": "sleep", "seconds": 3}}},
            },
            "responses": {
                "200": _json(
                    "Accepted.",
                    {
                        "type": "object",
                        "properties": {"id": {"type": "string"}, "state": _STATE},
                        "required": ["id", "state"],
                    },
                    {"id": "0190a7c2-…", "state": "PENDING"},
                ),
                "422": _json("The body is wrong.", _PROBLEMS, _PROBLEMS_EXAMPLE),
                "default": _OTHER,
            },
        }
    },
    "/jobs/{id}": {
        "get": {
            "operationId": "readJob",
            "tags": ["Atlas 0.2"],
            "summary": "Read a job",
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "responses": {
                "200": _json(
                    "The job as it is.",
                    {
                        "type": "object",
                        "required": ["id", "state", "payload"],
                        "properties": {
                            "id": {"type": "string"},
                            "state": _STATE,
                            "payload": _PAYLOAD,
                            "error": {"type": "string", "description": "Why it failed; only when it did."},
                        },
                    },
                    {"id": "0190a7c2-…", "state": "SUCCESS", "payload": {"type": "sleep", "seconds": 3}},
                ),
                "404": _json("There is no such job.", _DETAIL, {"detail": "Job not found"}),
                "default": _OTHER,
            },
        }
    },
    "/healthz": {
        "get": {
            "operationId": "alive",
            "tags": ["Operation"],
            "summary": "Is the process alive?",
            "responses": {"200": _plain("It is.")},
        }
    },
    "/readyz": {
        "get": {
            "operationId": "ready",
            "tags": ["Operation"],
            "summary": "Does it take work?",
            "responses": {"200": _plain("It does."), "503": _plain("It does not, now.")},
        }
    },
    "/metrics": {
        "get": {
            "operationId": "metrics",
            "tags": ["Operation"],
            "summary": "Metrics for Prometheus",
            "responses": {"200": _plain("The metrics.")},
        }
    },
}
