"""What a simulated load came to: how long, how busy, how fair, who waited. Pure.

Fairness and busy shares are taken of the time in which every busy user had jobs waiting.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backend_pool.books.share import Share
from proxy.bench.figures import jain, quantile, share_error
from proxy.bench.simulation import Load, Run


@dataclass(frozen=True)
class Outcome:
    """Of one way of placing."""

    makespan_s: float
    busy: float
    """Part of the backends' time that went into jobs, loading included."""
    loading: float
    """Part that went into loading."""
    loads: int
    """Jobs that had to load a model."""
    jain: float
    """1 when everybody had the same by their weight."""
    error: float
    """Largest distance of a part from the one due by weight, as a share of it; users of one weight count as one."""
    wait_p50_s: float
    wait_p95_s: float
    worst_p95_s: float
    """Of the user who waited longest."""
    light_wait_s: float
    """The longest wait of the users who are not busy."""


def outcome(load: Load, runs: Sequence[Run], light: frozenset[int] = frozenset()) -> Outcome:
    """Sum a simulation up. `light`: users who come with a job now and then."""
    busy = [run for run in runs if run.task.user_id not in light]
    begin_s, until_s = window(busy)
    span_s = (until_s - begin_s) * load.spots or 1.0
    weights = {run.task.user_id: load.shares.get(run.task.user_id, Share()).weight for run in busy}
    used = dict.fromkeys(weights, 0.0)
    for run in busy:
        used[run.task.user_id] += _overlap(run.begin_s, run.end_s, begin_s, until_s)
    waits = by_user(runs)
    return Outcome(
        makespan_s=max(run.end_s for run in runs) - min(run.task.arrives_s for run in runs),
        busy=sum(_overlap(run.begin_s, run.end_s, begin_s, until_s) for run in runs) / span_s,
        loading=sum(_overlap(run.begin_s, run.begin_s + run.load_s, begin_s, until_s) for run in runs) / span_s,
        loads=sum(1 for run in runs if run.load_s),
        jain=jain(used[user] / weight for user, weight in weights.items()),
        error=share_error(used, weights),
        wait_p50_s=quantile([run.wait_s for run in runs], 0.5),
        wait_p95_s=quantile([run.wait_s for run in runs], 0.95),
        worst_p95_s=max(quantile(one, 0.95) for one in waits.values()),
        light_wait_s=max((max(waits[user]) for user in light), default=0.0),
    )


def window(runs: Iterable[Run]) -> tuple[float, float]:
    """From when the last user has come to when the first has nothing waiting any more."""
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for run in runs:
        user_id = run.task.user_id
        first[user_id] = min(first.get(user_id, run.task.arrives_s), run.task.arrives_s)
        last[user_id] = max(last.get(user_id, run.begin_s), run.begin_s)
    begin_s = max(first.values())
    return begin_s, max(begin_s, min(last.values()))


def by_user(runs: Iterable[Run]) -> dict[int, list[float]]:
    """Each user's waits."""
    waits: dict[int, list[float]] = {}
    for run in runs:
        waits.setdefault(run.task.user_id, []).append(run.wait_s)
    return waits


def _overlap(begin_s: float, end_s: float, since_s: float, until_s: float) -> float:
    return max(0.0, min(end_s, until_s) - max(begin_s, since_s))
