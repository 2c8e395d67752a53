"""A service that exercises everything a gateway made from descriptors has to map: it answers what it was asked."""

from __future__ import annotations

import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorSet

HERE = Path(__file__).parent
PROTO = HERE.parents[1] / "proto"
SERVICE = "gateway.test.v1.EchoService"


def echo_service() -> Any:
    """The descriptor of EchoService, compiled from echo.proto at the first call."""
    pool = descriptor_pool.Default()
    try:
        return pool.FindServiceByName(SERVICE)
    except KeyError:
        pass
    from google.protobuf import field_mask_pb2, wrappers_pb2  # noqa: F401 - echo.proto depends on them
    from grpc_tools import protoc

    include = [f"-I{HERE}", f"-I{PROTO / 'third_party'}", f"-I{resources.files('grpc_tools') / '_proto'}"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "echo.binpb")
        assert protoc.main(["protoc", *include, f"--descriptor_set_out={out}", "echo.proto"]) == 0
        for file in FileDescriptorSet.FromString(out.read_bytes()).file:
            pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName(SERVICE)


class EchoHandler(grpc.GenericRpcHandler):
    """Answers the bytes it was sent."""

    def service(self, details: Any) -> Any:
        if not details.method.startswith(f"/{SERVICE}/"):
            return None

        async def echo(request: bytes, _context: Any) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(echo)
