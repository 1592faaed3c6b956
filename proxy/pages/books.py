"""The administrators' pages of groups, reservations and usage, and what other pages show of one's own share."""

from collections.abc import Sequence
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from backend_pool.books.usage import By
from proxy.api.groups import group_infos, reservation_infos, share_info
from proxy.api.usage import report, span_of
from proxy.base.clock import now_ms
from proxy.bodies.backends import BackendInfo
from proxy.bodies.books import ReservationInfo
from proxy.pages.render import Renderer
from proxy.views.deps import Deps
from proxy.views.usage import bars, mean_wait, spell, usage_lines

SPANS = (7, 30, 90, 365)
DEFAULT_SPAN = 30
ROWS_SHOWN = 50
TOLD_AHEAD_MS = 2 * 3_600_000
DAY_MS = 86_400_000
TOLD_RESERVATIONS = 3


class BooksPages:
    """What each page shows; everything it changes goes through the API."""

    def __init__(self, deps: Deps, renderer: Renderer) -> None:
        self._deps = deps
        self._page = renderer.page
        self._texts = renderer.texts

    async def groups(self, request: Request) -> Response:
        """Groups with their members and quotas, and reservations."""
        rows = await self._deps.registry.listing()
        return self._page(
            request,
            "groups.html",
            groups=await group_infos(self._deps),
            reservations=[(row, span_text(row)) for row in reservation_infos(self._deps)],
            backends=[row.name for row in rows],
            spell=spell,
        )

    async def usage(self, request: Request) -> Response:
        """What everybody used: tiles, a chart by day, tables by user, group and backend."""
        text = request.query_params.get("days", "")
        days = next((span for span in SPANS if str(span) == text), DEFAULT_SPAN)
        span = span_of({"days": str(days)})
        by_day = await report(self._deps, By.DAY, span)
        nobody = {By.USER: "", By.GROUP: self._texts("usage.no_group"), By.BACKEND: self._texts("usage.no_backend")}
        tables = [
            (by.value, usage_lines((await report(self._deps, by, span)).rows, empty)) for by, empty in nobody.items()
        ]
        total = by_day.total
        tiles = [
            ("gpu", spell(total.gpu_s)),
            ("jobs", total.jobs),
            ("failed", total.failed),
            ("wait", mean_wait(total)),
            ("load", spell(total.load_s)),
        ]
        return self._page(
            request,
            "usage.html",
            days=days,
            spans=SPANS,
            tiles=tiles,
            bars=bars(by_day),
            tables=tables,
            shown=ROWS_SHOWN,
        )

    async def own(self, user_id: int) -> dict[str, object]:
        """Values of the account page: one's share and what one used."""
        used = await report(self._deps, By.DAY, span_of({"days": str(DEFAULT_SPAN)}, user_id))
        share = share_info(self._deps, user_id)
        renewed = "" if share.quota is None else _when(share.quota.resets_ms)
        return {
            "share": share,
            "used": used.total,
            "bars": bars(used),
            "days": DEFAULT_SPAN,
            "spell": spell,
            "renewed": renewed,
        }

    def notes(self, user_id: int) -> dict[str, object]:
        """Values of the home page: one's share, and reservations of now and soon that are somebody else's."""
        share = share_info(self._deps, user_id)
        now = now_ms()
        others = [row for row in reservation_infos(self._deps) if row.group != share.group]
        soon = [row for row in others if row.begin_ms < now + TOLD_AHEAD_MS]
        return {"share": share, "reserved": [self._told(row) for row in soon[:TOLD_RESERVATIONS]]}

    def kept(self, backends: Sequence[BackendInfo]) -> dict[int, str]:
        """Which backends are a group's now, and until when."""
        kept: dict[int, str] = {}
        for row in reservation_infos(self._deps):
            text = self._texts("reserve.kept", group=row.group, end=_clock(row.end_ms))
            for backend in backends if row.active else ():
                if backend.id in row.backends or (row.labels and set(row.labels) <= set(backend.labels)):
                    kept.setdefault(backend.id, text)
        return kept

    def _told(self, row: ReservationInfo) -> str:
        marked = [self._texts("reserve.marked", labels=", ".join(row.labels))] if row.labels else []
        where, end = ", ".join([*row.backend_names, *marked]), _clock(row.end_ms)
        if row.active:
            return self._texts("reserve.told_now", where=where, group=row.group, end=end)
        return self._texts("reserve.told_soon", where=where, group=row.group, begin=_clock(row.begin_ms), end=end)


def span_text(row: ReservationInfo) -> tuple[str, str]:
    """When it begins and ends."""
    return _when(row.begin_ms), _when(row.end_ms)


def _when(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _clock(moment_ms: int) -> str:
    """With its day where the time alone would be taken for an earlier one."""
    if moment_ms - now_ms() >= DAY_MS:
        return _when(moment_ms)
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%H:%M")
