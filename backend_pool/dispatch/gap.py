"""What dispatch costs the pool, counted: how long backends stood idle although a job could run there, how long jobs
waited, how placements were decided.

Kept in memory since the start of this process; nothing decides by it.
"""

from collections.abc import Iterable

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric

from backend_pool.placement.values import Choice
from proxy.base.clock import now_ms

GAP_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
WAIT_BUCKETS_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0)


class Gaps:
    """Moments are milliseconds since the epoch: the runners' records tell when a backend began."""

    def __init__(self) -> None:
        self._free_ms: dict[int, int] = {}
        self._rung_ms: int | None = None
        self._news_ms: int | None = None
        self.gap = Histogram(
            "comfy_cluster_backend_gap_seconds",
            "Time from when a waiting job could have run on an idle backend to when the backend began it",
            buckets=GAP_BUCKETS_S,
            registry=None,
        )
        self.wait = Histogram(
            "comfy_cluster_queue_wait_seconds",
            "Time from a job's submission to its placement",
            ["lane"],
            buckets=WAIT_BUCKETS_S,
            registry=None,
        )
        self.placements = Counter(
            "comfy_cluster_placements",
            "Jobs placed: in turn, or pulled forward to a backend that holds their models",
            ["why"],
            registry=None,
        )
        self.loads_saved = Counter(
            "comfy_cluster_model_loads_saved",
            "Models that were loaded already where a job that needs them was placed",
            registry=None,
        )
        self.saved_s = Counter(
            "comfy_cluster_model_load_seconds_saved",
            "Loading that those models would have needed, as measured or taken for",
            registry=None,
        )

    def collect(self) -> Iterable[Metric]:
        """All of it, for the metrics page."""
        for figure in (self.gap, self.wait, self.placements, self.loads_saved, self.saved_s):
            for metric in figure.collect():  # without the moments at which they were made, which nobody asks for
                metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
                yield metric

    def rang(self) -> None:
        """Something has changed that may let a job start."""
        if self._rung_ms is None:
            self._rung_ms = now_ms()

    def look(self) -> None:
        """A round of placing begins, for what has rung since the last one."""
        self._news_ms, self._rung_ms = self._rung_ms, None

    def released(self, backend_id: int) -> None:
        """The backend has ended its job."""
        self._free_ms[backend_id] = now_ms()

    def rightly_idle(self, backend_ids: Iterable[int]) -> None:
        """No waiting job could be given to these."""
        self._free_ms |= dict.fromkeys(backend_ids, now_ms())

    def taken(self, backend_id: int) -> int:
        """The backend gets a job: since when it could have had it."""
        news_ms = self._news_ms if self._news_ms is not None else now_ms()
        return max(self._free_ms.pop(backend_id, 0), news_ms)

    def placed(self, choice: Choice, lane: str, waited_s: float, warm: int) -> None:
        """Note a placement; so many models that it needs are loaded there."""
        self.placements.labels(choice.why).inc()
        self.wait.labels(lane).observe(max(0.0, waited_s))
        self.loads_saved.inc(warm)
        self.saved_s.inc(choice.saved_s)

    def began(self, since_ms: int, began_ms: int) -> None:
        """The backend has begun what it could have begun at `since_ms`."""
        self.gap.observe(max(0, began_ms - since_ms) / 1000)
