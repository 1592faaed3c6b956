"""The official frontend package at `/`: a table of its files made once before the fork, and how each is cached.

Hashed names below `assets/` never change their content and are kept for a year; everything else is revalidated by ETag.
Compressed copies come from `asset_cache`; while there are none the plain file goes out. Paths are looked up in the
table, never joined, so no request reaches a file that is not in it.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from aiohttp import hdrs, web

from proxy.base.errors import ConfigError
from user_sessions.light.asset_cache import cache_name, compressible
from user_sessions.light.files import RangedFile

PACKAGE = "comfyui_frontend_package"
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATED = "no-cache"
HASHED = re.compile(r"assets/[^/]+-[A-Za-z0-9_-]{8}\.[a-z0-9]+(\.map)?")

CODINGS = (("br", ".br"), ("gzip", ".gz"))
"""Content codings in order of preference, with the suffix of their copies."""

CONTENT_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".ico": "image/x-icon",
    ".webm": "video/webm",
    ".mp4": "video/mp4",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".ttf": "font/ttf",
    ".eot": "application/vnd.ms-fontobject",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".wasm": "application/wasm",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: where it is, where its compressed copies would be (without their suffix), and its headers."""

    path: str
    packed: str | None
    content_type: str
    cache_control: str


class Frontend:
    """The files of one frontend version."""

    def __init__(self, root: Path, version: str, cache: Path | None) -> None:
        self.root = root
        self.version = version
        self.cache = cache
        files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in _walk(root)]
        self.cache_name = cache_name(version, files)
        packed = None if cache is None else cache / self.cache_name
        self._table = {name: _asset(root, packed, name, size) for name, size, _ in files}
        if "index.html" not in self._table:
            raise ConfigError(f"There is no index.html in {root}. Install {PACKAGE.replace('_', '-')} again.")
        self._table[""] = self._table["index.html"]

    @classmethod
    def installed(cls, cache: Path | None) -> "Frontend":
        """The frontend package of this Python. Raises ConfigError when there is none."""
        spec = util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise ConfigError("The frontend is missing. Run: pip install comfyui-frontend-package")
        return cls(Path(spec.origin).parent / "static", metadata.version(PACKAGE), cache)

    def extensions(self) -> list[str]:
        """The core extensions as ComfyUI lists them: `/extensions/**.js` of the web root."""
        return [f"/{name}" for name in self._table if name.startswith("extensions/") and name.endswith(".js")]

    def routes(self) -> list[web.RouteDef]:
        """The rest of the URL space: must be registered last."""
        return [web.get("/{path:.*}", self._get)]

    async def _get(self, request: web.Request) -> web.StreamResponse:
        answer = self.answer(request.match_info["path"], request)
        if answer is None:
            raise web.HTTPNotFound
        return answer

    def answer(self, name: str, request: web.Request) -> web.StreamResponse | None:
        """The file of that name as this request wants it; None for one that is not in the table."""
        asset = self._table.get(name)
        if asset is None:
            return None
        headers: dict[str, str] = {hdrs.CONTENT_TYPE: asset.content_type, hdrs.CACHE_CONTROL: asset.cache_control}
        if asset.packed is None:
            return RangedFile(asset.path, headers)
        headers[hdrs.VARY] = "Accept-Encoding"
        accepted = accepted_codings(request.headers.get(hdrs.ACCEPT_ENCODING, ""))
        for coding, suffix in CODINGS:
            if coding in accepted and os.path.isfile(asset.packed + suffix):  # noqa: PTH113
                return RangedFile(asset.packed + suffix, headers | {hdrs.CONTENT_ENCODING: coding})
        return RangedFile(asset.path, headers)


def accepted_codings(header: str) -> set[str]:
    """Which of our codings an Accept-Encoding header allows; `q=0` refuses one, `*` stands for those not named."""
    named: dict[str, bool] = {}
    for item in header.lower().split(","):
        coding, _, parameter = item.partition(";")
        weight = parameter.strip().removeprefix("q=")
        named[coding.strip()] = re.fullmatch(r"0(\.0*)?", weight) is None
    others = named.get("*", False)
    return {coding for coding, _ in CODINGS if named.get(coding, others)}


def _asset(root: Path, packed: Path | None, name: str, size: int) -> Asset:
    return Asset(
        path=f"{root}/{name}",
        packed=f"{packed}/{name}" if packed is not None and compressible(name, size) else None,
        content_type=CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream"),
        cache_control=IMMUTABLE if HASHED.fullmatch(name) else REVALIDATED,
    )


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            yield path.relative_to(root).as_posix(), path.stat()
