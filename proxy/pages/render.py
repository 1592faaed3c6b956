"""Templates to responses: Jinja with autoescape, security headers, and ETags so that a live page costs little.

The policy allows no inline script or style and nothing from elsewhere; a page that is fetched again answers 304 when
nothing in it changed.
"""

import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import Response

from proxy.access.auth import IDENTITY
from proxy.base.clock import now_ms
from proxy.pages.browsers import browser
from proxy.pages.static_files import StaticFiles
from proxy.pages.texts import Texts
from proxy.views.amounts import DAY_S, HOUR_S, MINUTE_S, brief, duration, gigabytes, left, megabytes, since, stamp

TEMPLATES = Path(__file__).resolve().parent.parent.parent / "templates"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
    "Vary": "Cookie, Authorization",
}


class Renderer:
    """Owns the template environment and the static files' addresses."""

    def __init__(self, texts: Texts) -> None:
        self.static = StaticFiles(TEMPLATES / "static")
        self.texts = texts
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(t=texts, static=self.static.url, lang=texts.language)
        self._environment.filters.update(
            ago=self.ago, until=self.until, gigabytes=gigabytes, megabytes=megabytes, stamp=stamp, browser=browser
        )
        self._environment.filters.update(left=left, since=since, brief=brief)

    def page(self, request: Request, template: str, status: int = 200, **values: object) -> Response:
        """A page; 304 when the browser has exactly this one."""
        values.setdefault("me", request.scope.get(IDENTITY))
        content = self._environment.get_template(template).render(values, path=request.url.path).encode()
        headers = dict(HEADERS)
        if status == 200:
            headers["ETag"] = etag = f'W/"{hashlib.sha256(content).hexdigest()[:24]}"'
            if request.headers.get("if-none-match") == etag:
                return Response(status_code=304, headers=headers)
        else:
            headers["Cache-Control"] = "no-store"
        return Response(content, status, headers, "text/html")

    def ago(self, time_ms: int | None) -> str:
        """`3 minutes ago`; coarse on purpose, so that a page seldom changes by time alone."""
        if time_ms is None:
            return self.texts("time.never")
        seconds = max(0, now_ms() - time_ms) // 1000
        for unit, size in (("day", DAY_S), ("hour", HOUR_S), ("minute", MINUTE_S)):
            if seconds >= size:
                return self.texts.count(f"time.ago.{unit}", seconds // size)
        return self.texts("time.ago.now")

    def until(self, time_ms: int, end_ms: int) -> str:
        """How long something took: `4.2 s`."""
        return duration(max(0, end_ms - time_ms) / 1000)
