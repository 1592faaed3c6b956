"""A rolling restart of backends that the server keeps itself: processes end and begin, one after the other."""

import asyncio
from pathlib import Path

from backend_pool.backends.member import Member
from tests.backend_pool.rig import QUICK, WAIT_S
from tests.proxy.control_server import API, Server, serving


def idle(server: Server) -> list[Member]:
    """The members that may take a job now, by number."""
    return sorted((m for m in server.cluster.work.pool.members.values() if m.idle), key=lambda member: member.key)


async def pids(server: Server) -> list[int]:
    """Process ids of both engines, once both are at work."""
    async with asyncio.timeout(WAIT_S):
        while len(members := idle(server)) < 2 or any(member.row.restart_ms for member in members):
            await asyncio.sleep(0.02)
    return [(await member.client.get_json("/engine"))["pid"] for member in members]


async def test_engines_are_restarted_one_by_one(tmp_path: Path) -> None:
    async with serving(tmp_path, alive=True, engines=2, **QUICK) as server:
        await server.user("root", admin=True)
        before = await pids(server)
        fewest = [2]
        server.cluster.work.pool.on_change.append(lambda: fewest.append(len(idle(server))))
        async with server.signed_in("root") as root:
            asked = (await root.post(f"{API}/admin/backends/restart", json={})).json()["backends"]
            assert [backend["restart"] for backend in asked] == ["waiting", "waiting"]
            assert all(backend["restartable"] for backend in asked)
            after = await pids(server)
            assert not set(before) & set(after)
            assert min(fewest) >= 1, "never both are away"
            listed = (await root.get(f"{API}/admin/backends")).json()["backends"]
        assert [backend["restart"] for backend in listed] == ["none", "none"]
        assert {backend["managed"]["state"] for backend in listed} == {"running"}
