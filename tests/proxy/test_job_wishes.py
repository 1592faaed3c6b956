"""Lane, priority, labels and graphics memory out of a submission: what counts, what is lowered, what is refused."""

from typing import Any

import pytest

from backend_pool.lane import Lane
from proxy.base.errors import BadInput
from proxy.comfy.job_wishes import Wishes, take_wishes


@pytest.mark.parametrize(
    ("given", "headers", "expected"),
    [
        (None, {}, Wishes(Lane.INTERACTIVE)),
        ({}, {}, Wishes(Lane.INTERACTIVE)),
        ({"lane": "batch", "priority": -4}, {}, Wishes(Lane.BATCH, -4)),
        ({"lane": None, "priority": None, "labels": None, "vram_mb": None}, {}, Wishes(Lane.INTERACTIVE)),
        ({"lane": "batch"}, {"x-cluster-lane": " Interactive "}, Wishes(Lane.INTERACTIVE)),
        ({"priority": 1}, {"x-cluster-priority": "2"}, Wishes(Lane.INTERACTIVE, 2)),
        ({"labels": ["fast", "gpu=a100", "fast"]}, {}, Wishes(Lane.INTERACTIVE, labels=("fast", "gpu=a100"))),
        ({"vram_mb": 20_000}, {}, Wishes(Lane.INTERACTIVE, vram_mb=20_000)),
    ],
)
def test_what_counts(given: dict[str, Any] | None, headers: dict[str, str], expected: Wishes) -> None:
    """And nothing of it stays in what a backend and the history get."""
    extra: dict[str, Any] = {"extra_pnginfo": {"workflow": {}}}
    if given is not None:
        extra["cluster"] = given
    assert take_wishes(extra, headers, priority_limit=3) == expected
    assert extra == {"extra_pnginfo": {"workflow": {}}}


def test_too_high_a_priority_is_lowered_and_said() -> None:
    """A workflow made for a group with more must run all the same."""
    wishes = take_wishes({"cluster": {"priority": 7}}, {}, priority_limit=2)
    assert wishes.priority == 2
    assert "7" in wishes.note and "2" in wishes.note


def test_a_users_own_lane_holds_unless_the_job_says_otherwise() -> None:
    """Chosen once on the home page."""
    assert take_wishes({}, {}, lane=Lane.BATCH).lane is Lane.BATCH
    assert take_wishes({"cluster": {"lane": "interactive"}}, {}, lane=Lane.BATCH).lane is Lane.INTERACTIVE


@pytest.mark.parametrize(
    ("given", "headers"),
    [
        ("batch", {}),
        ({"lane": "slow"}, {}),
        ({"lane": 1}, {}),
        ({"priority": "high"}, {}),
        ({"priority": True}, {}),
        ({"priority": 1.5}, {}),
        ({"priority": 10**30}, {}),
        ({"labels": "fast"}, {}),
        ({"labels": ["a b"]}, {}),
        ({"labels": [1]}, {}),
        ({"vram_mb": -1}, {}),
        ({"vram_mb": True}, {}),
        ({"vram_mb": "8G"}, {}),
        ({"prioirty": 1}, {}),
        ({}, {"x-cluster-lane": ""}),
        ({}, {"x-cluster-priority": "--1"}),
        ({"priority": "\u0663"}, {}),
        ({}, {"x-cluster-priority": "9" * 400}),
    ],
)
def test_what_is_refused(given: Any, headers: dict[str, str]) -> None:
    """A typing error must not pass for a default."""
    with pytest.raises(BadInput):
        take_wishes({"cluster": given}, headers, priority_limit=3)
