"""Who may talk to the port: browsers are kept from lending their place on this machine to other people's pages.

On loopback the server has no authentication, and every page that the user of this machine opens could reach it. So the
`Host` must be a name of this machine (a rebound DNS name is refused with 421), and a request that a browser sends for
a page of another site is refused with 403. Programs send neither `Origin` nor `Sec-Fetch-Site` and are not concerned.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from .failures import forbidden

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .http import Request

_SAFE = {"GET", "HEAD", "OPTIONS"}


class Guard:
    """Checks `Host`, `Origin` and `Sec-Fetch-Site`. Loopback is always allowed; `*` allows every host.

    `allowed_hosts` are names or addresses without a port. A page whose origin is one of them may call too.
    """

    def __init__(self, allowed_hosts: Iterable[str]) -> None:
        hosts = {_bare(host.strip().lower()) for host in allowed_hosts}
        self._any = "*" in hosts
        self._hosts = hosts
        self._known: dict[bytes, bool] = {}

    def __call__(self, request: Request) -> None:
        """Raises a 421 or 403 `Failure`."""
        headers = request.headers
        if not self._allows(headers.get(b"host", b"")):
            raise forbidden("this server does not answer for that host name", "HOST_NOT_ALLOWED", 421)
        origin = headers.get(b"origin")
        site = headers.get(b"sec-fetch-site")
        if origin is None and site is None:
            return
        if origin is not None:
            foreign = not self._allows(origin.partition(b"://")[2])
        else:
            followed_link = request.method in _SAFE and headers.get(b"sec-fetch-mode") == b"navigate"
            foreign = site == b"cross-site" and not followed_link
        if foreign:
            raise forbidden("pages of other sites may not call this server", "ORIGIN_NOT_ALLOWED")

    def _allows(self, authority: bytes) -> bool:
        known = self._known.get(authority)
        if known is None:
            known = self._decide(authority.decode("latin-1").lower())
            if len(self._known) < 256:
                self._known[authority] = known
        return known

    def _decide(self, authority: str) -> bool:
        if self._any and authority:
            return True
        host = _bare(authority)
        return host in self._hosts or _is_loopback(host)


def _bare(authority: str) -> str:
    """The host of `host`, `host:port`, `[::1]:port` or a bare IPv6 address."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    if authority.count(":") == 1:
        authority = authority.partition(":")[0]
    return authority.rstrip(".") if authority != "." else authority


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
