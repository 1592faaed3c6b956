"""A job with a large input and a large output; run by `test_transfers.py` in a process of its own.

`python -m tests.backend_pool.large_files ROOT SIZE` prints as JSON what became of it and how far memory grew.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from backend_pool.user_folder import user_folder
from tests.backend_pool.file_backend import FileBackend
from tests.backend_pool.rig import rig
from tests.backend_pool.strange_backend import serving
from tests.engine.graphs import node

FOLDER = user_folder(f"{1:020x}")


def peak() -> int:
    """The most memory this process had, in bytes. Not `getrusage`: that begins with the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


async def serve(root: Path, size: int) -> None:
    """The backend, until it is killed."""
    made = root / "output" / FOLDER / "big.bin"
    made.parent.mkdir(parents=True)
    made.touch()
    os.truncate(made, size)
    ui = json.dumps({"2": {"videos": [{"filename": "big.bin", "subfolder": FOLDER, "type": "output"}]}})
    async with serving(FileBackend(root=root, ui=ui)) as backend:
        print(backend.url, flush=True)
        await asyncio.sleep(600)


async def main(root: Path, url: str, size: int) -> None:
    """A small job to warm up, then the large one."""
    async with rig(root, url, transfer_timeout_s=60) as r:
        mine = r.dirs(1).input / "mine.bin"
        mine.write_bytes(b"small")
        prompt = {"1": node("LoadAny", file="mine.bin"), "2": node("SaveImage", filename_prefix="x")}
        before = peak()
        os.truncate(mine, size)
        job, _ = await r.run(prompt)
        made = [(r.root / "users/1" / name).stat().st_size for name in r.files()]
        print(json.dumps({"state": job.state, "sizes": made, "grew": peak() - before}))


if __name__ == "__main__":
    base, length = Path(sys.argv[1]), int(sys.argv[2])
    if len(sys.argv) > 3:
        asyncio.run(serve(base / "backend", length))
    else:
        again = [sys.executable, "-m", "tests.backend_pool.large_files", str(base), str(length), "serve"]
        with subprocess.Popen(again, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            try:
                asyncio.run(main(base, child.stdout.readline().strip(), length))
            finally:
                child.kill()
