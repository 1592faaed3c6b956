"""Header rules of the data plane, as pure functions over ASGI header lists (bytes, names in lower case).

Owns what may pass between a browser and a session: hop-by-hop headers, our cookies and credentials, Host and Origin,
Cache-Control. Does no I/O, keeps no state, and never decides who may ask.
"""

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from proxy.access.origin import Scope, client_address, is_https

Headers = list[tuple[bytes, bytes]]

COOKIE_PREFIX = b"comfy_cluster_"

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


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    """Headers that the Connection header declares to be for this hop alone."""
    tokens: set[bytes] = set()
    for name, value in headers:
        if name == b"connection" and value not in {b"keep-alive", b"close"}:
            tokens.update(token.strip().lower() for token in value.split(b","))
    return frozenset(tokens)
