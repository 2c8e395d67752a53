from __future__ import annotations

import subprocess
import sys

import pytest

import atlas_grpc

SERVER_SIDE = ("server", "engine", "stores", "gateway", "worker", "cli", "observe")


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    program = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    return set(run.stdout.split())


def ours(modules: set[str]) -> set[str]:
    return {name.split(".")[1] for name in modules if name.startswith("atlas_grpc.")}


def test_the_package_itself_loads_nothing():
    modules = loaded_by("import atlas_grpc")
    assert ours(modules) == set()
    assert "grpc" not in modules


@pytest.mark.parametrize("statement", ["from atlas_grpc import Client", "import atlas_grpc; atlas_grpc.SyncClient"])
def test_the_client_loads_no_server(statement):
    modules = loaded_by(statement)
    assert ours(modules).isdisjoint(SERVER_SIDE)
    assert modules.isdisjoint({"pydantic", "starlette", "uvicorn", "protovalidate", "structlog"})


@pytest.mark.parametrize("name", ["handler", "Registry", "JobContext", "RetryIn", "errors"])
def test_a_handler_loads_no_grpc(name):
    modules = loaded_by(f"from atlas_grpc import {name}")
    assert modules.isdisjoint({"grpc", "google.protobuf"})
    assert ours(modules).isdisjoint({"client", "server", "engine", "stores", "pb"})


def test_the_public_names():
    assert len(atlas_grpc.__all__) <= 20
    assert sorted(atlas_grpc.__all__) == list(atlas_grpc.__all__)
    for name in atlas_grpc.__all__:
        assert getattr(atlas_grpc, name) is not None
    assert set(atlas_grpc.__all__) <= set(dir(atlas_grpc))
    with pytest.raises(AttributeError):
        _ = atlas_grpc.no_such_name


def test_star_import_gives_the_public_names():
    names: dict[str, object] = {}
    exec("from atlas_grpc import *", names)
    assert set(atlas_grpc.__all__) <= set(names)
