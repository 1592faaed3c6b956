"""What a managed instance's supervisor is told of it, without a process."""

from collections.abc import AsyncIterator

import pytest

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.phase import ManagedState, Phase
from backend_pool.comfy.client import ComfyClient, Timeouts
from backend_pool.managed.facts import Doings
from backend_pool.model import Backend
from backend_pool.offers.reader import OfferReader


@pytest.fixture
async def member() -> AsyncIterator[Member]:
    """One that nothing is sent to."""
    client = ComfyClient("http://127.0.0.1:1", Timeouts(1.0, 1.0, 1.0, 1))
    row = Backend(id=1, name="gpu-0", url=client.url, source="managed", created_ms=1)
    yield Member(row, client, OfferReader(client, 60.0, 5.0), health=Health.UP, idle_since_s=0.0)
    await client.close()


async def test_a_trial_keeps_one_awake_and_from_no_restart(member: Member) -> None:
    """Seen with short sleeps: put to sleep before its trial had ended, and woken for the same job, over and over."""
    doings = Doings()
    assert not doings.of(member, 1, 60.0).busy and doings.of(member, 1, 60.0).idle_s == 60.0
    member.on_trial = True
    assert doings.of(member, 1, 60.0).busy and doings.of(member, 1, 60.0).idle_s is None
    member.restart_wanted.set()
    assert not doings.of(member, 1, 60.0).busy
    member.restart_wanted.clear()
    member.on_trial, member.untried, member.health = False, True, Health.SUSPECT
    assert doings.of(member, 1, 60.0).busy
    member.managed = ManagedState(Phase.STOPPING, 1)
    assert not doings.of(member, 1, 60.0).busy
    member.managed, member.health = None, Health.QUARANTINED
    assert not doings.of(member, 1, 60.0).busy


async def test_one_that_was_started_is_not_idle_before_it_was_asked(member: Member) -> None:
    """Where jobs wait and no more may be awake, it would make room for another at once, and never get a job."""
    doings = Doings()
    for phase, health in ((Phase.STARTING, Health.JOINING), (Phase.RUNNING, Health.JOINING)):
        member.managed, member.health = ManagedState(phase, 1), health
        assert doings.of(member, 1, 60.0).busy and doings.of(member, 1, 60.0).idle_s is None
    member.health = Health.UP
    assert not doings.of(member, 1, 60.0).busy and doings.of(member, 1, 60.0).idle_s == 60.0
    member.health = Health.DOWN  # it never answered: nothing is to be waited for
    assert not doings.of(member, 1, 60.0).busy
