"""Jobs of a user whose output directory, or of a pool whose database, is on a small disk; run by `test_disk.py`.

`unshare -Urm python -m tests.backend_pool.full_disk ROOT URL [output | database]` prints what became of them as JSON.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from proxy.base.errors import DiskFull
from tests.backend_pool.graphs import previewed, sampled, saved
from tests.backend_pool.rig import WAIT_S, Rig, engine_get, rig

DISK_BYTES = 64 * 1024


async def told(r: Rig, prompt: dict[str, Any]) -> dict[str, Any]:
    """State and error of a job."""
    job, document = await r.run(prompt)
    return {"state": job.state, "attempt": job.attempt, "last": document.messages[-1], "files": r.files()}


async def main(root: Path, url: str) -> None:
    """A job that does not fit, one that needs no room there, and one that fits after tidying."""
    output = root / "users/1/output"
    output.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(output)], check=True)
    (output / "ballast.bin").write_bytes(bytes(DISK_BYTES - 4096))
    big = sampled()
    big["5"]["inputs"].update(width=512, height=512)
    async with rig(root, url) as r:
        outcomes = [await told(r, big), await told(r, previewed())]
        (output / "ballast.bin").unlink()
        outcomes.append(await told(r, saved()))
    print(json.dumps(outcomes))


async def database(root: Path, url: str) -> None:
    """The disk is full from a job's first steps until after its end at the backend, then there is room again."""
    for disk in (root, root / "users"):  # users' files have a disk of their own: it is not full
        disk.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", str(disk)], check=True)
    async with rig(root, url) as r:
        running, waiting = await r.submit(sampled(steps=30)), await r.submit(saved())
        await r.heard.until(running, "progress")
        ballast = root / "ballast.bin"
        fill(ballast)
        try:
            await r.submit(saved())
            refused = ""
        except DiskFull as error:
            refused = error.message
        async with asyncio.timeout(WAIT_S):
            while await engine_get(url, "/history") == {}:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # several refused writes later
        told_early = "execution_success" in r.heard.kinds(running)
        ballast.unlink()
        ends = [(await r.final(prompt_id))[0] for prompt_id in (running, waiting)]
        states = [[job.state, job.attempt] for job in ends]
        print(json.dumps({"refused": refused, "told_early": told_early, "states": states, "files": r.files()}))


def fill(path: Path) -> None:
    """Write until there is no room for another byte."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


if __name__ == "__main__":
    asyncio.run({"output": main, "database": database}[sys.argv[3]](Path(sys.argv[1]), sys.argv[2]))
