"""A hostile session tries what it can; each attempt fails in the sandbox and is shown to work without it.

The second half matters: an attack that never works proves nothing about the sandbox.
"""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy.base.errors import Unavailable
from tests.user_sessions.studio import Studio, ask, make_spec, open_studio, short_directory
from user_sessions import landlock, seccomp
from user_sessions.runtime import SessionSpec

pytestmark = [
    pytest.mark.skipif(
        landlock.abi() < 6, reason="THIS KERNEL CANNOT CONFINE SESSIONS FULLY: Landlock ABI 6 is missing"
    ),
    pytest.mark.skipif(not seccomp.supported(), reason="NO SYSTEM CALL FILTER FOR THIS MACHINE"),
]

DENIED = {"EACCES", "EPERM", "EXDEV", "EROFS"}


# What a hardened machine refuses anyway, so that it does not work without our sandbox either.
YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
REFUSED_BY_YAMA = {"trace another session", "read another session's memory", "look at another session's environment"}


@dataclass(frozen=True)
class Scene:
    """Mallory's session beside Ann's."""

    studio: Studio
    mallory: SessionSpec
    ann: SessionSpec
    ann_pid: int
    port: int

    @property
    def data(self) -> Path:
        return self.studio.settings.data_dir.absolute()


Attack = Callable[[Scene], dict[str, Any]]

ATTACKS: dict[str, Attack] = {
    "read another user's picture": lambda s: {"op": "read", "path": f"{s.ann.directories.output}/secret.png"},
    "list another user's directory": lambda s: {"op": "list", "path": str(s.ann.directories.output)},
    "list the users": lambda s: {"op": "list", "path": str(s.data / "users")},
    "write into another user's directory": lambda s: {
        "op": "write", "path": f"{s.ann.directories.input}/planted", "text": "x",
    },
    "change another user's file": lambda s: {
        "op": "write", "path": f"{s.ann.directories.output}/secret.png", "text": "x",
    },
    "move another user's file": lambda s: {
        "op": "rename", "source": f"{s.ann.directories.output}/secret.png",
        "target": f"{s.mallory.directories.output}/a",
    },
    "link another user's file": lambda s: {
        "op": "link", "source": f"{s.ann.directories.output}/secret.png", "target": f"{s.mallory.directories.output}/b",
    },
    "read the database": lambda s: {"op": "read", "path": str(s.data / "cluster.db")},
    "read the key": lambda s: {"op": "read", "path": str(s.data / "secret.key")},
    "read the host's token": lambda s: {"op": "read", "path": str(s.studio.host.run / "host.token")},
    "read another user's log": lambda s: {"op": "read", "path": str(s.ann.log)},
    "read the accounts of the machine": lambda s: {"op": "read", "path": "/etc/passwd"},
    "list the root": lambda s: {"op": "list", "path": "/"},
    "write to public": lambda s: {"op": "write", "path": str(s.data / "public/models/evil"), "text": "x"},
    "write to the temporary folder": lambda s: {"op": "write", "path": f"{s.data.parent}/evil", "text": "x"},
    "plant a link that leads out": lambda s: {
        "op": "symlink", "path": f"{s.mallory.directories.output}/link", "target": str(s.data / "secret.key"),
    },
    "connect to another session": lambda s: {"op": "connect_unix", "path": str(s.ann.socket)},
    "connect to the session host": lambda s: {"op": "connect_unix", "path": str(s.studio.host.run / "host.sock")},
    "connect to a GPU instance": lambda s: {"op": "connect_tcp", "port": s.port},
    "signal another session": lambda s: {"op": "kill", "pid": s.ann_pid},
    "signal the proxy": lambda s: {"op": "kill", "pid": os.getpid()},
    "trace another session": lambda s: {"op": "ptrace", "pid": s.ann_pid},
    "read another session's memory": lambda s: {"op": "memory", "pid": s.ann_pid},
    "look at another session's environment": lambda s: {"op": "read", "path": f"/proc/{s.ann_pid}/environ"},
    "change another session's limits": lambda s: {"op": "limits", "pid": s.ann_pid},
    "start a program": lambda s: {"op": "run", "command": [shutil.which("true")]},
}  # fmt: skip


async def set_scene(stack: AsyncExitStack, sandbox: str) -> Scene:
    studio = await stack.enter_async_context(open_studio(stack.enter_context(short_directory()), sandbox=sandbox))
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    mallory, ann = make_spec(studio.settings, "mallory"), make_spec(studio.settings, "ann")
    _, started = await asyncio.gather(studio.spawner.start(mallory), studio.spawner.start(ann))
    assert started.pid is not None
    (ann.directories.output / "secret.png").write_text("a picture")
    (studio.settings.data_dir / "secret.key").write_text("a key")
    return Scene(studio, mallory, ann, started.pid, listener.getsockname()[1])


@pytest.fixture(scope="module", params=["auto", "off"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def scene(mode: str) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        yield await set_scene(stack, mode)


async def test_every_attack(scene: Scene, mode: str) -> None:
    wrong = {}
    for name, attack in ATTACKS.items():
        # Ann's picture may have been moved by an attack that works.
        (scene.ann.directories.output / "secret.png").write_text("a picture")
        answer = await ask(scene.mallory, **attack(scene))
        if mode == "auto" and answer.get("error") not in DENIED:
            wrong[name] = answer
        if mode == "off" and "ok" not in answer and not (_hardened() and name in REFUSED_BY_YAMA):
            wrong[name] = answer
    assert wrong == {}


def _hardened() -> bool:
    return os.geteuid() != 0 and YAMA.exists() and YAMA.read_text().strip() != "0"


async def test_the_users_own_directories_work(scene: Scene) -> None:
    for folder in scene.mallory.directories.all():
        assert await ask(scene.mallory, "write", path=str(folder / "mine"), text="hello") == {"ok": 5}
        assert await ask(scene.mallory, "read", path=str(folder / "mine")) == {"ok": "hello"}
        assert "ok" in await ask(scene.mallory, "chmod", path=str(folder / "mine"), mode=0o600)
        assert (folder / "mine").stat().st_mode & 0o777 == 0o600
    moved = await ask(
        scene.mallory,
        "rename",
        source=str(scene.mallory.directories.temp / "mine"),
        target=str(scene.mallory.directories.output / "moved"),
    )
    assert "ok" in moved
    (scene.data / "public/workflows").mkdir(exist_ok=True, parents=True)
    (scene.data / "public/workflows/start.json").write_text("{}")
    assert await ask(scene.mallory, "read", path=str(scene.data / "public/workflows/start.json")) == {"ok": "{}"}


async def test_another_users_files_cannot_be_locked_away(scene: Scene, mode: str) -> None:
    """chmod by path is nothing Landlock judges; the filter pretends that it worked."""
    picture = scene.ann.directories.output / "secret.png"
    picture.chmod(0o600)
    await ask(scene.mallory, "chmod", path=str(picture), mode=0)
    assert picture.stat().st_mode & 0o777 == (0o600 if mode == "auto" else 0)


async def test_what_a_session_is(scene: Scene, mode: str) -> None:
    status = (await ask(scene.mallory, "status"))["ok"]
    assert status["Umask"] == "0077"
    if mode == "auto":
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapEff"], 16) == 0
    log = str(scene.mallory.log)
    assert await ask(scene.mallory, "descriptors") == {"ok": ["/dev/null", log, log]}
    assert scene.mallory.log.stat().st_mode & 0o777 == 0o600


async def test_secrets_in_our_environment_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFY_CLUSTER_ADMIN_PASSWORD", "hush")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    async with AsyncExitStack() as stack:
        scene = await set_scene(stack, "auto")
        assert "hush" not in (await ask(scene.mallory, "environment"))["ok"].values()


async def test_links_that_an_administrator_set_in_public_are_followed(place: Path) -> None:
    elsewhere = place / "nas" / "checkpoints"
    elsewhere.mkdir(parents=True)
    (elsewhere / "model.safetensors").write_text("weights")
    (place / "data/public/models").mkdir(parents=True)
    (place / "data/public/models/checkpoints").symlink_to(elsewhere)
    async with open_studio(place) as studio:
        spec = make_spec(studio.settings, "ann")
        await studio.spawner.start(spec)
        path = str(place / "data/public/models/checkpoints/model.safetensors")
        assert await ask(spec, "read", path=path) == {"ok": "weights"}
        assert (await ask(spec, "write", path=path, text="x"))["error"] in DENIED


async def test_a_users_directory_replaced_by_a_link_is_refused(place: Path) -> None:
    async with open_studio(place) as studio:
        spec = make_spec(studio.settings, "ann")
        spec.directories.output.rmdir()
        spec.directories.output.symlink_to(place)
        with pytest.raises(Unavailable):
            await studio.spawner.start(spec)


async def test_limits_on_memory_and_file_size_hold(place: Path) -> None:
    async with open_studio(place, session_memory_mb=512, session_file_mb=1) as studio:
        spec = make_spec(studio.settings, "ann")
        await studio.spawner.start(spec)
        assert await ask(spec, "bloat", mb=600) == {"error": "ENOMEM"}
        assert await ask(spec, "append", path=str(spec.directories.output / "big"), mb=2) == {"error": "EFBIG"}
        assert "ok" in await ask(spec, "pid")
