"""A job with a large input and a large output; run by `test_transfers.py` in a process of its own, as is the backend.

It prints as JSON what became of it and how far memory grew.
"""

import asyncio
import json
import os
from pathlib import Path

from backend_pool.files.user_folder import user_folder
from tests.backend_pool.file_backend import FileBackend
from tests.backend_pool.rig import rig
from tests.backend_pool.strange_backend import serving
from tests.engine.graphs import node

FOLDER = user_folder(f"{1:020x}")


def peak() -> int:
    """The most memory this process had, in bytes. Not `getrusage`: that begins with the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


async def _serve(root: Path, size: int) -> None:
    """The backend, until it is killed."""
    made = root / "output" / FOLDER / "big.bin"
    made.parent.mkdir(parents=True)
    made.touch()
    os.truncate(made, size)
    ui = json.dumps({"2": {"videos": [{"filename": "big.bin", "subfolder": FOLDER, "type": "output"}]}})
    async with serving(FileBackend(root=root, ui=ui)) as backend:
        print(backend.url, flush=True)
        await asyncio.sleep(600)


async def _run(root: Path, url: str, size: int) -> None:
    """A small job to warm up, then the large one."""
    async with rig(root, url, transfer_timeout_s=60) as r:
        mine = r.dirs(1).input / "mine.bin"
        mine.write_bytes(b"small")
        prompt = {"1": node("LoadAny", file="mine.bin"), "2": node("SaveImage", filename_prefix="x")}
        before = peak()
        os.truncate(mine, size)
        row, _ = await r.run(prompt)
        made = [(r.root / "users/1" / name).stat().st_size for name in r.files()]
        print(json.dumps({"state": row.state, "sizes": made, "grew": peak() - before}))


def backend(root: str, size: str) -> None:
    """A process that prints its URL and serves until it is killed."""
    asyncio.run(_serve(Path(root), int(size)))


def job(root: str, url: str, size: str) -> None:
    """A process that prints what became of the job."""
    asyncio.run(_run(Path(root), url, int(size)))
