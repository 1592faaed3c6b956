"""Whether a process of ours listens on a port: that somebody does says nothing on a machine that others use too.

Linux: the sockets in /proc/net/tcp, and whose they are by the links in /proc/<pid>/fd. Blocking.
"""

import contextlib
import socket
from collections.abc import Iterable
from pathlib import Path

LISTEN = "0A"
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def listens(port: int, pids: Iterable[int]) -> bool:
    """Whether one of these processes listens on that TCP port, at any address."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    return bool(wanted) and any(link in wanted for pid in pids for link in _links(pid))


def free_port(wanted: int | None = None, but: Iterable[int] = ()) -> int:
    """That loopback port if nothing has it, else a free one that is not in `but`."""
    taken = set(but)
    for port in (wanted or 0, *([0] * 20)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server that will bind it does
            probe.bind(("127.0.0.1", port))
            found: int = probe.getsockname()[1]
            if found not in taken:
                return found
    raise OSError("no free port was found")


def _inodes(port: int) -> set[str]:
    found: set[str] = set()
    for table in TABLES:
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _links(pid: int) -> set[str]:
    links: set[str] = set()
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                links.add(str(path.readlink()))
    return links
