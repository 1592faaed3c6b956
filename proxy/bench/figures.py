"""Figures of a load out of what its jobs did. Pure: rows in, numbers out. Moments are milliseconds, `_s` seconds.

Fairness and busy share are taken while every busy user has a job waiting: before and after, the load decides them.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True)
class Done:
    """One job that has ended: whose, where, and its moments."""

    user: int
    backend: int
    queued_ms: int
    placed_ms: int
    began_ms: int
    rendered_ms: int
    light: bool = False


@dataclass(frozen=True)
class Figures:
    """What one way of placing made of the load."""

    jobs: int
    makespan_s: float
    jobs_per_s: float
    window_s: float
    """How long all busy users had jobs waiting."""
    busy_share: float
    gap_p50_ms: float
    gap_p95_ms: float
    wait_p50_s: float
    wait_p95_s: float
    wait_max_s: float
    light_wait_p50_s: float
    light_wait_max_s: float
    jain: float
    share_error: float
    """The largest deviation of a group's part of the GPU time from its weight's, as a share of the latter."""
    swaps: int = 0
    lost: int = 0
    doubled: int = 0
    waits_s: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)
    """p50, p95 and longest wait of each user."""


def figures(
    done: Sequence[Done], engines: int, weights: Mapping[int, float], *, swaps: int, lost: int, doubled: int
) -> Figures:
    """All of them. `weights` are the busy users' own; users of one weight are taken as a group."""
    busy = [job for job in done if not job.light]
    since, until = window(busy)
    used = dict.fromkeys(weights, 0.0)
    for job in busy:
        used[job.user] += _overlap(job, since, until)
    used_by_all = sum(_overlap(job, since, until) for job in done)
    waits = [(job.placed_ms - job.queued_ms) / 1000 for job in done]
    light = [(job.placed_ms - job.queued_ms) / 1000 for job in done if job.light] or [0.0]
    makespan_s = (max(job.rendered_ms for job in done) - min(job.queued_ms for job in done)) / 1000
    found = gaps(done, since, until) or [0.0]
    return Figures(
        jobs=len(done),
        makespan_s=makespan_s,
        jobs_per_s=len(done) / makespan_s if makespan_s else 0.0,
        window_s=(until - since) / 1000,
        busy_share=used_by_all / (engines * (until - since)) if until > since else 0.0,
        gap_p50_ms=quantile(found, 0.5),
        gap_p95_ms=quantile(found, 0.95),
        wait_p50_s=quantile(waits, 0.5),
        wait_p95_s=quantile(waits, 0.95),
        wait_max_s=max(waits),
        light_wait_p50_s=quantile(light, 0.5),
        light_wait_max_s=max(light),
        jain=jain(used[user] / weight for user, weight in weights.items()),
        share_error=share_error(used, weights),
        swaps=swaps,
        lost=lost,
        doubled=doubled,
        waits_s=_waits(done),
    )


def window(done: Iterable[Done]) -> tuple[int, int]:
    """From when the last user has come to when the first has nothing waiting any more; empty windows have no length."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for job in done:
        first[job.user] = min(first.get(job.user, job.queued_ms), job.queued_ms)
        last[job.user] = max(last.get(job.user, job.placed_ms), job.placed_ms)
    since = max(first.values(), default=0)
    return since, max(since, min(last.values(), default=0))


def jain(shares: Iterable[float]) -> float:
    """1 when all have the same, 1/n when one has everything."""
    found = list(shares)
    squares = sum(share * share for share in found)
    return sum(found) ** 2 / (len(found) * squares) if squares else 0.0


def share_error(used: Mapping[int, float], weights: Mapping[int, float]) -> float:
    """How far the groups' parts are from their weights', the worst of them."""
    total, everything = sum(used.values()), sum(weights.values())
    if not total:
        return 0.0
    worst = 0.0
    for weight in set(weights.values()):
        members = [user for user in weights if weights[user] == weight]
        due = weight * len(members) / everything
        worst = max(worst, abs(sum(used[user] for user in members) / total / due - 1))
    return worst


def gaps(done: Iterable[Done], since: int, until: int) -> list[float]:
    """Milliseconds that backends stood idle between two jobs while jobs were waiting."""
    by_backend: dict[int, list[Done]] = {}
    for job in sorted(done, key=lambda job: job.began_ms):
        by_backend.setdefault(job.backend, []).append(job)
    return [
        float(max(0, after.began_ms - before.rendered_ms))
        for jobs in by_backend.values()
        for before, after in pairwise(jobs)
        if since <= before.rendered_ms and after.began_ms <= until
    ]


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them stay below."""
    ordered = sorted(values)
    return statistics.median(ordered) if share == 0.5 else ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _overlap(job: Done, since: int, until: int) -> float:
    return max(0, min(job.rendered_ms, until) - max(job.began_ms, since))


def _waits(done: Iterable[Done]) -> dict[int, tuple[float, float, float]]:
    waits: dict[int, list[float]] = {}
    for job in done:
        waits.setdefault(job.user, []).append((job.placed_ms - job.queued_ms) / 1000)
    return {user: (quantile(each, 0.5), quantile(each, 0.95), max(each)) for user, each in sorted(waits.items())}
