"""Figures of dispatch for /cluster/metrics: what backends spent on jobs, gaps, waits, placements."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from backend_pool.backends.pool import Pool
from backend_pool.dispatch.dispatcher import Dispatcher
from proxy.base.clock import monotonic_s

METRICS = (
    "comfy_cluster_backend_busy_seconds_total",
    "comfy_cluster_backend_gap_seconds",
    "comfy_cluster_jobs_collecting",
    "comfy_cluster_model_load_seconds_saved_total",
    "comfy_cluster_model_loads_saved_total",
    "comfy_cluster_placements_total",
    "comfy_cluster_queue_wait_seconds",
)


def pool_figures(pool: Pool, dispatcher: Dispatcher) -> Iterable[Metric]:
    """All of them, as of now."""
    busy = CounterMetricFamily(
        "comfy_cluster_backend_busy_seconds",
        "Time a backend has spent on jobs, from the placement to its end of them",
        labels=["backend"],
    )
    now_s = monotonic_s()
    for member in pool.members.values():
        running_s = 0.0 if member.busy_since_s is None else now_s - member.busy_since_s
        busy.add_metric([member.row.name], member.busy_s + running_s)
    yield busy
    collecting = sum(len(member.collecting) for member in pool.members.values())
    yield GaugeMetricFamily("comfy_cluster_jobs_collecting", "Ended jobs whose files are on their way", collecting)
    yield from dispatcher.gaps.collect()
