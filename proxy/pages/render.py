"""Templates to responses: Jinja with autoescape, security headers, and ETags so that a live page costs little.

The policy allows no inline script or style and nothing from elsewhere; a page that is fetched again answers 304 when
nothing in it changed.
"""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import Response

from proxy.access.auth import IDENTITY
from proxy.base.clock import now_ms
from proxy.pages.static_files import StaticFiles
from proxy.pages.texts import Texts

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
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400


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


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{max(seconds, 0.1):.1f} s"
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S} s"
    return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S} min"


def left(time_ms: int) -> str:
    """How long until then, coarse where it is long: `40 s`, `9 min`."""
    return coarse(time_ms - now_ms())


def since(time_ms: int) -> str:
    """How long it has been, coarse where it is long."""
    return coarse(now_ms() - time_ms)


def brief(seconds: float) -> str:
    """`12 ms`, `0.4 s`, `12 s`, `2 h 10 min`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.1 else duration(seconds)


def coarse(span_ms: int) -> str:
    """`0 s`, `40 s`, `9 min`, `2 h 10 min`: a page seldom changes by it alone."""
    seconds = max(0, span_ms) // 1000
    if seconds < MINUTE_S:
        return f"{seconds // 5 * 5} s"
    return f"{seconds // MINUTE_S} min" if seconds < HOUR_S else duration(seconds)


def gigabytes(count: int | None) -> str:
    """`23.6 GB` of 2**30 bytes, as ComfyUI's users know graphics memory."""
    return "" if count is None else f"{count / 2**30:.1f} GB"


def megabytes(count: int) -> str:
    """`48 MB`, or gigabytes when there are that many."""
    return f"{count / 2**20:.0f} MB" if count < 2**30 else gigabytes(count)


def stamp(time_ms: int | None) -> str:
    """ISO time in UTC, for `<time datetime>`; the page's script shows it in the reader's own zone."""
    return "" if time_ms is None else datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def browser(user_agent: str) -> str:
    """`Firefox, Windows` of a User-Agent; its first word for programs."""
    # Chromium's name is in everybody's, so the special ones are looked for first.
    name = next((shown for word, shown in BROWSERS if word in user_agent), "")
    system = next((shown for word, shown in SYSTEMS if word in user_agent), "")
    if name:
        return f"{name}, {system}" if system else name
    return user_agent.partition("/")[0][:40]


BROWSERS = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
SYSTEMS = (
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)
