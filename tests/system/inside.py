"""What only the machine's owner sees of a running cluster: processes, sockets, memory, open files, engines' faults."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from proxy.base.settings import Settings
from tests.cluster import Cluster, processes_of
from user_sessions.run_dir import run_dir, session_socket

WAIT_S = 60.0
LOOK_S = 0.05


def engines_at(cluster: Cluster) -> dict[str, str]:
    """Addresses of the engines that `up` started, by name; one that is being started again may be missing."""
    found = {}
    for path in sorted(_run(cluster).glob("engine-*.url")):
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            found[path.stem] = path.read_text().strip()
    return {name: url for name, url in found.items() if url}


def engine_urls(cluster: Cluster) -> list[str]:
    """The addresses alone."""
    return list(engines_at(cluster).values())


@asynccontextmanager
async def fault(cluster: Cluster, **order: Any) -> AsyncIterator[None]:
    """Arm a fault in every engine; at the end all are disarmed and hung jobs let go."""
    try:
        await arm(cluster, **order)
        yield
    finally:
        await disarm(cluster)


async def arm(cluster: Cluster, **order: Any) -> None:
    """Arm a fault in every engine."""
    async with aiohttp.ClientSession() as http:
        for engine in engine_urls(cluster):
            async with http.post(f"{engine}/engine/faults", json=order) as armed:
                assert armed.status == 200, await armed.text()


async def disarm(cluster: Cluster) -> None:
    """Disarm all faults and let hung jobs go."""
    async with aiohttp.ClientSession() as http:
        for engine in engine_urls(cluster):
            async with http.delete(f"{engine}/engine/faults") as disarmed:
                assert disarmed.status == 200


def socket_of(cluster: Cluster, slug: str) -> Path:
    """The Unix socket of a user's session."""
    return session_socket(_run(cluster), slug)


def pids(data_dir: Path, word: str) -> set[int]:
    """Processes of that data directory whose command holds `word`."""
    return {pid for pid, command in processes_of(data_dir).items() if word in command}


def memory_kb(pid: int) -> int:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def open_files(pid: int) -> int:
    """How many files and sockets a process holds."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def connected_to(pid: int, ports: Collection[int]) -> Counter[int]:
    """How many established connections a process has to each of these TCP ports."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    leads = {f"socket:[{line[9]}]": int(line[2].split(":")[1], 16) for line in lines if line[3] == "01"}
    found = Counter[int]()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found[leads.get(str(path.readlink()), 0)] += 1
    return Counter({port: found[port] for port in ports})


async def becomes(holds: Callable[[], bool]) -> None:
    """Wait for something of the machine that no event tells; fails after WAIT_S."""
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(LOOK_S)


def _run(cluster: Cluster) -> Path:
    return run_dir(Settings(data_dir=cluster.data_dir))
