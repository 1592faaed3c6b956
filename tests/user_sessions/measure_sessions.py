"""Measure sessions on this machine: `python -m tests.user_sessions.measure_sessions [RUNTIME] [COUNT]`.

Prints the time from asking to an answering session (one after the other, and all at once), and the private memory of a
session alone and among COUNT, fresh and after one page. Figures for people; nothing here is asserted.
"""

import asyncio
import statistics
import sys
import time
from pathlib import Path

from tests.user_sessions.studio import Studio, open_studio, short_directory
from tests.user_sessions.test_light_end_to_end import fetch
from user_sessions.live import Address

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
    return f"median {statistics.median(found):.1f} MB, largest {max(found):.1f} MB"


async def load_page(address: Address) -> None:
    """What a browser asks a session for first."""
    for path in PAGE:
        await fetch(address, "GET", path)


async def main(runtime: str, count: int) -> None:
    """Measure and print."""
    with short_directory() as place:
        began = time.monotonic()
        async with open_studio(place, runtime, sandbox="auto") as studio:
            first = await studio.sessions.ensure(0, "user-0")
            print(f"cold: host, zygote and first session {time.monotonic() - began:.3f} s")
            print(f"1 session, fresh: {await memory(studio)}")
            await load_page(first)
            print(f"1 session, after a page: {await memory(studio)}")
            took = []
            for user in range(1, count):
                began = time.monotonic()
                address = await studio.sessions.ensure(user, f"user-{user}")
                await fetch(address, "GET", "/api/features")
                took.append(time.monotonic() - began)
            took.sort()
            print(
                f"asked -> answered, one by one: p50 {statistics.median(took) * 1000:.1f} ms, max {took[-1] * 1000:.1f}"
            )
            print(f"{count} sessions, fresh: {await memory(studio)}")
            for user in range(count):
                address_of = studio.sessions.address(user)
                assert address_of is not None
                await load_page(address_of)
            print(f"{count} sessions, after a page each: {await memory(studio)}")
            await asyncio.gather(*(studio.sessions.stop(user) for user in range(count)))
            began = time.monotonic()
            await asyncio.gather(*(studio.sessions.ensure(user, f"user-{user}") for user in range(50)))
            print(f"50 users at once: all answered after {time.monotonic() - began:.2f} s")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "light", int(sys.argv[2]) if len(sys.argv) > 2 else 30))
