"""The supervisor's decisions, as tables: no process, no clock."""

from dataclasses import replace

import pytest

from backend_pool.backends.phase import Phase
from backend_pool.managed.fate import LONGEST_PAUSE_S, STEADY_S, Fate
from backend_pool.managed.supervisor import LEFT_IDLE_S, Limits, Seen, Supervisor

DOWN = Seen(alive=False, busy=False)
FRESH = Seen(alive=False, busy=False, known=False)
COMING = Seen(alive=True, busy=True)
IDLE = Seen(alive=True, ready=True, busy=False, idle_s=0.0)
BUSY = Seen(alive=True, ready=True, busy=True, idle_s=0.0)
SLEEPY = Limits(idle_s=10.0, cooldown_s=5.0, start_timeout_s=30.0)


def rested(seconds: float) -> Seen:
    return replace(IDLE, idle_s=seconds)


def orders(supervisor: Supervisor, now: float, **seen: Seen) -> list[str]:
    """What it orders, as `start a`."""
    return [f"{order.verb} {order.name}" for order in supervisor.look(seen, now)]


def running(limits: Limits, *names: str, since: float = 0.0) -> Supervisor:
    """One whose instances all run since then."""
    supervisor = Supervisor(limits, names)
    for fate in supervisor.fates.values():
        fate.move(Phase.RUNNING, since)
    return supervisor


def phases(supervisor: Supervisor) -> list[Phase]:
    return [fate.phase for fate in supervisor.fates.values()]


def test_everything_is_started_where_nothing_sleeps() -> None:
    supervisor = Supervisor(Limits(), "ab")
    assert orders(supervisor, 0, a=DOWN, b=DOWN) == ["start a", "start b"]
    assert orders(supervisor, 1, a=COMING, b=COMING) == []
    assert orders(supervisor, 2, a=IDLE, b=COMING) == []
    assert phases(supervisor) == [Phase.RUNNING, Phase.STARTING]
    assert orders(supervisor, 9999, a=rested(9999), b=IDLE) == []
    assert phases(supervisor) == [Phase.RUNNING, Phase.RUNNING]


def test_one_that_runs_already_is_taken_over() -> None:
    supervisor = Supervisor(Limits(), "a")
    assert orders(supervisor, 0, a=IDLE) == []
    assert orders(supervisor, 1, a=IDLE) == []
    assert phases(supervisor) == [Phase.RUNNING] and supervisor.fates["a"].adopted
    for now, seen in ((2, replace(IDLE, restart=True)), (3, replace(IDLE, restart=True)), (4, DOWN), (5, IDLE)):
        orders(supervisor, now, a=seen)
    assert phases(supervisor) == [Phase.RUNNING] and not supervisor.fates["a"].adopted  # it was started here


def test_an_unknown_one_is_started_once_to_learn_what_it_offers() -> None:
    supervisor = Supervisor(SLEEPY, "ab")
    assert orders(supervisor, 0, a=FRESH, b=DOWN) == ["start a"]
    unread = replace(IDLE, known=False)
    orders(supervisor, 1, a=unread, b=DOWN)
    assert orders(supervisor, 99, a=replace(unread, idle_s=98), b=DOWN) == []
    assert phases(supervisor) == [Phase.RUNNING, Phase.ASLEEP]  # still unread: it stays
    orders(supervisor, 100, a=rested(99), b=DOWN)
    assert orders(supervisor, 101, a=rested(99), b=DOWN) == ["stop a"]
    assert orders(supervisor, 102, a=DOWN, b=DOWN) == []
    assert phases(supervisor) == [Phase.ASLEEP, Phase.ASLEEP]


def test_an_idle_one_is_stopped_one_look_after_everybody_was_told() -> None:
    supervisor = running(SLEEPY, "a")
    assert orders(supervisor, 9, a=rested(9)) == []
    assert phases(supervisor) == [Phase.RUNNING]
    assert orders(supervisor, 10, a=rested(10)) == []
    assert phases(supervisor) == [Phase.STOPPING]
    assert orders(supervisor, 11, a=rested(11)) == ["stop a"]
    assert orders(supervisor, 12, a=rested(12)) == ["stop a"]  # until it is gone
    orders(supervisor, 13, a=DOWN)
    assert phases(supervisor) == [Phase.ASLEEP]


def test_one_that_was_given_a_job_just_before_goes_on() -> None:
    supervisor = running(SLEEPY, "a")
    orders(supervisor, 10, a=rested(10))
    assert orders(supervisor, 11, a=BUSY) == []
    assert phases(supervisor) == [Phase.RUNNING]
    assert supervisor.fates["a"].since == 0  # else what hangs from now on counts as never having answered


@pytest.mark.parametrize("seen", [BUSY, replace(rested(99), wanted=True), replace(rested(99), known=False), rested(9)])
def test_what_keeps_one_awake(seen: Seen) -> None:
    supervisor = running(SLEEPY, "a")
    orders(supervisor, 99, a=seen)
    assert phases(supervisor) == [Phase.RUNNING]


def test_one_that_was_just_woken_is_not_stopped_for_its_long_sleep() -> None:
    supervisor = running(SLEEPY, "a", since=95)
    orders(supervisor, 99, a=rested(99))
    assert phases(supervisor) == [Phase.RUNNING]


def test_the_least_number_stays_awake_and_the_longest_idle_goes_first() -> None:
    supervisor = running(replace(SLEEPY, minimum=1), "a", "b", "c")
    orders(supervisor, 50, a=rested(20), b=rested(40), c=rested(30))
    assert phases(supervisor) == [Phase.RUNNING, Phase.STOPPING, Phase.STOPPING]


def test_the_least_number_is_started() -> None:
    supervisor = Supervisor(replace(SLEEPY, minimum=2), "abc")
    assert orders(supervisor, 0, a=DOWN, b=DOWN, c=DOWN) == ["start a", "start b"]


def test_waiting_jobs_wake_as_many_as_they_want_and_after_a_while_more() -> None:
    supervisor = Supervisor(replace(SLEEPY, maximum=3), "abcd")
    wanted = replace(DOWN, wanted=True)
    assert orders(supervisor, 0, a=DOWN, b=DOWN, c=DOWN, d=DOWN) == []
    assert orders(supervisor, 1, a=wanted, b=wanted, c=DOWN, d=DOWN) == ["start a", "start b"]
    assert orders(supervisor, 5.9, a=COMING, b=COMING, c=wanted, d=DOWN) == []
    assert orders(supervisor, 6, a=COMING, b=COMING, c=wanted, d=wanted) == ["start c"]  # no more may be awake


def test_no_more_are_awake_than_may_be() -> None:
    supervisor = Supervisor(replace(SLEEPY, maximum=1, cooldown_s=0), "ab")
    wanted = replace(DOWN, wanted=True)
    assert orders(supervisor, 0, a=wanted, b=wanted) == ["start a"]
    assert orders(supervisor, 1, a=BUSY, b=wanted) == []
    assert orders(supervisor, 2, a=BUSY, b=wanted) == []
    assert phases(supervisor) == [Phase.RUNNING, Phase.ASLEEP]
    assert [fate.full for fate in supervisor.fates.values()] == [False, True]
    assert orders(supervisor, 3, a=DOWN, b=wanted) == ["start b"]
    assert not any(fate.full for fate in supervisor.fates.values())


def test_an_idle_one_makes_room_for_one_that_jobs_wait_for() -> None:
    """Whatever the least number says: they need not be the same ones."""
    supervisor = running(Limits(minimum=1, maximum=1, idle_s=1000), "a", "b")
    supervisor.fates["b"].sleeps(0)
    wanted = replace(DOWN, wanted=True)
    assert orders(supervisor, 1, a=BUSY, b=wanted) == []
    assert orders(supervisor, 2, a=rested(LEFT_IDLE_S), b=wanted) == []
    assert orders(supervisor, 3, a=rested(LEFT_IDLE_S + 1), b=wanted) == ["stop a"]
    assert orders(supervisor, 4, a=DOWN, b=wanted) == ["start b"]


@pytest.mark.parametrize(("came", "idle_s"), [(0.0, 0.1), (99.9, 50.0)], ids=["between two jobs", "just woken"])
def test_one_that_is_about_to_get_a_job_makes_no_room(came: float, idle_s: float) -> None:
    """Else it would be stopped for one that is no better, and woken again, over and over."""
    supervisor = running(replace(SLEEPY, maximum=1), "a", "b", since=came)
    supervisor.fates["b"].sleeps(0)
    assert orders(supervisor, 100, a=rested(idle_s), b=replace(DOWN, wanted=True)) == []
    assert phases(supervisor) == [Phase.RUNNING, Phase.ASLEEP]


def test_a_crashed_one_is_started_after_a_pause_that_grows() -> None:
    supervisor = running(Limits(), "a")
    assert orders(supervisor, 1, a=DOWN) == ["start a"]  # the first death costs no pause
    assert orders(supervisor, 2, a=DOWN) == []
    assert supervisor.fates["a"].phase is Phase.CRASHED and supervisor.fates["a"].error
    assert orders(supervisor, 2.9, a=DOWN) == []
    assert orders(supervisor, 3, a=DOWN) == ["start a"]
    orders(supervisor, 4, a=DOWN)
    assert orders(supervisor, 5.9, a=DOWN) == [] and orders(supervisor, 6, a=DOWN) == ["start a"]
    orders(supervisor, 7, a=IDLE)
    assert supervisor.fates["a"].error is None


def test_a_crashed_one_that_nobody_needs_sleeps_and_keeps_its_error() -> None:
    supervisor = running(SLEEPY, "a")
    orders(supervisor, 1, a=DOWN)
    assert phases(supervisor) == [Phase.ASLEEP]
    assert supervisor.fates["a"].error
    assert orders(supervisor, 2, a=replace(DOWN, wanted=True)) == ["start a"]


def test_a_crashed_one_leaves_its_place_to_others() -> None:
    supervisor = running(replace(SLEEPY, maximum=1), "a", "b")
    supervisor.fates["b"].sleeps(0)
    supervisor.fates["a"].deaths = 5
    wanted = replace(DOWN, wanted=True)
    assert orders(supervisor, 1, a=wanted, b=wanted) == ["start b"]


def test_one_that_does_not_answer_is_ended_and_tried_again() -> None:
    supervisor = Supervisor(replace(SLEEPY, minimum=1), "a")
    orders(supervisor, 0, a=DOWN)
    assert orders(supervisor, 29, a=COMING) == []
    assert orders(supervisor, 30, a=COMING) == ["stop a"]
    assert "30 s" in str(supervisor.fates["a"].error)
    assert orders(supervisor, 31, a=COMING) == ["stop a"]  # not started beside the one that hangs
    assert orders(supervisor, 32, a=DOWN) == ["start a"]


def test_a_failed_start_counts_as_a_death() -> None:
    supervisor = Supervisor(Limits(), "a")
    orders(supervisor, 0, a=DOWN)
    assert [supervisor.failed("a", "the disk is full", now) for now in (0, 1, 2)] == [0, 1, 2]
    assert supervisor.fates["a"].error == "the disk is full"


def test_a_restart_waits_for_the_job_and_comes_back_before_anything_else() -> None:
    supervisor = running(replace(SLEEPY, maximum=1), "a", "b")
    supervisor.fates["b"].sleeps(0)
    wanted = replace(DOWN, wanted=True)
    assert orders(supervisor, 1, a=replace(BUSY, restart=True), b=wanted) == []
    assert phases(supervisor) == [Phase.STOPPING, Phase.ASLEEP]  # no new jobs from now on
    assert orders(supervisor, 2, a=replace(BUSY, restart=True), b=wanted) == []
    assert orders(supervisor, 3, a=replace(IDLE, restart=True), b=wanted) == ["stop a"]
    assert orders(supervisor, 4, a=DOWN, b=wanted) == ["start a"]


def test_a_restart_ends_the_pause_of_a_crashed_one() -> None:
    supervisor = Supervisor(Limits(), "a")
    supervisor.fates["a"].deaths = 9
    supervisor.failed("a", "x", 0)
    assert orders(supervisor, 1, a=DOWN) == []
    orders(supervisor, 2, a=replace(DOWN, restart=True))
    assert supervisor.fates["a"].phase is Phase.STARTING


def test_nothing_is_stopped_while_nobody_can_say_what_it_does() -> None:
    """As an agent sees its instances while the server is away: what runs goes on, what is needed comes back."""
    supervisor = running(SLEEPY, "a", "b")
    assert orders(supervisor, 500, a=Seen(alive=True, ready=True), b=Seen(alive=False)) == []
    assert phases(supervisor) == [Phase.RUNNING, Phase.ASLEEP]
    assert orders(supervisor, 501, a=Seen(alive=True), b=replace(DOWN, wanted=True)) == ["start b"]


def test_pauses_between_deaths_grow_to_a_cap() -> None:
    fate = Fate(Phase.RUNNING)
    pauses = []
    for now in range(9):
        pauses.append(fate.died(float(now), "x"))
        fate.runs(float(now))
    assert pauses == [0, 1, 2, 4, 8, 16, 32, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert fate.died(8 + STEADY_S, "x") == 0
    assert fate.died(8 + 2 * STEADY_S, "x") == 1  # it did not start: no long life between the two
