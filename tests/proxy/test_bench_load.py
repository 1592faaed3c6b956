"""The load simulation on a real server, small: nothing lost, and a late user waits for no long queue."""

from proxy.bench.load import WAYS, measure, table, waits
from proxy.bench.plan import Load
from proxy.bench.recovery import behind


async def test_a_load_comes_to_its_end_and_is_counted() -> None:
    load = Load(users=4, light=1, engines=2, jobs=6, step_ms=30, load_ms=40, arrive_s=0.5)
    way = WAYS[-1]  # with weights, and three times the jobs
    found = await measure(load, way)
    assert (found.lost, found.doubled) == (0, 0)
    assert found.jobs >= 16 and set(found.waits_s) == {0, 1, 2, 3}
    assert 0 < found.jain <= 1 and found.swaps >= 0
    assert "lost / doubled jobs" in table({way.name: found})
    assert [line.split()[:2] for line in waits({way.name: found}).splitlines()[1:]] == [
        ["user", str(n)] for n in range(1, 5)
    ]


async def test_a_user_behind_a_long_queue_waits_for_a_running_job_at_most() -> None:
    found = await behind(60, engines=2, late_jobs=2, step_ms=100)
    ahead = 60 * found.job_s / found.backends
    assert max(found.waits_s) < ahead / 3
