"""Whose turn it is: shares, own order, limits, charges, coming and going. Each rule by a small scene."""

from backend_pool.books.share import Share
from backend_pool.placement.line import LAG_JOBS, LAG_S, STORED_LAG_S
from backend_pool.placement.values import Kind, Policy, Spot
from tests.backend_pool.placement.scene import (
    ANN,
    BEN,
    CAT,
    EVERYWHERE,
    FLUX,
    HAS_FLUX,
    WAN,
    Scene,
    placed,
)


def test_users_take_turns() -> None:
    """Ann queued three jobs before Ben's two: they alternate."""
    scene = Scene()
    queued = [scene.queue(user) for user in (ANN, ANN, ANN, BEN, BEN)]
    assert scene.order(5) == [queued[index] for index in (0, 3, 1, 4, 2)]


def test_turns_are_of_time_not_of_jobs() -> None:
    """Ann's jobs take three times as long as Ben's, so Ben gets three of his for each of hers."""
    scene = Scene()
    for _ in range(9):
        scene.queue(ANN, expected_s=30)
        scene.queue(BEN, expected_s=10)
    owners = []
    for _ in range(8):
        choice = scene.place()
        assert choice is not None
        owner = ANN if choice.seq % 2 else BEN
        owners.append(owner)
        scene.line.ended(choice.seq, 30 if owner == ANN else 10)
    assert (owners.count(ANN), owners.count(BEN)) == (2, 6)


def test_a_weight_of_two_gets_twice_the_time() -> None:
    scene = Scene()
    scene.line.know(ANN, Share(weight=2.0))
    owners = {scene.queue(user): user for _ in range(12) for user in (ANN, BEN)}
    had = [owners[seq] for seq in scene.order(12)]
    assert had.count(ANN) == 8


def test_a_weight_counts_from_when_it_changes() -> None:
    scene = Scene()
    owners = {scene.queue(user): user for _ in range(30) for user in (ANN, BEN)}
    before = [owners[seq] for seq in scene.order(8)]
    scene.line.know(BEN, Share(weight=3.0))
    after = [owners[seq] for seq in scene.order(8)]
    assert (before.count(BEN), after.count(BEN)) == (4, 6)


def test_own_jobs_run_by_number_then_age() -> None:
    """ComfyUI's `front` is a negative number."""
    scene = Scene()
    second, third, first = scene.queue(ANN, number=1), scene.queue(ANN, number=1), scene.queue(ANN, number=-1)
    assert scene.order(3) == [first, second, third]


def test_an_own_job_passes_only_where_the_earlier_one_cannot_run() -> None:
    """Ann's first job needs backend 1, her second runs anywhere."""
    scene = Scene()
    scene.line.know(ANN, Share(running_limit=2))
    first, second = scene.queue(ANN, Kind(frozenset({1}))), scene.queue(ANN)
    assert placed(scene.line.next([Spot(1)], 0)) == (first, 1)
    assert placed(scene.line.next([Spot(2)], 0)) == (second, 2)
    assert placed(scene.line.next([Spot(2), Spot(1)], 0)) == (first, 1)


def test_a_user_runs_as_many_as_the_limit_says() -> None:
    scene = Scene()
    scene.line.know(ANN, Share(running_limit=2))
    for _ in range(4):
        scene.queue(ANN)
    first = placed(scene.place(Spot(1)))
    placed(scene.place(Spot(2)))
    assert scene.place(Spot(3)) is None
    scene.line.ended(first[0], 5.0)
    assert scene.place(Spot(3)) is not None
    scene.line.know(ANN, Share(running_limit=3))
    assert scene.place(Spot(1)) is not None


def test_nothing_is_placed_where_nothing_can_run() -> None:
    scene = Scene()
    scene.queue(ANN, Kind(frozenset({2})))
    assert scene.place(Spot(1)) is None
    assert scene.line.next([], 0) is None
    scene.line.change(1, Kind(frozenset({1})))
    assert scene.place(Spot(1)) is not None


def test_a_running_job_is_charged_by_its_estimate() -> None:
    """Ann's first job is expected to take long: Ben gets his two before her second."""
    scene = Scene()
    for user in (ANN, BEN):
        scene.line.know(user, Share(running_limit=9))
    long, _, ben, also = (
        scene.queue(ANN, expected_s=100), scene.queue(ANN), scene.queue(BEN), scene.queue(BEN),
    )  # fmt: skip
    assert [placed(scene.place())[0] for _ in range(3)] == [long, ben, also]


def test_an_unknown_time_is_what_jobs_took_lately() -> None:
    """After jobs of 100 s, Ann's unknown one counts as such; Ben, unknown too, counts as everybody."""
    scene = Scene()
    scene.queue(ANN)
    scene.run(used_s=100)
    for user in (ANN, BEN):
        scene.line.know(user, Share(running_limit=9))
    known, *_ = scene.queue(BEN, expected_s=1.5), scene.queue(BEN, expected_s=0), scene.queue(BEN, expected_s=0)
    scene.place()
    scene.place()
    line = scene.line
    assert known == 2 and line.virtual_s(BEN) == 0.0
    late = scene.queue(CAT, expected_s=1.5)
    assert placed(scene.place())[0] == late, "Ben's unknown job weighs a hundred seconds"


def test_a_wrong_estimate_is_corrected() -> None:
    scene = Scene()
    scene.queue(ANN, expected_s=500)
    assert scene.line.virtual_s(ANN) == 0
    placed(scene.place())
    scene.line.ended(1, 7.0)
    assert scene.line.virtual_s(ANN) == 7.0


def test_a_lost_attempt_costs_nothing_and_no_place() -> None:
    """Ann's job was lost by its backend: it is first again, before Ben's and her own later one."""
    scene = Scene()
    lost, _, ben = scene.queue(ANN), scene.queue(ANN), scene.queue(BEN)
    job = scene.line.waiting(ANN)[0]
    placed(scene.place())
    assert lost not in scene.line
    scene.line.returned(job)
    assert scene.line.virtual_s(ANN) == 0
    assert lost in scene.line
    order = [scene.run() for _ in range(3)]
    assert order.index(lost) < order.index(2)
    assert ben in order


def test_an_attempt_that_counts_is_paid_and_its_job_keeps_its_place() -> None:
    """Ann's job stood still for 30 s: it is her first one still, after what Ben makes up."""
    scene = Scene()
    still, _, *ben = scene.queue(ANN), scene.queue(ANN), *(scene.queue(BEN) for _ in range(4))
    job = scene.line.waiting(ANN)[0]
    placed(scene.place())
    scene.line.returned(job, 30.0)
    assert scene.line.virtual_s(ANN) == 30
    assert scene.order(4) == [*ben[:3], still]


def test_who_was_away_has_no_credit() -> None:
    """Ben comes after an hour of Ann's: they share from now on."""
    scene = Scene()
    for _ in range(50):
        scene.queue(ANN)
    scene.order(40)
    owners = {scene.queue(BEN): BEN for _ in range(10)}
    had = [owners.get(seq, ANN) for seq in scene.order(8)]
    assert had.count(BEN) == 4


def test_who_had_more_keeps_that_while_the_others_are_there() -> None:
    """Ann pauses for a moment: her queue being empty once does not forgive what she had."""
    scene = Scene()
    scene.queue(BEN, expected_s=10)
    scene.queue(BEN, expected_s=10)
    scene.queue(ANN, expected_s=10)
    assert scene.run(used_s=10) == 1
    assert scene.run(used_s=300) == 3
    mine = scene.queue(ANN)
    theirs = [2, *(scene.queue(BEN) for _ in range(20))]
    assert scene.order(20) == theirs[:20]
    assert mine in scene.line


def test_stored_virtual_time_is_taken_up() -> None:
    scene = Scene()
    scene.line.know(ANN, Share(), 100.0)
    scene.line.know(BEN, Share(), 50.0)
    scene.queue(ANN)
    ben = scene.queue(BEN)
    assert scene.run() == ben
    scene.line.know(BEN, Share(), 10.0)
    assert scene.line.virtual_s(BEN) == 60.0, "it never goes back"


def test_who_waited_without_having_had_anything_is_not_far_ahead_after_a_restart() -> None:
    """Nothing is stored of Cat; she comes in beside Ben, who is behind Ann."""
    scene = Scene()
    scene.line.know(ANN, Share(), 5000.0)
    scene.line.know(BEN, Share(), 4900.0)
    owners = {scene.queue(user): user for _ in range(12) for user in (ANN, BEN, CAT)}
    had = [owners[seq] for seq in scene.order(20)]
    assert (had.count(BEN), had.count(CAT)) == (10, 10)


def test_what_was_stored_long_ago_is_no_credit() -> None:
    """Ben was last seen when little had been used; he is behind by a bounded time only."""
    scene = Scene()
    scene.line.know(ANN, Share(), 90_000.0)
    scene.line.know(BEN, Share(), 5.0)
    scene.queue(ANN)
    scene.queue(BEN)
    assert scene.run() == 2
    assert scene.line.virtual_s(BEN) == 90_000 - STORED_LAG_S + 10


def test_standing_aside_for_hours_is_not_saved_up() -> None:
    """Ann's jobs run on the rare backend 1 only, while Ben has all the others for hours. Then Ann may go anywhere."""
    scene = Scene()
    scene.line.know(BEN, Share(running_limit=9))
    for _ in range(100):
        scene.queue(ANN, Kind(frozenset({1})))
        scene.queue(BEN, Kind(frozenset({2, 3})))
    for _ in range(60):
        scene.run(Spot(2), used_s=100)
    scene.run(Spot(1), used_s=10)
    behind_s = scene.line.virtual_s(BEN) - scene.line.virtual_s(ANN)
    assert behind_s <= LAG_S + (LAG_JOBS + 1) * 100


def test_a_light_user_waits_for_one_job_on_each_backend_at_most() -> None:
    """Ann queued 9,000 jobs, runs on all three backends and holds the model; her estimates are much too high."""
    scene = Scene(Policy(affinity_s=1e9))
    scene.line.know(ANN, Share(running_limit=3))
    for _ in range(9000):
        scene.queue(ANN, FLUX, expected_s=1000)
    spots = [Spot(key, HAS_FLUX) for key in EVERYWHERE]
    running: list[tuple[int, int]] = []
    for _ in range(50):  # for a while
        while (
            choice := scene.place(*(spot for spot in spots if spot.key not in [at for _, at in running]))
        ) is not None:
            running.append((choice.seq, choice.spot))
        scene.now_s += 5
        scene.line.ended(running.pop(0)[0], 5.0)
    light = scene.queue(BEN, WAN)
    assert placed(scene.place(*(spot for spot in spots if spot.key not in [at for _, at in running])))[0] == light


def test_a_light_user_after_all_were_taken() -> None:
    """As above, with all three backends taken when Ben comes: the first that ends is his."""
    scene = Scene()
    scene.line.know(ANN, Share(running_limit=3))
    for _ in range(9000):
        scene.queue(ANN, FLUX, expected_s=1000)
    running = [placed(scene.place(Spot(key, HAS_FLUX))) for key in EVERYWHERE]
    light = scene.queue(BEN, WAN)
    scene.line.ended(running[0][0], 0.5)
    assert placed(scene.place(Spot(running[0][1], HAS_FLUX)))[0] == light


def test_a_high_estimate_is_made_good_for_a_while() -> None:
    """Ann's job was expected to take 500 s and kept her back while Ben had 300; it took 10: some turns are hers."""
    scene = Scene()
    for user in (ANN, BEN):
        scene.line.know(user, Share(running_limit=2))
    high = scene.queue(ANN, expected_s=500)
    assert placed(scene.place(Spot(2)))[0] == high
    owners = {scene.queue(user): user for _ in range(60) for user in (ANN, BEN)}
    assert [owners[seq] for seq in scene.order(30)] == [BEN] * 30
    scene.line.ended(high, 10.0)
    assert [owners[seq] for seq in scene.order(9)] == [ANN] * 9
