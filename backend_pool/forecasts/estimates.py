"""Learned times applied to the pool as it is: how long waiting work runs on each backend, when running work ends."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from backend_pool.backends.member import Member
from backend_pool.forecasts.signature import Traits
from backend_pool.forecasts.timings import Timings
from proxy.base.clock import monotonic_s

LATE = 0.1
"""A job that takes longer than expected is taken to go on for this part of its time so far."""


class Span(NamedTuple):
    """Of a running job."""

    left_s: float
    total_s: float


class Estimates:
    """What is looked up again is looked up anew when something was learned, and after `forget`."""

    def __init__(self, timings: Timings, members: Callable[[], Iterable[Member]]) -> None:
        self.timings = timings
        self._members = members
        self._of = 0
        self._work: dict[tuple[str, str], Mapping[int, float]] = {}

    def forget(self) -> None:
        """The pool is another."""
        self._work.clear()

    def work_s(self, traits: Traits) -> Mapping[int, float]:
        """How long such a workflow runs by backend, loading aside; none where nothing was ever measured."""
        if self._of != self.timings.learned:
            self._of = self.timings.learned
            self._work.clear()
        key = (traits.signature, traits.group)
        known = self._work.get(key)
        if known is None:
            by_device = {member.device: self.timings.expect_s(traits, member.device) for member in self._members()}
            found = {member.key: by_device[member.device] for member in self._members()}
            known = self._work[key] = {key: mean_s for key, mean_s in found.items() if mean_s is not None}
        return known

    def running(self, member: Member, traits: Traits) -> Span | None:
        """How long the job that runs there goes on; None where nothing like it was ever measured."""
        work_s = self.timings.expect_s(traits, member.device)
        if work_s is None or member.busy_since_s is None:
            return None
        cold = traits.models - member.warmth.models  # as it was before the job
        expected_s = work_s + sum(self.timings.loads(cold, member.device).values())
        so_far_s = monotonic_s() - member.busy_since_s
        left_s = max(expected_s - so_far_s, LATE * so_far_s)
        return Span(left_s, so_far_s + left_s)
