"""Where a request comes from, by its ASGI scope: which address, over HTTPS or not, from our pages or another site's.

Pure, and never decides who may ask.
"""

from collections.abc import Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


def client_address(scope: Scope) -> str:
    """The browser's address, as uvicorn tells it (X-Forwarded-For counts from trusted proxies only); "" if unknown."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def is_https(scope: Scope) -> bool:
    """Whether the browser came by HTTPS, as far as uvicorn and its trusted proxies know."""
    return scope.get("scheme") in {"https", "wss"}


def same_origin(scope: Scope, allowed: Collection[str]) -> bool:
    """Whether an unsafe request or a WebSocket comes from our own pages, an allowed origin, or no browser at all.

    Schemes are not compared: websocket-client sends `Origin: http://host` whatever it speaks, and a TLS-ending proxy
    may not tell us. Sec-Fetch-Site cannot be set by a page, so it is believed where a browser sends it.
    """
    origins = header_values(scope, b"origin")
    site = header_values(scope, b"sec-fetch-site")
    if not origins:
        return not site or site[-1] in {b"same-origin", b"none"}
    if len(origins) > 1 or len(site) > 1:
        return False
    origin = _text(origins[0]).strip().lower()
    if origin in {entry.strip().lower().rstrip("/") for entry in allowed}:
        return True
    if site:
        return site[0] in {b"same-origin", b"none"}
    hosts = header_values(scope, b"host")
    return len(hosts) == 1 and _same_host(origin, _text(hosts[0]).strip().lower(), is_https(scope))


def header_values(scope: Scope, name: bytes) -> list[bytes]:
    """All values of one header."""
    return [value for key, value in scope["headers"] if key == name]


def _same_host(origin: str, host: str, https: bool) -> bool:
    try:
        left, right = urlsplit(origin), urlsplit(f"//{host}")
        if left.scheme not in DEFAULT_PORTS or not left.hostname or left.hostname != right.hostname:
            return False
        if left.username is not None or right.username is not None:
            return False
        if left.port is None and right.port is None:
            return True
        return (left.port or DEFAULT_PORTS[left.scheme]) == (right.port or (443 if https else 80))
    except ValueError:
        return False


def _text(value: bytes) -> str:
    return value.decode("latin-1")
