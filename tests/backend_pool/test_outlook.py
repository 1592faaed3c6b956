"""What a job may expect, as a value, and the words for why it waits, as tables."""

import pytest

from backend_pool.forecasts.outlook import Outlook, Standing, told_of, words


@pytest.mark.parametrize(
    ("standing", "text"),
    [
        (Standing(open=1), "next"),
        (Standing(able=3, held=1), "both unreserved GPUs busy"),
        (Standing(able=2, held=1, others=1, scarce="node X"), "waiting for the only unreserved GPU with node X"),
        (Standing(able=2, reserved_from_ms=0), "an idle GPU is kept for a reservation from 00:00 UTC"),
        (Standing(own_running=1, lingers=True), "a job of yours that was stopped has not let go of its GPU yet"),
        (Standing(ahead=2, able=4), "2 jobs ahead, all 4 GPUs busy"),
        (Standing(ahead=1, own_ahead=1, able=2), "1 job ahead, yours, both GPUs busy"),
        (Standing(ahead=9000, able=1), "9,000 jobs ahead, the GPU is busy"),
        (Standing(able=1, others=3, scarce="checkpoint x"), "waiting for the only GPU with checkpoint x"),
        (Standing(able=2, others=3, scarce="node X"), "both GPUs with node X busy"),
        (Standing(able=2, others=3), "both GPUs that can run it busy"),
        (Standing(able=1, others=3), "the only GPU that can run it is busy"),
        (Standing(able=0, waking=True), "a GPU is waking up"),
        (Standing(able=0), "waiting for a backend that can run it"),
        (Standing(ahead=1, able=1, waking=True), "1 job ahead, the GPU is busy, a GPU is waking up"),
        (Standing(able=0, waking=True, own_running=1), "your other job runs first (1 at a time)"),
        (Standing(own_coming=1, ahead=4), "files of your other job come home first"),
        (Standing(own_running=1, own_coming=1, limit=2), "files of your other job come home first"),
        (Standing(own_coming=1, limit=2, closed=1), "files of your other job come home first"),
        (Standing(own_coming=1, limit=2, closed=1, open=1), "next"),
        (Standing(own_running=1, limit=1, ahead=4), "your other job runs first (1 at a time)"),
        (Standing(own_running=1, limit=1, ahead=4, own_ahead=4), "4 jobs ahead, all yours, the GPU is busy"),
        (Standing(own_running=2, limit=2), "your other jobs run first (2 at a time)"),
        (Standing(reserved_until_ms=39_600_000), "held back by a reservation until 11:00 UTC"),
        (
            Standing(now_ms=39_600_000, reserved_until_ms=2 * 86_400_000 + 39_600_000),
            "held back by a reservation until 1970-01-03 11:00 UTC",
        ),
        (
            Standing(ahead=3, able=1, batch_yields=True),
            "3 jobs ahead, batch work goes after interactive jobs, the GPU is busy",
        ),
    ],
)
def test_words(standing: Standing, text: str) -> None:
    assert words(standing) == text


@pytest.mark.parametrize(
    ("told", "aside"),
    [
        ("your other jobs run first (2 at a time)", "their other jobs run first (2 at a time)"),
        ("files of your other job come home first", "files of their other job come home first"),
        ("a job of yours that was stopped has not let go", "a job of theirs that was stopped has not let go"),
        ("1 job ahead, yours, both GPUs busy", "1 job ahead, theirs, both GPUs busy"),
        ("4 jobs ahead, all yours, the GPU is busy", "4 jobs ahead, all theirs, the GPU is busy"),
        (
            "waiting for the only GPU with checkpoint your-own.ckpt",
            "waiting for the only GPU with checkpoint your-own.ckpt",
        ),
    ],
)
def test_words_for_somebody_else(told: str, aside: str) -> None:
    assert told_of(told) == aside


def test_what_was_to_be_by_now_is_told_to_be_now() -> None:
    """And ends as much later; what runs over its time ends now."""
    assert Outlook(1, 900, 1500).as_of(1000) == Outlook(1, 1000, 1600)
    assert Outlook(1, 1100, 1500).as_of(1000) == Outlook(1, 1100, 1500)
    assert Outlook(end_ms=900).as_of(1000) == Outlook(end_ms=1000)
    assert Outlook(2).as_of(1000) == Outlook(2)
