"""Jobs of a user whose output directory is on a tiny disk of its own; run by `test_disk.py`.

`unshare -Urm python -m tests.backend_pool.full_disk ROOT URL` prints what became of three jobs as JSON.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.backend_pool.graphs import previewed, sampled, saved
from tests.backend_pool.rig import Rig, rig

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


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
