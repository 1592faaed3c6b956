"""A pool that workers can register with as a process of its own, to be killed; it prints its URL."""

import asyncio
from pathlib import Path

from tests.worker_pack.beside import PATIENT
from tests.worker_pack.cluster import hub


def serve(root: str) -> None:
    """What such a process runs."""
    asyncio.run(_serve(Path(root)))


async def _serve(root: Path) -> None:
    async with hub(root, **PATIENT) as h:
        print(h.url, flush=True)
        await asyncio.sleep(600)
