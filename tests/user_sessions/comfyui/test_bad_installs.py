"""Packs and installs that fail: none takes the sessions of others down, and each says why."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.base.errors import Unavailable, Warming
from tests.user_sessions.comfyui.double import add_pack, make_double
from tests.user_sessions.comfyui.studio import answer, double_studio
from tests.user_sessions.studio import WAIT_S, Studio, make_settings, make_spec, refreshed, until
from tests.user_sessions.test_light_end_to_end import fetch
from user_sessions.children import Children
from user_sessions.host_process import HostProcess
from user_sessions.live import Address

GOOD = "NODE_CLASS_MAPPINGS = {'Good': object}"


async def test_packs_that_fail_are_left_out_and_told(place: Path) -> None:
    double = make_double(place / "ComfyUI")
    nodes = double / "custom_nodes"
    add_pack(nodes, "a_missing", "import logging\nlogging.warning('looking for it')\nimport no_such_module")
    add_pack(nodes, "b_exit", "import sys\nsys.exit(7)")
    add_pack(nodes, "c_killer", "import os\nos._exit(9)")
    add_pack(nodes, "d_abort", "import os\nos.abort()")
    add_pack(nodes, "e_prestart", GOOD, prestartup_script="raise SystemExit('not today')")
    async with double_studio(place, double) as studio:
        ann = await studio.sessions.ensure(1, "ann")
        assert "Good" in (await answer(ann, "/folders"))["nodes"]
        failed = {node.pack: node for node in (await studio.spawner.report()).failed_nodes}
        assert failed.keys() == {"a_missing", "b_exit", "c_killer", "d_abort", "e_prestart"}
        assert failed["a_missing"].error == "ModuleNotFoundError: No module named 'no_such_module'"
        assert "looking for it" in failed["a_missing"].log
        assert failed["b_exit"].error == "SystemExit: 7"
        assert "with code 9" in failed["c_killer"].error and "by signal 6" in failed["d_abort"].error
        assert "not today" in failed["e_prestart"].error

        (nodes / "c_killer" / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {'Mended': object}")
        assert (await refreshed(studio.spawner)).state == "done"
        again = await studio.sessions.restart(1, "ann")
        assert "Mended" in (await answer(again, "/folders"))["nodes"]
        assert "c_killer" not in {node.pack for node in (await studio.spawner.report()).failed_nodes}


async def test_a_pack_that_hangs_is_ended(place: Path) -> None:
    double = make_double(place / "ComfyUI")
    text = "import time\nfor _ in range(1000):\n    try:\n        time.sleep(600)\n    except Exception:\n        pass"
    add_pack(double / "custom_nodes", "sleeper", text)
    async with double_studio(place, double, node_import_timeout_s=0.3) as studio:
        await studio.sessions.ensure(1, "ann")
        (failed,) = (await studio.spawner.report()).failed_nodes
        assert failed.pack == "sleeper" and "longer than 0.3 s" in failed.error


BAD: dict[str, dict[str, Any]] = {
    "unknown": {"main": ("def start_comfyui", "def begin_comfyui")},
    "gives up": {"main": ("def start_comfyui(asyncio_loop=None):", "def start_comfyui():\n    sys.exit('no luck')")},
    "does not import": {"server": ("import asyncio", "import no_such_library")},
}
SAYS = {"unknown": "main.start_comfyui", "gives up": "SystemExit: no luck", "does not import": "no_such_library"}


@pytest.mark.parametrize("kind", BAD)
async def test_an_install_that_cannot_serve_says_why(place: Path, kind: str) -> None:
    double = make_double(place / "ComfyUI", **BAD[kind])
    async with double_studio(place, double) as studio:
        with pytest.raises(Unavailable, match=SAYS[kind]):
            await studio.sessions.ensure(1, "ann")


async def test_what_cannot_be_forked_is_imported_for_each(place: Path) -> None:
    double = make_double(place / "ComfyUI", folder_paths=("def set_temp_directory", "def _set_temp_directory"))
    main = double / "main.py"
    main.write_text(main.read_text().replace("folder_paths.set_temp_directory(", "folder_paths._set_temp_directory("))
    add_pack(double / "custom_nodes", "killer", "import os\nos._exit(9)")
    async with double_studio(place, double) as studio:
        ann, bob = await studio.sessions.ensure(1, "ann"), await studio.sessions.ensure(2, "bob")
        for address, user in ((ann, "ann"), (bob, "bob")):
            told = (await answer(address, "/folders"))["directories"]
            assert told["temp"] == str(studio.settings.data_dir / "users" / user / "temp")
        assert (await fetch(ann, "POST", "/prompt", json={}))[0] == 403
        assert (await fetch(ann, "GET", "/", secret=bob.secret))[0] == 403
        health = await studio.health()
        assert "set_temp_directory" in health["zygote"]["unforkable"]
        assert [node["pack"] for node in health["failed_nodes"]] == ["killer"]
        await studio.sessions.stop(1)
        assert [poll.session_id for poll in await studio.spawner.listing()] == [bob.session_id]


async def test_without_a_host_each_session_imports_it(place: Path) -> None:
    """The other spawner starts the same program as a host that cannot fork."""
    settings = make_settings(place, comfyui=make_double(place / "ComfyUI"), comfyui_python=Path(sys.executable))
    children = Children(settings)
    await children.ensure()
    spawner = children.spawner()
    try:
        spec = make_spec(settings, "ann")
        assert (await spawner.start(spec)).ready
        address = Address(spec.socket, spec.secret, spec.session_id)
        told = await answer(address, "/folders")
        assert told["directories"]["output"] == str(spec.directories.output)
        assert (await fetch(address, "POST", "/prompt", json={}))[0] == 403
        assert (await fetch(address, "GET", "/", secret="x"))[0] == 403
    finally:
        await children.stop()


async def test_another_install_is_another_host(place: Path) -> None:
    """A proxy that comes back with other options ends the host that runs with the old ones; with the same it stays."""
    async with double_studio(place) as studio:
        old = (await studio.health())["pid"]
        await HostProcess(studio.settings).ensure()
        assert (await studio.health())["pid"] == old
        other = make_double(place / "other", version="0.9.9")
        await HostProcess(studio.settings.model_copy(update={"comfyui": other})).ensure()
        health = await studio.health()
        assert health["pid"] != old and health["options"]["version"] == "0.9.9"


async def test_a_start_that_waits_for_a_slow_import_can_be_stopped(place: Path) -> None:
    double = make_double(place / "ComfyUI")
    add_pack(double / "custom_nodes", "slow_one", "import time\ntime.sleep(60)")
    async with double_studio(place, double, session_start_timeout_s=3.0) as studio:

        async def importing() -> bool:
            return bool((await studio.health())["zygote"]["importing"] == "slow_one")

        await until(importing)
        for tried in (1, 2):  # nothing failed, so the next one who asks is not answered from memory
            with pytest.raises(Warming, match="nodes of slow_one are being loaded"):
                await studio.sessions.ensure(1, "ann")
            assert (await studio.row(1)).generation == tried
        assert await studio.spawner.listing() == []
        spec = make_spec(studio.settings, "bob")
        with pytest.raises(Unavailable, match="stopped before it began"):
            async with asyncio.timeout(WAIT_S):
                await asyncio.gather(studio.spawner.start(spec), stopped_once_known(studio, spec.session_id))


async def stopped_once_known(studio: Studio, session_id: str) -> None:
    async def known() -> bool:
        return (await studio.spawner.poll(session_id)).state == "running"

    await until(known)
    await studio.spawner.stop(session_id)
