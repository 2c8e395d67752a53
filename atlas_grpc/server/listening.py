"""Addresses that gRPC is to listen on: what keeps it from that, which gRPC itself does not say."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from ..options import parse_address

if TYPE_CHECKING:
    from ..options import Address

_PATIENCE = 1.0


class AddressInUse(OSError):
    """The address cannot be listened on."""


def refuse_taken(text: str) -> None:
    """Raises AddressInUse for a Unix socket on which somebody listens. gRPC would unlink it and take its place, as it
    rightly does with one that a dead server left.
    """
    address = parse_address(text)
    if address.path and _answers(address.path):
        raise _refusal(text, OSError(errno.EADDRINUSE, ""))


def refused(text: str) -> AddressInUse:
    """The error for an address that gRPC could not listen on, with the reason."""
    return _refusal(text, _try(parse_address(text)))


def _refusal(text: str, error: OSError | None) -> AddressInUse:
    if error is None:
        why = "gRPC does not take it"
    elif error.errno == errno.EADDRINUSE:
        why = "the address is in use"
    else:
        why = error.strerror or str(error)
    return AddressInUse(f"cannot listen for gRPC on {text}: {why}")


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PATIENCE)
        try:
            probe.connect(path)
        except TimeoutError:
            return True
        except OSError:
            return False
    return True


def _try(address: Address) -> OSError | None:
    """Does what gRPC does, to learn why it fails."""
    try:
        places: list[tuple[int, tuple[Any, ...] | str]] = [(socket.AF_UNIX, address.path)]
        if not address.path:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            places = [(info[0], info[4]) for info in found]
        for family, place in places:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
    except OSError as error:
        return error
    return None
