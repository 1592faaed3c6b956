"""What dispatch cost and saved, in a few figures for the administrators' page and API."""

from backend_pool.dispatch.gap import Gaps
from proxy.bodies.backends import PoolFigures


def pool_figures(gaps: Gaps) -> PoolFigures:
    """Out of the metrics of the same names."""
    values = {sample.name: sample.value for metric in gaps.collect() for sample in metric.samples if not sample.labels}
    count = int(values.get("comfy_cluster_backend_gap_seconds_count", 0))
    return PoolFigures(
        gaps=count,
        gap_s=values.get("comfy_cluster_backend_gap_seconds_sum", 0.0) / count if count else None,
        loads_saved=int(values.get("comfy_cluster_model_loads_saved_total", 0)),
        loading_saved_s=values.get("comfy_cluster_model_load_seconds_saved_total", 0.0),
    )
