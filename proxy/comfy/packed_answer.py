"""One user's JSON document as an answer: 304 when the browser has it, gzip when it takes that, else as it is. Blocking.

Never shared between users: a cache on the way must ask, and tell credentials and codings apart.
"""

import re

from starlette.requests import Request
from starlette.responses import Response

from backend_pool.offers.packed import Beginning
from proxy.comfy.json_answer import dumps

HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding, Cookie, Authorization"}
SMALLEST_BYTES = 1024


def packed(request: Request, beginning: Beginning, end: bytes) -> Response:
    """The document made of these two parts."""
    etag = f'W/"{beginning.version(end)}"'
    headers = {**HEADERS, "ETag": etag}
    if etag in (part.strip() for part in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    if len(beginning.content) + len(end) >= SMALLEST_BYTES and takes_gzip(request.headers.get("accept-encoding", "")):
        headers["Content-Encoding"] = "gzip"
        return Response(beginning.gzipped(end), 200, headers, "application/json")
    return Response(beginning.whole(end), 200, headers, "application/json")


def packed_json(request: Request, content: object) -> Response:
    """A value as such an answer."""
    return packed(request, NOTHING, dumps(content).encode("ascii"))


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header allows gzip."""
    named: dict[str, bool] = {}
    for item in accepted.lower().split(","):
        coding, _, parameter = item.partition(";")
        weight = parameter.strip().removeprefix("q=")
        named[coding.strip()] = re.fullmatch(r"0(\.0*)?", weight) is None
    return named.get("gzip", named.get("*", False))


NOTHING = Beginning(b"")
