"""The server's side of agents: what a heartbeat makes of the pool, and what a token may say. No process runs here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from backend_pool.backends.health import Health
from backend_pool.backends.phase import Phase
from backend_pool.managed.agent import advertised
from backend_pool.managed.agent_wire import AgentBeat, Answer
from backend_pool.managed.agents import Agents
from backend_pool.workers.limits import MAX_WORKERS
from backend_pool.workers.tables import Worker
from backend_pool.workers.tokens import create_now, revoke_now
from proxy.base.errors import BadInput, NotAuthenticated, TooManyRequests
from tests.backend_pool.rig import Rig, rig

BOX, OTHER = "a" * 32, "b" * 32


@dataclass
class Server:
    """Its pool and its agents; `now` is the agents' clock."""

    rig: Rig
    agents: Agents
    now: list[float] = field(default_factory=lambda: [0.0])

    async def beat(self, token: str, *instances: dict[str, Any], agent_id: str = BOX, name: str = "box") -> Answer:
        """A heartbeat from 10.0.0.7."""
        body = {"protocol": 1, "agent_id": agent_id, "name": name, "instances": list(instances)}
        return await self.agents.beat(token, AgentBeat.model_validate(body), "10.0.0.7")

    async def names(self) -> list[tuple[str, str]]:
        """Of the rows, with their addresses."""
        return [(row.name, row.url) for row in await self.rig.registry.listing()]

    def token(self, name: str = "box") -> str:
        return create_now(self.rig.db, name)


def told(name: str = "gpu-0", phase: str = "asleep", port: int | None = 5001, **more: Any) -> dict[str, Any]:
    return {"name": name, "phase": phase, "port": port, **more}


@asynccontextmanager
async def server(root: Path) -> AsyncIterator[Server]:
    async with rig(root) as r:
        now = [0.0]
        yield Server(r, Agents(r.db, r.pool, 3.0, lambda: now[0]), now)


async def test_the_phases_of_instances_are_the_health_of_backends(tmp_path: Path) -> None:
    async with server(tmp_path) as s:
        token = await asyncio.to_thread(s.token)
        before = await s.beat(token, told(port=None))
        assert before.instances["gpu-0"].known is False  # start it, to learn what it offers
        assert await s.names() == []
        answer = await s.beat(
            token, told(phase="starting"), told("gpu-1", "crashed", 5002, error="no driver", retry_s=9)
        )
        assert await s.names() == [("box-gpu-0", "http://10.0.0.7:5001"), ("box-gpu-1", "http://10.0.0.7:5002")]
        assert answer.instances["gpu-0"].backend == "box-gpu-0" and answer.instances["gpu-0"].known is False
        await s.rig.eventually(lambda: s.rig.health() == [Health.JOINING, Health.DOWN])
        assert "no driver" in str(s.rig.pool.members[2].error)
        await s.beat(token, told(), told("gpu-1", "asleep", 5002))
        assert s.rig.health() == [Health.ASLEEP, Health.ASLEEP]
        s.rig.pool.members[2].restart_wanted.set()
        facts = (await s.beat(token, told(), told("gpu-1", "running", 5002))).instances
        assert (facts["gpu-0"].restart, facts["gpu-1"].restart) == (False, True)
        await s.beat(token, told(), told("gpu-1", "starting", 5002))
        assert not s.rig.pool.members[2].restart_wanted.is_set()


async def test_an_instance_keeps_its_backend_at_another_address(tmp_path: Path) -> None:
    async with server(tmp_path) as s:
        token = await asyncio.to_thread(s.token)
        await s.beat(token, told(port=5001))
        await s.beat(token, told(port=None))  # it says nothing new
        await s.beat(token, told(port=5009))
        await s.beat(token, told(port=None, url="http://user:secret@10.0.0.9:77"))
        assert await s.names() == [("box-gpu-0", "http://user:secret@10.0.0.9:77")]
        assert [row.id for row in await s.rig.registry.listing()] == [1]


async def test_a_prompt_that_nobody_waits_for_delays_no_end(tmp_path: Path) -> None:
    """A process that hangs never lets go of it; one that stays has to, before it may sleep."""
    async with server(tmp_path) as s:
        token = await asyncio.to_thread(s.token)
        await s.beat(token, told(phase="running"))
        member = s.rig.pool.members[1]
        member.leftovers.add("p")

        async def busy(phase: str) -> bool:
            return (await s.beat(token, told(phase=phase))).instances["gpu-0"].busy

        assert await busy("running")
        assert not await busy("stopping")
        assert await busy("running")
        member.restart_wanted.set()
        assert not await busy("running")
        member.collecting.add(1)
        assert await busy("running") and await busy("stopping")


async def test_one_with_the_worker_pack_is_a_worker_of_that_token(tmp_path: Path) -> None:
    """Before its pack has said a word: its first heartbeat finds its row."""
    async with server(tmp_path) as s:
        token = await asyncio.to_thread(s.token)
        await s.beat(token, told(worker_id="w" * 32))
        rows = await s.rig.db.read(lambda db: list(db.exec(select(Worker)).all()))
        assert [(row.id, row.backend_id) for row in rows] == [("w" * 32, 1)]
        await s.beat(token, told(port=5002, worker_id="x" * 32))
        rows = await s.rig.db.read(lambda db: list(db.exec(select(Worker)).all()))
        assert [(row.id, row.backend_id) for row in rows] == [("x" * 32, 1)]


async def test_what_a_silent_agent_kept_asleep_is_down(tmp_path: Path) -> None:
    """And what it kept running is probed as any backend."""
    async with server(tmp_path) as s:
        token = await asyncio.to_thread(s.token)
        await s.beat(token, told(), told("gpu-1", "running", 5002))
        s.now[0] = 11.0
        s.agents.look()
        await s.rig.eventually(lambda: s.rig.health()[0] is Health.ASLEEP)
        s.now[0] = 13.0
        s.agents.look()
        assert s.rig.health()[0] is Health.DOWN and "not been heard of" in str(s.rig.pool.members[1].error)
        assert s.rig.pool.members[2].managed is None
        await s.beat(token, told(), told("gpu-1", "running", 5002))
        assert s.rig.health()[0] is Health.ASLEEP


async def test_a_token_speaks_for_its_own_instances_only(tmp_path: Path) -> None:
    async with server(tmp_path) as s:
        mine, theirs = await asyncio.to_thread(s.token), await asyncio.to_thread(s.token, "theirs")
        await s.beat(mine, told())
        answer = await s.beat(theirs, told(phase="crashed", port=6666))
        assert "Revoke that one first" in answer.refused["gpu-0"] and answer.instances == {}
        assert await s.names() == [("box-gpu-0", "http://10.0.0.7:5001")]
        await s.rig.eventually(lambda: s.rig.health() == [Health.ASLEEP])
        await s.beat(theirs, told(port=6666), agent_id=OTHER)  # its own, of the same name
        assert (await s.names())[1] == (f"box-{OTHER[:8]}-gpu-0", "http://10.0.0.7:6666")
        _token, gone = await asyncio.to_thread(revoke_now, s.rig.db, "box")
        assert gone == ["box-gpu-0"]
        with pytest.raises(NotAuthenticated):
            await s.beat(mine, told())
        assert [name for name, _ in await s.names()] == [f"box-{OTHER[:8]}-gpu-0"]


async def test_it_takes_no_backend_of_anybody_else(tmp_path: Path) -> None:
    """Not the address, not the name, not the worker of another."""
    async with server(tmp_path) as s:
        token = await asyncio.to_thread(s.token)
        await s.rig.registry.add("http://10.0.0.7:5001", "mine")
        answer = await s.beat(token, told())
        assert "has the address" in answer.refused["gpu-0"]
        await s.beat(token, told("gpu-1", port=5002, worker_id="w" * 32))
        stolen = await s.beat(token, told("gpu-2", port=5003, worker_id="w" * 32))
        assert "registered as another backend" in stolen.refused["gpu-2"]
        assert [name for name, _ in await s.names()] == ["mine", "box-gpu-1"]


@pytest.mark.parametrize(
    "url",
    ["http://localhost:5001", "http://127.1:5001", "http://me:pw@127.0.0.1:5001", "http://[::1]:5001/",
     "http://127.0.0.1:5001/api"],
)  # fmt: skip
async def test_another_spelling_is_no_other_address(tmp_path: Path, url: str) -> None:
    """For a stranger; its own sleeping instance may have had that port, with another secret."""
    async with server(tmp_path) as s:
        theirs, mine = await asyncio.to_thread(s.token), await asyncio.to_thread(s.token, "mine")
        await s.beat(theirs, told(url="http://127.0.0.1:5001"))
        answer = await s.beat(mine, told(url=url), agent_id=OTHER)
        assert "has the address" in answer.refused["gpu-0"]
        await s.beat(theirs, told("gpu-1", url=url))
        assert len(await s.names()) == 2


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254:80", "http://0.0.0.0:1", "ftp://10.0.0.1", "http://10.0.0.1/?x=1"]
)
async def test_addresses_that_no_instance_has_are_refused(tmp_path: Path, url: str) -> None:
    async with server(tmp_path) as s:
        token = await asyncio.to_thread(s.token)
        answer = await s.beat(token, told(url=url))
        assert list(answer.refused) == ["gpu-0"] and await s.names() == []


async def test_limits(tmp_path: Path) -> None:
    async with server(tmp_path) as s:
        token = await asyncio.to_thread(s.token)
        with pytest.raises(BadInput):
            await s.beat(token, told(), told())
        with pytest.raises(NotAuthenticated):
            await s.beat("cwt_nope", told())
        many = [told(f"gpu-{number}", port=7000 + number) for number in range(MAX_WORKERS)]
        await s.beat(token, *many)
        more = await s.beat(token, told(), agent_id=OTHER, name="more")
        assert "instances already" in more.refused["gpu-0"]
        with pytest.raises(TooManyRequests):
            await flood(s, token)


async def flood(s: Server, token: str) -> None:
    for _ in range(5 * MAX_WORKERS):
        await s.beat(token)


@pytest.mark.parametrize(
    ("url", "advertise", "expected"),
    [
        ("http://127.0.0.1:5001", None, "http://127.0.0.1:5001"),
        ("http://127.0.0.1:5001", "10.0.0.7", "http://10.0.0.7:5001"),
        ("http://127.0.0.1:5001", "https://gpu.example/box/", "https://gpu.example:5001/box"),
        ("http://127.0.0.1:5001", "http://[fd00::7]", "http://[fd00::7]:5001"),
        ("http://engine:s3cret@127.0.0.1:5001", "10.0.0.7", "http://engine:s3cret@10.0.0.7:5001"),
    ],
)
def test_the_advertised_address(url: str, advertise: str | None, expected: str) -> None:
    assert advertised(url, advertise) == expected


def test_every_phase_can_be_told() -> None:
    for phase in Phase:
        AgentBeat.model_validate({"protocol": 1, "agent_id": BOX, "name": "box", "instances": [told(phase=phase)]})
