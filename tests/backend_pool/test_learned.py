"""Learned times: means that follow changes and shrug off odd runs, estimates that rest on the nearest, stored."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

import pytest

from backend_pool.forecasts import learned
from backend_pool.forecasts.learned import Key, Learned, Stat, device_class, key_of
from backend_pool.forecasts.meter import Meter
from backend_pool.forecasts.signature import Traits
from backend_pool.forecasts.timings import Timings
from proxy.base.database import Database
from tests.backend_pool.rig import open_database

SLOW, FAST = "NVIDIA T4", "NVIDIA H100"
A = Traits("a", "grp", "ga", frozenset({"checkpoints:m"}), frozenset({"5"}))
B = Traits("b", "grp", "gb", frozenset(), frozenset({"5"}))
OTHER = Traits("c", "other", "gc", frozenset(), frozenset({"5"}))


def test_nothing_measured_is_nothing_known() -> None:
    assert Learned().expect_s(A, SLOW) is None and Learned().expect_s(A) is None and Learned().load_s("m", SLOW) is None


def test_an_estimate_rests_on_the_nearest_that_was_measured() -> None:
    """The same workflow, work like it, everything; there, else elsewhere."""
    known = Learned()
    known.learn(A, SLOW, 10.0)
    known.learn(B, SLOW, 20.0)
    known.learn(OTHER, SLOW, 60.0)
    like, unlike = Traits("new", "grp"), Traits("new", "new")
    for traits, mean_s in ((A, 10), (B, 20), (OTHER, 60), (like, 15), (unlike, 30), (Traits(), 30)):
        assert known.expect_s(traits, SLOW) == known.expect_s(traits, FAST) == pytest.approx(mean_s)


def test_another_device_s_time_is_scaled_by_what_both_have_run() -> None:
    known = Learned()
    for _ in range(5):
        known.learn(A, SLOW, 40.0)
        known.learn(A, FAST, 4.0)
    known.learn(B, SLOW, 100.0)
    known.learn(OTHER, FAST, 3.0)
    assert known.expect_s(B, FAST) == pytest.approx(10, rel=0.01)
    assert known.expect_s(OTHER, SLOW) == pytest.approx(30, rel=0.01)


def test_without_a_device_all_count_by_how_often() -> None:
    known = Learned()
    for _ in range(3):
        known.learn(A, FAST, 2.0)
    known.learn(A, SLOW, 10.0)
    assert known.expect_s(A) == pytest.approx(4.0)


def test_loading_is_known_by_device_or_else_from_another() -> None:
    known = Learned()
    known.learn_load("checkpoints:x", SLOW, 8.0)
    known.learn_load("checkpoints:x", FAST, 2.0)
    assert known.load_s("checkpoints:x", FAST) == 2.0
    assert known.load_s("checkpoints:x", "GPU never seen") in (2.0, 8.0)
    assert known.load_s("checkpoints:y", FAST) is None


def test_one_odd_run_moves_a_mean_little_and_a_lasting_change_is_followed() -> None:
    stat = Stat(10.0)
    for _ in range(10):
        stat = stat.with_one(10.0)
    assert stat.with_one(3600.0).mean_s <= 12.0
    assert stat.with_one(0.0).mean_s >= 8.0
    for _ in range(30):
        stat = stat.with_one(100.0)
    assert stat.mean_s == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_noise_leaves_the_mean_near_the_truth(seed: int) -> None:
    rng = random.Random(seed)
    errors = []
    stat = Stat(20.0)
    for _ in range(400):
        sample = rng.lognormvariate(3.0, 0.15) if rng.random() > 0.02 else rng.choice([0.1, 4000.0])
        errors.append(abs(stat.mean_s - 20.3) / 20.3)
        stat = stat.with_one(sample)
        assert 0 <= stat.mean_s <= 60 and stat.spread_s >= 0
    assert median(errors) < 0.12


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_senseless_times_are_not_learned(bad: float) -> None:
    known = Learned()
    known.learn(A, SLOW, bad)
    known.learn_load("m", SLOW, bad)
    assert not known.changed and known.expect_s(A, SLOW) is None


def test_rows_are_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "ROWS_KEPT", 10)
    known = Learned()
    for number in range(30):
        known.learn_load(f"m{number}", SLOW, 1.0)
    assert len(known) == 10 and known.load_s("m0", SLOW) is None and known.load_s("m29", SLOW) == 1.0
    assert len(known.changed) == 10 and len(known.gone) == 20
    known.learn_load("m0", SLOW, 1.0)
    assert Key("load", "m0", SLOW) not in known.gone


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("cuda:0 NVIDIA H100 80GB HBM3 : cudaMallocAsync", "NVIDIA H100 80GB HBM3"),
        ("cuda:3 NVIDIA GeForce RTX 4090 : native", "NVIDIA GeForce RTX 4090"),
        ("cpu", "cpu"),
        ("", ""),
        ("gpu-1: embedded engine, no GPU and no model", "embedded engine, no GPU and no model"),
        ("none (simulated)", "none (simulated)"),
    ],
)
def test_a_device_s_class_has_no_number(name: str, device: str) -> None:
    assert device_class(name) == device


@pytest.mark.parametrize("text", ["", "work", "odd\ta\tb", "work\ta\tb\tc"])
def test_keys_of_other_versions_are_passed_over(text: str) -> None:
    assert key_of(text) is None
    assert key_of(str(Key("work", "a", SLOW))) == Key("work", "a", SLOW)


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = open_database(tmp_path)
    yield database
    database.close()


def run(took_s: float, *, executed: tuple[str, ...] = ("1", "5"), well: bool = True, load_s: float = 1.0) -> Meter:
    meter = Meter({"1": {"class_type": "L", "inputs": {"ckpt_name": "m"}}, "5": {"class_type": "K"}})
    meter.hear("execution_start", {}, 0.0)
    for turn, node in enumerate(executed):
        meter.hear("executing", {"node": node}, turn * load_s)
    meter.hear("execution_success" if well else "execution_error", {}, took_s)
    return meter


def test_loading_is_learned_of_models_that_somebody_has(db: Database) -> None:
    """A prompt may name any number of others."""
    timings = Timings(db)
    timings.learn(B, FAST, run(11.0))
    assert timings.expect_s(B, FAST) is not None and timings.loads(frozenset({"checkpoints:m"}), FAST) == {}


async def test_what_was_learned_outlives_the_server(db: Database) -> None:
    timings = Timings(db)
    timings.learn(A, FAST, run(11.0))
    await timings.save()
    later = Timings(db)
    await later.load()
    assert later.expect_s(A, FAST) == pytest.approx(10.0)
    assert later.loads(frozenset({"checkpoints:m", "checkpoints:n"}), FAST) == {"checkpoints:m": pytest.approx(1.0)}
    later.learn(A, FAST, run(5.0))
    await later.save()
    await timings.load()
    assert timings.expect_s(A, FAST) == later.expect_s(A, FAST)


@pytest.mark.parametrize("meter", [run(9.0, well=False), run(9.0, executed=("1",)), Meter({})])
async def test_failed_and_cached_runs_teach_nothing_of_the_work(db: Database, meter: Meter) -> None:
    timings = Timings(db)
    timings.learn(A, FAST, meter)
    assert timings.expect_s(A, FAST) is None


async def test_the_jitter_of_a_loaded_model_is_no_load(db: Database) -> None:
    """Seen with real ComfyUI: of two text encodings the first takes a little longer, whatever is loaded."""
    timings, model = Timings(db), frozenset({"checkpoints:m"})
    kind = Traits("sig", "grp", "graph", model, frozenset({"5"}))
    timings.learn(kind, FAST, run(9.0, load_s=2.0), cold=model)
    for _ in range(20):
        timings.learn(kind, FAST, run(9.0, load_s=0.05))
    assert timings.load_s("checkpoints:m", FAST) == pytest.approx(2.0)
    timings.learn(kind, FAST, run(9.0, load_s=4.0))  # it was thrown out behind our back
    assert timings.load_s("checkpoints:m", FAST) == pytest.approx(3.0)
    timings.learn(kind, FAST, run(9.0, load_s=0.05), cold=model)  # it came out of the page cache
    assert (timings.load_s("checkpoints:m", FAST) or 9.0) < 3.0


async def test_only_a_cold_model_teaches_that_loading_takes_no_time(db: Database) -> None:
    timings, kind = Timings(db), Traits("a", "g", "g", frozenset({"checkpoints:m", "vae:v"}))
    timings.learn(kind, f"cuda:1 {FAST} : native", run(5.0, executed=("5",)))
    assert timings.loads(kind.models, FAST) == {}
    timings.learn(kind, FAST, run(5.0), cold=frozenset({"vae:v", "checkpoints:of another"}))
    assert timings.loads(kind.models, f"cuda:0 {FAST}") == {"checkpoints:m": pytest.approx(1.0), "vae:v": 0.0}


async def test_a_database_that_is_away_costs_nothing_that_was_learned(db: Database, tmp_path: Path) -> None:
    timings = Timings(db)
    timings.learn(A, FAST, run(11.0))
    db.write_now(lambda s: s.connection().exec_driver_sql("ALTER TABLE timings RENAME TO hidden"))
    with pytest.raises(Exception, match="database"):
        await timings.save()
    db.write_now(lambda s: s.connection().exec_driver_sql("ALTER TABLE hidden RENAME TO timings"))
    await timings.save()
    later = Timings(db)
    await later.load()
    assert later.expect_s(A, FAST) == timings.expect_s(A, FAST)
