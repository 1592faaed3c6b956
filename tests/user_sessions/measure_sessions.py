"""Measure sessions on this machine: `python -m tests.user_sessions.measure_sessions [RUNTIME] [COUNT...]`.

Prints how long a session takes from asking to an answer, and the private memory of each among COUNT, fresh and after
the calls of a page load. With the runtime `comfyui` (COMFYUI_DIR, COMFYUI_PYTHON) it starts two stand-alone processes
in the same run to compare with. Figures for people; nothing here is asserted.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.real_comfyui import start_real_comfyui
from tests.user_sessions.studio import Studio, open_studio, short_directory
from tests.user_sessions.test_light_end_to_end import fetch
from user_sessions.live import Address

COUNTS = (1, 20, 60)
ALONE = 2
PAGE = (
    "/",
    "/api/settings",
    "/api/users",
    "/api/userdata?dir=workflows",
    "/api/i18n",
    "/api/extensions",
    "/api/features",
)


def private_mb(pid: int) -> float:
    """Memory that only this process holds, in MB (10**6)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6


async def memory(studio: Studio) -> str:
    """The median and largest of all running sessions."""
    found = [private_mb(poll.pid) for poll in await studio.spawner.listing() if poll.pid]
    return f"{statistics.median(found):.1f} MB (largest {max(found):.1f})"


async def load_page(address: Address) -> None:
    """What a browser asks a session for first."""
    for path in PAGE:
        await fetch(address, "GET", path)


async def measure(studio: Studio, count: int) -> str:
    """One row of the table: that many sessions started one after the other."""
    took = []
    for user in range(count):
        began = time.monotonic()
        address = await studio.sessions.ensure(user, f"user-{user}")
        await fetch(address, "GET", "/api/features")
        took.append((time.monotonic() - began) * 1000)
    took.sort()
    fresh = await memory(studio)
    for user in range(count):
        running = studio.sessions.address(user)
        assert running is not None
        await load_page(running)
    loaded = await memory(studio)
    await asyncio.gather(*(studio.sessions.stop(user) for user in range(count)))
    p95 = took[min(count - 1, round(count * 0.95))]
    return f"| {count} | {statistics.median(took):.0f} ms | {p95:.0f} ms | {fresh} | {loaded} |"


async def alone() -> str:
    """Stand-alone processes of the same ComfyUI."""
    took, found = [], []
    for _ in range(ALONE):
        with tempfile.TemporaryDirectory() as place:
            began = time.monotonic()
            server = await asyncio.to_thread(start_real_comfyui, Path(place))
            took.append(time.monotonic() - began)
            found.append(private_mb(server.process.pid))
            await asyncio.to_thread(server.stop)
    times = ", ".join(f"{each:.1f} s" for each in took)
    return f"stand-alone processes: answered after {times}; private memory {statistics.median(found):.0f} MB each"


async def main(runtime: str, counts: tuple[int, ...]) -> None:
    """Measure and print."""
    more: dict[str, Any] = {"session_start_timeout_s": 300.0, "log_level": "info"}
    if runtime == "comfyui":
        print(await alone())
        more |= {"comfyui": os.environ["COMFYUI_DIR"], "comfyui_python": os.environ["COMFYUI_PYTHON"]}
    with short_directory() as place:
        began = time.monotonic()
        async with open_studio(place, runtime, sandbox="auto", **more) as studio:
            await studio.sessions.ensure(0, "user-0")
            print(f"cold: host, zygote and first session {time.monotonic() - began:.1f} s")
            await studio.sessions.stop(0)
            print("| sessions | start p50 | start p95 | private memory, fresh | after a page load |")
            print("|---|---|---|---|---|")
            for count in counts:
                print(await measure(studio, count))
            began = time.monotonic()
            await asyncio.gather(*(studio.sessions.ensure(user, f"user-{user}") for user in range(max(counts))))
            print(f"{max(counts)} users at once: all answered after {time.monotonic() - began:.2f} s")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "light", tuple(map(int, sys.argv[2:])) or COUNTS))
