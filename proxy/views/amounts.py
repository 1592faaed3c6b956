"""Times, spans of time and sizes as people read them."""

from datetime import UTC, datetime

from proxy.base.clock import now_ms

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `2 h`."""
    if seconds < 10:
        return f"{max(seconds, 0.1):.1f} s"
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{whole} s"
    minutes, rest_s = divmod(whole, MINUTE_S)
    if whole < HOUR_S:
        return f"{minutes} min {rest_s} s" if rest_s else f"{minutes} min"
    hours, rest = divmod(minutes, MINUTE_S)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


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
