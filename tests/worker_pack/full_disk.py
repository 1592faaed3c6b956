"""A user whose output directory is on a tiny disk of its own, and a worker that keeps a job's files; run by
`test_cut_beside.py`.

`unshare -Urm python -m tests.worker_pack.full_disk ROOT` prints what became of three jobs as JSON.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from tests.backend_pool.full_disk import DISK_BYTES
from tests.backend_pool.graphs import sampled, saved
from tests.engines import Engine, start_engine
from tests.worker_pack.beside import Scene, scene


async def main(root: Path, started: list[Engine]) -> None:
    """A job whose file does not fit comes home beside another user's; after tidying the next one fits."""
    output = root / "users/1/output"
    output.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(output)], check=True)
    (output / "ballast.bin").write_bytes(bytes(DISK_BYTES - 4096))

    def begin(config: Path, *arguments: str) -> Engine:
        started.append(start_engine(root / "engines" / config.stem, "--worker-pack", str(config), *arguments))
        return started[-1]

    async with scene(root, begin) as s:
        print(json.dumps(await _jobs(s, output)))


async def _jobs(s: Scene, output: Path) -> list[object]:
    big = sampled()
    big["5"]["inputs"].update(width=512, height=512)
    s.link.hold(s.word)
    jobs = [(await s.rig.submit(big, 1), 1)]
    await s.link.caught()
    jobs.append((await s.rig.submit(sampled(20), 2), 2))
    await s.rig.heard.until(jobs[1][0], "progress")
    s.link.let_go()
    ended = [await s.rig.final(*job) for job in jobs]
    (output / "ballast.bin").unlink()
    ended.append(await s.rig.run(saved(), 1))
    return [[job.state, job.attempt, document.messages[-1]] for job, document in ended]


if __name__ == "__main__":
    engines: list[Engine] = []
    try:
        asyncio.run(main(Path(sys.argv[1]), engines))
    finally:
        for engine in engines:
            engine.kill()
