"""A restart by whoever keeps the process: the row says "told" once the old process is gone, not before."""

from pathlib import Path

from sqlmodel import Session

from backend_pool.backends.phase import ManagedState, Phase
from backend_pool.backends.restart_rows import RestartRows
from backend_pool.backends.restart_turn import Stage
from backend_pool.backends.restarts import Restarts
from backend_pool.model import Backend
from proxy.base.settings import Settings
from tests.backend_pool.rig import QUICK, Rig, rig


async def asked(r: Rig, **settings: object) -> Restarts:
    """Somebody wants the one backend restarted, whose process is kept."""
    (member,) = r.pool.members.values()

    def work(s: Session) -> None:
        s.get_one(Backend, member.key).source = "agent"

    await r.db.write(work)
    r.pool.manage(member.key, ManagedState(Phase.RUNNING, 1))
    chosen = Settings.model_validate({"data_dir": r.root, **QUICK, **settings})
    restarts = Restarts(RestartRows(r.db), r.pool, chosen, r.dispatcher.ring)
    await restarts.rows.ask(member.key)
    await r.pool.refresh()
    return restarts


async def test_a_server_that_dies_before_the_process_does_asks_again(tmp_path: Path, urls: list[str]) -> None:
    async with rig(tmp_path, urls[0]) as r:
        (member,) = r.pool.members.values()
        restarts = await asked(r)
        await restarts.look()
        await restarts.look()
        assert member.restart_wanted.is_set() and member.held is not None
        assert restarts.stage(member.row) is Stage.WAITING, "a crash now must not lose the wish"
        member.restart_wanted.clear()  # its keeper has ended the old process
        await restarts.look()
        assert restarts.stage(member.row) is Stage.RESTARTING
        await r.eventually(lambda: member.health == "up")
        await restarts.look()  # what answered last may have been the old one
        assert restarts.stage(member.row) is Stage.RESTARTING
        await r.eventually(lambda: member.health == "up")
        await restarts.look()
        assert restarts.stage(member.row) is Stage.NONE and r.pool.members[member.key].held is None
        await r.eventually(lambda: member.idle)


async def test_a_keeper_that_does_not_heed_is_not_waited_for(tmp_path: Path, urls: list[str]) -> None:
    async with rig(tmp_path, urls[0]) as r:
        (member,) = r.pool.members.values()
        restarts = await asked(r, restart_timeout_s=0.001)
        await restarts.look()

        async def until(stage: Stage) -> None:
            while restarts.stage(member.row) is not stage:
                await restarts.look()

        await until(Stage.LOST)
        await restarts.look()
        assert member.held is None, "it serves on"
        await r.eventually(lambda: member.idle)
