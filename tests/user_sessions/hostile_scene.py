"""Mallory's session beside Ann's, what a hostile node of Mallory's could know, and how each attempt has to end."""

import ctypes
import os
import socket
import sysconfig
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import user_sessions
from proxy.base.settings import Settings
from tests.user_sessions.studio import make_spec
from user_sessions.host_process import HostProcess
from user_sessions.runtime import SessionSpec
from user_sessions.spawner import Spawner

DENIED = {"EACCES", "EPERM", "EXDEV", "EROFS", "EOPNOTSUPP", "ENOTSUP"}
OTHERWISE = {
    "try_connect_an_inherited_socket": {"EINVAL"},  # it listens already
    "try_write_too_large_a_file": {"EFBIG"},
    "try_take_too_much_memory": {"ENOMEM"},
    "try_start_too_many_threads": {"EAGAIN"},
}


@dataclass(frozen=True)
class Scene:
    """Mallory's session beside Ann's. `facts` is what a node of Mallory's could know."""

    mode: str
    settings: Settings
    mallory: SessionSpec
    ann: SessionSpec
    facts: dict[str, Any]

    def restore(self) -> None:
        """What an attempt that worked may have moved."""
        output = self.mallory.directories.output
        if (away := output.with_name("output.away")).exists():
            output.unlink(missing_ok=True)
            away.rename(output)
        picture = self.ann.directories.output / "secret.png"
        picture.unlink(missing_ok=True)
        picture.write_text("a picture")
        owner = picture.parent.stat()
        os.chown(picture, owner.st_uid, owner.st_gid)
        for path in (*output.iterdir(), *self.mallory.directories.input.iterdir()):
            if path.is_symlink() or path.is_file():
                path.unlink()


async def set_scene(stack: ExitStack, mode: str, settings: Settings, host: HostProcess, spawner: Spawner) -> Scene:
    """Two sessions, and around them what there is to take."""
    data = settings.data_dir.absolute()
    for name in ("secret.key", "cluster.db"):
        (data / name).touch(0o600)
        (data / name).write_text("not for sessions")
    (data / "cache/frontend").mkdir(parents=True, exist_ok=True)
    backend = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    mailbox = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    mailbox.bind(str(data / "mailbox"))
    mallory, ann = make_spec(settings, "mallory"), make_spec(settings, "ann")
    started = [await spawner.start(spec) for spec in (mallory, ann)]
    memory = ctypes.create_string_buffer(b"a secret in memory")
    stack.callback(lambda: memory.value)  # keeps it alive
    facts = {
        "data": str(data),
        "run": str(host.run),
        "mine": _directories(mallory),
        "ann": _directories(ann) | {"socket": str(ann.socket), "log": str(ann.log), "pid": started[1].pid}
        | {"uid": ann.directories.output.stat().st_uid},
        "server_pid": os.getpid(),
        "address": ctypes.addressof(memory),
        "port": backend.getsockname()[1],
        "datagram_socket": str(data / "mailbox"),
        "code": user_sessions.__path__[0],
        "packages": sysconfig.get_path("purelib"),
        "program": "/bin/true",
        "memory_mb": settings.session_memory_mb,
        "file_mb": settings.session_file_mb,
        "processes": settings.session_processes,
    }  # fmt: skip
    return Scene(mode, settings, mallory, ann, facts)


def _directories(spec: SessionSpec) -> dict[str, Any]:
    return {path.name: str(path) for path in spec.directories.all()}


def refused(name: str, answer: dict[str, Any]) -> bool:
    """Whether that attempt failed as it should."""
    return answer.get("error") in OTHERWISE.get(name, set()) | DENIED
