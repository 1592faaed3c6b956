"""Where a worker may say that it is, and whether two addresses are one in two spellings.

Refuses what no ComfyUI has: link-local addresses, where clouds keep credentials, and this server's own. A name is
looked up; one that cannot be is left to the probes, which also prove that the worker itself answers there.
"""

import asyncio
import contextlib
import ipaddress
import socket
from urllib.parse import urlsplit

from proxy.base.errors import BadInput

LOOK_UP_S = 5.0
PORTS = {"http": 80, "https": 443}
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Place = tuple[str, int, str]


def place_of(url: str) -> Place:
    """Host, port and path of a clean URL, the same for every spelling of it. Names are not looked up.

    ComfyUI has all of its routes below `/api` too.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    number = _number(host)
    if host == "localhost" or (number is not None and number.is_loopback):
        host = "127.0.0.1"
    elif number is not None:
        host = str(number)
    return host, parts.port or PORTS[parts.scheme], parts.path.rstrip("/").removesuffix("/api")


async def check_address(url: str, own_port: int | None) -> None:
    """Raises BadInput for an address where no worker can be. `own_port` is where this server listens."""
    host, port, _path = place_of(url)
    number = _number(host)
    for found in [number] if number is not None else await _looked_up(host):
        if found.is_link_local or found.is_multicast or found.is_unspecified:
            raise BadInput(f"{host} is no address of a worker. Give one that this server reaches: --advertise URL.")
        if port == own_port and await asyncio.to_thread(_is_ours, found):
            raise BadInput(f"{host}:{port} is this server itself. Give the worker's own address: --advertise URL.")


def _number(host: str) -> Address | None:
    """The address that a host is, in any spelling that a resolver would take for one, such as 127.1."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host.partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return mapped or address
    with contextlib.suppress(OSError, UnicodeError):
        return ipaddress.IPv4Address(socket.inet_aton(host))
    return None


async def _looked_up(host: str) -> list[Address]:
    try:
        async with asyncio.timeout(LOOK_UP_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    numbers = (_number(str(entry[4][0])) for entry in found)
    return [number for number in numbers if number is not None]


def _is_ours(address: Address) -> bool:
    """Whether this machine has the address: nobody else's can be bound."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
