"""What the rules of the line come to on whole loads, on a virtual clock: fair, busy, few loads, nobody left behind."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_pool.books.share import Share
from backend_pool.lane import Lane
from backend_pool.placement.line import LAG_JOBS, LAG_S
from backend_pool.placement.values import Policy
from proxy.bench import placement as bench_placement
from proxy.bench.outcome import outcome
from proxy.bench.placement import MODELS, Crowd, cost_us, simulate
from proxy.bench.simulation import Load, Run, Simulation, Task

SMALL = Crowd(users=12, spots=4, jobs=40)


def run(load: Load, policy: Policy | None = None) -> list[Run]:
    return Simulation(load, policy or Policy()).run()


# -- whole loads ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_equal_users_get_equal_parts(seed: int) -> None:
    """With three models and a pool that never has enough, warm jobs pulled forward all the while."""
    got = simulate(replace(SMALL, seed=seed), Policy())
    assert got.jain >= 0.98
    assert got.busy >= 0.97


@pytest.mark.parametrize("affinity_s", [0.0, 15.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_unequal_users_get_parts_by_weight(seed: int, affinity_s: float) -> None:
    """1:2:4, within three per cent over a long time."""
    crowd = Crowd(users=12, spots=4, jobs=120, weights=(1.0, 2.0, 4.0), running_limit=4, seed=seed)
    got = simulate(crowd, Policy(affinity_s=affinity_s))
    assert got.error <= 0.03
    assert got.jain >= 0.98


@pytest.mark.parametrize("seed", [1, 2])
def test_warmth_saves_loads_and_time(seed: int) -> None:
    """At least two times fewer loads than first come, first served, and sooner done; nobody's part is worse for it."""
    crowd = replace(SMALL, seed=seed)
    fair, fifo, turns = (simulate(crowd, Policy(order)) for order in ("fair", "fifo", "turns"))
    assert fair.loads * 2 <= min(fifo.loads, turns.loads)
    assert fair.makespan_s < min(fifo.makespan_s, turns.makespan_s)
    assert fair.jain >= max(fifo.jain, turns.jain)


def test_a_light_user_is_not_stuck_behind_thousands() -> None:
    """The longest wait is for what ran already: one job and its load on the backend that is free first."""
    crowd = Crowd(users=1, spots=4, jobs=1000, running_limit=4, light=3)
    longest_s = crowd.run_s[1] + max(MODELS.values())
    assert simulate(crowd, Policy()).light_wait_s <= longest_s
    assert simulate(crowd, Policy("fifo")).light_wait_s > 10 * longest_s


def test_batch_work_fills_gaps_only() -> None:
    """Batch jobs run while nobody else has any, and delay an interactive one by what runs already."""
    batch = [Task(seq, 1, 0.0, 10.0, lane=Lane.BATCH, expected_s=10.0) for seq in range(1, 101)]
    other = [Task(100 + n, 2, 50.0 * n, 10.0, expected_s=10.0) for n in range(1, 10)]
    load = Load([*batch, *other], 2, {1: Share(running_limit=2)})
    waits = [one.wait_s for one in run(load) if one.task.user_id == 2]
    assert max(waits) <= 10.0
    assert outcome(load, run(load)).makespan_s == pytest.approx(545.0, abs=10.0)


def test_what_a_limit_left_to_others_is_not_saved_up_by_anybody() -> None:
    """User 2 may run one job at a time, so user 1 had twice as much. Who comes shares with user 1, but for a little."""
    tasks = [Task(seq, 1 + seq % 2, 0.0, 5.0, expected_s=5.0) for seq in range(1, 1201)]
    tasks += [Task(seq, 3, 1000.0, 5.0, expected_s=5.0) for seq in range(2001, 2201)]
    load = Load(tasks, 3, {1: Share(running_limit=3), 2: Share(running_limit=1), 3: Share(running_limit=3)})
    had = dict.fromkeys((1, 2, 3), 0)
    for one in run(load):
        if 1000 <= one.begin_s < 1300:
            had[one.task.user_id] += 1
    lag = (LAG_S / 5 + LAG_JOBS) / 2
    assert had == {1: pytest.approx(60, abs=lag + 2), 2: 60, 3: pytest.approx(60, abs=lag + 2)}


# -- any load ------------------------------------------------------------------------------------------------------


@st.composite
def loads(draw: st.DrawFn) -> Load:
    """Users who come and go, jobs with models, some that few backends can run."""
    spots = draw(st.integers(1, 3))
    places = st.none() | st.frozensets(st.integers(0, spots - 1), min_size=1)
    made = draw(
        st.lists(
            st.builds(
                Task,
                seq=st.just(0),
                user_id=st.integers(1, 4),
                arrives_s=st.integers(0, 60),
                run_s=st.sampled_from([1.0, 5.0, 20.0]),
                models=st.frozensets(st.sampled_from(list(MODELS)), max_size=2),
                expected_s=st.sampled_from([0.0, 5.0, 300.0]),
                places=places,
            ),
            min_size=1,
            max_size=20,
        )
    )
    tasks = [task.numbered(seq) for seq, task in enumerate(made, 1)]
    limits = st.integers(1, spots)
    weights = st.sampled_from([0.5, 1.0, 4.0])
    shares = {user: Share(weight=draw(weights), running_limit=draw(limits)) for user in range(1, 5)}
    return Load(tasks, spots, shares, MODELS)


@settings(max_examples=40, deadline=None)
@given(loads(), st.sampled_from(["fair", "fifo", "turns"]))
def test_every_job_runs_once_and_no_backend_waits_while_one_could_run(load: Load, order: str) -> None:
    """Whenever a job waits, its backends are taken, or its user is at the limit; nobody ever exceeds it."""
    runs = run(load, Policy(order))  # type: ignore[arg-type]
    assert sorted(one.task.seq for one in runs) == [task.seq for task in load.tasks]
    for one in runs:
        beside = [other for other in runs if other.begin_s <= one.begin_s < other.end_s]
        own = [other for other in beside if other.task.user_id == one.task.user_id]
        assert len(own) <= load.shares[one.task.user_id].running_limit
        assert [other.spot for other in beside].count(one.spot) == 1
        assert one.task.places is None or one.spot in one.task.places
    moments = sorted({one.end_s for one in runs} | {one.task.arrives_s for one in runs})
    for one in runs:
        for moment in moments:
            if not one.task.arrives_s <= moment < one.begin_s:
                continue
            beside = [other for other in runs if other.begin_s <= moment < other.end_s]
            taken = {other.spot for other in beside}
            own = [other for other in beside if other.task.user_id == one.task.user_id]
            places = one.task.places or frozenset(range(load.spots))
            assert places <= taken or len(own) == load.shares[one.task.user_id].running_limit


@settings(max_examples=40, deadline=None)
@given(loads())
def test_own_jobs_begin_in_their_order(load: Load) -> None:
    """Of jobs that can run on the same backends, whatever models they need."""
    runs = run(load)
    for one in runs:
        for other in runs:
            alike = (one.task.user_id, one.task.places) == (other.task.user_id, other.task.places)
            if alike and one.task.seq < other.task.seq and one.task.arrives_s <= other.task.arrives_s:
                assert one.begin_s <= other.begin_s


@settings(max_examples=40, deadline=None)
@given(loads(), st.sampled_from([4.0, 15.0]))
def test_nobody_is_passed_over_for_longer_than_the_bound(load: Load, affinity_s: float) -> None:
    runs = run(load, Policy(affinity_s=affinity_s))
    begins: dict[int, list[float]] = {}
    for one in runs:
        if one.passed is not None:
            begins.setdefault(one.passed, []).append(one.begin_s)
    assert all(max(moments) - min(moments) <= affinity_s for moments in begins.values())


@settings(max_examples=40, deadline=None)
@given(loads(), st.sampled_from([0.0, 15.0]))
def test_a_newcomer_waits_for_one_job_of_each_other_user_at_most(load: Load, affinity_s: float) -> None:
    """However much the others have queued, on however many backends they run, however wrong the estimates are."""
    runs = run(load, Policy(affinity_s=affinity_s))
    for user_id in {one.task.user_id for one in runs}:
        own = [one for one in runs if one.task.user_id == user_id]
        first = min(own, key=lambda one: (one.task.arrives_s, one.task.seq))
        if first is not own[0]:  # had something else before
            continue
        places = first.task.places or frozenset(range(load.spots))
        ahead = [
            one.task.user_id
            for one in runs
            if first.task.arrives_s <= one.begin_s and runs.index(one) < runs.index(first) and one.spot in places
        ]
        assert len(ahead) == len(set(ahead))


# -- the bench -----------------------------------------------------------------------------------------------------


def test_a_simulation_can_be_repeated() -> None:
    assert simulate(SMALL, Policy()) == simulate(SMALL, Policy())


def test_the_bench_prints_every_load_and_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """With small loads; the figures themselves are the machine's."""
    monkeypatch.setattr(bench_placement, "LOADS", {"a few": Crowd(users=4, spots=2, jobs=5)})
    monkeypatch.setattr(bench_placement, "LENGTHS", (10, 100))
    monkeypatch.setattr(bench_placement, "ROUNDS", 20)
    text = bench_placement.report()
    assert "a few" in text
    assert all(re.search(rf"^ +{name} +\d", text, re.MULTILINE) for name in ("fair", "turns", "fifo"))
    assert len(re.findall(r"^ +\d+ +\d+ +\d+ +\d+$", text, re.MULTILINE)) == 6


def test_a_placement_looks_at_few_jobs() -> None:
    """Counted in calls, not in time: a thousand times as many jobs take a few times the work."""
    import cProfile
    import pstats

    def calls(jobs: int) -> int:
        profile = cProfile.Profile()
        line = bench_placement.filled(jobs, users=50, kinds=4)
        profile.enable()
        bench_placement.turn_over(line, jobs, users=50, kinds=4, rounds=50)
        profile.disable()
        return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]

    assert calls(10_000) < 4 * calls(100)
    assert cost_us(100, 10, 3, rounds=5) > 0
