"""Engines that run already when a server starts: taken over, or ended where nobody can reach them any more."""

import os
import shutil
import signal
from pathlib import Path

from backend_pool.backends.health import Health
from tests.backend_pool.managed.test_engines import engines_of, kept


async def test_one_that_outlived_its_server_is_found_again(tmp_path: Path) -> None:
    """By its record, and by its command where the server was killed before it had written one. One that hung
    meanwhile, and so has never answered this server, is started anew."""
    async with kept(tmp_path, 2, leave=True) as k:
        await k.rig.eventually(lambda: k.rig.health() == [Health.UP, Health.UP])
        before = [k.pid(1), k.pid(2)]
    (tmp_path / "run" / "engine-2.json").unlink()
    async with kept(tmp_path, 2, leave=True) as k:
        await k.rig.eventually(lambda: k.rig.health() == [Health.UP, Health.UP])
        assert [k.pid(1), k.pid(2)] == before
    os.kill(before[0], signal.SIGSTOP)
    async with kept(tmp_path, 2) as k:
        await k.rig.eventually(lambda: k.member(2).idle and not Path(f"/proc/{before[0]}").exists())
        await k.rig.eventually(lambda: k.rig.health() == [Health.UP, Health.UP])
        assert k.pid(2) == before[1]
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)


async def test_one_whose_directory_was_made_anew_is_ended(tmp_path: Path) -> None:
    """Nobody knows its secret and address any more: to wait for its answer would fail the start."""
    async with kept(tmp_path, 1, leave=True) as k:
        before = k.pid()
    shutil.rmtree(tmp_path / "run")
    async with kept(tmp_path, 1) as k:
        await k.rig.eventually(lambda: k.rig.health() == [Health.UP])
        assert engines_of(tmp_path) == [k.pid()] != [before]
