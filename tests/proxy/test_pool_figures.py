"""What dispatch cost and saved, out of its metrics."""

from backend_pool.dispatch.gap import Gaps
from proxy.views.pool_figures import pool_figures


def test_nothing_is_known_at_first() -> None:
    found = pool_figures(Gaps())
    assert (found.gaps, found.gap_s, found.loads_saved, found.loading_saved_s) == (0, None, 0, 0.0)


def test_figures_are_those_of_the_metrics() -> None:
    gaps = Gaps()
    for gap_s in (0.02, 0.06):
        gaps.gap.observe(gap_s)
    gaps.loads_saved.inc(3)
    gaps.saved_s.inc(12.5)
    found = pool_figures(gaps)
    assert (found.gaps, round(found.gap_s or 0, 6), found.loads_saved, found.loading_saved_s) == (2, 0.04, 3, 12.5)
