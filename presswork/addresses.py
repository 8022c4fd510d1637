"""Addresses that servers listen on: the URL that reaches one, whether others reach it too, why one can't be used.

It stands alone because the control room's services, the audit room and commands ask the same of theirs.
"""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})


def url_of(host: str, port: int) -> str:
    """Return the URL by which this machine reaches a server that listens there."""
    address = _ip(host)
    if address is None:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://{address if address.version == 4 else f'[{address}]'}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there. A name that may mean anything is not loopback."""
    address = _ip(host)
    return host in LOOPBACK_NAMES if address is None else address.is_loopback


def why_not(host: str, port: int) -> OSError | None:
    """Return the error of a server that would listen there now; None if it can. EADDRINUSE: the port is taken."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _protocol, _name, address = found[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None
