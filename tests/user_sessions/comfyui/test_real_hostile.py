"""A hostile pack of custom nodes in sessions of a real ComfyUI: every attempt fails, with the network those get too."""

import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.custom_nodes.hostile_pack import attempts
from tests.real_comfyui import WHY_SKIPPED, configured
from tests.user_sessions.hostile_scene import Scene, refused, set_scene
from tests.user_sessions.reachable import ReachableHost
from tests.user_sessions.studio import make_settings, short_directory
from tests.user_sessions.test_light_end_to_end import fetch
from user_sessions.host_process import HostProcess
from user_sessions.live import Address

pytestmark = [pytest.mark.comfyui, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

PACK = Path(attempts.__file__).parent
MAY = {"try_start_a_program"}
"""What sessions of this runtime may do."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["off", "auto"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    if not configured():
        pytest.skip(WHY_SKIPPED)
    if request.param == "auto" and os.geteuid() != 0:
        pytest.skip("NOT ROOT: SESSIONS CANNOT HAVE USER IDS OF THEIR OWN")
    async with AsyncExitStack() as stack:
        place = stack.enter_context(short_directory())
        place.chmod(0o711)
        settings = make_settings(
            place,
            comfyui=Path(os.environ["COMFYUI_DIR"]),
            comfyui_python=Path(os.environ["COMFYUI_PYTHON"]),
            session_uids=request.param,
            session_start_timeout_s=180.0,
            session_file_mb=4,
            session_processes=64,
            session_memory_mb=2048,
        )
        shutil.copytree(PACK, settings.data_dir / "public/custom_nodes/hostile_pack")
        host = (ReachableHost if request.param == "auto" else HostProcess)(settings, "comfyui")
        stack.push_async_callback(host.stop)
        await host.ensure()
        spawner = host.spawner()
        stack.push_async_callback(spawner.close)
        yield await set_scene(stack.enter_context(ExitStack()), request.param, settings, host, spawner)


@pytest.mark.parametrize("name", attempts.names())
async def test_attempt(scene: Scene, name: str) -> None:
    scene.restore()
    if name in MAY:
        pytest.skip("sessions of this runtime may")
    if name == "try_start_too_many_threads" and scene.mode != "auto":
        pytest.skip("processes of a shared user id are not limited without a control group")
    address = Address(scene.mallory.socket, scene.mallory.secret, scene.mallory.session_id)
    status, body = await fetch(address, "POST", "/hostile/attempt", json={"name": name, "facts": scene.facts})
    assert status == 200, body
    assert refused(name, json.loads(body)), body


async def test_it_is_the_id_that_was_wanted(scene: Scene) -> None:
    own = {spec.directories.user.stat().st_uid for spec in (scene.mallory, scene.ann)}
    assert len(own) == (2 if scene.mode == "auto" else 1)
