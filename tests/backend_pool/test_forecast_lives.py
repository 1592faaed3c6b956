"""Forecasts in random lives of a pool: exact where nothing changes, never in the past, and true in what they say."""

import re
from collections.abc import Mapping

import pytest

from backend_pool.forecasts.forecast import foresee
from backend_pool.forecasts.outlook import Outlook
from backend_pool.forecasts.scene import Scene, Seat
from backend_pool.lane import Lane
from backend_pool.placement.values import Waiting
from tests.backend_pool.lives import NOW_S, Life

CHUNKS, SEEDS = 4, 50
MOMENTS = 10
"""At which a life is looked at, from its beginning."""


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_what_is_foreseen_comes_true_where_nothing_changes(chunk: int) -> None:
    """Every start of every job that waits, to the millisecond, and so every position."""
    for seed in range(chunk * SEEDS, (chunk + 1) * SEEDS):
        life, told = Life(seed), []
        for number, scene in enumerate(life.moments()):
            if number % 3 == 0 and number < MOMENTS:
                told.append((scene.now_s, sorted(scene.cases), foresee(scene).outlooks))
        for now_s, seqs, outlooks in told:
            order = sorted(seqs, key=lambda seq: life.began[seq])
            for seq in seqs:
                began_s, look = life.began[seq], outlooks[seq]
                assert look.start_ms is not None and abs(look.start_ms / 1000 - began_s) < 0.01, (seed, now_s - NOW_S)
                alike = [place for place, other in enumerate(order, 1) if life.began[other] == began_s]
                assert look.position in alike, (seed, now_s - NOW_S)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_what_is_told_is_true_whatever_changes(chunk: int) -> None:
    """People come, run times miss by half, some are not known: no start is in the past, no reason is untrue."""
    for seed in range(chunk * SEEDS, (chunk + 1) * SEEDS):
        for number, scene in enumerate(Life(seed, noise=0.5, arrivals=6).moments()):
            if number >= MOMENTS:
                break
            if number % 2:
                continue
            outlooks = foresee(scene).outlooks
            now_ms = int(scene.now_s * 1000)
            assert sorted(look.position for look in outlooks.values() if look.position) == [
                place for place, _ in enumerate((look for look in outlooks.values() if look.position), 1)
            ]
            for seq, look in outlooks.items():
                assert look.start_ms is None or look.start_ms >= now_ms
                assert look.end_ms is None or look.end_ms >= (look.start_ms or now_ms)
                if seq in scene.cases:
                    assert not lies(scene, scene.cases[seq].job, outlooks), (seed, number, look)


def lies(scene: Scene, job: Waiting, outlooks: Mapping[int, Outlook]) -> list[str]:
    """What is not so of the reason that a job's user reads, part by part."""
    look, share = outlooks[job.seq], scene.shares[job.user_id]
    seats = [seat for seat in scene.seats if seat.spot.key in job.kind.places]
    ahead = [seq for seq, other in outlooks.items() if other.position and other.position < (look.position or 0)]
    own = [seq for seq in ahead if scene.cases[seq].job.user_id == job.user_id]
    at_limit = sum(seat.user_id == job.user_id for seat in scene.seats) >= share.running_limit
    held = [seat for seat in seats if is_held(seat, scene.now_s, share.group_id)]
    kept = [seat for seat in seats if seat.state == "idle" and is_kept(seat, scene.now_s, share.group_id)]
    interactive = [case.job.kind.places for case in scene.cases.values() if is_interactive(scene, case.job)]
    words = {
        r"next": not ahead and any(seat.state == "idle" for seat in seats if seat not in held + kept),
        r"your other jobs? runs? first \(\d at a time\)": at_limit and not own,
        r"held back by a reservation until \d\d:\d\d UTC": len(held) == len(seats),
        rf"{len(ahead)} jobs? ahead": bool(ahead),
        r"yours|all yours": bool(ahead) and ahead == own,
        r"batch work goes after interactive jobs": not is_interactive(scene, job)
        and any(not job.kind.places.isdisjoint(places) for places in interactive),
        r"an idle GPU is kept for a reservation from \d\d:\d\d UTC": bool(kept) and not at_limit,
        r"(the|both|all \d)( only)?( unreserved)? GPUs?( that can run it)?( is)? busy": all(
            seat.state == "busy" for seat in seats if seat not in held
        ),
    }
    parts = look.reason.split(", ")
    lies = [part for part in parts if not any(re.fullmatch(word, part) and so for word, so in words.items())]
    counts = {"the": 1, "both": 2} | {f"all {number}": number for number in range(9)}
    said = re.search(r"(the|both|all \d).* busy", look.reason)
    return lies if said is None or counts[said[1]] == len(seats) - len(held) else [*lies, "the number"]


def is_held(seat: Seat, now_s: float, group_id: int | None) -> bool:
    """Whether it is another group's now."""
    held = seat.spot.reserved
    return held is not None and held.group_id != group_id and held.begin_ms <= now_s * 1000 < held.end_ms


def is_kept(seat: Seat, now_s: float, group_id: int | None) -> bool:
    """Whether it will be another group's."""
    held = seat.spot.reserved
    return held is not None and held.group_id != group_id and now_s * 1000 < held.begin_ms


def is_interactive(scene: Scene, job: Waiting) -> bool:
    """Whether it waits in no batch lane, or not any more."""
    return job.lane is Lane.INTERACTIVE or scene.now_s - job.since_s >= scene.line.policy.batch_wait_s
