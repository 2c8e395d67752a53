"""The suite sees a client that does not do what it declares, and one that does what it does not declare."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from clients.build import Client, clients
from tests.support import examples
from tests.support.debian import TIMEOUT

from .features import FEATURES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.serving import Server

    from .conftest import Builds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TIMEOUT)]

FAULTS = {
    "submit": ("request_id=str(uuid.uuid4())", 'request_id=""'),
    "submit_again": ("again = jobs.SubmitJob(request,", "again = jobs.SubmitJob(a_job('sleep', seconds=0),"),
    "watch": ("self.versions.append(step.version)", "self.versions.extend([step.version] * 2)"),
    "resume": ("resume_token=self._token)", 'resume_token="")'),
    "retry": ('["UNAVAILABLE"]', '["ABORTED"]'),
    "reconnect": ("is not grpc.StatusCode.UNAVAILABLE", "is grpc.StatusCode.UNAVAILABLE"),
    "deadline": ("GetJobRequest(id=first.job.id), timeout=TIMEOUT)", "GetJobRequest(id=first.job.id))"),
    "result": ("json_format.MessageToDict(job.result)", "{}"),
    "cancel": ("jobs.CancelJob(", "print if True else ("),
    "error": ("wrong.field_violations[0].field", '"payload"'),
    "not_found": ("info.reason", "info.domain"),
}
"""A part of the Python example, and what breaks the feature when it stands there instead."""


@pytest.fixture
def python(tmp_path: Path, builds: Builds) -> Client:
    """A copy of the Python client, to break."""
    (original,) = (client for client in clients() if client.name == "python")
    builds(original)
    return replace(original, folder=shutil.copytree(original.folder, tmp_path / "python"))


def test_there_is_a_fault_for_each_feature() -> None:
    assert FAULTS.keys() == FEATURES.keys()


@pytest.mark.parametrize("feature", FEATURES)
def test_a_fault_is_seen(feature: str, python: Client, server: Server) -> None:
    example = python.folder / "example.py"
    text, (part, other) = example.read_text("utf-8"), FAULTS[feature]
    assert text.count(part) == 1
    example.write_text(text.replace(part, other), "utf-8")
    run = examples.run(python, server.grpc_address, trouble=FEATURES[feature].trouble)
    with pytest.raises(AssertionError):
        FEATURES[feature].check(run)
