"""A user's session as a process: found by the socket it listens on, and killed."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from tests.cluster import Cluster
from tests.system.inside import pids, socket_of
from tests.system.people import Someone
from tests.user_sessions.studio import gone

LISTENING = "00010000"


async def session_pid(someone: Someone) -> int:
    """The process of the user's session: the zygote's child that has their socket."""
    return await asyncio.to_thread(pid_of, someone.cluster, someone.person.slug)


def pid_of(cluster: Cluster, slug: str) -> int:
    """The same by the user's directory. Blocking."""
    socket = str(_socket_inode(cluster, slug))
    zygotes = pids(cluster.data_dir, "user_sessions.zygote")
    held = [pid for pid in zygotes if any(link == f"socket:[{socket}]" for link in _links(pid))]
    return max(held)


async def kill_session(someone: Someone) -> int:
    """SIGKILL to it; returns its pid once it is dead."""
    pid = await session_pid(someone)
    os.kill(pid, signal.SIGKILL)
    await gone(pid)  # the kernel's word: a command line vanishes before the sockets close
    return pid


def _socket_inode(cluster: Cluster, slug: str) -> int:
    """The listening Unix socket's inode, out of the kernel's table."""
    path = str(socket_of(cluster, slug))
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        parts = line.split(maxsplit=7)
        if parts[-1] == path and parts[3] == LISTENING:
            return int(parts[6])
    raise AssertionError(f"nobody listens on {path}")


def _links(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):  # it ended while we looked
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # it was closed while we looked
                found.append(str(link.readlink()))
    return found
