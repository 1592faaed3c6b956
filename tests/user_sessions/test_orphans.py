"""What a session leaves behind ends with it, however it ends and however well its children hide."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.base.processes import start_time
from tests.user_sessions.studio import Studio, ask, gone, make_spec, open_studio


@pytest.fixture
async def bare(place: Path) -> AsyncIterator[Studio]:
    """Without control groups, which would end them too."""
    async with open_studio(place, session_cgroup="off") as studio:
        yield studio


@pytest.mark.parametrize("end", ["stopped", "killed"])
async def test_a_daemon_of_a_session_ends_with_it(bare: Studio, end: str) -> None:
    studio = bare
    mallory, ann = make_spec(studio.settings, "mallory"), make_spec(studio.settings, "ann")
    await studio.spawner.start(ann)
    await studio.spawner.start(mallory)
    daemons = [(await ask(mallory, "daemon"))["ok"] for _ in range(3)]
    others = (await ask(ann, "daemon"))["ok"]
    assert all(start_time(pid) for pid in daemons)
    if end == "stopped":
        await studio.spawner.stop(mallory.session_id)
    else:
        os.kill((await ask(mallory, "pid"))["ok"], signal.SIGKILL)
    for pid in daemons:
        await gone(pid)
    assert start_time(others)  # another session's are not touched
    assert "ok" in await ask(ann, "pid")
    await studio.spawner.stop(ann.session_id)
    await gone(others)
