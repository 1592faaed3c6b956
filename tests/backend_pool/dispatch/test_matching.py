"""Which backends come into question, why none does, and what they hold, as tables."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from backend_pool.backends.fit import fits
from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.warmth import Warmth
from backend_pool.comfy.client import ComfyClient, Timeouts
from backend_pool.dispatch.matching import BUSY, why
from backend_pool.forecasts.outlook import UNREADY, WAKING
from backend_pool.model import Backend, BackendMode, Job
from backend_pool.offers.fitness import Demands
from backend_pool.offers.offer import Offer
from backend_pool.offers.reader import OfferReader
from backend_pool.prompts.needs import Choice, Needs
from backend_pool.runs.prospects import is_roomier
from tests.backend_pool.infos import info

UP, DOWN, QUARANTINED, ASLEEP, JOINING = (
    Health.UP, Health.DOWN, Health.QUARANTINED, Health.ASLEEP, Health.JOINING
)  # fmt: skip
LOADS = Demands(Needs(frozenset({"Loader"}), frozenset({Choice("Loader", "ckpt_name", "flux")})))


Make = Callable[..., Member]


@pytest.fixture
async def member() -> AsyncIterator[Make]:
    """Makes a backend called gpu-1 that has these models; nothing is sent to it."""
    client = ComfyClient("http://127.0.0.1:1", Timeouts(1.0, 1.0, 1.0, 1))

    def make(health: Health = UP, *models: str, key: int = 1, vram_mb: int = 0, **row: Any) -> Member:
        given = Backend(id=key, name=f"gpu-{key}", url=client.url, source="added", created_ms=1, **row)
        made = Member(given, client, OfferReader(client, 60.0, 5.0), health=health, offer=Offer(info(*models)))
        made.stats = {"devices": [{"vram_total": vram_mb << 20}]} if vram_mb else {}
        return made

    yield make
    await client.close()


@pytest.mark.parametrize("health", Health)
async def test_only_one_that_is_up_is_given_a_job(member: Make, health: Health) -> None:
    """One that sleeps or is in quarantine keeps its place among those that could run it."""
    one = member(health, "flux")
    assert one.idle is (health is UP)
    assert fits(LOADS, one, frozenset(), 0)


@pytest.mark.parametrize(
    "unfit",
    [
        {"models": ("sdxl",)},
        {"mode": BackendMode.DRAINING},
        {"mode": BackendMode.DISABLED},
        {"labels": ["fast"]},
        {"vram_mb": 8000},
    ],
)
async def test_what_it_lacks_rules_it_out(member: Make, unfit: dict[str, Any]) -> None:
    unfit = dict(unfit)
    models = unfit.pop("models", ("flux",))
    right = {"labels": ["a100", "fast"], "vram_mb": 8001}
    assert fits(LOADS, member(UP, *models, **right | unfit), frozenset({"a100"}), 8000) is False
    assert fits(LOADS, member(UP, "flux", **right), frozenset({"a100"}), 8000)


@pytest.mark.parametrize(
    ("other", "roomier"),
    [
        ({"vram_mb": 8001}, True),
        ({"vram_mb": 8000}, False),
        ({}, False),
        ({"vram_mb": 8001, "labels": ["fast"]}, False),
        ({"vram_mb": 8001, "health": DOWN}, False),
        ({"vram_mb": 8001, "key": 3}, False),
    ],
)
async def test_a_job_that_ran_out_of_memory_goes_on_where_it_may(
    member: Make, other: dict[str, Any], roomier: bool
) -> None:
    """To no backend without the labels of its group, where it would wait for ever; nor to one that it has left."""
    tried = member(UP, "flux", vram_mb=8000, labels=["a100"])
    more = member(**{"health": UP, "key": 2, "labels": ["a100"]} | other)
    more.offer = tried.offer
    job = Job(prompt_id="p", user_id=1, number=1.0, created_ms=1, avoid=[3])
    assert is_roomier(LOADS, [tried, more], tried, job, frozenset({"a100"})) is roomier


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ([], "there is no backend"),
        ([UP, DOWN], BUSY),
        ([DOWN, DOWN], "all backends are down"),
        (
            [QUARANTINED, QUARANTINED],
            "all backends are out of service after faults; they get jobs again once a trial job runs there",
        ),
        ([DOWN, QUARANTINED], "all backends are down or out of service"),
        ([JOINING, DOWN], "no backend answers at the moment"),
        ([ASLEEP, DOWN], UNREADY),
    ],
)
async def test_why_a_job_waits(member: Make, states: list[Health], words: str) -> None:
    assert why(LOADS, [member(state, "flux", key=key) for key, state in enumerate(states, 1)]) == words


@pytest.mark.parametrize("beside", [DOWN, UP])
async def test_a_sleeping_backend_is_said_to_wake_up_when_it_is_to(member: Make, beside: Health) -> None:
    """Not for a job whose turn it is not: its user's limit may keep that one asleep for hours."""
    sleeper, other = member(ASLEEP, "flux"), member(beside, "sdxl", key=2)
    assert why(LOADS, [sleeper, other]) == UNREADY
    sleeper.wanted_since_s = 1.0
    assert why(LOADS, [sleeper, other]) == WAKING
    sleeper.row.mode = BackendMode.DRAINING
    assert why(LOADS, [sleeper, other]) not in (WAKING, UNREADY)


async def test_why_a_job_waits_for_one_of_them(member: Make) -> None:
    """It is named, with what became of it."""
    found = [member(UP, "sdxl"), member(QUARANTINED, "flux", key=2)]
    assert why(LOADS, found) == "waiting for a backend with checkpoint flux; gpu-2 (quarantined) has it"
    assert why(LOADS, found, frozenset({"a100"})) == "waiting for a backend with the label a100"
    off = [member(UP, "flux", mode=BackendMode.DRAINING, labels=["a100"])]
    assert why(LOADS, off) == "all backends are disabled or draining"
    beside = [*off, member(UP, "flux", key=2)]
    assert why(LOADS, beside, frozenset({"a100"})) == "all backends with the label a100 are disabled or draining"
    assert why(LOADS, [*off, member(DOWN, "flux", key=2)]) == "all backends are down, disabled or draining"
    assert why(LOADS, [member(ASLEEP, "sdxl"), member(DOWN, "flux", key=2)]) == "no backend answers at the moment"


SIZES = {"c:a": 4000, "c:b": 3000, "c:c": 2000}


@pytest.mark.parametrize(
    ("jobs", "room", "held"),
    [
        (["a"], 8000, "a"),
        (["a", "b"], 8000, "ab"),
        (["a", "b", "c"], 8000, "bc"),
        (["a", "b", "a", "c"], 8000, "ac"),
        (["a", "b", "c"], 9000, "abc"),
        (["ab", "c"], 4500, "c"),
        (["abc"], 1000, "abc"),
        (["a", "b"], None, "b"),
        (["a", ""], 8000, "a"),
        (["a", ""], None, ""),
        (["a", "x"], 8000, "x"),
    ],
)
def test_what_a_backend_holds(jobs: list[str], room: int | None, held: str) -> None:
    """The models used last, as far as they fit; only the last job's where it keeps none or a size (of x) is unknown."""
    warmth = Warmth()
    warmth._sizes = dict(SIZES)
    assert not Warmth().known
    for number, models in enumerate(jobs):
        warmth.ran(number, f"graph-{number}", {f"c:{model}" for model in models}, room)
    assert warmth.models == {f"c:{model}" for model in held}
    assert (warmth.user_id, warmth.graph) == (len(jobs) - 1, f"graph-{len(jobs) - 1}")
    assert warmth.known
    warmth.forget()
    assert warmth.known and not warmth.models and warmth.user_id is None and warmth.graph == ""
