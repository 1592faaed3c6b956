"""Header rules of the data plane, as pure functions over ASGI header lists (bytes, names in lower case).

Owns what may pass between a browser and a session: hop-by-hop headers, our cookies and credentials, Host and Origin,
Cache-Control. Does no I/O, keeps no state, and never decides who may ask.
"""

import re
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote, urlsplit

Scope = MutableMapping[str, Any]
Headers = list[tuple[bytes, bytes]]

COOKIE_PREFIX = b"comfy_cluster_"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding "
    b"upgrade".split()
)
# Host, Origin and Sec-Fetch-Site go because ComfyUI answers 403 when a loopback Host meets a foreign Origin, or to any
# cross-site fetch; the edge has judged the origin by then. Expect goes because uvicorn has answered it.
REQUEST_ONLY_OURS = frozenset(
    b"host origin sec-fetch-site expect content-length authorization x-api-key comfy-user forwarded x-real-ip cookie "
    b"sec-websocket-key sec-websocket-version sec-websocket-extensions sec-websocket-protocol".split()
)
REQUEST_DROPPED = HOP_BY_HOP | REQUEST_ONLY_OURS
RESPONSE_DROPPED = HOP_BY_HOP | {b"server", b"date"}  # uvicorn writes its own
SHARED_CACHES = frozenset({b"surrogate-control", b"cdn-cache-control"})
BAD_BYTES = bytes(set(range(0x20)) - {0x09}) + b"\x7f"
NOT_IN_TARGET = re.compile(rb"[\x00-\x20\x7f-\xff]")


def request_headers(scope: Scope, added: Mapping[str, str]) -> Headers:
    """What the upstream is sent, without Host and Content-Length, which belong to the connection."""
    given: Headers = scope["headers"]
    named = _named_by_connection(given)
    out: Headers = []
    host = b""
    for name, value in given:
        if name in REQUEST_DROPPED:
            if name == b"cookie":
                if kept := foreign_cookies(value):
                    out.append((name, kept))
            elif name == b"host":
                host = value
        elif not name.startswith((b"x-cluster-", b"x-forwarded-")) and name not in named:
            out.append((name, value))
    out.append((b"x-forwarded-for", client_address(scope).encode()))
    out.append((b"x-forwarded-proto", b"https" if is_https(scope) else b"http"))
    if host:
        out.append((b"x-forwarded-host", host))
    out.extend((name.encode(), value.encode()) for name, value in added.items())
    return out


def response_headers(given: Iterable[tuple[bytes, bytes]], *, bodiless: bool, private: bool) -> Headers:
    """What the browser is sent. `bodiless`: a 204 or 304, whose Content-Length would promise a body."""
    lowered = [(name.lower(), value) for name, value in given]
    named = _named_by_connection(lowered)
    out: Headers = []
    caching: list[bytes] = []
    for name, value in lowered:
        if name in RESPONSE_DROPPED or name in named or value.translate(None, BAD_BYTES) != value:
            continue
        if name == b"set-cookie" and is_our_cookie(value):
            continue
        if name == b"content-length" and bodiless:
            continue
        if private:
            if name == b"cache-control":
                caching.append(value)
                continue
            if name in SHARED_CACHES:
                continue
        out.append((name, value))
    if private:
        # Vary, or the next person to log in with this browser would be shown this one's files from its cache.
        out += ((b"cache-control", private_cache_control(b",".join(caching))), (b"vary", b"Cookie"))
    return out


def private_cache_control(value: bytes) -> bytes:
    """The same policy without leave for shared caches. ComfyUI marks every image path `public, max-age=86400`."""
    if not value:
        return b"private"
    kept = []
    for part in value.split(b","):
        directive = part.strip()
        word = directive.partition(b"=")[0].strip().lower()
        if word and word not in {b"public", b"private", b"s-maxage", b"proxy-revalidate"}:
            kept.append(directive)
    return b", ".join([b"private", *kept])


def foreign_cookies(value: bytes) -> bytes:
    """A Cookie header without our cookies; the others byte for byte."""
    if COOKIE_PREFIX not in value:
        return value
    return b"; ".join(part.strip() for part in value.split(b";") if part.strip() and not is_our_cookie(part))


def is_our_cookie(pair: bytes) -> bool:
    """Whether `name=value...` is a cookie of ours, with or without the `__Host-` or `__Secure-` prefix."""
    name = pair.partition(b"=")[0].strip()
    return name.removeprefix(b"__Host-").removeprefix(b"__Secure-").startswith(COOKIE_PREFIX)


def target(scope: Scope) -> bytes:
    """Path and query byte for byte: `%2F` stays one segment, or saving workflows breaks. Raises ValueError."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    query: bytes = scope["query_string"]
    whole = raw + b"?" + query if query else raw
    if not whole.startswith(b"/") or NOT_IN_TARGET.search(whole):
        raise ValueError("The path cannot be forwarded.")
    return whole


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


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    """Headers that the Connection header declares to be for this hop alone."""
    tokens: set[bytes] = set()
    for name, value in headers:
        if name == b"connection" and value not in {b"keep-alive", b"close"}:
            tokens.update(token.strip().lower() for token in value.split(b","))
    return frozenset(tokens)


def _text(value: bytes) -> str:
    return value.decode("latin-1")
