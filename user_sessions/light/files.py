"""The user's directories as ComfyUI's `type` names them, and how a file of theirs goes out.

Owns containment: every path a request names is resolved (symlinks too) and must stay below its root. Writes nothing.
"""

import mimetypes
import os
from collections.abc import Mapping
from email.utils import quote
from pathlib import Path
from urllib.parse import quote as percent

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from proxy.base.errors import BadInput, Forbidden
from user_sessions.directories import Directories

TYPES = ("input", "output", "temp")

DOWNLOAD = {
    "text/html",
    "text/html-sandboxed",
    "application/xhtml+xml",
    "text/javascript",
    "application/javascript",
    "application/x-javascript",
    "text/css",
}
"""Types a browser would run in our origin: ComfyUI sends them as octet-stream."""

XML = ("+xml", "/xml")
"""Ends of types that run scripts only when navigated to (SVG, XSLT, any XML that holds XHTML): `attachment` stops that,
while `<img>` still shows the picture."""

HARMLESS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
"""Of every answer with what a user sent: the second takes origin and scripts from whatever a browser opens anyway."""


class Areas:
    """A session's input, output and temp directories; `input` falls back to the operator's public, read-only one."""

    def __init__(self, directories: Directories, public: Path) -> None:
        self._roots = {name: real(getattr(directories, name)) for name in TYPES}
        self._shared = {"input": real(public / "input")}

    def root(self, area: str) -> Path | None:
        """The user's own directory of that type, None for a type ComfyUI does not know."""
        return self._roots.get(area)

    def shared(self, area: str) -> Path | None:
        """Where files of that type are looked for when the user has none of that name."""
        return self._shared.get(area)

    def find(self, area: str, subfolder: str, name: str) -> Path | None:
        """The file, the user's own before the shared one. Raises BadInput or Forbidden for names that lead out."""
        own, shared = self._roots.get(area), self._shared.get(area)
        candidates = [inside(own, subfolder, name)] if own else []
        candidates += [below(shared, subfolder, name)] if shared else []
        for path in candidates:
            if os.path.isfile(path):  # noqa: PTH113 - pathlib's raises on names that are too long
                return path
        return None


def real(path: Path) -> Path:
    """Without symlinks, the form `inside` compares with."""
    return Path(os.path.realpath(path))


def inside(root: Path, *parts: str) -> Path:
    """The real path of `parts` below the real path `root`. Raises BadInput or Forbidden."""
    try:
        path = os.path.realpath(os.path.join(root, *parts))  # noqa: PTH118 - an absolute part must replace root, and fail
    except (ValueError, OSError) as error:  # NUL, lone surrogates, symlink loops
        raise BadInput("This is not a usable file name.") from error
    if path != str(root) and not path.startswith(f"{root}{os.sep}"):
        raise Forbidden("This path leads out of your files.")
    return Path(path)


def below(root: Path, *parts: str) -> Path:
    """`parts` below `root` by their spelling alone: in shared folders an operator's links may lead anywhere."""
    path = os.path.abspath(os.path.join(root, *parts))  # noqa: PTH100, PTH118 - resolve() would follow those links
    if not path.startswith(f"{root}{os.sep}"):
        raise Forbidden("This path leads out of the shared files.")
    return Path(path)


def annotated(name: str) -> tuple[str, str | None]:
    """Split ComfyUI's `name [output]` form into name and type; without a suffix the type is None."""
    for area in TYPES:
        if name.endswith(f"[{area}]"):
            return name[: -len(area) - 3], area
    return name, None


def disposition(kind: str, name: str) -> str:
    """A Content-Disposition value, quoted, with the RFC 5987 form when the name is not ASCII."""
    plain = quote("".join(c if " " <= c <= "~" else "_" for c in name))
    value = f'{kind}; filename="{plain}"' if kind else f'filename="{plain}"'
    return value if name.isascii() else f"{value}; filename*=UTF-8''{percent(name, safe='')}"


def file_headers(name: str, *, download: bool = False) -> dict[str, str]:
    """Headers of a user's file, which must never run as a page of this site."""
    content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    attached = download or content_type in DOWNLOAD or content_type.lower().endswith(XML)
    return {
        hdrs.CONTENT_DISPOSITION: disposition("attachment" if attached else "", name),
        hdrs.CONTENT_TYPE: "application/octet-stream" if content_type in DOWNLOAD else content_type,
        **HARMLESS,
    }


class RangedFile(web.FileResponse):
    """A file with Range and ETag. aiohttp answers 206 to an `If-Range` whose ETag no longer matches; this sends all."""

    def __init__(self, path: Path | str, headers: Mapping[str, str]) -> None:
        super().__init__(path, chunk_size=256 * 1024, headers=headers)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Drop the Range when the copy it continues is not the present one."""
        condition = request.headers.get(hdrs.IF_RANGE, "")
        if condition.startswith(('"', "W/")) and condition != self._current_etag():
            headers = request.headers.copy()
            headers.popall(hdrs.RANGE, None)
            request = request.clone(headers=headers)
        return await super().prepare(request)

    def _current_etag(self) -> str | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
