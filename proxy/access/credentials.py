"""Finds every credential in a request and takes it out: what goes on to a session, a backend or a log carries none.

Pure: an ASGI scope in, credentials and a cleaned copy of the scope out. Whether a credential is any good is decided
elsewhere. The ways are those that existing ComfyUI clients know (docs/accounts.md).
"""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import unquote_plus, unquote_to_bytes

from starlette.types import Scope

from proxy.access.logins import COOKIE
from proxy.base.errors import BadInput

TOKEN = re.compile(r"[A-Za-z0-9._~-]{1,512}")
_PATH_TOKEN = re.compile(r"/t/([A-Za-z0-9._~-]{1,512})(/.*|$)", re.DOTALL)
_RAW_PATH_TOKEN = re.compile(rb"/t/[^/]+(/.*|$)", re.DOTALL)
COOKIE_LENGTH = 512
IN_ADDRESS = "comfy_cluster.token_in_address"
"""Key of a cleaned scope whose token stood in the path or the query: answers must not leak it (Referrer-Policy)."""

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Credential:
    """Something that may say who sends the request."""

    kind: Literal["token", "cookie"]
    value: str


@dataclass(frozen=True)
class Extracted:
    """Credentials in the order they are to be tried (explicit ones before the cookie), and the scope without tokens."""

    credentials: tuple[Credential, ...]
    scope: Scope


def extract(scope: Scope) -> Extracted:
    """Read and remove credentials; the scope passed in stays as it is. Raises BadInput for an escaped path token."""
    found: list[str] = []
    cleaned: dict[str, Any] = {}
    cookie = _from_headers(scope["headers"], found)
    if found or any(name in _SECRET_HEADERS for name, _ in scope["headers"]):
        cleaned["headers"] = [pair for pair in scope["headers"] if pair[0] not in _SECRET_HEADERS]
    in_address = _from_query(scope, found, cleaned) | _from_path(scope, found, cleaned)
    if in_address:
        cleaned[IN_ADDRESS] = True
        # The page that sent this request may have the token in its own address.
        headers: Headers = cleaned["headers"] if "headers" in cleaned else scope["headers"]
        cleaned["headers"] = [pair for pair in headers if pair[0] != b"referer"]
    credentials = [Credential("token", token) for token in dict.fromkeys(found)]
    if cookie is not None:
        credentials.append(Credential("cookie", cookie))
    return Extracted(tuple(credentials), cast(Scope, {**scope, **cleaned}) if cleaned else scope)


_SECRET_HEADERS = frozenset({b"authorization", b"x-api-key"})


def _from_headers(headers: Headers, found: list[str]) -> str | None:
    cookie = None
    for name, value in headers:
        if name == b"authorization":
            found.extend(_authorization(value.decode("latin-1").strip()))
        elif name == b"x-api-key":
            found.extend(_tokens([value.decode("latin-1").strip()]))
        elif name == b"cookie" and cookie is None:
            cookie = _cookie(value.decode("latin-1"))
    return cookie


def _authorization(value: str) -> list[str]:
    """`Bearer T`, `Basic base64(name:password)` with the token as either, or the bare token (EAS)."""
    scheme, _, rest = value.partition(" ")
    rest = rest.strip()
    if not rest:
        return _tokens([scheme])
    if scheme.lower() == "bearer":
        return _tokens([rest])
    if scheme.lower() != "basic":
        return []
    try:
        name, _, password = base64.b64decode(rest, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return []
    return _tokens([password, name])


def _tokens(words: Iterable[str]) -> list[str]:
    return [word for word in words if TOKEN.fullmatch(word)]


def _cookie(header: str) -> str | None:
    for pair in header.split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE and 0 < len(value) <= COOKIE_LENGTH:
            return value
    return None


def _from_query(scope: Scope, found: list[str], cleaned: dict[str, Any]) -> bool:
    """`?token=T`; every other parameter keeps its bytes."""
    query: bytes = scope.get("query_string", b"")
    # Cheap first look; a percent sign may spell "token" in a way only decoding shows.
    if b"token" not in query and b"%" not in query:
        return False
    kept: list[bytes] = []
    removed = False
    for piece in query.split(b"&"):
        name, _, value = piece.partition(b"=")
        if unquote_plus(name.decode("latin-1")) == "token":
            removed = True
            found.extend(_tokens([unquote_plus(value.decode("latin-1"))]))
        else:
            kept.append(piece)
    if removed:
        cleaned["query_string"] = b"&".join(kept)
    return removed


def _from_path(scope: Scope, found: list[str], cleaned: dict[str, Any]) -> bool:
    """`/t/T/rest` becomes `/rest`."""
    path: str = scope["path"]
    match = _PATH_TOKEN.fullmatch(path) if path.startswith("/t/") else None
    if match is None:
        return False
    rest = match[2] or "/"
    raw: bytes = scope.get("raw_path") or path.encode()
    raw_match = _RAW_PATH_TOKEN.fullmatch(raw)
    raw_rest = raw_match[1] or b"/" if raw_match else b""
    # The two forms must agree, or a session would be asked for something else than what was checked here.
    if unquote_to_bytes(raw_rest).decode("utf-8", "replace") != rest:
        raise BadInput("The address is malformed: write the token and the slash after it unescaped.")
    found.append(match[1])
    cleaned["path"] = rest
    cleaned["raw_path"] = raw_rest
    return True
