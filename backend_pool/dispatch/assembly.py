"""Puts a dispatcher together out of its parts. They share the bell, and which jobs are not to be touched just now."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from backend_pool.backends.pool import Pool
from backend_pool.books.shares import Shares
from backend_pool.dispatch.carrier import Carrier, OwnerOf
from backend_pool.dispatch.dispatcher import Dispatcher
from backend_pool.dispatch.foresight import Foresight
from backend_pool.dispatch.gap import Gaps
from backend_pool.dispatch.matching import Matching
from backend_pool.dispatch.queue_mirror import QueueMirror
from backend_pool.dispatch.ride import Ride
from backend_pool.dispatch.turns import Turns
from backend_pool.forecasts.estimates import Estimates
from backend_pool.forecasts.outlooks import Outlooks
from backend_pool.forecasts.timings import Timings
from backend_pool.jobs.listener import JobListener
from backend_pool.jobs.store import JobStore
from backend_pool.model import Job
from backend_pool.placement.values import Policy
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What dispatch is given."""

    store: JobStore
    pool: Pool
    tasks: Tasks
    listener: JobListener
    owner_of: OwnerOf
    settings: Settings
    shares: Shares
    timings: Timings
    outlooks: Outlooks


def assemble(given: Surroundings) -> Dispatcher:
    """The dispatcher and all behind it; nothing runs yet."""
    gaps, bell = Gaps(), asyncio.Event()
    held: set[tuple[int, str]] = set()
    carried: dict[int, Ride] = {}

    def ring() -> None:
        gaps.rang()
        bell.set()

    def passed_by(job: Job) -> bool:
        return job.key in carried or (job.user_id, job.prompt_id) in held

    matching = Matching(given.store, given.pool)
    mirror = QueueMirror(given.store.queue, passed_by)
    estimates = Estimates(given.timings, given.pool.members.values)
    turns = _turns(given, mirror, matching, estimates)
    return Dispatcher(
        store=given.store,
        pool=given.pool,
        tasks=given.tasks,
        listener=given.listener,
        settings=given.settings,
        shares=given.shares,
        matching=matching,
        mirror=mirror,
        turns=turns,
        carrier=_carrier(given, matching, turns, gaps, carried, ring),
        foresight=_foresight(given, turns, mirror, matching, estimates),
        outlooks=given.outlooks,
        gaps=gaps,
        bell=bell,
        ring=ring,
        held=held,
    )


def _turns(given: Surroundings, mirror: QueueMirror, matching: Matching, estimates: Estimates) -> Turns:
    chosen = given.settings
    policy = Policy(chosen.placement, chosen.affinity_s, chosen.priority_step_s, chosen.batch_wait_s)
    turns = Turns(
        given.store.queue, mirror=mirror, matching=matching, shares=given.shares, estimates=estimates, policy=policy
    )
    given.store.virtual_s = turns.times.with_end_of
    return turns


def _carrier(  # noqa: PLR0917 - its parts
    given: Surroundings,
    matching: Matching,
    turns: Turns,
    gaps: Gaps,
    carried: dict[int, Ride],
    ring: Callable[[], None],
) -> Carrier:
    return Carrier(
        store=given.store,
        pool=given.pool,
        tasks=given.tasks,
        listener=given.listener,
        owner_of=given.owner_of,
        settings=given.settings,
        matching=matching,
        turns=turns,
        shares=given.shares,
        timings=given.timings,
        gaps=gaps,
        ring=ring,
        carried=carried,
    )


def _foresight(
    given: Surroundings, turns: Turns, mirror: QueueMirror, matching: Matching, estimates: Estimates
) -> Foresight:
    return Foresight(
        given.pool,
        given.tasks,
        turns=turns,
        mirror=mirror,
        matching=matching,
        shares=given.shares,
        estimates=estimates,
        outlooks=given.outlooks,
    )
