"""What was used, over the API: everybody's for administrators, one's own for everybody; as sums or as CSV."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from backend_pool.books.usage import By, Span, Sums, group_key, shown_day, total
from proxy.api.operations import Call
from proxy.base.errors import BadInput, NotFound
from proxy.bodies.books import UsageReport, UsageSums
from proxy.views.deps import Deps
from proxy.views.usage_csv import jobs_csv, sums_csv

DAYS, MOST_DAYS = 30, 3660
QUERY = ("days",)
WORDS = ("from", "to", "by")
OF = ("user", "group")
"""Whose, for administrators."""


async def usage(call: Call) -> BaseModel:
    """Everybody's, or one user's or group's, by user, group, day or backend."""
    return await report(call.deps, wanted(call.request.query_params, By.USER), await _admin_span(call))


async def own_usage(call: Call) -> BaseModel:
    """The caller's, by day or backend."""
    return await report(
        call.deps, wanted(call.request.query_params, By.DAY), span_of(call.request.query_params, call.who.user_id)
    )


async def usage_csv(call: Call) -> Response:
    """The same as CSV: one row per job, or sums with `by`."""
    return await _csv(call, await _admin_span(call))


async def own_usage_csv(call: Call) -> Response:
    """The caller's as CSV: one row per job, or sums with `by`."""
    return await _csv(call, span_of(call.request.query_params, call.who.user_id))


def span_of(query: Mapping[str, str], user_id: int | None = None) -> Span:
    """`?from=2026-01-01&to=2026-01-31`, or the last `?days=`. Raises BadInput."""
    last = _day(query["to"]) if "to" in query else datetime.now(UTC).date()
    if "from" in query:
        first = _day(query["from"])
    else:
        text = query.get("days", str(DAYS))
        if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MOST_DAYS):
            raise BadInput(f"`days` must be a whole number from 1 to {MOST_DAYS}.")
        first = last - timedelta(days=int(text) - 1)
    if not 0 <= (last - first).days < MOST_DAYS:
        raise BadInput("`from` must not be after `to`, nor ten years before it.")
    return Span(_number(first), _number(last), user_id)


def wanted(query: Mapping[str, str], default: By) -> By:
    """`?by=`. Raises BadInput."""
    text = query.get("by", default.value)
    for by in By:
        if text == by.value:
            return by
    raise BadInput(f"`by` must be one of {', '.join(by.value for by in By)}.")


async def report(deps: Deps, by: By, span: Span) -> UsageReport:
    """As the API shows it."""
    rows = await named_sums(deps, by, span)
    return UsageReport(
        first=shown_day(span.first),
        last=shown_day(span.last),
        by=by.value,
        total=_shown(total(rows)),
        rows=[_shown(row) for row in rows],
    )


async def named_sums(deps: Deps, by: By, span: Span) -> list[Sums]:
    """Sums with users by name and days as people write them."""
    rows = await deps.books.sums(by, span)
    if by is By.DAY:
        return [replace(row, key=shown_day(int(row.key))) for row in rows]
    if by is By.USER:
        names = await _names(deps)
        return [replace(row, key=names.get(int(row.key), f"user {row.key}")) for row in rows]
    return rows


async def _admin_span(call: Call) -> Span:
    query = call.request.query_params
    group, span = query.get("group"), span_of(query)
    if "user" in query:
        user = await call.deps.access.users.by_name(query["user"])
        if user is None:
            raise NotFound("There is no such user.")
        span = replace(span, user_id=user.key)
    return span if group is None else replace(span, group=group_key(group))


async def _csv(call: Call, span: Span) -> Response:
    name = f"usage-{shown_day(span.first)}-{shown_day(span.last)}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"}
    if "by" in call.request.query_params:
        rows = await named_sums(call.deps, wanted(call.request.query_params, By.USER), span)
        return Response(sums_csv(rows), media_type="text/csv", headers=headers)
    names = await _names(call.deps)
    books = call.deps.books
    stream = jobs_csv(lambda after: books.entries(span, after), names)
    return StreamingResponse(stream, media_type="text/csv", headers=headers)


async def _names(deps: Deps) -> Mapping[int, str]:
    return {user.key: user.name for user in await deps.access.users.listing()}


def _shown(row: Sums) -> UsageSums:
    times = {f"{name}_s": round(getattr(row, f"{name}_ms") / 1000, 1) for name in ("gpu", "load", "run", "wait")}
    counts = {name: getattr(row, name) for name in ("jobs", "succeeded", "failed", "cancelled")}
    return UsageSums.model_validate({"key": row.key, **counts, **times})


def _day(text: str) -> date:
    try:
        day = date.fromisoformat(text)
        if day.year < 2000 or len(text) != len("2026-01-31"):
            raise ValueError(text)
        return day
    except ValueError:
        raise BadInput("A day is written as 2026-01-31.") from None


def _number(day: date) -> int:
    return day.year * 10_000 + day.month * 100 + day.day
