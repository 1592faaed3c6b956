"""What an attempt is charged, out of clocks that need not agree."""

from typing import Any, cast

import pytest

from backend_pool.job_state import JobState
from backend_pool.jobs import record
from backend_pool.jobs.delay import Cause, Delay
from backend_pool.model import Job
from backend_pool.runs.charge import spent

TOLD: list[Any] = [["execution_start", {"timestamp": 90_000}], ["execution_success", {"timestamp": 92_000}]]


@pytest.mark.parametrize(
    ("messages", "began_ms", "run_ms"),
    [
        (TOLD, 1_500, 2_000),  # the backend's own word, whatever its clock says
        ([*TOLD[:1], ["execution_error", {"timestamp": 90_300}]], 1_500, 300),
        ([*TOLD[:1], ["execution_success", {"timestamp": 80_000}]], 1_500, 0),  # its clock was set back
        ([*TOLD[:1], ["execution_success", {"timestamp": 990_000}]], 1_500, 4_000),  # no more than has passed here
        (TOLD[:1], 1_500, 3_500),
        ([], 1_500, 3_500),
        ([], None, 0),
    ],
)
def test_what_is_charged(messages: list[Any], began_ms: int | None, run_ms: int) -> None:
    """The backend's time where it told it, else ours; loading is part of it."""
    job = Job(prompt_id="a", user_id=1, number=1, created_ms=0, assigned_ms=1_000)
    found = spent(job, messages, began_ms=began_ms, ended_ms=5_000, load_ms=700, held_ms=4_000)
    assert (found.gpu_ms, found.run_ms, found.load_ms) == (run_ms, run_ms, min(700, run_ms))


def test_a_beginning_that_an_earlier_process_saw_counts() -> None:
    """It is in the row."""
    job = Job(prompt_id="a", user_id=1, number=1, created_ms=0, assigned_ms=1_000, started_ms=2_000)
    assert spent(job, [], began_ms=None, ended_ms=5_000, load_ms=0, held_ms=4_000).gpu_ms == 3_000


def test_a_clock_that_jumped_meanwhile_charges_nobody() -> None:
    """Backend and server share the machine whose clock was set forward by a day."""
    day_ms = 86_400_000
    job = Job(prompt_id="a", user_id=1, number=1, created_ms=0, assigned_ms=1_000)
    told = [*TOLD[:1], ["execution_success", {"timestamp": 92_000 + day_ms}]]
    for messages in (told, []):
        found = spent(job, messages, began_ms=1_500, ended_ms=5_000 + day_ms, load_ms=0, held_ms=4_000)
        assert found.gpu_ms == 4_000


def test_a_job_is_held_as_long_as_really_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before this process had it, by the row; since then, by a clock that nobody sets."""
    wall_ms, steady_s = [100_000], [50.0]
    monkeypatch.setattr(record, "now_ms", lambda: wall_ms[0])
    monkeypatch.setattr(record, "monotonic_s", lambda: steady_s[0])
    job = Job(prompt_id="a", user_id=1, number=1, created_ms=0, assigned_ms=97_000, state=JobState.RUNNING)
    held = record.JobRecord(job, cast(Any, None), cast(Any, None))
    wall_ms[0] -= 3_600_000
    steady_s[0] += 2.0
    assert held.held_ms == 5_000
    held.rendered()
    steady_s[0] += 9.0
    assert held.held_ms == 5_000


def test_waits_that_are_not_the_users_count_once() -> None:
    """Causes overlap, are told again, end unbegun."""
    now = [0.0]
    delay = Delay(lambda: now[0])
    told = [
        (1.0, delay.begin, Cause.QUEUED, 0.0),
        (3.0, delay.begin, Cause.AWAY, 2.0),
        (4.0, delay.begin, Cause.AWAY, 3.0),
        (6.0, delay.end, Cause.QUEUED, 5.0),
        (7.0, delay.end, Cause.DATABASE, 6.0),
        (8.0, delay.end, Cause.AWAY, 7.0),
        (90.0, delay.end, Cause.AWAY, 7.0),
        (91.0, delay.begin, Cause.DATABASE, 7.0),
    ]
    for when_s, tell, cause, seconds in told:
        now[0] = when_s
        tell(cause)
        assert delay.seconds == seconds
    now[0] = 93.0
    assert delay.seconds == 9.0
