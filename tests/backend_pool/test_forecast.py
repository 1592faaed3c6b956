"""Forecasts: who starts when and why each waits, against what the same line then does."""

import random
from collections.abc import Iterable
from dataclasses import replace
from heapq import heappop, heappush
from statistics import median

import pytest

from backend_pool.books.share import Share
from backend_pool.books.shares import Reserved
from backend_pool.forecasts import forecast
from backend_pool.forecasts.forecast import STAND_IN, Forecast, foresee
from backend_pool.forecasts.outlook import Outlook
from backend_pool.forecasts.scene import Case, Scene, Seat
from backend_pool.lane import Lane
from backend_pool.placement.line import Line
from backend_pool.placement.values import Kind, Policy, Spot, Waiting

NOW = 1_000_000.0
SHARE = Share(running_limit=2)


def hold(begin_s: float, end_s: float) -> Reserved:
    """A reservation of group 7's."""
    return Reserved(7, round(begin_s * 1000), round(end_s * 1000))


def job(seq: int, user: int = 1, places: Iterable[int] = (1,), **more: object) -> Waiting:
    given = Waiting(seq, user, float(seq), Kind(frozenset(places)), since_s=NOW)
    return replace(given, **more)  # type: ignore[arg-type]


def busy(key: int, free_s: float | None, seq: int = 900, user: int = 99, used_s: float = 5.0) -> Seat:
    return Seat(Spot(key), "busy", None if free_s is None else NOW + free_s, seq + key, user, used_s)


def scene(jobs: Iterable[Waiting], seats: list[Seat], took_s: float | None = 10.0, **more: object) -> Scene:
    line = Line(Policy())
    jobs = list(jobs)
    shares = {waiting.user_id: SHARE for waiting in jobs}
    given: dict[str, object] = {"shares": shares, **more}
    for user, share in {**shares, **given["shares"]}.items():  # type: ignore[dict-item]
        line.know(user, share)
    for waiting in jobs:
        line.add(waiting)
    work = {} if took_s is None else {seat.spot.key: took_s for seat in seats}
    cases = {waiting.seq: Case(waiting, work) for waiting in jobs}
    return Scene(line, NOW, seats, cases, **given)  # type: ignore[arg-type]


def starts(found: Forecast) -> dict[int, float | None]:
    return {
        seq: None if look.start_ms is None else look.start_ms / 1000 - NOW
        for seq, look in found.outlooks.items()
        if look.position is not None or look.end_ms is None
    }


def test_one_backend_takes_users_in_turn() -> None:
    found = foresee(scene([job(1), job(2), job(3), job(4, 2)], [busy(1, 5)]))
    assert starts(found) == {1: 5, 4: 15, 2: 25, 3: 35}
    assert list(found.order) == [1, 4, 2, 3]
    assert found.outlooks[2] == Outlook(
        3, int((NOW + 25) * 1000), int((NOW + 35) * 1000), "2 jobs ahead, the GPU is busy"
    )
    assert found.outlooks[901].end_ms == (NOW + 5) * 1000


def test_loading_counts_and_warm_models_need_none() -> None:
    kind = Kind(frozenset({1}), frozenset({"m"}))
    seat = Seat(Spot(1, load_s={"m": 7.0}), "idle")
    found = foresee(scene([job(1, kind=kind), job(2, kind=kind), job(3, kind=kind)], [seat]))
    assert starts(found) == {1: 0, 2: 17, 3: 27}


def test_backends_of_unlike_speed_take_what_they_take() -> None:
    built = scene([job(1, places=(1, 2)), job(2, 2, (1, 2)), job(3, 3, (1, 2))], [busy(1, 1), busy(2, 2)])
    built = replace(built, cases={seq: replace(case, work_s={1: 2.0, 2: 50.0}) for seq, case in built.cases.items()})
    assert starts(foresee(built)) == {1: 1, 2: 2, 3: 3}


def test_nobody_is_told_a_time_that_was_made_up() -> None:
    never = foresee(scene([job(1), job(2)], [busy(1, None)], took_s=None))
    assert starts(never) == {1: None, 2: None} and [never.outlooks[seq].position for seq in (1, 2)] == [1, 2]
    first = foresee(scene([job(1), job(2)], [busy(1, 3)], took_s=None))
    assert starts(first) == {1: 3, 2: None} and first.outlooks[1].end_ms is None


def test_jobs_that_cannot_run_have_no_position_and_hold_up_nobody() -> None:
    built = scene([job(1, places=()), job(2, 2)], [busy(1, 4)])
    noted = replace(built.cases[1], note="waiting for a backend with node X")
    found = foresee(replace(built, cases={**built.cases, 1: noted}))
    assert found.outlooks[1] == Outlook(reason="waiting for a backend with node X")
    assert found.outlooks[2].position == 1


def test_a_reservation_holds_others_back_until_it_ends() -> None:
    held = hold(NOW - 5, NOW + 3600)
    seats = [Seat(Spot(1, reserved=held), "idle")]
    found = foresee(scene([job(1), job(2, 2)], seats, shares={2: Share(group="g", group_id=7)}))
    assert starts(found) == {2: 0, 1: 3600}
    assert found.outlooks[1].reason.startswith("held back by a reservation until ")
    assert found.outlooks[2].reason == "next"


def test_a_draining_backend_frees_its_user_and_takes_nobody() -> None:
    """The user's limit is one, and their running job is on the draining backend."""
    seats = [replace(busy(1, 5), state="away", user_id=1), Seat(Spot(2), "idle")]
    built = scene([job(1, places=(1, 2)), job(2, 2, (1,))], seats, shares={1: Share()})
    built.line.add(job(901))
    built.line.started(901, 1, NOW)
    found = foresee(built)
    assert starts(found) == {1: 5, 2: None} and found.outlooks[2].position is None
    assert found.outlooks[901].end_ms == (NOW + 5) * 1000


def test_a_later_reservation_lets_short_jobs_run_before() -> None:
    seats = [Seat(Spot(1, reserved=hold(NOW + 60, NOW + 120)), "idle")]
    found = foresee(scene([job(1, expected_s=300.0), job(2, 2, expected_s=10.0)], seats))
    assert starts(found) == {2: 0, 1: 120}


def test_jobs_beyond_the_window_go_on_at_their_user_s_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "STARTS", 40)
    built = scene([job(seq) for seq in range(1, 5)] + [job(50, 2)], [busy(1, 0)], tails={1: 9000})
    found = foresee(built)
    assert starts(found)[50] == 10 and max(found.outlooks) < STAND_IN
    near, far = found.of_rank(1, 4), found.of_rank(1, 8004)
    assert near is not None and far is not None and near.start_ms is not None and far.start_ms is not None
    assert near.position == 6 and near.start_ms / 1000 == pytest.approx(NOW + 50)
    assert (
        far.position == 8006
        and far.reason == "8,005 jobs ahead"
        and far.start_ms / 1000 == pytest.approx(NOW + 80_050, rel=1e-6)
    )
    assert found.of_rank(2, 1) is None and found.of_rank(3, 5) is None


def test_known_jobs_after_all_that_were_played_go_on_at_their_user_s_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "STARTS", 6)
    jobs = [job(seq) for seq in range(1, 9)] + [job(50, 2, places=()), job(60, 3)]
    built = scene(jobs, [busy(1, 0)])
    built = replace(built, cases={**built.cases, 50: replace(built.cases[50], note="no")})
    found = foresee(built)
    assert list(found.order) == [1, 60, 2, 3, 4, 5]
    last = found.outlooks[8]
    assert (last.position, last.reason) == (9, "8 jobs ahead") and starts(found)[8] == 80
    assert found.outlooks[50] == Outlook(reason="no")


def test_others_are_not_promised_the_place_of_jobs_that_are_only_counted() -> None:
    jobs = [job(1)] + [job(seq, 2) for seq in range(10, 30)]
    alone = foresee(scene(jobs, [busy(1, 0)]))
    behind = foresee(scene(jobs, [busy(1, 0)], tails={1: 100}))
    last = alone.outlooks[29].start_ms, behind.outlooks[29].start_ms
    assert last[0] is not None and last[1] is not None and last[1] - last[0] == pytest.approx(190_000, abs=11_000)


def test_words_of_a_scene() -> None:
    asleep = Seat(Spot(3), "waking")
    jobs = [
        job(1, places=(1, 2)),
        job(2, 2, (3,)),
        job(3, 3, (2,)),
        job(4, 4, (1, 2), lane=Lane.BATCH),
        job(5, 98, (1,)),
    ]
    seats = [busy(1, 5), busy(2, 6), asleep]
    built = scene(jobs, seats, shares={98: Share()})
    seats[0] = replace(seats[0], user_id=98)
    built = replace(built, cases={**built.cases, 3: replace(built.cases[3], scarce="checkpoint flux")})
    found = {seq: look.reason for seq, look in foresee(built).outlooks.items()}
    assert found[1] == "both GPUs busy"
    assert found[2].endswith("a GPU is waking up")
    assert found[3].endswith("waiting for the only GPU with checkpoint flux")
    assert "batch work goes after interactive jobs" in found[4]
    assert found[5] == "your other job runs first (1 at a time)"


def test_one_that_may_not_wake_beside_others_is_hoped_for_by_its_own_jobs_alone() -> None:
    jobs = [job(1, places=(1, 3)), job(2, 2, (3,))]
    told = [
        [foresee(scene(jobs, [busy(1, 5), Seat(Spot(3), "waking", full=full)])).outlooks[seq].reason for seq in (1, 2)]
        for full in (False, True)
    ]
    assert told[0] == ["the GPU is busy, a GPU is waking up", "a GPU is waking up"]
    assert told[1] == ["the GPU is busy", "a GPU is waking up"]


def test_words_while_files_come_home() -> None:
    """Idle, and kept for others: nobody says how long that takes, so a start is foreseen as if they were here."""
    seats = [Seat(Spot(1, closed=frozenset({1})), "idle")]
    for limit in (1, 2):
        found = foresee(scene([job(1, 1, (1,)), job(2, 2, (1,))], seats, shares={1: Share(running_limit=limit)}))
        assert [found.outlooks[seq].position for seq in (1, 2)] == [1, 2]
        assert found.outlooks[1].reason == "files of your other job come home first"
        assert found.outlooks[2].reason == "1 job ahead"


def reality(line: Line, spots: dict[int, Spot], takes: dict[int, dict[int, float]]) -> dict[int, float]:
    """What the line then does, with the time that each job really takes."""
    free, events, now, began = dict(spots), list[tuple[float, int, int, float]](), NOW, {}
    while len(line) or events:
        choice = line.next(free.values(), now) if free else None
        if choice is None:
            now, seq, key, took = heappop(events)
            line.ended(seq, took)
            free[key] = spots[key]
            continue
        del free[choice.spot]
        line.started(choice.seq, choice.spot, now)
        began[choice.seq] = now - NOW
        heappush(
            events, (now + takes[choice.seq][choice.spot], choice.seq, choice.spot, takes[choice.seq][choice.spot])
        )
    return began


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_what_was_foreseen_comes_true(seed: int, noise: float) -> None:
    rng = random.Random(seed)
    spots = {key: Spot(key) for key in range(1, 5)}
    jobs = [
        job(seq, rng.randrange(1, 9), rng.sample([1, 2, 3, 4], rng.randint(1, 4)), expected_s=rng.uniform(5, 60))
        for seq in range(1, 161)
    ]
    seats = [Seat(spot, "idle") for spot in spots.values()]
    built = scene(jobs, seats)
    work = {waiting.seq: dict.fromkeys(spots, waiting.expected_s) for waiting in jobs}
    truth = {
        seq: {key: seconds * rng.lognormvariate(0, noise) for key, seconds in each.items()}
        for seq, each in work.items()
    }
    cases = {waiting.seq: Case(waiting, work[waiting.seq]) for waiting in jobs}
    found = foresee(replace(built, line=built.line.copy(), cases=cases))
    real = reality(built.line, spots, truth)
    order = sorted(real, key=lambda seq: real[seq])
    off, errors = [], []
    for place, seq in enumerate(order, 1):
        look = found.outlooks[seq]
        assert look.position is not None and look.start_ms is not None
        off.append(abs(look.position - place))
        if real[seq] > 0:
            errors.append(abs(look.start_ms / 1000 - NOW - real[seq]) / real[seq])
    if noise == 0:
        assert max(off) <= 1 and max(errors) < 0.01  # jobs that start at one moment may be told in either order
    else:
        assert median(errors) < 0.3 and median(off) <= 24  # of 160
