"""The pages' own CSS, scripts and icons under /cluster/static/, open to everybody.

Read once and kept in memory: they are few and small. An address with the right `?v=` never changes and is cached for
good; without it the browser asks again each time.
"""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from proxy.api.errors import error_response
from proxy.base.errors import NotFound

PREFIX = "/cluster/static/"
GZIP_FROM = 600


@dataclass(frozen=True)
class Asset:
    """One file, ready to send."""

    content: bytes
    zipped: bytes | None
    media_type: str
    mark: str


class StaticFiles:
    """An ASGI application over the files of one directory, read at the start: no path ever reaches the disk."""

    def __init__(self, directory: Path) -> None:
        self._assets = {
            path.relative_to(directory).as_posix(): _asset(path) for path in directory.rglob("*") if path.is_file()
        }

    def url(self, name: str) -> str:
        """The address of a file that may be cached for good. Raises KeyError."""
        return f"{PREFIX}{name}?v={self._assets[name].mark}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._response(scope)(scope, receive, send)

    def _response(self, scope: Scope) -> Response:
        asset = self._assets.get(scope["path_params"]["name"])
        if asset is None:
            return error_response(scope, NotFound("There is no such file."))
        request = Headers(scope=scope)
        lasting = QueryParams(scope["query_string"]).get("v") == asset.mark
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable" if lasting else "no-cache",
            "ETag": f'"{asset.mark}"',
            "Vary": "Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
        }
        if request.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        content = asset.content
        if asset.zipped is not None and "gzip" in request.get("accept-encoding", ""):
            content, headers["Content-Encoding"] = asset.zipped, "gzip"
        return Response(content, headers=headers, media_type=asset.media_type)


def _asset(path: Path) -> Asset:
    content = path.read_bytes()
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if path.suffix == ".js":
        media_type = "text/javascript"
    zipped = gzip.compress(content, 9, mtime=0) if len(content) >= GZIP_FROM else None
    return Asset(content, zipped, media_type, hashlib.sha256(content).hexdigest()[:16])
