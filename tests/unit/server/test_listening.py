"""Addresses that cannot be listened on: refused, each with its reason."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from atlas_grpc.server.listening import AddressInUse, refused
from atlas_grpc.testing import serving

if TYPE_CHECKING:
    from pathlib import Path


async def start(address: str) -> str:
    async with serving(worker=False, grpc_address=address, grace=0) as server:
        return server.grpc_address


async def test_a_socket_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AddressInUse, match="No such file or directory"):
        await start(f"unix:{tmp_path}/none/atlas.sock")
    with pytest.raises(AddressInUse, match="too long"):
        await start(f"unix:{tmp_path}/{'x' * 200}")


async def test_the_socket_of_a_running_server_is_not_taken_away(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/atlas.sock"
    async with serving(worker=False, grpc_address=address, grace=0):
        with pytest.raises(AddressInUse, match="in use"):
            await start(address)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(f"{tmp_path}/atlas.sock")


async def test_a_socket_that_a_dead_server_left_is_taken(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/atlas.sock")
    assert await start(f"unix:{tmp_path}/atlas.sock") == f"unix:{tmp_path}/atlas.sock"


async def test_a_file_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AddressInUse, match="in use"):
        await start(f"unix:{tmp_path}/file")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_reason_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "in use" in str(refused(f"127.0.0.1:{taken.getsockname()[1]}"))
    assert "assign" in str(refused("203.0.113.1:0"))
