"""A hostile custom node in a session: every attempt fails, however sessions are confined, and works where they are not.

The last half matters: an attempt that never works proves nothing about the sandbox.
"""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.custom_nodes.hostile_pack import attempts
from tests.user_sessions.hostile_scene import Scene, refused, set_scene
from tests.user_sessions.reachable import ReachableHost
from tests.user_sessions.studio import PROBE, ask, make_settings, short_directory
from user_sessions import landlock, seccomp
from user_sessions.host_process import HostProcess

ROOT = os.geteuid() == 0
WHOLE = landlock.abi() >= 6 and seccomp.supported()
MODES: dict[str, dict[str, Any]] = {
    "shared id": {"session_uids": "off"},
    "own ids": {"session_uids": "auto"},
    "network": {
        "session_uids": "off",
        "session_network": "on",
        "session_network_ports": [9],
        "session_programs": "off",
    },
    "off": {"sandbox": "off", "session_uids": "off"},
}
LIMITS = {"try_write_too_large_a_file", "try_take_too_much_memory", "try_start_too_many_threads"}
# The last needs a capability that containers lack.
NEVER_WORKS = LIMITS | {"try_connect_an_inherited_socket", "try_raise_my_limits"}
FOR_ROOT = {
    "try_plant_compiled_code", "try_plant_code_in_the_standard_library", "try_plant_a_site_file",  # often root's
    "try_become_root", "try_become_another_user", "try_join_a_group", "try_make_a_mount_namespace", "try_mount",
    "try_make_a_device", "try_change_root", "try_write_kernel_settings",
    "try_make_a_packet_socket", "try_take_a_descriptor_of_the_zygote", "try_make_a_user_namespace",
    "try_trace_another_session", "try_read_the_memory_of_another_session", "try_read_the_memory_of_the_server",
    "try_read_the_memory_of_the_zygote", "try_copy_the_memory_of_the_server", "try_read_anothers_environment",
}  # fmt: skip
"""What a hardened machine, or one whose Python is root's, refuses to an ordinary user anyway."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(MODES))
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    mode = str(request.param)
    if mode == "own ids" and not ROOT:
        pytest.skip("NOT ROOT: SESSIONS CANNOT HAVE USER IDS OF THEIR OWN")
    if mode != "off" and not WHOLE:
        pytest.skip("THIS KERNEL CANNOT CONFINE SESSIONS FULLY")
    async with AsyncExitStack() as stack:
        place = stack.enter_context(short_directory())
        place.chmod(0o711)
        limits = {"session_memory_mb": 2048, "session_file_mb": 4, "session_processes": 64}
        settings = make_settings(place, **limits, **MODES[mode])
        host = ReachableHost(settings, PROBE) if mode == "own ids" else HostProcess(settings, PROBE)
        stack.push_async_callback(host.stop)
        await host.ensure()
        spawner = host.spawner()
        stack.push_async_callback(spawner.close)
        yield await set_scene(stack.enter_context(ExitStack()), mode, settings, host, spawner)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", attempts.names())
async def test_attempt(scene: Scene, name: str) -> None:
    scene.restore()
    if scene.mode == "off" and (name in NEVER_WORKS or (name in FOR_ROOT and not ROOT)):
        pytest.skip("does not work without a sandbox either")
    if name == "try_start_too_many_threads" and scene.mode != "own ids":
        pytest.skip("processes of a shared user id are not limited without a control group")
    answer = await ask(scene.mallory, "attempt", name=name, facts=scene.facts)
    if scene.mode == "off":
        assert "ok" in answer, answer
    else:
        assert refused(name, answer), answer
        assert "ok" in await ask(scene.ann, "pid")


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_ones_own_works(scene: Scene) -> None:
    scene.restore()
    for folder in scene.mallory.directories.all():
        assert await ask(scene.mallory, "write", path=str(folder / "mine"), text="hello") == {"ok": 5}
        assert await ask(scene.mallory, "read", path=str(folder / "mine")) == {"ok": "hello"}
        assert (folder / "mine").stat().st_uid == folder.stat().st_uid
    public = scene.settings.data_dir / "public/workflows/start.json"
    public.write_text("{}")
    assert await ask(scene.mallory, "read", path=str(public.absolute())) == {"ok": "{}"}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_session_has_the_id_of_its_user(scene: Scene) -> None:
    status = (await ask(scene.mallory, "status"))["ok"]
    mine, anns = (spec.directories.user.stat().st_uid for spec in (scene.mallory, scene.ann))
    assert status["Uid"].split() == [str(mine)] * 4
    if scene.mode != "own ids":
        assert mine == anns == os.geteuid()
        return
    first = scene.settings.session_uid_first
    assert {mine, anns} == {first, first + 1}
    assert status["Gid"].split() == [str(mine)] * 4 and status["Groups"] == ""
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    home = scene.mallory.directories.user.parent.stat()
    assert (home.st_uid, home.st_gid, home.st_mode & 0o777) == (0, mine, 0o710)
    assert Path(scene.facts["data"]).stat().st_mode & 0o777 == 0o711
