"""Who may talk to the engine: those who know its secret, if it has one, and never a page through a name of its own.

ComfyUI has neither check: on a machine of several people its port is open to all of them, and a website whose name is
made to point at 127.0.0.1 (DNS rebinding) passes its test of the Origin.
"""

import base64
import hmac
import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from proxy.base.errors import error_body

USER = "engine"
"""The user name before the secret in the engine's URL, `http://engine:SECRET@127.0.0.1:PORT`."""


def door(host: str, secret: str | None) -> Middleware:
    """401 without the secret, 403 for a Host that is not this machine when `host`, where it listens, is."""
    expected = f"Basic {base64.b64encode(f'{USER}:{secret}'.encode()).decode()}".encode()
    local = is_loopback(host)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        named = request.headers.get(hdrs.HOST)
        if local and named and not is_loopback(named):
            return _refused(403, "forbidden", "This engine answers to the names of this machine only.")
        given = request.headers.get(hdrs.AUTHORIZATION, "").encode("utf-8", "surrogateescape")
        if secret is not None and not hmac.compare_digest(given, expected):
            return _refused(401, "not_authenticated", "This engine needs its secret: use the URL in its URL file.")
        return await handler(request)

    return check


def is_loopback(address: str) -> bool:
    """Whether a host, with or without a port, is this machine under a name that no DNS server can give away."""
    try:
        name = urlsplit(f"//[{address}]" if address.count(":") > 1 and "[" not in address else f"//{address}").hostname
        return name == "localhost" or ipaddress.ip_address(name or "").is_loopback
    except ValueError:
        return False


def read_secret(path: Path) -> str:
    """The secret in a file. Raises OSError, also when it is empty."""
    secret = path.read_text().strip()
    if not secret:
        raise OSError(f"The secret file {path} is empty")
    return secret


def _refused(status: int, kind: str, message: str) -> web.Response:
    return web.json_response(error_body(kind, message), status=status)
